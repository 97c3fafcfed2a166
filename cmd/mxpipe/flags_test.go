package main

import (
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/wire"
)

// minimal is what parse makes of "-f s@example.org r@example.net".
func minimal(change func(*options)) options {
	o := options{
		socket: "/run/mxpolicyd/pipe.sock", timeout: int64(15 * time.Minute), limit: "15m",
		envelope: wire.Envelope{
			Sender: "s@example.org", Transport: "default",
			Recipients: []wire.Recipient{{Address: "r@example.net"}},
		},
	}
	if change != nil {
		change(&o)
	}
	return o
}

func TestParse(t *testing.T) {
	const s, r = "s@example.org", "r@example.net"
	recipients := func(list ...wire.Recipient) func(*options) {
		return func(o *options) { o.envelope.Recipients = list }
	}
	for _, c := range []struct {
		name string
		args []string
		want func(*options)
	}{
		{"least", []string{"-f", s, r}, nil},
		{"long sender", []string{"--sender", s, "--", r}, nil},
		{"joined", []string{"--sender=" + s, r}, nil},
		{"null sender, empty", []string{"-f", "", r}, func(o *options) { o.envelope.Sender = "" }},
		{"null sender, joined", []string{"--sender=", r}, func(o *options) { o.envelope.Sender = "" }},
		{"null sender, brackets", []string{"-f", "<>", r}, func(o *options) { o.envelope.Sender = "" }},
		{"brackets are the daemon's to judge", []string{"-f", "<s@b>", r}, func(o *options) { o.envelope.Sender = "<s@b>" }},
		{"a value that looks like a flag", []string{"-f", "--help", r}, func(o *options) { o.envelope.Sender = "--help" }},
		{"a value with an equals sign", []string{"-f", s, "--envid=a=b", r}, func(o *options) { o.envelope.EnvID = "a=b" }},
		{"recipients like flags", []string{"-f", s, "--", "-f", "--version"}, recipients(wire.Recipient{Address: "-f"}, wire.Recipient{Address: "--version"})},
		{"recipient --", []string{"-f", s, "--", "--"}, recipients(wire.Recipient{Address: "--"})},
		{"everything", []string{"--socket", "/s", "--transport=bulk", "--queue-id", "4X", "--nexthop=[h]:25", "--size", "7", "--body", "8BITMIME",
			"--smtputf8", "--requiretls", "--quarantined", "--ret=Hdrs", "--envid", "e", "--notify=delay,Success", "--orcpt", "rfc822;R", "--timeout=1m30s", "-f", s, r},
			func(o *options) {
				*o = options{socket: "/s", timeout: int64(90 * time.Second), limit: "1m30s", envelope: wire.Envelope{
					Sender: s, Transport: "bulk", QueueID: "4X", Nexthop: "[h]:25", Size: 7, Body: "8bitmime", SMTPUTF8: true, RequireTLS: true,
					Quarantined: true, Ret: "hdrs", EnvID: "e",
					Recipients: []wire.Recipient{{Address: r, Notify: "SUCCESS,DELAY", ORcpt: "rfc822;R"}},
				}}
			}},
		{"empty values", []string{"--queue-id=", "--nexthop", "", "--size=", "--body=", "--smtputf8=", "--requiretls=", "--quarantined=", "--ret", "", "--envid=", "--notify", "", "--orcpt=", "-f", s, r}, nil},
		{"switches off", []string{"--smtputf8=no", "--requiretls=FALSE", "--quarantined=0", "-f", s, r}, nil},
		{"switches on", []string{"--smtputf8=YES", "--requiretls=true", "--quarantined=1", "-f", s, r},
			func(o *options) {
				o.envelope.SMTPUTF8, o.envelope.RequireTLS, o.envelope.Quarantined = true, true, true
			}},
		{"RFC 3461 §4.1: NEVER", []string{"--notify=never", "-f", s, r}, recipients(wire.Recipient{Address: r, Notify: "NEVER"})},
		{"RFC 3461 §4.1: list with repetitions and blanks", []string{"--notify=DELAY, failure,delay", "-f", s, "a", "b"},
			recipients(wire.Recipient{Address: "a", Notify: "FAILURE,DELAY"}, wire.Recipient{Address: "b", Notify: "FAILURE,DELAY"})},
		{"RFC 3461 §4.2: one orcpt each", []string{"-f", s, "--orcpt=rfc822;A", "--orcpt=rfc822;B", "--", "a", "b"},
			recipients(wire.Recipient{Address: "a", ORcpt: "rfc822;A"}, wire.Recipient{Address: "b", ORcpt: "rfc822;B"})},
		{"some orcpts without address", []string{"-f", s, "--orcpt=rfc822;", "--orcpt=rfc822;B", "--orcpt=", "a", "b", "c"},
			recipients(wire.Recipient{Address: "a"}, wire.Recipient{Address: "b", ORcpt: "rfc822;B"}, wire.Recipient{Address: "c"})},
		{"one orcpt without address for all", []string{"-f", s, "--orcpt=rfc822;", "a", "b"}, recipients(wire.Recipient{Address: "a"}, wire.Recipient{Address: "b"})},
		{"orcpt with semicolons", []string{"-f", s, "--orcpt=x400;/C=a;/O=b", r}, recipients(wire.Recipient{Address: r, ORcpt: "x400;/C=a;/O=b"})},
	} {
		got := &options{}
		err := got.parse(c.args)
		got.given, got.notify, got.orcpts = 0, "", nil
		if want := minimal(c.want); err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", c.name, got, err, want)
		}
	}
}

// misuses are command lines that are wrong, with what the text must say.
func misuses() map[string][]string {
	const s, r = "s@example.org", "r@example.net"
	long := strings.Repeat("a", 1025)
	return map[string][]string{
		"-f is missing":                    {r},
		"no recipient":                     {"-f", s},
		"no recipient, after --":           {"-f", s, "--"},
		"a recipient is empty":             {"-f", s, ""},
		"recipient is empty, one of":       {"-f", s, "--", r, ""},
		"recipient is empty, the null":     {"-f", s, "<>"},
		`unknown flag "--subject"`:         {"--subject", "x", "-f", s, r},
		`unknown flag "-"`:                 {"-", "-f", s, r},
		`unknown flag "-fs@example.org"`:   {"-fs@example.org", r},
		`unknown flag "-f"`:                {"-f=s@example.org", r},
		`unknown flag "-sender"`:           {"-sender", s, r},
		`unknown flag "--f"`:               {"--f", s, r},
		`unknown flag "--"`:                {"--=x", "-f", s, r},
		`unknown flag "--Sender"`:          {"--Sender", s, r},
		"-f needs a value":                 {"-f"},
		"--size needs a value":             {"-f", s, "--size"},
		"--sender is given twice":          {"-f", s, "--sender", s, r},
		"--smtputf8 is given twice":        {"--smtputf8", "--smtputf8", "-f", s, r},
		"--version takes no value":         {"--version=1"},
		"flags come before":                {"-f", s, r, "--requiretls"},
		"flags come before, and --":        {"-f", s, "--orcpt", "rfc822;a", "rfc822;b", "--", "a", "b"},
		"cannot be combined with, version": {"-f", s, "--version", r},
		"cannot be combined with, help":    {"--help", "--", r},
		"--socket cannot be":               {"--socket=", "-f", s, r},
		"--transport cannot be":            {"--transport=", "-f", s, r},
		`--size cannot be "1k"`:            {"--size=1k", "-f", s, r},
		`--size cannot be "-1"`:            {"--size=-1", "-f", s, r},
		"--size cannot be, too large":      {"--size=9223372036854775808", "-f", s, r},
		`--body cannot be "binarymime"`:    {"--body", "binarymime", "-f", s, r},
		`--ret cannot be "none"`:           {"--ret=none", "-f", s, r},
		`--notify cannot be "NEVER,DELAY"`: {"--notify=NEVER,DELAY", "-f", s, r},
		`--notify cannot be "SUCCESS,"`:    {"--notify=SUCCESS,", "-f", s, r},
		`--notify cannot be "always"`:      {"--notify=always", "-f", s, r},
		`--orcpt cannot be "a@b"`:          {"--orcpt=a@b", "-f", s, r},
		`--orcpt cannot be ";a@b"`:         {"--orcpt=;a@b", "-f", s, r},
		"--orcpt is given 1 times for 2":   {"--orcpt=rfc822;a", "-f", s, "a", "b"},
		"--orcpt is given 2 times for 1":   {"--orcpt=rfc822;a", "--orcpt=rfc822;b", "-f", s, r},
		`--timeout cannot be "0"`:          {"--timeout=0", "-f", s, r},
		`--timeout cannot be "-1s"`:        {"--timeout=-1s", "-f", s, r},
		`--timeout cannot be "900"`:        {"--timeout=900", "-f", s, r},
		`--timeout cannot be ""`:           {"--timeout=", "-f", s, r},
		`--requiretls cannot be "maybe"`:   {"--requiretls=maybe", "-f", s, r},
		"--sender: too long":               {"-f", long, r},
		"a recipient: too long":            {"-f", s, long},
		"more than 1000 recipients":        append([]string{"-f", s}, strings.Split(strings.Repeat("r,", 1000)+"r", ",")...),
		"--sender: holds a control":        {"-f", "a\r\nDATA", r},
		"a recipient: holds a control":     {"-f", s, "a\tb"},
		"--transport: holds a control":     {"--transport=a\x1b", "-f", s, r},
		"--queue-id: holds a control":      {"--queue-id=a\nb", "-f", s, r},
		"--nexthop: holds a control":       {"--nexthop=a\x7f", "-f", s, r},
		"--envid: holds a control":         {"--envid=a\x01", "-f", s, r},
		"--orcpt: holds a control":         {"--orcpt=rfc822;a\n", "-f", s, r},
	}
}

// What is wrong with the command line is never a bounce, and no daemon hears of
// it.
func TestMisuse(t *testing.T) {
	path := serve(t, func(net.Conn) { t.Error("the daemon was called") })
	for want, args := range misuses() {
		want, _, _ = strings.Cut(want, ", ")
		if !strings.Contains(strings.Join(args, " "), "--socket") {
			args = append([]string{"--socket", path}, args...)
		}
		deliver(t, strings.NewReader("Subject: x\n\n"), args...).wants(t, 75, "4.3.5 usage: ", want)
	}
	deliver(t, nil).wants(t, 75, "4.3.5 usage: -f is missing")
}

func TestVersionAndHelp(t *testing.T) {
	file := program(t)
	e := execute(t, file, nil, "--version")
	if e.status != 0 || e.stdout != "mxpipe 1.2.3-test\n" || e.stderr != "" {
		t.Errorf("%+v", e)
	}
	e = execute(t, file, nil, "--socket", "/x", "--help")
	if e.status != 0 || e.stderr != "" || !strings.HasPrefix(e.stdout, "usage: mxpipe ") {
		t.Errorf("%+v", e)
	}
	for _, name := range []string{"-f, --sender", "--socket", "--transport", "--queue-id", "--nexthop", "--size", "--body", "--smtputf8", "--requiretls",
		"--ret", "--envid", "--notify", "--orcpt", "--quarantined", "--timeout", "--version", "--help"} {
		if !strings.Contains(e.stdout, "\n  "+name+" ") {
			t.Errorf("the help does not name %s", name)
		}
	}
}

// FuzzParse gives the parser what a mail server's macros could make of
// strangers' addresses: after -- they must arrive unchanged, whatever they
// look like.
func FuzzParse(f *testing.F) {
	f.Add("s@example.org", "r@example.net", "--size=1", "rfc822;r@example.net")
	f.Add("", "--version", "--notify=NEVER", "")
	f.Add("-f", "-f", "--", ";")
	f.Add("<>", "a b", "--timeout=-1s", "x;")
	f.Add("-&", "ff", "-f", "b")
	f.Fuzz(func(t *testing.T, sender, recipient, other, orcpt string) {
		for i, args := range [][]string{
			// as a mail server calls
			{"-f", sender, other, "--orcpt", orcpt, "--", recipient},
			{other, sender, recipient, orcpt},
			{other},
		} {
			called := i == 0
			var o options
			if err := o.parse(args); err != nil {
				if e, ok := err.(*failure); !ok || e.code != codeConfigured {
					t.Fatalf("%q: %v", args, err)
				}
				continue
			}
			if o.show != "" {
				if called {
					t.Fatalf("%q shows instead of delivering", args)
				}
				continue
			}
			if err := o.envelope.Validate(); err != nil || o.timeout <= 0 || o.socket == "" {
				t.Fatalf("%q: %+v, %v", args, o, err)
			}
			if !called {
				continue
			}
			wanted := sender
			if sender == "<>" {
				wanted = ""
			}
			list := o.envelope.Recipients
			if o.envelope.Sender != wanted || list[len(list)-1].Address != recipient {
				t.Fatalf("%q: %+v", args, o.envelope)
			}
		}
	})
}
