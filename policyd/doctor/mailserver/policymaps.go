package mailserver

import (
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// PolicyMap is one socketmap of Postfix's smtp_tls_policy_maps
// (socketmap_table(5)).
type PolicyMap struct {
	Text string // as it is written, "socketmap:unix:PATH:NAME"
	Unix bool
	At   string // the socket's path, or host:port
	Name string // of the map that is asked for, with @TRANSPORT or without
}

// mapText finds socketmaps among tables, also within a unionmap or a pipemap.
var mapText = regexp.MustCompile(`socketmap:(unix|inet):([^\s,{}]+):([^\s,{}:]*)`)

// PolicyMaps finds the socketmaps in the value of smtp_tls_policy_maps.
func PolicyMaps(value string) (maps []PolicyMap) {
	for _, m := range mapText.FindAllStringSubmatch(value, -1) {
		maps = append(maps, PolicyMap{Text: m[0], Unix: m[1] == "unix", At: m[2], Name: m[3]})
	}
	return maps
}

// SocketmapNames are the names under which the daemon's maps are asked for;
// true means that the answers have attributes for TLS reports. Package
// socketmap answers to them, and a test there holds the two against each other.
var SocketmapNames = map[string]bool{"policy": false, "policy-tlsrpt": true, "QUERY": false, "QUERYwithTLSRPT": true, "postfix": false}

// ours reports whether a map is asked for at the daemon. Where it is not known
// at what the daemon listens, the name tells.
func (c postfixConfig) ours(d Daemon, m PolicyMap) bool {
	if len(d.Socketmap) > 0 && slices.ContainsFunc(c.candidates(m), func(at string) bool { return slices.Contains(d.Socketmap, at) }) {
		return true
	}
	name, _, _ := strings.Cut(m.Name, "@")
	return strings.Contains(m.At, "mxpolicyd") || name == "policy" || name == "policy-tlsrpt"
}

// candidates are the places that a map may mean: a path that begins with /
// means another file to an entry that runs in the chroot.
func (c postfixConfig) candidates(m PolicyMap) []string {
	queue := c.value("queue_directory")
	switch {
	case !m.Unix:
		return []string{sameHost(m.At)}
	case strings.HasPrefix(m.At, "/"):
		return []string{m.At, path.Join(queue, m.At)}
	}
	return []string{path.Join(queue, m.At)}
}

// sameHost writes host:port as the daemon's addresses are written.
func sameHost(at string) string {
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		return at
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		host = addr.String()
	}
	return net.JoinHostPort(host, port)
}

// policyMaps checks the socketmaps by which Postfix's own smtp asks the daemon,
// and lists those by which it asks somebody else.
func (c postfixConfig) policyMaps(d Daemon) (list []finding.Finding, others []finding.Finding) {
	for _, m := range PolicyMaps(c.value("smtp_tls_policy_maps")) {
		r := &report{name: "Postfix, smtp_tls_policy_maps"}
		if !c.ours(d, m) {
			r.warn("mxpolicyd setup postfix --way socketmap", "Postfix asks %s for policies, but mxpolicyd does not listen there", m.At)
			others = append(others, r.list...)
			continue
		}
		c.place(d, m, r)
		c.mapName(d, m, r)
		c.policyUser(d, r)
		_, transport, _ := strings.Cut(m.Name, "@")
		c.answersDemand(d, transport, r)
		list = append(list, r.findings()...)
	}
	return list, others
}

// place checks that every smtp(8) which asks for a map gets to its socket.
func (c postfixConfig) place(d Daemon, m PolicyMap, r *report) {
	const mend = "mxpolicyd setup postfix --way socketmap"
	if len(d.Socketmap) > 0 && !slices.ContainsFunc(c.candidates(m), func(at string) bool { return slices.Contains(d.Socketmap, at) }) {
		r.fail(mend, "Postfix asks %s, but mxpolicyd listens on %s, so all mail is deferred", m.At, strings.Join(d.Socketmap, ", "))
		return
	}
	if !m.Unix {
		return
	}
	for _, e := range c.entries {
		if e.command == "smtp" && e.kind == "unix" && c.shutOut(e, m.At, d.Socketmap...) {
			r.fail(mend+", or postconf -F "+e.name+"/unix/chroot=n",
				"%s runs in the chroot %s, where %s does not exist, so its mail is deferred", e.name, c.value("queue_directory"), m.At)
		}
	}
}

// mapName checks what the daemon is asked for.
func (c postfixConfig) mapName(d Daemon, m PolicyMap, r *report) {
	name, transport, named := strings.Cut(m.Name, "@")
	reports, known := SocketmapNames[name]
	write := func(name string) string {
		return "postconf -e 'smtp_tls_policy_maps=" + strings.Replace(c.value("smtp_tls_policy_maps"), m.Text, strings.TrimSuffix(m.Text, m.Name)+name, 1) + "'"
	}
	major, minor, versioned := c.version()
	switch {
	case !known:
		r.fail(write("policy"), "mxpolicyd has no map %q, so all mail is deferred", name)
	case named && len(d.Transports) > 0 && !slices.Contains(d.Transports, transport):
		r.fail("use one of "+strings.Join(d.Transports, ", ")+" after the @", "mxpolicyd has no transport %q, so all mail is deferred", transport)
	case reports && versioned && (major < 3 || major == 3 && minor < 10):
		r.fail(write("policy"), "Postfix %d.%d does not support the attributes of the map %s (3.10 does), so mail to domains with MTA-STS is deferred", major, minor, name)
	}
}

// policyUser checks what Postfix's own smtp needs to use the answers.
func (c postfixConfig) policyUser(d Daemon, r *report) {
	if c.value("smtp_dns_support_level") != "dnssec" {
		r.fail("postconf -e smtp_dns_support_level=dnssec", "without DNSSEC look-ups Postfix treats the answer \"dane\" as \"may\"")
	}
	if c.value("smtp_tls_CAfile") == "" && c.value("smtp_tls_CApath") == "" && c.value("tls_append_default_CA") != "yes" {
		r.fail("postconf -e smtp_tls_CAfile=/etc/ssl/certs/ca-certificates.crt", "Postfix trusts no certificate authority, so all mail to domains with MTA-STS is deferred")
	}
	// A file is read before the chroot is entered, a directory within it.
	if dir := c.value("smtp_tls_CApath"); dir != "" && c.value("smtp_tls_CAfile") == "" && c.value("tls_append_default_CA") != "yes" {
		for _, e := range c.entries {
			if e.command == "smtp" && e.kind == "unix" && c.chrooted(e) {
				r.warn("postconf -e smtp_tls_CAfile=/etc/ssl/certs/ca-certificates.crt",
					"%s runs in a chroot, where the certificate authorities are a copy in %s, perhaps an old one or none, and then mail to domains with MTA-STS is deferred", e.name, path.Join(c.value("queue_directory"), dir))
				break
			}
		}
	}
	if !OnlyTLS12(c.value("smtp_tls_mandatory_protocols")) {
		r.warn("postconf -e 'smtp_tls_mandatory_protocols=!SSLv2, !SSLv3, !TLSv1, !TLSv1.1'", "TLS 1.0 and 1.1 count where a policy requires TLS")
	}
	if digest := c.fingerprints(); d.Pins && digest != "sha256" {
		r.fail("postconf -e smtp_tls_fingerprint_digest=sha256", "Postfix compares pinned keys by their %s digest, so mail to domains with a pin is deferred", digest)
	}
	level, insecureMX := c.value("smtp_tls_security_level"), c.raw("smtp_tls_dane_insecure_mx_policy")
	if strings.Contains(insecureMX, "$") || insecureMX == "" {
		insecureMX = level // Postfix's default: dane where that is the level
	}
	switch {
	case level == "" && c.demanded().least > verdict.TLSNone:
	case level == "" || level == "none":
		r.warn("postconf -e smtp_tls_security_level=dane", "domains without a policy get no TLS at all")
	case insecureMX == "may" && level == "may":
		r.warn("postconf -e smtp_tls_security_level=dane", "TLSA records of hosts from an unsigned MX set are not used")
	case insecureMX != "dane":
		r.warn("postconf -e smtp_tls_dane_insecure_mx_policy=dane", "TLSA records of hosts from an unsigned MX set are not used")
	}
}

// fingerprints is the digest by which Postfix compares keys: by default md5 to
// one that behaves as before 3.6.
func (c postfixConfig) fingerprints() string {
	digest := c.raw("smtp_tls_fingerprint_digest")
	if digest != "" && !strings.Contains(digest, "$") {
		return digest
	}
	major, rest, _ := strings.Cut(c.value("compatibility_level"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, _ := strconv.Atoi(major)
	b, _ := strconv.Atoi(minor)
	if a > 3 || a == 3 && b >= 6 {
		return "sha256"
	}
	return "md5"
}

// version is Postfix's; known is false when the settings do not tell it, as
// those of "postconf -n".
func (c postfixConfig) version() (major, minor int, known bool) {
	numbers := strings.SplitN(c.settings["mail_version"], ".", 3)
	if len(numbers) < 2 {
		return 0, 0, false
	}
	major, err := strconv.Atoi(numbers[0])
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(strings.TrimRight(numbers[1], "-abcdefghijklmnopqrstuvwxyz"))
	return major, minor, err == nil
}

// OnlyTLS12 reports whether a list of protocols (smtp_tls_mandatory_protocols)
// leaves nothing below TLS 1.2. Postfix's default does not.
func OnlyTLS12(protocols string) bool {
	excluded, named := map[string]bool{}, 0
	for _, word := range strings.FieldsFunc(protocols, func(r rune) bool { return strings.ContainsRune(" ,:\t", r) }) {
		switch name, not := strings.CutPrefix(word, "!"); {
		case word == ">=TLSv1.2", word == ">=TLSv1.3":
			return true
		case not:
			excluded[name] = true
		case word == "TLSv1.2", word == "TLSv1.3":
			named++
		case strings.HasPrefix(word, "<="):
		default:
			return false // one that is named lets in itself
		}
	}
	return named > 0 || excluded["TLSv1"] && excluded["TLSv1.1"]
}
