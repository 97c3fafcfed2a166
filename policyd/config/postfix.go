package config

import (
	"gopkg.in/yaml.v3"
)

// unsayable are keys of a transport, or of an override, that Postfix cannot be
// told, or not in full, when its own smtp(8) asks for policies; and what comes
// of it.
var unsayable = []struct{ key, what string }{
	{"pin", "answers fingerprint, which Postfix compares with the server's own key only, and a temporary error where the domain has DANE or MTA-STS"},
	{"relay", "does not tell Postfix of it: mail goes to the domains' own mail servers"},
	{"fallback_relay", "does not tell Postfix of it: mail waits for the domains' own mail servers"},
	{"tls_client.legacy", "does not tell Postfix of it: smtp_tls_protocols decides about TLS that no policy asks for"},
}

// untold is a key of the file that Postfix will not hear of.
type untold struct {
	at   value
	what string
	of   string // the map that answers for the transport
}

// noteUntold keeps such keys of a block for when it is known whether anybody
// asks.
func (d *decoder) noteUntold(seen map[string]value, transport string) {
	of := "policy"
	if transport != DefaultTransport {
		of += "@" + transport
	}
	if v, given := seen["tls_client"]; given && v.node.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(v.node.Content); i += 2 {
			name := v.node.Content[i].Value
			seen["tls_client."+name] = value{d, v.node.Content[i+1], v.path + "." + name}
		}
	}
	for _, u := range unsayable {
		if v, given := seen[u.key]; given {
			d.untold = append(d.untold, untold{v, u.what, of})
		}
	}
}

// warnUntold tells of them where listen has a socketmap.
func (d *decoder) warnUntold(l *Listen) {
	if l.Socketmap == nil {
		return
	}
	for _, u := range d.untold {
		d.warn(u.at.node, "%s: the map %s %s", u.at.path, u.of, u.what)
	}
}
