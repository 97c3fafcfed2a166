package setup

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/mxpipe/mxpipe/policyd/doctor/mailserver"
)

// tcpAddress is where contrib's drop-in has the socketmap.
const tcpAddress = "127.0.0.1:8463"

// dropIn is where that goes.
const dropIn = "/etc/systemd/system/mxpolicyd-socketmap.socket.d/tcp.conf"

// socketmap has Postfix's smtp(8) ask for policies, at a place that it gets to
// from its chroot and as its user.
func (p Postfix) socketmap(t Target) ([]Step, error) {
	if len(t.Daemon.Socketmap) == 0 {
		return nil, refuse("systemctl enable --now mxpolicyd-socketmap.socket, or listen: {socketmap: {address: \""+tcpAddress+"\"}} in "+t.Config, "mxpolicyd has no socket for policies")
	}
	at, steps, err := p.reachable(t)
	if err != nil {
		return nil, err
	}
	var s Step
	for _, line := range strings.Split(shipped("main.cf.socketmap"), "\n") {
		command := postconfLine.FindStringSubmatch(line)
		if command == nil {
			continue
		}
		switch name, value := command[1], command[2]; name {
		case "smtp_tls_policy_maps":
			s.Changes = append(s.Changes, p.set(name, p.policyMaps("socketmap:"+at+":"+p.mapName())))
		case "smtp_tls_security_level":
			s.Changes = append(s.Changes, p.level(value))
		case "smtp_tls_CAfile":
			// A file is read before the chroot is entered, a directory within.
			if p.Settings["smtp_tls_CAfile"] == "" && (p.Settings["smtp_tls_CApath"] == "" || p.chrooted() != "") && p.Settings["tls_append_default_CA"] != "yes" {
				s.Changes = append(s.Changes, p.set(name, bundle(t, value)))
			}
		case "smtp_tls_mandatory_protocols":
			if !mailserver.OnlyTLS12(p.Settings[name]) {
				s.Changes = append(s.Changes, p.set(name, value))
			}
		case "smtp_tls_loglevel":
			if p.Settings[name] == "0" {
				s.Changes = append(s.Changes, p.set(name, value))
			}
		default:
			s.Changes = append(s.Changes, p.set(name, value))
		}
	}
	return append(steps, s), nil
}

// postconfLine is a command of main.cf.socketmap.
var postconfLine = regexp.MustCompile(`^postconf -e '(\w+) = (.*)'$`)

// reachable gives a place of the socketmap that smtp(8) gets to, and what makes
// it so.
func (p Postfix) reachable(t Target) (at string, steps []Step, err error) {
	for _, socket := range t.Daemon.Socketmap {
		if !strings.HasPrefix(socket, "/") {
			return "inet:" + socket, nil, nil
		}
	}
	for _, socket := range t.Daemon.Socketmap {
		if inside, ok := strings.CutPrefix(socket, p.QueueDirectory+"/"); ok {
			return "unix:" + inside, p.membership(t, socket), nil
		}
	}
	if t.Systemd {
		text := shipped("socketmap-tcp.conf")
		return "inet:" + tcpAddress, []Step{{
			Changes: []Change{{Kind: File, Name: dropIn, After: &text}},
			Then: [][]string{
				{"systemctl", "daemon-reload"},
				{"systemctl", "stop", "mxpolicyd.service"},
				{"systemctl", "restart", "mxpolicyd-socketmap.socket"},
			},
		}}, nil
	}
	socket := t.Daemon.Socketmap[0]
	if chrooted := p.chrooted(); chrooted != "" {
		return "", nil, refuse(fmt.Sprintf("listen: {socketmap: {address: %q}} in %s, and restart mxpolicyd", tcpAddress, t.Config),
			"mxpolicyd answers at %s, and Postfix's %s runs in the chroot %s, where that is not", socket, chrooted, p.QueueDirectory)
	}
	return "unix:" + socket, p.membership(t, socket), nil
}

// chrooted names an entry of smtp(8) that runs in the chroot.
func (p Postfix) chrooted() string {
	for line := range strings.Lines(p.Master) {
		words := strings.Fields(line)
		if len(words) > 7 && line[0] != ' ' && words[1] == "unix" && words[7] == "smtp" &&
			(words[4] == "y" || words[4] == "-" && p.Settings["compatibility_level"] == "0") {
			return words[0]
		}
	}
	return ""
}

// neighbours are other programs that answer Postfix, by where they do.
var neighbours = regexp.MustCompile(`:8461$|:8642$|tlspol|mta-sts`)

// policyMaps is smtp_tls_policy_maps with our table in place of a neighbour's
// or of an older one of ours, or after what is there.
func (p Postfix) policyMaps(ours string) string {
	value := p.Settings["smtp_tls_policy_maps"]
	for _, m := range mailserver.PolicyMaps(value) {
		name, transport, of := strings.Cut(m.Name, "@")
		_, known := mailserver.SocketmapNames[name]
		if !known && !neighbours.MatchString(m.At) {
			continue
		}
		if of {
			ours += "@" + transport
		}
		return strings.Replace(value, m.Text, ours, 1)
	}
	if value == "" {
		return ours
	}
	return value + ", " + ours
}

// mapName is the map for this version of Postfix: 3.10 and later know the
// attributes for TLS reports, by which they also match certificates better.
func (p Postfix) mapName() string {
	numbers := strings.SplitN(p.Settings["mail_version"], ".", 3)
	if len(numbers) < 2 {
		return "policy"
	}
	major, _ := strconv.Atoi(numbers[0])
	minor, _ := strconv.Atoi(numbers[1])
	if major > 3 || major == 3 && minor >= 10 {
		return "policy-tlsrpt"
	}
	return "policy"
}

// level has TLSA records count for all domains. A level that asks for more
// stays.
func (p Postfix) level(dane string) Change {
	switch level := p.Settings["smtp_tls_security_level"]; level {
	case "", "none", "may":
		if level == "" && p.Settings["smtp_enforce_tls"] == "yes" {
			break // which counts where there is no level
		}
		return p.set("smtp_tls_security_level", dane)
	case dane:
		return p.set("smtp_tls_security_level", dane)
	}
	return p.set("smtp_tls_dane_insecure_mx_policy", dane)
}

// bundle is the first file of certificate authorities that is there.
func bundle(t Target, debian string) string {
	for _, file := range []string{debian, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"} {
		if t.Exists(file) {
			return file
		}
	}
	return debian
}
