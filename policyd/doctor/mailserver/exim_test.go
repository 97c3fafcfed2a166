package mailserver

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

// shippedExim gives contrib/exim as Exim prints it, and what else a sound Exim
// has.
func shippedExim(t *testing.T) EximOutput {
	t.Helper()
	read := func(name string) string { return strings.ReplaceAll(contrib(t, "exim/conf.d/"+name), "\\\n", "") }
	transports := read("transport/30_mxpipe") + "\n" + read("transport/30_mxpolicyd_lmtp")
	return EximOutput{
		Main:       "message_size_limit = 50M\nno_strict_acl_vars\n" + read("main/50_mxpipe"),
		Transports: strings.NewReplacer("mxpipe:\n", "mxpipe transport:\n", "mxpolicyd_lmtp:\n", "mxpolicyd_lmtp transport:\n").Replace(transports) + "no_ignore_status\n",
		Config: "begin routers\n" + internetRouter(t, read("router/180_mxpipe")) + "lmtp:\n  driver = accept\n  transport = mxpolicyd_lmtp\nbegin transports\n" + transports +
			"begin retry\n* * F,2h,15m\nbegin rewrite\n",
	}
}

// internetRouter is the part of a file that Exim reads where
// dc_eximconfig_configtype is internet.
func internetRouter(t *testing.T, text string) string {
	t.Helper()
	_, text, ok := strings.Cut(text, ".ifdef DCconfig_internet\n")
	text, _, end := strings.Cut(text, ".endif\n")
	if !ok || !end {
		t.Fatalf("there is no router for DCconfig_internet:\n%s", text)
	}
	return text
}

func TestShippedExim(t *testing.T) {
	x := shippedExim(t)
	list := Exim(ours, x)
	check(t, list, finding.OK, "", "")
	if len(list) != 2 {
		t.Errorf("want a finding for each of two transports: %+v", list)
	}
	check(t, Exim(Daemon{}, EximOutput{Main: x.Main, Transports: x.Transports}), finding.OK, "", "")
}

func TestEximMistakes(t *testing.T) {
	type edit struct{ old, new string }
	for _, c := range []struct {
		name       string
		transports edit
		level      finding.Level
		what, mend string
	}{
		{"the sender as a word", edit{`-- $pipe_addresses`, `-f $sender_address -- $pipe_addresses`}, finding.Fail, `\$sender_address comes from outside`, "environment"},
		{"the domain as a word", edit{`--size $message_size`, `--size ${domain}`}, finding.Fail, `\$domain comes from outside`, ""},
		{"a header as a word", edit{`--size $message_size`, `--size $h_Subject:`}, finding.Fail, `\$h_Subject comes from outside`, ""},
		{"no exec", edit{`\Nexec `, `\N`}, finding.Fail, `runs between Exim and mxpipe`, "exec"},
		{"no recipients", edit{`$pipe_addresses`, `all-$pipe_addresses`}, finding.Fail, `each recipient as one argument`, "$pipe_addresses"},
		{"no --", edit{` -- `, ` `}, finding.Warn, `starts with -`, "--"},
		{"no sender", edit{`-f "$MXPIPE_SENDER" `, ``}, finding.Fail, `gets no sender`, ""},
		{"sender not in the environment", edit{`: MXPIPE_SENDER=`, `: MXPIPE_FROM=`}, finding.Fail, `environment does not set MXPIPE_SENDER, .*null sender`, "MXPIPE_SENDER=${listquote"},
		{"GOMEMLIMIT", edit{`environment = `, `environment = GOMEMLIMIT=1GB : `}, finding.Fail, `mxpipe gets GOMEMLIMIT=1GB: `, "remove GOMEMLIMIT from environment"},
		{"Exim's own SENDER", edit{`-f "$MXPIPE_SENDER" `, `-f "$SENDER" `}, finding.Warn, `errors_to`, "MXPIPE_SENDER"},
		{"another sender", edit{`{:}{$return_path}`, `{:}{postmaster@example.org}`}, finding.Warn, `gets the sender .*postmaster@example.org`, ""},
		{"no queue id", edit{`--queue-id $message_exim_id`, ``}, finding.Warn, `--queue-id`, "in command of the transport mxpipe"},
		{"another socket", edit{`--queue-id`, `--socket /tmp/x --queue-id`}, finding.Fail, `connects to /tmp/x`, ""},
		{"no such transport", edit{`--queue-id`, `--transport strikt --queue-id`}, finding.Fail, `no transport "strikt"`, ""},
		{"GOTRACEBACK", edit{`GOTRACEBACK=crash : `, ``}, finding.Warn, `cannot start a thread`, "GOTRACEBACK=crash"},
		{"a From line", edit{"message_prefix =", "message_prefix = From x\\n"}, finding.Fail, `message_prefix changes the message`, "message_prefix ="},
		{"check_string", edit{"message_suffix =", "message_suffix =\ncheck_string = From "}, finding.Fail, `check_string changes`, ""},
		{"Return-path", edit{"freeze_signal", "freeze_signal\nreturn_path_add\nuse_bsmtp"}, finding.Fail, `the message is changed by return_path_add, use_bsmtp`, ""},
		{"a filter", edit{"freeze_signal", "freeze_signal\ntransport_filter = /usr/bin/dkimsign"}, finding.Fail, `fails half-way`, "LMTP"},
		{"batches", edit{"batch_max = 1\n", "batch_max = 20\n"}, finding.Warn, `up to 20 recipients`, "batch_max = 1"},
		// of lmtp, which has none
		{"ignore_status", edit{"no_ignore_status", "ignore_status"}, finding.OK, ``, ``},
		{"mxpipe ignores its status", edit{"timeout_defer", "timeout_defer\nignore_status"}, finding.Fail, `counts every message as delivered`, "ignore_status"},
		{"Exim's temp_errors", edit{"temp_errors = 1 : 2 : 75 : 126 : 127", "temp_errors = 73:75"}, finding.Warn, `lacks 1, 2, 126, 127`, "temp_errors"},
		{"no 75", edit{"temp_errors = 1 : 2 : 75 : 126 : 127", "temp_errors = 1:2:126:127"}, finding.Fail, `lacks 75`, "temp_errors"},
		{"all temporary", edit{"temp_errors = 1 : 2 : 75 : 126 : 127", "temp_errors = *"}, finding.Fail, `no refused message is ever bounced`, "temp_errors"},
		{"refusals temporary", edit{": 75 :", ": 67 : 75 :"}, finding.Warn, `status 67`, "67"},
		{"no freeze_signal", edit{"freeze_signal", "no_freeze_signal"}, finding.Fail, `when mxpipe is killed`, "freeze_signal"},
		{"no timeout_defer", edit{"timeout_defer", "no_timeout_defer"}, finding.Fail, `longer than its timeout`, "timeout_defer"},
		{"short timeout", edit{"timeout = 1000s\n  timeout_defer", "timeout = 15m30s\n  timeout_defer"}, finding.Warn, `kills mxpipe after 15m30s, .* after 15m0s`, "timeout = 960s"},
		{"no timeout", edit{"timeout = 1000s\n  timeout_defer", "timeout = 0s\n  timeout_defer"}, finding.OK, ``, ``},
		{"return_output", edit{"return_fail_output", "return_output"}, finding.Fail, `bounces messages that were delivered`, "return_fail_output"},
		{"nothing returned", edit{"return_fail_output", "no_return_output"}, finding.Warn, `bounces do not say why`, "return_fail_output"},
		{"half a log", edit{"log_output", "log_defer_output"}, finding.Warn, `log does not say why`, "log_output"},
		{"both halves", edit{"log_output", "log_defer_output\nlog_fail_output"}, finding.OK, ``, ``},
		{"lmtp one by one", edit{"batch_max = 1000", "batch_max = 1"}, finding.Warn, `^Exim, transport mxpolicyd_lmtp: recipients are delivered one at a time`, "batch_max = 1000"},
		{"lmtp hangs up", edit{"batch_max = 1000\n  timeout = 1000s", "batch_max = 1000\n  timeout = 5m"}, finding.Warn, `hangs up after 5m0s`, "timeout = 960s"},
		{"lmtp elsewhere", edit{"/run/mxpolicyd/lmtp.sock", "/run/mxpolicyd/lmtp"}, finding.Fail, `connects to /run/mxpolicyd/lmtp, but`, "/run/mxpolicyd/lmtp.sock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := shippedExim(t)
			x.Transports = change(t, x.Transports, c.transports.old, c.transports.new)
			check(t, Exim(ours, x), c.level, c.what, c.mend)
		})
	}
}

func TestEximMistakesElsewhere(t *testing.T) {
	toMXPipeOnly := func(x *EximOutput) {
		x.Config = change(t, x.Config, "transport = mxpolicyd_lmtp\n", "transport = remote_smtp\n")
	}
	for _, c := range []struct {
		name       string
		edit       func(x *EximOutput)
		level      finding.Level
		what, mend string
	}{
		{"no auto_thaw", func(x *EximOutput) { x.Main = change(t, x.Main, "auto_thaw = 1h", "auto_thaw = 0s") }, finding.Warn, `stays frozen`, "auto_thaw = 1h"},
		{"message size", func(x *EximOutput) { x.Main = change(t, x.Main, "50M", "1G") }, finding.Warn, `^Exim: .*larger messages`, "message_size_limit = 104857600"},
		{"no retry rule", func(x *EximOutput) { x.Config = change(t, x.Config, "* * F,2h,15m\n", "# none\n") }, finding.Fail, `without a retry rule`, "begin retry"},
		{"no retry section", func(x *EximOutput) { x.Config = change(t, x.Config, "begin retry\n* * F,2h,15m\n", "") }, finding.Fail, `without a retry rule`, ""},
		{"no router", func(x *EximOutput) {
			x.Transports, _, _ = strings.Cut(x.Transports, "mxpolicyd_lmtp transport:")
			x.Config = change(t, x.Config, "transport = mxpipe\n", "transport = remote_smtp\n")
		}, finding.Warn, `mxpipe: no router uses it`, "transport = mxpipe"},
		{"no router to one of two", toMXPipeOnly, finding.OK, ``, ``},
		{"a router with an expansion", func(x *EximOutput) {
			x.Config = change(t, x.Config, "transport = mxpipe\n", "transport = ${if eq{$domain}{a.example}{mxpipe}{remote_smtp}}\n")
		}, finding.OK, ``, ``},
		{"DKIM", func(x *EximOutput) {
			toMXPipeOnly(x)
			x.Transports += "\nremote_smtp transport:\ndriver = smtp\ndkim_domain = example.org\n"
		}, finding.Warn, `such as remote_smtp: .*no DKIM signature`, "signed already"},
		{"rewriting", func(x *EximOutput) {
			toMXPipeOnly(x)
			x.Transports += "\nremote_smtp transport:\ndriver = smtp\nheaders_rewrite = *@+local_domains $1@example.org frs\nreturn_path = ${sender_address_local_part}@example.org\nheaders_add =\n"
		}, finding.Warn, `remote_smtp has headers_rewrite, return_path, but this transport does not`, "set the same"},
		{"nothing", func(x *EximOutput) {
			x.Transports = "\nremote_smtp transport:\ndriver = smtp\n\nx transport:\ndriver = pipe\ncommand = /usr/bin/maildrop -d $local_part_data\n"
		},
			finding.Warn, `^Exim: not set up to use mxpolicyd`, "contrib/exim"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := shippedExim(t)
			c.edit(&x)
			check(t, Exim(ours, x), c.level, c.what, c.mend)
		})
	}
}

// A Debian Exim whose mail must not go to the Internet from here.
func TestEximSmarthosts(t *testing.T) {
	const smarthost = "DCsmarthost=smtp.example::587:other.example\nDCconfig_smarthost=1\n"
	set := func(value string) func(*EximOutput) {
		return func(x *EximOutput) {
			x.Config = change(t, x.Config, "  set = r_nexthop =\n", "  set = r_nexthop = "+value+"\n")
		}
	}
	handed := set("${sg{${listextract{1}{smtp.example::587:other.example}}}{x}{y}}")
	for _, c := range []struct {
		name, macros string
		edit         func(x *EximOutput)
		passwords    []string
		level        finding.Level
		what         string
	}{
		{"internet", "DCsmarthost=\nDCconfig_internet=1\n", nil, nil, finding.OK, ""},
		{"internet, with a password for someone", "DCconfig_internet=1\n", handed, []string{"*"}, finding.OK, ""},
		{"local", "DCconfig_local=1\n", nil, nil, finding.Fail, `is local, .*the router mxpipe does`},
		{"smarthost, past it", smarthost, nil, nil, finding.Fail, `router mxpipe sends directly to the recipients' domains, but`},
		{"satellite, past it", "DCsmarthost=smtp.example\nDCconfig_satellite=1\n", nil, nil, finding.Fail, `router mxpipe sends directly to the recipients' domains, but`},
		{"smarthost", smarthost, handed, nil, finding.OK, ""},
		{"smarthost with a password", smarthost, handed, []string{"elsewhere.example", "SMTP.example"}, finding.Fail, `smarthost smtp.example requires a password \(SMTP.example in`},
		{"smarthost with a pattern", smarthost, handed, []string{"*.example"}, finding.Fail, `requires a password`},
		{"smarthost without its password", smarthost, handed, []string{"other.example"}, finding.OK, ""},
		{"smarthost by LMTP", smarthost, func(x *EximOutput) {
			handed(x)
			x.Config = change(t, x.Config, "  transport = mxpipe\n", "  transport = mxpolicyd_lmtp\n")
		}, nil, finding.Fail, `router mxpipe sends directly to the recipients' domains by LMTP`},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := shippedExim(t)
			x.Config = change(t, x.Config, "lmtp:\n  driver = accept\n  transport = mxpolicyd_lmtp\n", "")
			x.Config, x.Passwords = c.macros+x.Config, c.passwords
			if c.edit != nil {
				c.edit(&x)
			}
			check(t, Exim(ours, x), c.level, c.what, "")
		})
	}
}

// A smarthost that mxpolicyd.yaml has, with a login, is no mistake of Exim's.
func TestEximSmarthostWithRelay(t *testing.T) {
	for _, c := range []struct {
		relay Relay
		level finding.Level
		what  string
	}{
		{Relay{Host: "smtp.example", Port: 587, Login: true}, finding.OK, ""},
		{Relay{Host: "other.example", Port: 25, All: true, Login: true}, finding.OK, ""},
		{Relay{Host: "smtp.example", Port: 587}, finding.Fail, "requires a password"},
		{Relay{Host: "smtp.example", Port: 25, Login: true}, finding.Fail, "requires a password"},
	} {
		x := shippedExim(t)
		x.Config = change(t, x.Config, "lmtp:\n  driver = accept\n  transport = mxpolicyd_lmtp\n", "")
		x.Config = change(t, x.Config, "  set = r_nexthop =\n", "  set = r_nexthop = ${sg{${listextract{1}{smtp.example::587}}}{x}{y}}\n")
		x.Config, x.Passwords = "DCsmarthost=smtp.example::587:other.example\nDCconfig_smarthost=1\n"+x.Config, []string{"*.example"}
		d := ours
		d.Relays = []Relay{c.relay}
		check(t, Exim(d, x), c.level, c.what, "")
	}
}

func TestEximCallers(t *testing.T) {
	x := shippedExim(t)
	x.Transports = change(t, x.Transports, "user = mxpipe\n  socket", "user = exim\n  group = mail\n  socket")
	want := []Caller{
		{Entry: "Exim, transport mxpipe", User: "mxpipe", Socket: "/run/mxpolicyd/pipe.sock", exim: true},
		{Entry: "Exim, transport mxpolicyd_lmtp", User: "exim", Group: "mail", Socket: "/run/mxpolicyd/lmtp.sock", exim: true},
	}
	got := EximCallers(ours, x)
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if mend := got[0].Regroup("g"); mend != "set group = g" {
		t.Errorf("the mend is %q", mend)
	}
	x.Transports = strings.ReplaceAll(x.Transports, "  user =", "  initgroups\n  user =")
	if got := EximCallers(ours, x); got != nil {
		t.Errorf("with all of the user's groups: %+v", got)
	}
}

// A command that mxpipe is the program of, without a shell: right before 4.96,
// and where nothing foreign is in it.
func TestEximWithoutShell(t *testing.T) {
	x := shippedExim(t)
	_, rest, _ := strings.Cut(x.Transports, "command = ")
	command, _, _ := strings.Cut(rest, "\n")
	x.Transports = change(t, x.Transports, command, `"/usr/bin/mxpipe" --queue-id $message_exim_id -f '' -- $pipe_addresses`)
	check(t, Exim(ours, x), finding.OK, "", "")
}

func TestEximTime(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"5s": 5 * time.Second, "16m40s": 1000 * time.Second, "1h": time.Hour, "1w2d": 9 * 24 * time.Hour, "0s": 0, "": -1, "5": -1, "s": -1, "5x": -1, "1m-2s": -1,
	} {
		if got, ok := eximTime(value); ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %v, %v", value, got, ok)
		}
	}
}

func FuzzExim(f *testing.F) {
	f.Add("auto_thaw = 1h\n", "mxpipe transport:\ndriver = pipe\ncommand = /bin/sh -c '\\Nexec mxpipe \"$@\"\\N' x $pipe_addresses\n", "begin retry\n* * F,1h,1m\n")
	f.Add("", "x transport:\ndriver = pipe\ncommand = sh -c \"\\", "")
	f.Add("", "x transport:\ndriver = lmtp\nsocket = /run/mxpolicyd/x\ntimeout = 9999999999h", "transport=")
	f.Fuzz(func(t *testing.T, main, transports, config string) {
		for _, found := range Exim(ours, EximOutput{Main: main, Transports: transports, Config: config}) {
			if found.What == "" {
				t.Errorf("an empty finding: %+v", found)
			}
		}
	})
}
