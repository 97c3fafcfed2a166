// Package registrable tells which domains belong to one holder: those below the
// same registrable domain, for which somebody paid. What a stranger may take of
// our memory and disk is counted by it, since names below one's own domain cost
// nothing.
package registrable

import "golang.org/x/net/publicsuffix"

// Domain gives the registrable domain that a domain lies below: "example.org"
// for "mail.eu.example.org". A domain that has none, such as a public suffix
// itself, is its own.
func Domain(domain string) string {
	d, err := publicsuffix.EffectiveTLDPlusOne(domain)
	if err != nil {
		return domain
	}
	return d
}
