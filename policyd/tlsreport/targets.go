package tlsreport

import (
	"net/mail"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Target is a place that a domain wants its reports at.
type Target struct {
	URI  string // as the record has it: mailto:… or https://…
	Mail string // the address of a mailto:; empty: an https: URI
	// Max is the size of a report that the place takes, in bytes, where the
	// record has one after a "!" as DMARC's do; 0: none.
	Max int
}

// MaxTargets is how many places of a record are used: a hostile record that
// names ten thousand gets two.
const MaxTargets = 2

// maxURI bounds a place, in bytes.
const maxURI = 500

// Targets reads the TXT records at _smtp._tls.DOMAIN (RFC 8460 §3), each its
// strings joined, and gives the first two places that can be used. It is ok
// when there is exactly one TLSRPT record among them; then skipped says how
// many of its places are not used.
func Targets(records []string) (targets []Target, skipped int, ok bool) {
	var found string
	for _, record := range records {
		if version, _, _ := strings.Cut(record, ";"); strings.TrimRight(version, " \t") != "v=TLSRPTv1" {
			continue
		}
		if ok {
			return nil, 0, false // RFC 8460 §3: more than one is none
		}
		found, ok = record, true
	}
	if !ok {
		return nil, 0, false
	}
	for field := range strings.SplitSeq(found, ";") {
		name, value, cut := strings.Cut(strings.Trim(field, " \t"), "=")
		if !cut || strings.TrimRight(name, " \t") != "rua" {
			continue
		}
		for place := range strings.SplitSeq(value, ",") {
			place = strings.Trim(place, " \t")
			t, usable := parseTarget(place)
			switch {
			case place == "":
			case !usable || len(targets) == MaxTargets:
				skipped++
			default:
				targets = append(targets, t)
			}
		}
	}
	return targets, skipped, true
}

// parseTarget reads one URI.
func parseTarget(place string) (Target, bool) {
	t := Target{URI: place}
	if len(place) > maxURI || strings.ContainsFunc(place, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return t, false
	}
	// RFC 8460 has no "!SIZE", and wants an exclamation mark encoded; records
	// that were copied from DMARC have it.
	if before, size, ok := strings.Cut(place, "!"); ok {
		t.URI = before
		if t.Max, ok = parseSize(size); !ok {
			return t, false
		}
	}
	u, err := url.Parse(t.URI)
	if err != nil {
		return t, false
	}
	switch strings.ToLower(u.Scheme) {
	case "mailto":
		t.Mail, err = url.PathUnescape(u.Opaque)
		return t, err == nil && isMail(t.Mail)
	case "https":
		return t, u.Hostname() != "" && u.User == nil && u.Fragment == "" && isPort(u.Port())
	}
	return t, false
}

// isPort accepts the port of https, and those that no well-known service of
// somebody else has.
func isPort(port string) bool {
	if port == "" || port == "443" {
		return true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n >= 1024
}

// isMail accepts one plain address: no list, no display name, nothing that
// could end a header or a command.
func isMail(s string) bool {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`<>()[],;:\"`, r) }) {
		return false
	}
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s || a.Name != "" || len(s) > 254 {
		return false
	}
	_, domain, _ := strings.Cut(s, "@")
	// No local host, and no address without its brackets.
	top := domain[strings.LastIndexByte(domain, '.')+1:]
	return strings.Contains(domain, ".") && strings.ContainsFunc(top, func(c rune) bool { return c < '0' || c > '9' })
}

// parseSize reads DMARC's size: a number and k, m, g or t.
func parseSize(s string) (int, bool) {
	unit := 1
	if n := len(s); n > 0 {
		switch s[n-1] {
		case 'k', 'K':
			unit, s = 1<<10, s[:n-1]
		case 'm', 'M':
			unit, s = 1<<20, s[:n-1]
		case 'g', 'G':
			unit, s = 1<<30, s[:n-1]
		case 't', 'T':
			unit, s = 1<<40, s[:n-1]
		}
	}
	n, err := strconv.Atoi(s)
	if err != nil || n <= 0 || n > 1<<50/unit {
		return 0, false
	}
	return n * unit, true
}

// Public reports whether a report may be sent to an address that a stranger's
// record led to: none of this host, of a private network, or of no single
// host. It is asked when the address is dialled, so that a name that changes
// its address meanwhile gains nothing.
func Public(addr netip.Addr) bool {
	addr = addr.Unmap()
	if !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(addr) {
			return false
		}
	}
	return true
}

// notPublic are the networks of the IANA special-purpose registries (RFC 6890)
// that net/netip does not know; those of IPv6 that hold IPv4 addresses (6to4,
// NAT64, Teredo) could name a private one.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"),
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("fec0::/10"),
}
