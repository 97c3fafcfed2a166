// Package registrable tells which domains belong to one holder: those below the
// same registrable domain, for which somebody paid. What a stranger may take of
// our memory and disk, and of what we ask of others, is counted by it, since
// names below one's own domain cost nothing.
package registrable

import (
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Domain gives the registrable domain that a domain lies below: "example.org"
// for "mail.eu.example.org", by the public suffix list. A domain that has none,
// such as a public suffix itself, is its own. A dot at the end goes.
func Domain(domain string) string {
	domain = strings.TrimSuffix(domain, ".")
	d, err := publicsuffix.EffectiveTLDPlusOne(domain)
	if err != nil {
		return domain
	}
	return d
}
