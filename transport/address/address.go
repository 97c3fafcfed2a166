// Package address reads the envelope addresses that a mail server hands over
// and writes them as SMTP wants them (RFC 5321 §4.1.2, RFC 6531 §3.3).
//
// Mail servers differ in how they hand an address over: Postfix's pipe(8)
// gives the local part unquoted unless flags=q is set, Exim gives it quoted.
// Parse takes both: a local part that is a well-formed quoted string or a dot
// string stays as it is, anything else is quoted for the wire, so that what a
// remote server reads is always one mailbox and never a second command.
//
// Domains are compared and looked up as lower-case A-labels (RFC 5890
// §2.3.2.1). An address literal, "[192.0.2.1]" or "[IPv6:2001:db8::1]", is
// kept in its brackets.
package address

import (
	"errors"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// The reasons why an address can never be delivered to. They are permanent:
// the caller answers 5.1.3 for a recipient and 5.1.7 for a sender.
var (
	ErrEmpty     = errors.New("the address is empty")
	ErrTooLong   = errors.New("the address is too long")
	ErrCharacter = errors.New("the address contains a control character or malformed UTF-8")
	ErrLocalPart = errors.New("the local part is empty or malformed")
	ErrDomain    = errors.New("the domain is not a valid domain name")
)

// maxLength bounds a whole address, as it came in and as it leaves. RFC 5321
// §4.5.3.1.3 allows 256 bytes for a path; forwarders that rewrite senders (SRS,
// VERP) exceed it, and the remote server may judge them itself.
const maxLength = 1000

// Address is one mailbox. The zero Address is the null sender "<>".
type Address struct {
	// Local is the local part in its wire form, quoted where it must be.
	Local string
	// Domain is the domain as it was given; empty when there was none.
	Domain string
	// ASCII is the domain as lower-case A-labels, or an address literal in
	// its canonical form; empty when there was none.
	ASCII string
}

// Parse reads an address. The empty string and "<>" are the null sender.
func Parse(s string) (Address, error) {
	if s == "" || s == "<>" {
		return Address{}, nil
	}
	if len(s) > maxLength {
		return Address{}, ErrTooLong
	}
	if !clean(s) {
		return Address{}, ErrCharacter
	}
	local, domain := s, ""
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		local, domain = s[:i], s[i+1:]
		if domain == "" {
			return Address{}, ErrDomain
		}
	}
	if local == "" {
		return Address{}, ErrLocalPart
	}
	ascii, err := asciiDomain(domain)
	if err != nil {
		return Address{}, err
	}
	a := Address{Local: wireLocal(local), Domain: domain, ASCII: ascii}
	// Quotes and A-labels add to what came in.
	if max(len(a.UTF8()), len(a.Wire())) > maxLength {
		return Address{}, ErrTooLong
	}
	return a, nil
}

// IsNull reports whether it is the null sender.
func (a Address) IsNull() bool { return a.Local == "" }

// NeedsUTF8 reports whether the address can only be sent with SMTPUTF8: its
// local part is not ASCII (RFC 6531 §3.2). A domain alone never needs it.
func (a Address) NeedsUTF8() bool { return !ascii(a.Local) }

// UTF8 gives the address with its domain in the letters and the letter case in
// which it was handed over, for a transaction that uses SMTPUTF8 (RFC 6531
// §3.3); the null sender is the empty string. What no path may hold has gone:
// the dot at the end of a domain, dots of other scripts, and a literal that is
// written in another way than RFC 5321 §4.1.3 wants.
func (a Address) UTF8() string {
	if strings.HasPrefix(a.ASCII, "[") {
		return a.Wire()
	}
	return join(a.Local, strings.TrimSuffix(plainDots.Replace(a.Domain), "."))
}

// plainDots makes dots of what IDNA takes for one (UTS 46 §4, RFC 3490 §3.1).
var plainDots = strings.NewReplacer("\u3002", ".", "\uff0e", ".", "\uff61", ".")

// Wire gives the address with its domain as A-labels, for a transaction
// without SMTPUTF8; the null sender is the empty string.
func (a Address) Wire() string { return join(a.Local, a.ASCII) }

// String gives the address as it was handed over, for people.
func (a Address) String() string { return join(a.Local, a.Domain) }

func join(local, domain string) string {
	if domain == "" {
		return local
	}
	return local + "@" + domain
}

// asciiDomain checks a domain and gives its canonical form.
func asciiDomain(domain string) (string, error) {
	if domain == "" {
		return "", nil
	}
	if domain[0] == '[' {
		addr, ok := Literal(domain)
		if !ok {
			return "", ErrDomain
		}
		return FormatLiteral(addr), nil
	}
	return ASCIIDomain(domain)
}

// withUnderscores is idna.Lookup without STD 3's rules for host names.
var withUnderscores = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false))

// ASCIIDomain gives a domain name as lower-case A-labels without a trailing
// dot. Names of pure ASCII are taken as they are apart from their letter case,
// underscores included, since the DNS is the judge of them; others go through
// the IDNA2008 lookup rules with the UTS 46 mapping (RFC 5891 §5), which see an
// underscore as one letter more.
func ASCIIDomain(domain string) (string, error) {
	if IsPlain(domain) {
		return domain, nil
	}
	domain = strings.TrimSuffix(domain, ".")
	if !ascii(domain) {
		// The strict rules forbid underscores, and with them characters that
		// stand for a dot or a bracket. So they judge the name as it would be
		// without the one, and then only underscores are left to be allowed.
		if _, err := idna.Lookup.ToASCII(strings.ReplaceAll(domain, "_", "0")); err != nil {
			return "", ErrDomain
		}
		a, err := withUnderscores.ToASCII(domain)
		if err != nil {
			return "", ErrDomain
		}
		domain = a
	}
	domain = strings.ToLower(domain)
	if domain == "" || len(domain) > 253 {
		return "", ErrDomain
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 {
			return "", ErrDomain
		}
		for i := 0; i < len(label); i++ {
			c := label[i]
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				return "", ErrDomain
			}
		}
	}
	return domain, nil
}

// IsPlain reports whether a domain is in the form of ASCIIDomain already, as
// nearly all are: lower-case letters, digits, hyphens and underscores, within
// the bounds of RFC 1035 §2.3.4, and no dot at the end. It saves every look-up
// and every recipient the way through the rules.
func IsPlain(domain string) bool {
	label := 0
	for i := range len(domain) {
		switch c := domain[i]; {
		case c == '.' && label > 0:
			label = 0
		case (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') && label < 63:
			label++
		default:
			return false
		}
	}
	return label > 0 && len(domain) <= 253
}

// Literal reads an address literal, "[192.0.2.1]", "[IPv6:2001:db8::1]" or,
// as some mail servers write it, "[2001:db8::1]" (RFC 5321 §4.1.3).
func Literal(s string) (netip.Addr, bool) {
	if len(s) < 3 || s[0] != '[' || s[len(s)-1] != ']' {
		return netip.Addr{}, false
	}
	s = s[1 : len(s)-1]
	if len(s) > 5 && strings.EqualFold(s[:5], "IPv6:") {
		s = s[5:]
	}
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, false
	}
	return addr, true
}

// FormatLiteral writes an address literal as RFC 5321 §4.1.3 wants it.
func FormatLiteral(addr netip.Addr) string {
	if addr.Is4() {
		return "[" + addr.String() + "]"
	}
	return "[IPv6:" + addr.String() + "]"
}

// wireLocal quotes a local part unless it already is a quoted string or a dot
// string (RFC 5321 §4.1.2).
func wireLocal(local string) string {
	if isQuoted(local) {
		return local
	}
	return Quote(local)
}

// Quote gives the wire form of a local part whose own quotes, if it had any,
// were taken off.
func Quote(local string) string {
	if isDotString(local) {
		return local
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(local); i++ {
		if local[i] == '"' || local[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(local[i])
	}
	b.WriteByte('"')
	return b.String()
}

// isQuoted reports whether s is one whole quoted string.
func isQuoted(s string) bool {
	if len(s) < 3 || s[0] != '"' || s[len(s)-1] != '"' {
		return false
	}
	inner := s[1 : len(s)-1]
	for i := 0; i < len(inner); i++ {
		switch inner[i] {
		case '"':
			return false
		case '\\':
			i++
			if i == len(inner) {
				return false
			}
		}
	}
	return true
}

func isDotString(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" {
			return false
		}
		for i := 0; i < len(atom); i++ {
			if !isAtext(atom[i]) {
				return false
			}
		}
	}
	return true
}

// isAtext follows RFC 5322 §3.2.3, widened by RFC 6531 §3.3.
func isAtext(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c >= utf8.RuneSelf:
		return true
	}
	return strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func clean(s string) bool {
	for _, r := range s {
		// U+0080 to U+009F are control characters too (C1).
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return false
		}
	}
	return true
}

func ascii(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
