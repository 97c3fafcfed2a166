package mailserver

import (
	"slices"
	"strconv"
	"strings"
)

// This file knows about mail servers that hand all their mail to one other
// server, a relay or smarthost, which often wants a password. By pipe the mail
// server names that host to mxpipe, but not the password; by LMTP neither. So
// the relay has to be written in mxpolicyd.yaml.

// Relay is a relay of mxpolicyd.yaml.
type Relay struct {
	Host  string // name or address, in lower case
	Port  int
	All   bool // all mail of its transport goes there
	Login bool // with a password, or a certificate
}

// keepSMTP is the mend for what only Postfix's own smtp can do.
const keepSMTP = "leave this mail to smtp(8): postconf -e default_transport=smtp"

// write is the mend for a relay that mxpolicyd.yaml does not have.
func write(server, host string, port int, implicit bool) string {
	tls := ""
	if implicit {
		tls = ", tls: implicit"
	}
	return "write in mxpolicyd.yaml, in transports.default: relay: {host: \"" + host + ":" + strconv.Itoa(port) + "\"" + tls +
		", user: USER, password_file: /etc/mxpolicyd/relay.password}; mxpolicyd setup " + server + " --relay-password writes the password's file"
}

// services are the names of ports in mail servers' configurations.
var services = map[string]int{"smtp": 25, "submission": 587, "smtps": 465, "submissions": 465}

// hostPort reads a host as mail servers write it, "[host]:port"; plain says
// that the port is a number, or is not written.
func hostPort(s string) (host string, port int, plain bool) {
	host, name := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && strings.Count(s, ":") == 1 || strings.Contains(s, "]:") {
		host, name = s[:i], s[i+1:]
	}
	host = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if name == "" {
		return host, 25, true
	}
	if port, err := strconv.Atoi(name); err == nil {
		return host, port, true
	}
	return host, services[name], false
}

// HostPort reads a host as mail servers write it, "[host]:port"; without a port
// it is that of SMTP.
func HostPort(s string) (host string, port int) {
	host, port, _ = hostPort(s)
	return host, port
}

// relay finds the relay of mxpolicyd.yaml that takes mail for a next hop; nil:
// none does.
func (d Daemon) relay(nexthop string) *Relay {
	host, port, plain := hostPort(nexthop)
	for i := range d.Relays {
		if r := &d.Relays[i]; r.All || plain && r.Host == host && r.Port == port {
			return r
		}
	}
	return nil
}

// HasLogin reports whether mxpolicyd.yaml has a relay for a host, with a login.
func (d Daemon) HasLogin(host string, port int) bool {
	ours := d.relay(host + ":" + strconv.Itoa(port))
	return ours != nil && ours.Login
}

// WriteRelay says what to write in mxpolicyd.yaml for a relay of a mail server.
func WriteRelay(server, host string, port int) string {
	return write(server, host, port, port == 465)
}

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
	name, port, plain := hostPort(host)
	implicit := slices.Contains(c.written("smtp_tls_wrappermode"), "yes")
	ours := d.relay(host)
	switch {
	case host != "" && ours != nil && (ours.All || !byLMTP) && (ours.Login || !passwords):
		// mxpolicyd has what it takes
	case host != "" && ours != nil && passwords && !byLMTP:
		r.fail("add user and password_file to the relay in mxpolicyd.yaml, or "+keepSMTP,
			"relayhost (%s) requires a password (smtp_sasl_password_maps), which the relay in mxpolicyd.yaml does not have, so the relay refuses all mail", host)
	case host != "" && !byLMTP && !plain:
		r.fail("postconf -e 'relayhost = ["+name+"]:"+strconv.Itoa(port)+"'", "relayhost (%s) has a port by name, which mxpipe does not know, so all mail is deferred", host)
	case host != "" && byLMTP:
		r.fail(write("postfix", name, port, implicit)+"; or "+keepSMTP, "relayhost (%s) has no effect on mail sent by LMTP, which goes directly to the recipients' domains", host)
	case host != "" && passwords:
		r.fail(write("postfix", name, port, implicit)+"; or "+keepSMTP, "relayhost (%s) requires a password (smtp_sasl_password_maps), which mxpipe does not have, so the relay refuses all mail", host)
	case passwords && len(d.Relays) == 0:
		r.warn("write the relay in overrides of mxpolicyd.yaml, or "+keepSMTP+" where a password is required", "the passwords of smtp_sasl_password_maps are not used for mail sent by %s", strings.Join(ways, " and "))
	}
	if bySender {
		r.warn("give each relay a transport in mxpolicyd.yaml, and these senders that transport (mxpolicyd-postfix(7), RELAYS), or leave their mail to smtp(8): sender_dependent_default_transport_maps",
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
func (c postfixConfig) losses(d Daemon, ways, transports []string, r *report) {
	told := map[string]bool{"smtp_sasl_auth_enable": true, "smtp_sasl_password_maps": true, "smtp_sender_dependent_authentication": true}
	told["smtp_tls_wrappermode"] = c.value("relayhost") != ""
	level := c.levelLost(d, transports, strings.Join(ways, " and "), r)
	told["smtp_tls_security_level"] = level
	// a level comes before what there was before levels
	told["smtp_enforce_tls"] = level || c.value("smtp_tls_security_level") != ""
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
