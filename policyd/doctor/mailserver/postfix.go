package mailserver

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

// Postfix checks a Postfix. main is what "postconf" prints, or "postconf -n";
// master is what "postconf -M" prints.
func Postfix(d Daemon, main, master string) []finding.Finding {
	c := postfixConfig{settings: parseSettings(main), entries: parseMaster(master)}
	var list []finding.Finding
	// by which mail comes to the daemon, and by which it goes on
	var ways, transports []string
	for _, l := range c.lmtpUses(d) {
		list, ways, transports = append(list, c.lmtp(d, l)...), []string{"LMTP"}, []string{""}
	}
	asked, others := c.policyMaps(d)
	list = append(list, asked...)
	list = append(list, c.wrappers()...)
	used, unused := c.runners()
	// otherwise those that nothing leads to do not matter
	if list == nil && used == nil {
		used, unused = unused, nil
	} else if used != nil {
		ways = append([]string{"pipe"}, ways...)
	}
	for _, e := range used {
		call, _ := parseCall(e.argv())
		list, transports = append(list, c.pipe(d, e, call)...), append(transports, call.flags["transport"])
	}
	switch {
	case list != nil:
	case others != nil:
		return others
	case c.mapped():
		return []finding.Finding{{What: "Postfix: no entry runs mxpipe; transport maps that may use mxpolicyd are not checked"}}
	default:
		return []finding.Finding{{
			Level: finding.Warn, What: "Postfix: not set up to use mxpolicyd",
			Mend: "mxpolicyd setup postfix, or add contrib/postfix/master.cf.mxpipe and main.cf.mxpipe (see their README.md)",
		}}
	}
	r := &report{name: "Postfix"}
	if ways != nil {
		limit, _ := strconv.ParseInt(c.value("message_size_limit"), 10, 64)
		checkSize(d, limit, "postconf -e message_size_limit="+strconv.FormatInt(d.MaxMessageSize, 10)+", or raise max_message_size", r)
		if c.value("enable_long_queue_ids") != "yes" {
			r.warn("postconf -e enable_long_queue_ids=yes",
				"short queue ids are reused within days, and mxpolicyd uses them to remember which recipients were served")
		}
		c.relayhosts(d, ways, r)
		c.losses(d, ways, transports, r)
	}
	return append(list, r.list...)
}

// runners lists the entries that run mxpipe: those that mail may come to, and
// the others.
func (c postfixConfig) runners() (used, unused []entry) {
	for _, e := range c.entries {
		switch _, ok := parseCall(e.argv()); {
		case e.command != "pipe" || !ok:
		case c.sends(e.name):
			used = append(used, e)
		default:
			unused = append(unused, e)
		}
	}
	return used, unused
}

// pipe checks an entry that runs mxpipe.
func (c postfixConfig) pipe(d Daemon, e entry, call call) []finding.Finding {
	r := &report{name: "Postfix, " + e.name + " in master.cf"}
	call.check(d, "in argv= of "+e.name+" in master.cf", r)
	if !slices.ContainsFunc(call.rest, macro("recipient")) {
		r.fail("end argv= with ${recipient} as a word of its own", "mxpipe does not get each recipient as one argument, so mail is deferred or misdelivered")
	}
	if sender, ok := call.flags["sender"]; ok && !macro("sender")(sender) {
		r.warn("write -f ${sender}", "mxpipe gets the sender %q", sender)
	}
	if !macro("nexthop")(call.flags["nexthop"]) {
		r.warn("add --nexthop ${nexthop} to argv=", "a next hop in transport_maps, or a relayhost, has no effect")
	}
	c.attributes(e, r)
	field := func(column string) string { return "postconf -F " + e.name + "/unix/" + column + "=n" }
	if c.chrooted(e) {
		r.fail(field("chroot"), "it runs in a chroot, where neither mxpipe nor its socket exists")
	}
	if e.unprivileged != "n" {
		r.fail(field("unprivileged"), "it is unprivileged and cannot switch to the user= that runs mxpipe")
	}
	if n := c.value(e.name + "_destination_recipient_limit"); n != "1" {
		r.warn("postconf -e "+e.name+"_destination_recipient_limit=1",
			"up to %s recipients share one exit status: one permanent refusal bounces all of them", n)
	}
	limit, known := seconds(c.value(e.name + "_time_limit"))
	if need := call.timeout() + margin; known && limit < need {
		r.fail("postconf -e "+e.name+"_time_limit="+strconv.Itoa(int(need.Seconds()))+"s, or give mxpipe a shorter --timeout",
			"Postfix bounces after %s, and mxpipe itself gives up after %s: there must be a minute between the two", limit, call.timeout())
	}
	export := strings.Fields(strings.ReplaceAll(c.value("export_environment"), ",", " "))
	if !slices.Contains(export, crashBySignal) {
		r.warn("postconf -e 'export_environment="+strings.Join(append(export, crashBySignal), " ")+"'",
			"an mxpipe that cannot start a thread ends with status 2, and Postfix bounces the message")
	}
	r.runtimeVariables(export, "export_environment")
	most, err := strconv.Atoi(e.processes)
	if e.processes == "-" {
		most, err = strconv.Atoi(c.value("default_process_limit"))
	}
	if err == nil && d.MaxDeliveries > 0 && (most == 0 || most > d.MaxDeliveries) {
		r.warn("raise max_deliveries, or lower the seventh column of "+e.name,
			"Postfix runs up to %d at once (0: no limit), but mxpolicyd delivers %d: the others are deferred", most, d.MaxDeliveries)
	}
	return r.findings()
}

// macro tells whether a word is one macro of pipe(8) and nothing else.
func macro(name string) func(word string) bool {
	return func(word string) bool { return word == "${"+name+"}" || word == "$("+name+")" || word == "$"+name }
}

// changing are the flags of pipe(8) that change a message or its addresses.
const changing = "BDFORu.>X"

// attributes checks what stands in front of argv=.
func (c postfixConfig) attributes(e entry, r *report) {
	flags, _ := e.attribute("flags")
	if !strings.Contains(flags, "q") {
		r.fail("write flags=q", "without flags=q a quoted local part loses its quotes and becomes another address")
	}
	var bad []string
	for _, f := range flags {
		if strings.ContainsRune(changing, f) {
			bad = append(bad, string(f))
		}
	}
	if bad != nil {
		r.warn("write flags=q", "the flags %s change the message, its addresses or its notifications", strings.Join(bad, " "))
	}
	switch null, given := e.attribute("null_sender"); {
	case !given:
		r.fail("add null_sender= (with nothing after it)", "bounces are sent with the sender MAILER-DAEMON and can loop")
	case null != "":
		r.fail("write null_sender= with nothing after it", "bounces are sent with the sender %s and can loop", null)
	}
	if eol, given := e.attribute("eol"); given && eol != `\n` && eol != `\r\n` {
		r.fail("remove eol=", "lines end with %q", eol)
	}
	switch user, given := e.attribute("user"); {
	case !given:
		r.fail("add user=mxpipe", "pipe(8) requires user= and defers all mail without it")
	case user == "root" || strings.HasPrefix(user, "root:"):
		r.fail("write user=mxpipe", "pipe(8) refuses to run as root and defers all mail")
	}
	if e.name != "" && !c.sends(e.name) {
		r.warn("postconf -e default_transport="+e.name+", or use it in transport_maps", "nothing sends mail to it")
	}
}

// sends reports whether mail may come to a transport. A map may lead anywhere.
func (c postfixConfig) sends(name string) bool {
	for _, setting := range routing {
		value := c.value(setting)
		if strings.HasSuffix(setting, "_maps") && value != "" {
			return true
		}
		if transport, _, _ := strings.Cut(value, ":"); transport == name {
			return true
		}
	}
	return false
}

// mapped reports whether a map that is not in the settings decides about
// transports.
func (c postfixConfig) mapped() bool {
	return slices.ContainsFunc(routing, func(setting string) bool {
		value := c.value(setting)
		return strings.HasSuffix(setting, "_maps") && value != "" && !strings.Contains(value, "inline:")
	})
}

// use is an entry of master.cf with a socket of ours that it leads to.
type use struct{ name, socket string }

// lmtpUses lists the entries by which mail goes to an LMTP socket of ours.
func (c postfixConfig) lmtpUses(d Daemon) (list []use) {
	for _, setting := range routing {
		for _, word := range strings.FieldsFunc(c.value(setting), func(r rune) bool { return strings.ContainsRune(" ,{}=\t", r) }) {
			name, socket, ok := strings.Cut(word, ":unix:")
			if ok && (slices.Contains(d.LMTP, socket) || strings.Contains(socket, "mxpolicyd")) && !slices.Contains(list, use{name, socket}) {
				list = append(list, use{name, socket})
			}
		}
	}
	return list
}

// shutOut reports whether an entry's process cannot see a socket because it
// runs in a chroot, the queue directory. From there all relative paths lead on.
func (c postfixConfig) shutOut(e entry, socket string, ours ...string) bool {
	return c.chrooted(e) && strings.HasPrefix(socket, "/") && !slices.Contains(ours, path.Join(c.value("queue_directory"), socket))
}

// lmtp checks an entry that leads to an LMTP socket of ours.
func (c postfixConfig) lmtp(d Daemon, l use) []finding.Finding {
	name := l.name
	r := &report{name: "Postfix, " + name + " in master.cf"}
	e, ok := c.entry(name)
	if !ok || e.command != "lmtp" {
		r.fail("add the line \""+name+" unix - - n - - lmtp\" to master.cf", "the LMTP socket is used by %s, but no such entry runs lmtp", name)
		return r.findings()
	}
	if c.shutOut(e, l.socket, d.LMTP...) {
		r.fail("postconf -F "+name+"/unix/chroot=n", "it runs in a chroot, where %s does not exist", l.socket)
	}
	if c.value(name+"_destination_recipient_limit") == "1" {
		r.warn("postconf -X "+name+"_destination_recipient_limit", "each recipient gets its own transaction, although LMTP answers for each recipient anyway")
	}
	limit, known := seconds(c.option(e, "lmtp_data_done_timeout"))
	if need := defaultTimeout + margin; known && limit < need {
		r.warn("postconf -P "+name+"/unix/lmtp_data_done_timeout="+strconv.Itoa(int(need.Seconds()))+"s",
			"Postfix hangs up after %s, but a delivery may take %s: mail to slow servers is cut off and retried", limit, defaultTimeout)
	}
	return r.findings()
}

// seconds reads one of Postfix's times.
func seconds(value string) (time.Duration, bool) {
	if value == "" {
		return 0, false
	}
	unit := time.Second
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	if u, ok := units[value[len(value)-1]]; ok {
		unit, value = u, value[:len(value)-1]
	}
	n, err := strconv.Atoi(value)
	return time.Duration(n) * unit, err == nil && n >= 0
}
