package mailserver

import (
	"slices"
	"strings"
)

// This file knows about mail servers that hand all their mail to one other
// server, a relay or smarthost, which often wants a password. By pipe the mail
// server names that host to mxpipe, but not the password; by LMTP neither.

// keepSMTP is the mend for what only Postfix's own smtp can do.
const keepSMTP = "leave this mail to smtp(8): postconf -e default_transport=smtp"

// relayhosts checks a Postfix whose mail all goes by one of our ways and that
// has a relayhost or passwords for one.
func (c postfixConfig) relayhosts(d Daemon, ways []string, r *report) {
	if !slices.ContainsFunc([]string{"default_transport", "relay_transport"}, func(setting string) bool { return c.leadsToUs(d, setting) }) {
		return
	}
	host := c.value("relayhost")
	passwords := slices.Contains(c.written("smtp_sasl_auth_enable"), "yes")
	bySender := c.value("sender_dependent_relayhost_maps") != "" || slices.Contains(c.written("smtp_sender_dependent_authentication"), "yes")
	byLMTP := slices.Contains(ways, "LMTP")
	switch {
	case host != "" && byLMTP:
		r.fail(keepSMTP, "relayhost (%s) has no effect on mail sent by LMTP, which goes directly to the recipients' domains", host)
	case host != "" && passwords:
		r.fail(keepSMTP, "relayhost (%s) requires a password (smtp_sasl_password_maps), which mxpipe does not have, so the relay refuses all mail", host)
	case passwords:
		r.warn(keepSMTP+" where a password is required", "the passwords of smtp_sasl_password_maps are not used for mail sent by %s", strings.Join(ways, " and "))
	}
	if bySender {
		r.warn("leave mail of these senders to smtp(8): sender_dependent_default_transport_maps",
			"sender-dependent relays (sender_dependent_relayhost_maps, smtp_sender_dependent_authentication) get no password by %s", strings.Join(ways, " and "))
	}
}

// leadsToUs reports whether a routing setting leads to the daemon.
func (c postfixConfig) leadsToUs(d Daemon, setting string) bool {
	name, nexthop, _ := strings.Cut(c.value(setting), ":")
	if e, ok := c.entry(name); ok {
		if _, pipe := parseCall(e.argv()); pipe && e.command == "pipe" {
			return true
		}
	}
	socket, unix := strings.CutPrefix(nexthop, "unix:")
	return unix && (slices.Contains(d.LMTP, socket) || strings.Contains(socket, "mxpolicyd"))
}

// losses tells of each setting of smtp(8) that does nothing for mail that goes
// our ways. What relayhosts tells of is not told again.
func (c postfixConfig) losses(ways []string, r *report) {
	told := map[string]bool{"smtp_sasl_auth_enable": true, "smtp_sasl_password_maps": true, "smtp_sender_dependent_authentication": true}
	lostBy := map[string][]string{}
	for _, way := range ways {
		for _, s := range c.lostBy(way) {
			lostBy[s.Name] = append(lostBy[s.Name], way)
		}
	}
	for _, s := range LostSettings() {
		by := lostBy[s.Name]
		if by == nil || told[s.Name] {
			continue
		}
		mend := s.Instead
		if s.LMTP != "" && !slices.Contains(by, "pipe") {
			mend = "set " + s.LMTP
		}
		r.warn(mend, "%s has no effect on mail sent by %s", s.Name, strings.Join(by, " and "))
	}
}
