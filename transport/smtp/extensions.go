package smtp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/status"
)

// Extensions is what a server offered in its EHLO reply (RFC 5321 §4.1.1.1).
// The zero value is a server that was greeted with HELO.
type Extensions struct {
	StartTLS            bool  // RFC 3207
	Pipelining          bool  // RFC 2920
	Chunking            bool  // RFC 3030
	EightBitMIME        bool  // RFC 6152
	SMTPUTF8            bool  // RFC 6531
	DSN                 bool  // RFC 3461
	RequireTLS          bool  // RFC 8689
	EnhancedStatusCodes bool  // RFC 2034
	Size                bool  // RFC 1870
	MaxSize             int64 // bytes; 0: the server named no limit

	// Auth are the SASL mechanisms offered (RFC 4954 §3), in the server's
	// order, in capitals; empty: none, or AUTH without any.
	Auth []string

	// Keywords holds the lines of those above, and of AUTH (RFC 4954), as they
	// came but for their length, for people to read. A connection may stay for
	// long, and what is of no use must not stay with it.
	Keywords []string
}

// TooLarge is why a message of size bytes need not be offered: the server named
// a smaller limit (RFC 1870 §6.1). nil: it may be. The caller adds the host.
func (e *Extensions) TooLarge(size int64) *status.Error {
	if e.MaxSize == 0 || size <= e.MaxSize {
		return nil
	}
	return &status.Error{Code: status.New(status.Permanent, 3, 4),
		Text: fmt.Sprintf("the message has %d bytes, the server takes at most %d bytes", size, e.MaxSize)}
}

// NoUTF8 is why a message that needs SMTPUTF8 is not offered to a server that
// does not have it (RFC 6531 §3.1). The caller adds the host.
func (e *Extensions) NoUTF8() *status.Error {
	return &status.Error{Code: status.New(status.Permanent, 6, 7), Text: "the message needs SMTPUTF8, which the server does not offer"}
}

// The bounds of Keywords: more than there are that are known, and than any of
// them is long.
const (
	maxKeywords = 16
	maxKeyword  = 200
)

// The bounds of Auth: a mechanism's name has at most 20 characters (RFC 4422
// §3.1).
const (
	maxMechanisms = 30
	maxMechanism  = 20
)

// parseExtensions reads the lines of an EHLO reply; the first is the server's
// name. Keywords are compared without regard to letter case, as RFC 5321
// §2.4 wants: a missed "starttls" would send mail in the clear.
func parseExtensions(lines []string) Extensions {
	var e Extensions
	if len(lines) < 2 {
		return e
	}
	for _, line := range lines[1:] {
		keyword, params, _ := strings.Cut(line, " ")
		// Some old servers write "SIZE=n".
		if len(keyword) > 5 && strings.EqualFold(keyword[:5], "SIZE=") {
			keyword, params = keyword[:4], keyword[5:]
		}
		known := true
		switch strings.ToUpper(keyword) {
		case "AUTH":
			e.addMechanisms(params)
		case "STARTTLS":
			e.StartTLS = true
		case "PIPELINING":
			e.Pipelining = true
		case "CHUNKING":
			e.Chunking = true
		case "8BITMIME":
			e.EightBitMIME = true
		case "SMTPUTF8":
			e.SMTPUTF8 = true
		case "DSN":
			e.DSN = true
		case "REQUIRETLS":
			e.RequireTLS = true
		case "ENHANCEDSTATUSCODES":
			e.EnhancedStatusCodes = true
		case "SIZE":
			e.Size = true
			// A limit that is no number, or absurd, is no limit (RFC 1870 §4).
			if n, err := strconv.ParseInt(strings.TrimSpace(params), 10, 64); err == nil && n > 0 {
				e.MaxSize = n
			}
		default:
			known = false
		}
		if known && len(e.Keywords) < maxKeywords {
			e.Keywords = append(e.Keywords, strings.Clone(reply.Cut(line, maxKeyword)))
		}
	}
	return e
}

// addMechanisms notes the mechanisms of an AUTH line.
func (e *Extensions) addMechanisms(params string) {
	for name := range strings.FieldsSeq(params) {
		name = strings.ToUpper(name)
		if len(name) <= maxMechanism && len(e.Auth) < maxMechanisms && !slices.Contains(e.Auth, name) {
			e.Auth = append(e.Auth, strings.Clone(name))
		}
	}
}
