package mailserver

import (
	"cmp"
	"strings"
)

// Caller is whom a mail server runs mxpipe as.
type Caller struct {
	Entry  string // what the entry is called in findings
	User   string
	Group  string // empty: the user's primary group
	Socket string // where mxpipe calls
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
