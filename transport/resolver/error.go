package resolver

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// Kind is why a look-up failed.
type Kind uint8

// The kinds of failure.
const (
	// what was asked for cannot be a domain name, or is of a type whose records
	// cannot be read
	BadName Kind = iota + 1
	Timeout      // no server answered in time
	// the network would not carry the question, or the answer
	Unreachable
	// SERVFAIL: the servers behind failed, or validation did
	ServFail
	Refused   // REFUSED
	NotImp    // NOTIMP
	FormErr   // FORMERR
	OtherCode // another response code that is no answer
	// an answer that makes no sense, or is to another question
	Malformed
	Cancelled // the caller left, or the Resolver was closed
	// how many there are, and the zero Kind, which is none
	Kinds
)

// String gives the kind for people.
func (k Kind) String() string {
	switch k {
	case BadName:
		return "not a domain name"
	case Timeout:
		return "timed out"
	case Unreachable:
		return "resolver unreachable"
	case ServFail:
		return "SERVFAIL"
	case Refused:
		return "REFUSED"
	case NotImp:
		return "NOTIMP"
	case FormErr:
		return "FORMERR"
	case OtherCode:
		return "unusual response code"
	case Malformed:
		return "malformed answer"
	case Cancelled:
		return "cancelled"
	}
	return "failed"
}

// Error is a look-up that brought no answer. It says nothing about the
// records, so it is always temporary: the caller tries again later, or goes
// to another host. Its text is printable.
type Error struct {
	Name string // asked for
	Type Type   // asked for
	Kind Kind
	// the server that it is about, host:port; empty when it is about none
	Server string
	Err    error // the cause; may be nil
	// Expires is until when the question is not put to the servers again,
	// and this Error is the answer; zero when it is not remembered.
	Expires time.Time

	remembered
}

// Error gives one line: "example.org. MX: SERVFAIL from 127.0.0.1:53: cause".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(printable(e.Name) + " " + e.Type.String() + ": " + e.Kind.String())
	switch {
	case e.Server == "":
	case e.silent():
		b.WriteString(" at " + e.Server)
	default:
		b.WriteString(" from " + e.Server)
	}
	var network *net.OpError
	switch {
	case e.Err == nil, e.Kind == Timeout && (errors.As(e.Err, &network) || errors.Is(e.Err, context.DeadlineExceeded)):
	case errors.As(e.Err, &network):
		b.WriteString(": " + network.Err.Error())
	default:
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// silent reports whether the server said nothing.
func (e *Error) silent() bool { return e.Kind == Timeout || e.Kind == Unreachable }

// kindOf sorts the errors of an exchange.
func kindOf(err error) Kind {
	var network net.Error
	switch {
	case errors.Is(err, errStray), errors.Is(err, errMalformed):
		return Malformed
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout(), errors.Is(err, syscall.ETIMEDOUT):
		return Timeout
	}
	return Unreachable
}

func kindOfRcode(rcode int) Kind {
	switch rcode {
	case dns.RcodeServerFailure:
		return ServFail
	case dns.RcodeRefused:
		return Refused
	case dns.RcodeNotImplemented:
		return NotImp
	case dns.RcodeFormatError:
		return FormErr
	}
	return OtherCode
}

// extendedError gives what a server says about the reason of its failure (RFC
// 8914), as far as it says it by number: "DNSSEC Bogus" is what an
// administrator must know. The free text beside it comes from strangers.
func extendedError(msg *dns.Msg) error {
	var reasons []string
	if kindOfRcode(msg.Rcode) == OtherCode {
		reasons = append(reasons, "RCODE "+strconv.Itoa(msg.Rcode))
	}
	if opt := msg.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if ede, ok := o.(*dns.EDNS0_EDE); ok && len(reasons) < 3 {
				text := dns.ExtendedErrorCodeToString[ede.InfoCode]
				if text == "" {
					text = "extended error " + strconv.Itoa(int(ede.InfoCode))
				}
				reasons = append(reasons, text)
			}
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	return errors.New(strings.Join(reasons, ", "))
}

// printable shows a name as it was given; only a bad one needs quotes.
func printable(name string) string {
	if len(name) > 300 {
		name = name[:300]
	}
	for i := 0; i < len(name); i++ {
		if name[i] <= ' ' || name[i] > '~' {
			return strconv.QuoteToASCII(name)
		}
	}
	return name
}
