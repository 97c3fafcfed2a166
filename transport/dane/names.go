package dane

import (
	"crypto/x509"
	"encoding/asn1"
	"strings"
)

// commonName is the attribute type CN (RFC 5280 §A.1).
var commonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// matchName returns the first reference identifier that the last certificate
// of a server bears (RFC 7672 §3.2.3); path is that certificate and those
// above it up to the anchor. It returns "" when there is none, and so for an
// empty reference identifier, which no certificate can prove.
func matchName(path []*x509.Certificate, names []string) string {
	leaf := path[0]
	presented, byCN := leaf.DNSNames, false
	if len(presented) == 0 {
		// The CN-ID counts only where no DNS-ID is present.
		presented, byCN = commonNames(leaf), true
	}
	for _, name := range names {
		reference := normalName(name)
		if byCN && !permitted(path[1:], reference) {
			continue
		}
		for _, p := range presented {
			if matches(p, reference) {
				return reference
			}
		}
	}
	return ""
}

// matches compares one presented identifier with a reference identifier in
// normal form. A wildcard must be the whole first label and stands for exactly
// one label (RFC 7672 §3.2.3); at least two labels must follow it, because
// "*.com" speaks for no one.
func matches(presented, reference string) bool {
	presented = normalName(presented)
	if suffix, wild := strings.CutPrefix(presented, "*."); wild {
		first, rest, found := strings.Cut(reference, ".")
		return found && first != "" && rest == suffix && strings.Contains(suffix, ".")
	}
	// An asterisk elsewhere cannot equal anything in a host name.
	return presented == reference
}

// normalName lowers ASCII letters and drops the root's dot. Bytes outside
// ASCII stay as they are, so that no folding makes two names equal.
func normalName(name string) string {
	b := []byte(strings.TrimSuffix(name, "."))
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// commonNames returns every CN in the subject. RFC 6125 §6.4.4 expects one,
// and where there are several no rule says which is meant.
func commonNames(cert *x509.Certificate) []string {
	var names []string
	for _, attribute := range cert.Subject.Names {
		if value, ok := attribute.Value.(string); ok && attribute.Type.Equal(commonName) {
			names = append(names, value)
		}
	}
	return names
}

// permitted reports whether the issuers may vouch for a name that the server's
// certificate bears only as its CN. crypto/x509 holds name constraints
// (RFC 5280 §4.2.1.10) against subjectAltName alone; without this check a
// constrained CA could escape them by leaving that extension out.
func permitted(issuers []*x509.Certificate, name string) bool {
	for _, ca := range issuers {
		if len(ca.PermittedDNSDomains) > 0 && !within(name, ca.PermittedDNSDomains) {
			return false
		}
		if within(name, ca.ExcludedDNSDomains) {
			return false
		}
	}
	return true
}

// within reports whether name lies in one of the constraint's subtrees. An
// empty subtree is everything; one that starts with a dot leaves its own top
// out.
func within(name string, subtrees []string) bool {
	for _, subtree := range subtrees {
		subtree = normalName(subtree)
		top, below := strings.CutPrefix(subtree, ".")
		if subtree == "" || !below && name == top || strings.HasSuffix(name, "."+top) {
			return true
		}
	}
	return false
}
