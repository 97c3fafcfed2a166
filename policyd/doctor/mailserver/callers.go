package mailserver

import (
	"cmp"
	"path"
	"strings"
)

// Caller is whom a mail server calls at one of the daemon's sockets as.
type Caller struct {
	Entry  string // what the entry is called in findings
	User   string
	Group  string // empty: the user's primary group
	Socket string // where it calls
	// AllGroups says that it has all groups that the user is in; otherwise it
	// has the one alone.
	AllGroups bool

	exim bool
}

// Regroup says how the mail server is given another group.
func (c Caller) Regroup(group string) string {
	switch {
	case c.AllGroups:
		return "usermod -aG " + group + " " + c.User + " && postfix reload"
	case c.exim:
		return "set group = " + group
	}
	return "write user=" + c.User + ":" + group
}

// PostfixCallers finds whom Postfix calls as: its entries of pipe(8), which run
// mxpipe as a user with one group, and those of lmtp(8) and smtp(8), which are
// Postfix's own user with all groups of that.
func PostfixCallers(d Daemon, main, master string) (callers []Caller) {
	c := postfixConfig{settings: parseSettings(main), entries: parseMaster(master)}
	for _, e := range c.entries {
		if e.command != "pipe" {
			continue
		}
		call, ok := parseCall(e.argv())
		user, given := e.attribute("user")
		if !ok || !given {
			continue
		}
		p := Caller{Entry: "Postfix, " + e.name + " in master.cf", Socket: cmp.Or(call.flags["socket"], defaultSocket)}
		p.User, p.Group, _ = strings.Cut(user, ":")
		callers = append(callers, p)
	}
	own := func(entry, socket string, e entry) {
		if c.chrooted(e) || !strings.HasPrefix(socket, "/") {
			socket = path.Join(c.value("queue_directory"), socket)
		}
		callers = append(callers, Caller{Entry: entry, User: c.value("mail_owner"), Socket: socket, AllGroups: true})
	}
	for _, l := range c.lmtpUses(d) {
		if e, ok := c.entry(l.name); ok {
			own("Postfix, "+l.name+" in master.cf", l.socket, e)
		}
	}
	for _, m := range PolicyMaps(c.value("smtp_tls_policy_maps")) {
		if e, ok := c.entry("smtp"); ok && m.Unix && c.ours(d, m) {
			own("Postfix, smtp_tls_policy_maps", m.At, e)
		}
	}
	return callers
}

// EximCallers finds whom the transports that lead to the daemon call as. They
// have one group and no other, but for those with initgroups, which are left
// out.
func EximCallers(d Daemon, x EximOutput) (callers []Caller) {
	c := eximConfig{transports: parseTransports(x.Transports), config: x.Config}
	for _, t := range c.used(d) {
		if t.options["user"] == "" || t.on("initgroups") {
			continue
		}
		socket := t.options["socket"]
		if call, ok := parseEximCall(t.options["command"]); ok {
			socket = cmp.Or(call.flags["socket"], defaultSocket)
		}
		callers = append(callers, Caller{Entry: "Exim, transport " + t.name, User: t.options["user"], Group: t.options["group"], Socket: socket, exim: true})
	}
	return callers
}
