package mailserver

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

// EximOutput is what Exim prints of its configuration.
type EximOutput struct {
	Main       string // "exim -bP"
	Transports string // "exim -bP transports"
	Config     string // "exim -bP config"; may be missing, then less is seen
	// Passwords are the keys of Debian's /etc/exim4/passwd.client: hosts that
	// want a password. The passwords themselves are not asked for.
	Passwords []string
}

// Exim checks an Exim.
func Exim(d Daemon, x EximOutput) []finding.Finding {
	c := eximConfig{main: parseOptions(x.Main), transports: parseTransports(x.Transports), config: x.Config, passwords: x.Passwords}
	list := c.wrappers()
	for _, t := range c.used(d) {
		if call, ok := parseEximCall(t.options["command"]); ok {
			list = append(list, c.pipe(d, t, call)...)
		} else {
			list = append(list, c.lmtp(d, t)...)
		}
	}
	if list == nil {
		return []finding.Finding{{
			Level: finding.Warn, What: "Exim: not set up to use mxpolicyd",
			Mend: "mxpolicyd setup exim, or add the router and transport of contrib/exim (see its README.md)",
		}}
	}
	r := report{name: "Exim"}
	checkSize(d, eximSize(c.main["message_size_limit"]), "set message_size_limit = "+strconv.FormatInt(d.MaxMessageSize, 10)+", or raise max_message_size", &r)
	if x.Config != "" && !c.retries() {
		r.fail("add \"* * F,2h,15m; G,16h,1h,1.5; F,4d,6h\" after \"begin retry\"", "without a retry rule Exim bounces every deferred message")
	}
	c.smarthost(d, &r)
	return append(list, r.list...)
}

// used lists the transports that lead to the daemon. If routers lead to some of
// them, the others do not matter; if to none, all do.
func (c eximConfig) used(d Daemon) []eximTransport {
	var all, reached []eximTransport
	for _, t := range c.transports {
		_, pipe := parseEximCall(t.options["command"])
		socket := t.options["socket"]
		if pipe && t.options["driver"] == "pipe" || t.options["driver"] == "lmtp" && (slices.Contains(d.LMTP, socket) || strings.Contains(socket, "mxpolicyd")) {
			all = append(all, t)
			if c.reached(t) {
				reached = append(reached, t)
			}
		}
	}
	if reached != nil {
		return reached
	}
	return all
}

// pipe checks a transport that runs mxpipe.
func (c eximConfig) pipe(d Daemon, t eximTransport, call eximCall) []finding.Finding {
	r := &report{name: "Exim, transport " + t.name}
	where := "in command of the transport " + t.name
	call.check(d, where, r)
	c.words(t, call, r)
	c.outcome(t, call, r)
	r.runtimeVariables(t.list("environment"), "environment")
	if !slices.Contains(t.list("environment"), crashBySignal) {
		r.warn("add "+crashBySignal+" to environment", "an mxpipe that cannot start a thread ends with status 2, which hides the reason")
	}
	for _, option := range []string{"message_prefix", "message_suffix", "check_string"} {
		if t.options[option] != "" {
			r.fail("write \""+option+" =\" with nothing after it", "%s changes the message", option)
		}
	}
	var adds []string
	for _, option := range []string{"return_path_add", "envelope_to_add", "delivery_date_add", "body_only", "headers_only", "use_bsmtp"} {
		if t.on(option) {
			adds = append(adds, option)
		}
	}
	if adds != nil {
		r.fail("remove "+strings.Join(adds, ", "), "the message is changed by %s", strings.Join(adds, ", "))
	}
	if t.options["transport_filter"] != "" {
		r.fail("filter with the LMTP transport of contrib/exim", "if the filter fails half-way, mxpipe cannot tell the truncated message from a whole one")
	}
	if n, err := strconv.Atoi(t.options["batch_max"]); err == nil && n > 1 {
		r.warn("set batch_max = 1, or use LMTP", "up to %d recipients share one exit status: one permanent refusal bounces all of them", n)
		if t.options["batch_id"] == "" && strings.Contains(t.options["environment"]+t.options["command"], "$r_nexthop") {
			r.fail("set batch_id = $r_nexthop", "recipients with different next hops are all sent to the next hop of the first")
		}
	}
	c.left(t, r)
	return r.findings()
}

// foreign finds the variables in a text that strangers decide about.
var foreign = regexp.MustCompile(`\$\{?((?:sender_|original_|local_part|domain|return_path|recipients|reply_address|authenticated_|acl_|(?:r|b|l)?h(?:eader)?_)[a-z_A-Z0-9]*)`)

// words checks what stands in the command.
func (c eximConfig) words(t eximTransport, call eximCall, r *report) {
	for _, word := range call.expanded {
		for _, m := range foreign.FindAllStringSubmatch(word, -1) {
			if !strings.HasSuffix(m[1], "_data") {
				r.fail("pass it in environment, as contrib/exim does",
					"$%s comes from outside (tainted); since 4.96 Exim bounces every message when it is used in a command", m[1])
			}
		}
	}
	if !slices.Contains(call.rest, "$pipe_addresses") && !slices.Contains(call.rest, "${pipe_addresses}") {
		r.fail("end the command with -- $pipe_addresses", "mxpipe does not get each recipient as one argument, so mail is deferred or misdelivered")
	}
	if !call.shell {
		return
	}
	if !call.exec {
		r.fail("write exec before mxpipe", "a shell runs between Exim and mxpipe: a message truncated when Exim is killed could be delivered")
	}
	name, variable := strings.CutPrefix(strings.Trim(call.flags["sender"], `"{}`), "$")
	if !variable || foreign.MatchString("$"+name) {
		return
	}
	name = strings.Trim(name, "{}")
	value, set := "", false
	for _, pair := range t.list("environment") {
		if v, ok := strings.CutPrefix(pair, name+"="); ok {
			value, set = v, true
		}
	}
	switch {
	case name == "SENDER" && !set:
		r.warn("add MXPIPE_SENDER=${listquote{:}{$return_path}} to environment, and use that", "a router's errors_to and a transport's return_path have no effect on the sender")
	case !set:
		r.fail("add "+name+"=${listquote{:}{$return_path}} to environment", "environment does not set %s, so all mail goes out with the null sender", name)
	case !strings.Contains(value, "return_path") && !strings.Contains(value, "sender_address"):
		r.warn("write "+name+"=${listquote{:}{$return_path}}", "mxpipe gets the sender %q", value)
	}
}

// temporary are the statuses with which what runs mxpipe can end: the shell,
// the loader, Go's runtime.
var temporary = []string{"1", "2", "126", "127"}

// outcome checks what Exim makes of mxpipe's end.
func (c eximConfig) outcome(t eximTransport, call eximCall, r *report) {
	if t.on("ignore_status") {
		r.fail("remove ignore_status", "ignore_status counts every message as delivered, whatever the result")
	}
	codes := t.list("temp_errors")
	var missing []string
	for _, code := range temporary {
		if !slices.Contains(codes, code) {
			missing = append(missing, code)
		}
	}
	switch {
	case t.options["temp_errors"] == "*":
		r.fail("set temp_errors = 1 : 2 : 75 : 126 : 127", "with temp_errors = * no refused message is ever bounced")
	case !slices.Contains(codes, "75"):
		r.fail("set temp_errors = 1 : 2 : 75 : 126 : 127", "temp_errors lacks 75, so Exim bounces messages that should be retried")
	case missing != nil:
		r.warn("set temp_errors = 1 : 2 : 75 : 126 : 127", "temp_errors lacks %s, so Exim bounces the message when mxpipe cannot be started", strings.Join(missing, ", "))
	}
	for _, code := range []string{"65", "67", "68", "69"} {
		if slices.Contains(codes, code) {
			r.warn("remove "+code+" from temp_errors", "a permanent refusal with status %s is not returned to the sender", code)
		}
	}
	if !t.on("freeze_signal") {
		r.fail("add freeze_signal", "Exim bounces the message when mxpipe is killed")
	} else if thaw, ok := eximTime(c.main["auto_thaw"]); ok && thaw == 0 {
		r.warn("set auto_thaw = 1h in the main section", "when mxpipe is killed, its message stays frozen until it is thawed by hand")
	}
	limit, known := eximTime(t.options["timeout"])
	switch need := call.timeout() + margin; {
	case !t.on("timeout_defer"):
		r.fail("add timeout_defer", "Exim bounces a message that takes longer than its timeout")
	case known && limit != 0 && limit < need:
		r.warn("set timeout = "+strconv.Itoa(int(need.Seconds()))+"s, or give mxpipe a shorter --timeout",
			"Exim kills mxpipe after %s, and mxpipe itself gives up after %s: there must be a minute between the two", limit, call.timeout())
	}
	if t.on("return_output") {
		r.fail("write return_fail_output instead of return_output", "return_output bounces messages that were delivered")
	} else if !t.on("return_fail_output") {
		r.warn("add return_fail_output", "bounces do not say why")
	}
	if !t.on("log_output") && (!t.on("log_defer_output") || !t.on("log_fail_output")) {
		r.warn("add log_output", "Exim's log does not say why")
	}
}

// lmtp checks a transport that leads to an LMTP socket.
func (c eximConfig) lmtp(d Daemon, t eximTransport) []finding.Finding {
	r := &report{name: "Exim, transport " + t.name}
	if socket := t.options["socket"]; len(d.LMTP) > 0 && !slices.Contains(d.LMTP, socket) {
		r.fail("set socket = "+d.LMTP[0], "it connects to %s, but mxpolicyd listens on %s", socket, strings.Join(d.LMTP, ", "))
	}
	if t.options["batch_max"] == "1" {
		r.warn("set batch_max = 1000", "recipients are delivered one at a time, each in its own transaction")
	}
	if limit, known := eximTime(t.options["timeout"]); known && limit < defaultTimeout+margin {
		r.warn("set timeout = "+strconv.Itoa(int((defaultTimeout+margin).Seconds()))+"s",
			"Exim hangs up after %s, but a delivery may take %s: mail to slow servers is cut off and retried", limit, defaultTimeout)
	}
	c.left(t, r)
	return r.findings()
}

// carried are options of every transport by which an administrator changes what
// goes out.
var carried = []string{"headers_add", "headers_remove", "headers_rewrite", "return_path", "transport_filter"}

// left checks that mail goes this way, and what it loses by not going by Exim's
// own SMTP any more.
func (c eximConfig) left(t eximTransport, r *report) {
	if !c.reached(t) {
		r.warn("use transport = "+t.name+" in a router", "no router uses it")
	}
	for _, smtp := range c.transports {
		if smtp.options["driver"] != "smtp" {
			continue
		}
		if smtp.options["dkim_domain"] != "" {
			r.warn("sign mail before Exim delivers it; if it is signed already, remove the dkim_ options from "+smtp.name,
				"Exim signs only in smtp transports such as %s: mail sent by this one has no DKIM signature", smtp.name)
		}
		var missing []string
		for _, option := range carried {
			if smtp.options[option] != "" && t.options[option] == "" {
				missing = append(missing, option)
			}
		}
		if missing != nil {
			r.warn("set the same here (a filter only with LMTP) if mail of "+smtp.name+" now goes by this transport", "%s has %s, but this transport does not", smtp.name, strings.Join(missing, ", "))
		}
	}
}

// reached reports whether a router leads to a transport. One that is named by
// an expansion may lead anywhere, and a configuration that is not known too.
func (c eximConfig) reached(t eximTransport) bool {
	for line := range strings.Lines(c.config) {
		name, value, ok := strings.Cut(line, "=")
		if value = strings.TrimSpace(value); ok && strings.TrimSpace(name) == "transport" && (value == t.name || strings.Contains(value, "$")) {
			return true
		}
	}
	return c.config == ""
}

// eximCall is a command that runs mxpipe, by itself or by a shell.
type eximCall struct {
	call
	shell    bool     // a shell runs it
	exec     bool     // which becomes it
	expanded []string // the words that Exim expands
}

// parseEximCall reads a pipe transport's command. It returns false when that
// does not run mxpipe.
func parseEximCall(command string) (eximCall, bool) {
	words := splitWords(command)
	var c eximCall
	for _, word := range words {
		if !strings.HasPrefix(word, `\N`) {
			c.expanded = append(c.expanded, word)
		}
	}
	var ok bool
	if len(words) < 3 || words[1] != "-c" || !strings.HasSuffix(path.Base(words[0]), "sh") {
		c.call, ok = parseCall(words)
		return c, ok
	}
	c.shell = true
	script := splitWords(strings.ReplaceAll(words[2], `\N`, ""))
	if len(script) > 0 && script[0] == "exec" {
		c.exec, script = true, script[1:]
	}
	var argv []string
	for _, word := range script {
		if word == "$@" {
			argv = append(argv, words[min(4, len(words)):]...)
			continue
		}
		argv = append(argv, word)
	}
	c.call, ok = parseCall(argv)
	return c, ok
}

// splitWords splits a command as Exim does: at white space, but not within
// quotes.
func splitWords(command string) (words []string) {
	for command = strings.TrimLeft(command, " \t\n"); command != ""; command = strings.TrimLeft(command, " \t\n") {
		var word string
		switch quote := command[0]; quote {
		case '\'', '"':
			end := 1
			for end < len(command) && command[end] != quote {
				if quote == '"' && command[end] == '\\' {
					end++
				}
				end++
			}
			word = command[1:min(end, len(command))]
			command = command[min(end+1, len(command)):]
		default:
			end := strings.IndexAny(command, " \t\n")
			if end < 0 {
				end = len(command)
			}
			word, command = command[:end], command[end:]
		}
		words = append(words, word)
	}
	return words
}

// eximTime reads one of Exim's times, such as 16m40s.
func eximTime(value string) (time.Duration, bool) {
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	var sum time.Duration
	for rest := value; rest != ""; {
		digits := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if digits < 1 {
			return 0, false
		}
		n, err := strconv.Atoi(rest[:digits])
		unit, ok := units[rest[digits]]
		if err != nil || !ok {
			return 0, false
		}
		sum, rest = sum+time.Duration(n)*unit, rest[digits+1:]
	}
	return sum, value != ""
}

// eximSize reads a number such as 50M; 0 when it is none.
func eximSize(value string) int64 {
	factor := int64(1)
	for suffix, f := range map[string]int64{"K": 1 << 10, "M": 1 << 20, "G": 1 << 30} {
		if v, ok := strings.CutSuffix(value, suffix); ok {
			value, factor = v, f
		}
	}
	n, _ := strconv.ParseInt(value, 10, 64)
	return n * factor
}
