package mailserver

import (
	"cmp"
	"strings"
)

// Caller is whom a mail server calls at one of the daemon's sockets as.
type Caller struct {
	Entry  string // what the entry is called in findings
	User   string
	Group  string // empty: the user's primary group
	Socket string // where it calls

	exim bool
}

// Regroup says how the mail server is told another group.
func (c Caller) Regroup(group string) string {
	if c.exim {
		return "set group = " + group
	}
	return "write user=" + c.User + ":" + group
}

// PostfixCallers finds whom the entries of pipe(8) run mxpipe as. Such a command
// gets one group and no other.
func PostfixCallers(master string) (callers []Caller) {
	for _, e := range parseMaster(master) {
		if e.command != "pipe" {
			continue
		}
		call, ok := parseCall(e.argv())
		user, given := e.attribute("user")
		if !ok || !given {
			continue
		}
		c := Caller{Entry: "Postfix, " + e.name + " in master.cf", Socket: cmp.Or(call.flags["socket"], defaultSocket)}
		c.User, c.Group, _ = strings.Cut(user, ":")
		callers = append(callers, c)
	}
	return callers
}

// EximCallers finds whom the transports that lead to the daemon call as. They
// have one group and no other, but for those with initgroups, which are left out.
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
