// Package provider says which mail hosts belong together. A large mailbox
// host takes the mail of thousands of domains at a handful of names, and it
// counts connections, messages and complaints by who sends, not by the domain
// that the mail is for: 400 domains there are one peer. Limits, slow-downs and
// pauses therefore count by provider.
//
// The provider of an MX host is, in this order:
//
//  1. a configured one, whose names the administrator wrote down;
//  2. a built-in one (builtin.txt), the largest mailbox hosts and filters, by
//     the MX names that they publish;
//  3. the registrable domain of the host's name (public suffix list), so that
//     mx1.example.co.uk and mx2.example.co.uk are one;
//  4. the host itself, where it is an address or has no registrable domain.
//
// Within 1 and within 2 the longest pattern that matches counts. The MX host
// decides, not the recipient's domain: a domain that moves is counted where
// its mail goes. Anyone who controls a domain's MX records can point them at a
// provider's names, but then the provider gets the mail.
package provider

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/mxpipe/mxpipe/transport/address"
)

// Provider is a named set of mail hosts.
type Provider struct {
	// Name is how the administrator calls it: lower-case letters, digits,
	// hyphens and dots. It is the registrable domain for the third kind and
	// the host for the last.
	Name string
	// MX are patterns, as A-labels in lower case: ".example" matches every
	// name below example, "mx.example" that name alone. Empty unless Origin is
	// Configured or BuiltIn.
	MX     []string
	Origin Origin
}

// Origin says how a host's provider is known.
type Origin uint8

// The origins, in the order in which they are asked.
const (
	Configured Origin = iota + 1
	BuiltIn
	Registrable // the registrable domain of the host's name
	Host        // nothing but the host's own name or address
)

var originWords = [...]string{"", "configured", "built-in", "registrable domain", "host"}

// String is the word for status and explain.
func (o Origin) String() string { return originWords[o] }

// ErrPattern is wrapped by what New says of a pattern or name that cannot be.
var ErrPattern = errors.New("no provider pattern")

//go:embed builtin.txt
var builtin string

// Table finds the provider of a host. It never changes and is safe for
// concurrent use.
type Table struct {
	// configured ones first, then the built-in ones, each by name
	providers []Provider
	sets      [2]patterns
}

// patterns maps exact names and suffixes to an index into Table.providers.
type patterns struct {
	exact  map[string]int
	suffix map[string]int // without the leading dot
}

// New makes a table of the configured providers and the built-in ones. A
// configured provider with the name of a built-in one takes its place: its
// patterns alone count. An error wraps ErrPattern and names the provider.
func New(configured []Provider) (*Table, error) {
	t := &Table{}
	named := map[string]bool{}
	for _, p := range configured {
		if named[p.Name] {
			return nil, fmt.Errorf("%w: provider %q is there twice", ErrPattern, p.Name)
		}
		named[p.Name] = true
		if err := check(p); err != nil {
			return nil, err
		}
		p.Origin = Configured
		t.providers = append(t.providers, p)
	}
	for _, p := range parseBuiltin(builtin) {
		if !named[p.Name] {
			t.providers = append(t.providers, p)
		}
	}
	slices.SortStableFunc(t.providers, func(a, b Provider) int {
		return cmp.Or(cmp.Compare(a.Origin, b.Origin), cmp.Compare(a.Name, b.Name))
	})
	for i := range t.sets {
		t.sets[i] = patterns{exact: map[string]int{}, suffix: map[string]int{}}
	}
	for i, p := range t.providers {
		set := t.sets[p.Origin-Configured]
		for _, pattern := range p.MX {
			if suffix, ok := strings.CutPrefix(pattern, "."); ok {
				set.suffix[suffix] = i
			} else {
				set.exact[pattern] = i
			}
		}
	}
	return t, nil
}

// Of gives the provider of an MX host: a name as A-labels in lower case
// without a final dot, or an address, in brackets or not.
func (t *Table) Of(host string) Provider {
	for i := range t.sets {
		if found, ok := t.sets[i].find(host); ok {
			return t.providers[found]
		}
	}
	if ip, ok := address.Literal(host); ok {
		return Provider{Name: ip.String(), Origin: Host}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return Provider{Name: host, Origin: Host}
	}
	domain, err := publicsuffix.EffectiveTLDPlusOne(host)
	if err != nil {
		return Provider{Name: host, Origin: Host}
	}
	return Provider{Name: domain, Origin: Registrable}
}

// Named gives a configured or built-in provider by its name.
func (t *Table) Named(name string) (Provider, bool) {
	for _, p := range t.providers {
		if p.Name == name {
			return p, true
		}
	}
	return Provider{}, false
}

// List gives the configured and the built-in providers, each sorted by name.
// The slice is the caller's, its patterns are shared.
func (t *Table) List() []Provider { return slices.Clone(t.providers) }

// find looks for the longest pattern: the exact name, then each parent.
func (p *patterns) find(host string) (int, bool) {
	if i, ok := p.exact[host]; ok {
		return i, true
	}
	for rest := host; ; {
		dot := strings.IndexByte(rest, '.')
		if dot < 0 {
			return 0, false
		}
		rest = rest[dot+1:]
		if i, ok := p.suffix[rest]; ok {
			return i, true
		}
	}
}

// parseBuiltin reads builtin.txt, which a test checks.
func parseBuiltin(text string) []Provider {
	var list []Provider
	for line := range strings.Lines(text) {
		name, names, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		list = append(list, Provider{Name: name, MX: strings.Fields(names), Origin: BuiltIn})
	}
	return list
}

// check refuses what would match nothing or everything.
func check(p Provider) error {
	if !isName(p.Name) {
		return fmt.Errorf("%w: the name %q: use lower-case letters, digits, hyphens and dots", ErrPattern, p.Name)
	}
	if len(p.MX) == 0 {
		return fmt.Errorf("%w: provider %s has no mx names", ErrPattern, p.Name)
	}
	for _, pattern := range p.MX {
		name := strings.TrimPrefix(pattern, ".")
		if !isName(name) || !strings.Contains(name, ".") {
			return fmt.Errorf("%w: provider %s: %q: write mx.example.org, or .example.org for every name below it", ErrPattern, p.Name, pattern)
		}
		if suffix, icann := publicsuffix.PublicSuffix(name); icann && suffix == name {
			return fmt.Errorf("%w: provider %s: %q would be everybody's", ErrPattern, p.Name, pattern)
		}
	}
	return nil
}

// isName accepts what a host name in lower case is made of; underscores are
// in use.
func isName(s string) bool {
	if s == "" || len(s) > 253 || strings.Contains(s, "..") || strings.HasPrefix(s, ".") || strings.HasSuffix(s, ".") {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	}) < 0
}
