package mtasts

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mxpipe/mxpipe/transport/address"
)

// The bounds of a policy.
const (
	// MaxPolicySize is the size in bytes of the largest policy that is read,
	// as RFC 8461 §3.3 suggests.
	MaxPolicySize = 64 << 10
	// maxPatterns is how many mx lines a policy may have.
	maxPatterns = 1000
	// maxAge is the longest max_age (RFC 8461 §3.2), a year.
	maxAge = 31557600 * time.Second
)

// Mode is what a sender does about a host that fails the policy (RFC 8461 §5).
type Mode uint8

// The modes, each asking for more than the one before.
const (
	ModeNone    Mode = iota // as if there were no policy
	ModeTesting             // deliver all the same, and report
	ModeEnforce             // do not deliver to that host
)

// String gives the policy's word for the mode.
func (m Mode) String() string {
	switch m {
	case ModeTesting:
		return "testing"
	case ModeEnforce:
		return "enforce"
	}
	return "none"
}

// Policy is an MTA-STS policy (RFC 8461 §3.2). It is not changed after it was
// parsed, so that it can be shared.
type Policy struct {
	Mode Mode
	// MaxAge is how long the policy may be kept from when it was fetched, 0 to
	// 31557600 s (a year) in whole seconds.
	MaxAge time.Duration
	// MX holds the patterns in the order of the policy, as lower-case A-labels
	// without a trailing dot and without duplicates: "mail.example.org", or
	// "*.example.org" for any one label before it. It is empty only in mode
	// none.
	MX []string
}

// ParsePolicy reads the body of a policy (RFC 8461 §3.2). Lines end with LF or
// CRLF; unknown fields are ignored; of a field given twice, mx apart, the first
// counts. The error is ErrMalformed or ErrTooLarge; its text quotes the
// offending line, escaped and cut short.
func ParsePolicy(text []byte) (Policy, error) {
	if len(text) > MaxPolicySize {
		return Policy{}, ErrTooLarge
	}
	p := parser{seen: make(map[string]bool)}
	for _, line := range policyLines(string(text)) {
		if err := p.line(line); err != nil {
			return Policy{}, err
		}
	}
	return p.finish()
}

// policyLines cuts a policy at LF and CRLF and drops the blank lines at its
// end.
func policyLines(text string) []string {
	lines := strings.Split(text, "\n")
	for i := range lines[:len(lines)-1] {
		lines[i] = strings.TrimSuffix(lines[i], "\r")
	}
	for len(lines) > 0 && strings.Trim(lines[len(lines)-1], wsp) == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// parser gathers a policy line by line.
type parser struct {
	policy   Policy
	seen     map[string]bool // of the known fields
	patterns int
}

func (p *parser) line(line string) error {
	key, value, ok := strings.Cut(line, ":")
	value = strings.Trim(value, wsp)
	if !ok || !isFieldName(key) || !isPolicyValue(value) {
		return malformed("MTA-STS policy: line %.60q is not key: value", line)
	}
	switch key {
	case "mx":
		return p.mx(value)
	case "version", "mode", "max_age":
		if p.seen[key] {
			return nil
		}
		p.seen[key] = true
	}
	switch key {
	case "version":
		if value != "STSv1" {
			return malformed("MTA-STS policy: version %.20q is not STSv1", value)
		}
	case "mode":
		switch value {
		case "none":
			p.policy.Mode = ModeNone
		case "testing":
			p.policy.Mode = ModeTesting
		case "enforce":
			p.policy.Mode = ModeEnforce
		default:
			return malformed("MTA-STS policy: mode %.20q is not enforce, testing or none", value)
		}
	case "max_age":
		age, ok := parseMaxAge(value)
		if !ok {
			return malformed("MTA-STS policy: max_age %.20q is not 0 to 31557600 seconds", value)
		}
		p.policy.MaxAge = age
	}
	return nil
}

func (p *parser) mx(value string) error {
	if p.patterns++; p.patterns > maxPatterns {
		return ErrTooLarge
	}
	pattern, ok := parsePattern(value)
	if !ok {
		return malformed("MTA-STS policy: mx %.80q is not a host name, or \"*.\" and a domain", value)
	}
	if !p.seen["mx "+pattern] {
		p.seen["mx "+pattern] = true
		p.policy.MX = append(p.policy.MX, pattern)
	}
	return nil
}

func (p *parser) finish() (Policy, error) {
	for _, key := range []string{"version", "mode", "max_age"} {
		if !p.seen[key] {
			return Policy{}, malformed("MTA-STS policy: it has no %s", key)
		}
	}
	if len(p.policy.MX) == 0 && p.policy.Mode != ModeNone {
		return Policy{}, malformed("MTA-STS policy: mode %s without mx", p.policy.Mode)
	}
	// A-labels are longer than what they were written as. What was accepted
	// once must be accepted again when it is read back from a disk.
	if len(p.policy.String()) > MaxPolicySize {
		return Policy{}, ErrTooLarge
	}
	return p.policy, nil
}

// isPolicyValue follows sts-policy-ext-value, of which all other values are
// special cases; blanks around it are gone already.
func isPolicyValue(s string) bool {
	if s == "" || !utf8.ValidString(s) {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// parseMaxAge follows sts-policy-max-age-value: ten digits at most, no sign.
func parseMaxAge(s string) (time.Duration, bool) {
	if len(s) > 10 {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > uint64(maxAge/time.Second) {
		return 0, false
	}
	return time.Duration(n) * time.Second, true
}

// parsePattern reads sts-policy-mx-value, ["*."] Domain, and gives its
// canonical form.
func parsePattern(s string) (string, bool) {
	domain, wildcard := strings.CutPrefix(s, "*.")
	domain, err := address.ASCIIDomain(domain)
	if err != nil {
		return "", false
	}
	// RFC 5321 §4.1.2: a label begins and ends with a letter or digit, and
	// has no underscore.
	for label := range strings.SplitSeq(domain, ".") {
		if !isAlnum(label[0]) || !isAlnum(label[len(label)-1]) || strings.Contains(label, "_") {
			return "", false
		}
	}
	if wildcard {
		return "*." + domain, true
	}
	return domain, true
}

// Match reports whether an MX host is one that the policy lists (RFC 8461
// §4.1). The host may be in any letter case, in A-labels or U-labels, with or
// without a trailing dot. A wildcard stands for exactly one label, the
// left-most.
func (p Policy) Match(host string) bool {
	host, err := address.ASCIIDomain(host)
	if err != nil {
		return false
	}
	_, parent, hasParent := strings.Cut(host, ".")
	for _, pattern := range p.MX {
		suffix, wildcard := strings.CutPrefix(pattern, "*.")
		if wildcard && hasParent && parent == suffix || !wildcard && host == pattern {
			return true
		}
	}
	return false
}

// String gives the policy as RFC 8461 §3.2 writes it, one field a line, each
// ended by LF, without the fields that mean nothing to us. ParsePolicy reads
// the same policy from it.
func (p Policy) String() string {
	var b strings.Builder
	b.WriteString("version: STSv1\nmode: ")
	b.WriteString(p.Mode.String())
	for _, pattern := range p.MX {
		b.WriteString("\nmx: ")
		b.WriteString(pattern)
	}
	b.WriteString("\nmax_age: ")
	b.WriteString(strconv.FormatInt(int64(p.MaxAge/time.Second), 10))
	b.WriteByte('\n')
	return b.String()
}
