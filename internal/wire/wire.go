// Package wire is the conversation between mxpipe, the tiny program that a mail
// server starts for each message, and mxpolicyd, the daemon that delivers it.
// It runs over a unix stream socket, and one connection carries one request.
//
// # The request
//
// The client sends four bytes first, the letters "mxp" and the version, which
// is 1. Then come frames. A frame is one byte that says what it is, four bytes
// of length (most significant first), and that many bytes of content:
//
//	'E'  envelope  once, first, at most 1 MiB
//	'D'  data      any number, 1 to 65,536 bytes of the message each
//	'C'  commit    once, last, length 0
//
// The content of an envelope is a list of fields. A field is one byte, its tag,
// two bytes of length (most significant first), and a value of at most 1,024
// bytes of text without control characters (below 0x20, and 0x7f). Numbers are
// decimal digits; a yes is a field with an empty value, a no is its absence.
// Apart from these and the sender, no value is empty, and apart from 'r', 'n'
// and 'o' no tag comes twice:
//
//	's'  sender         always there; empty is the null sender
//	'r'  recipient      1 to 1,000 of them
//	'n'  notify         of the recipient before it: NEVER, or SUCCESS, FAILURE,
//	                    DELAY with commas
//	'o'  orcpt          of the recipient before it: TYPE;ADDR, plain, not xtext
//	't'  transport      absent: "default"
//	'q'  queue id       the mail server's, for the logs
//	'h'  next hop       in place of the recipients' domains
//	'z'  size           a hint, in bytes
//	'b'  body           7bit or 8bitmime
//	'u'  smtputf8       yes or no
//	'l'  requiretls     yes or no
//	'x'  quarantined    yes or no
//	'e'  ret            full or hdrs
//	'i'  envid          plain, not xtext
//	'w'  timeout        milliseconds that the client will go on waiting
//
// Long addresses that fit are the daemon's to refuse, with a status code that
// says so; here is only what memory and time can stand.
//
// # The commit
//
// The end of the stream proves nothing: a mail server that is killed while it
// writes ends its stream too. Only after the commit frame may a message be
// delivered, and [Reader.Read] gives io.EOF then and at no other time; a stream
// that ends sooner gives [ErrUncommitted]. After the commit the client
// sends nothing more. If it closes the connection before it was answered, it no
// longer wants the message delivered, as far as that can still be prevented.
//
// # The answer
//
// The daemon answers once and closes. It may do so before the commit, to refuse
// early; such an answer is never a success. An answer is one frame, 'A', at
// most 900 bytes of text: a status code such as 4.7.5 (RFC 3463), a blank, and
// a line for people. [AppendAnswer] makes it printable.
//
// # Versions
//
// A side that meets something unknown refuses the request, temporarily, so that
// the mail server keeps the message. Nothing is skipped, since what is skipped
// might be "require TLS".
//
// A flag that a message can do without becomes a new tag of the same version,
// and the client sends it only when it was asked for: an older daemon then
// serves all messages but those, and refuses those with [ErrField]. Any
// other change raises the version. A daemon reads its own version and may read
// older ones; a client speaks one. An older daemon that meets a newer client
// sends an answer with 4.3.5 for [ErrVersion] without reading on. For that,
// the four bytes at the start and the frame of the answer are the same in every
// version. An upgrade therefore restarts the daemon soon after the client is
// replaced; what comes between is delayed, never lost.
//
// # This package
//
// Everything here is pure: it neither dials nor waits, and deadlines are those
// of the connection it is handed. It imports little, since what it imports is
// paid for in every start of mxpipe, used or not: package time alone is
// eighteen page faults, strings five, encoding/binary six, of some 170.
// Functions may be used from several goroutines, a [Reader] from one at a time.
package wire

import "errors"

// Version is the version of the protocol that this package speaks.
const Version = 1

// The bounds of the protocol, in bytes where they do not count things.
const (
	// of one value of the envelope, addresses among them
	MaxValue      = 1024
	MaxRecipients = 1000     // recipients of one request
	MaxEnvelope   = 1 << 20  // the envelope's content
	MaxData       = 64 << 10 // the content of one data frame
	MaxAnswer     = 900      // "D.S.N text"
)

const magic = "mxp"

// The kinds of frames.
const (
	kindEnvelope = 'E'
	kindData     = 'D'
	kindCommit   = 'C'
	kindAnswer   = 'A'
)

const headerSize = 5

// Envelope is what the mail server says about a message, as mxpipe's flags
// carry it.
type Envelope struct {
	Sender     string      // "" is the null sender
	Recipients []Recipient // 1 to MaxRecipients
	// [Reader.Envelope] gives "default" when none was sent
	Transport string
	QueueID   string // the mail server's id for the message
	// "domain", "[host]", either with ":port"; "": by recipient
	Nexthop     string
	Size        int64  // a hint; 0: not given
	Body        string // "", "7bit" or "8bitmime" (RFC 6152)
	SMTPUTF8    bool   // RFC 6531
	RequireTLS  bool   // RFC 8689
	Quarantined bool   // a content check marked the message: refuse it
	Ret         string // "", "full" or "hdrs" (RFC 3461 §4.3)
	EnvID       string // plain text, not xtext (RFC 3461 §4.4)

	// Timeout is what was left of the client's own time when it sent the
	// envelope, less a little that lets the daemon's answer arrive; 0 when
	// not given. The daemon gives up with it.
	Timeout Milliseconds
}

// Milliseconds is a time span. It is no time.Duration, because package time
// costs a program that starts for each message a tenth of its page faults.
type Milliseconds int64

// maxTimeout is the longest one that a time.Duration can hold.
const maxTimeout Milliseconds = (1<<63 - 1) / 1_000_000

// Recipient is one recipient of the envelope with its own DSN parameters.
type Recipient struct {
	Address string
	Notify  string // "", "NEVER" or a comma list, upper case (RFC 3461 §4.1)
	ORcpt   string // "" or "TYPE;ADDR", plain, not xtext (RFC 3461 §4.2)
}

// Answer is the daemon's answer to a request.
type Answer struct {
	Code string // "D.S.N", of class 2, 4 or 5
	Text string // one line for people
}

// ErrProtocol is what every violation of the protocol is, for errors.Is. A
// daemon answers it with 4.3.5 and closes the connection; a client ends with a
// temporary failure. The more precise errors below all wrap it.
var ErrProtocol = errors.New("protocol error")

// The violations. None of their texts holds a byte of what was received.
var (
	// ErrVersion: the stream does not start as a request of a known version.
	ErrVersion error = &violation{"not a request of a known version"}
	// ErrFrame: a frame of an unknown kind, or not an answer at all.
	ErrFrame error = &violation{"unknown frame"}
	// ErrField: a field with an unknown tag, from a newer client perhaps.
	ErrField error = &violation{"unknown field"}
	// ErrSequence: a known frame or field where it must not be, or not there.
	ErrSequence error = &violation{"missing or out of place"}
	// ErrTooLong: something exceeds its bound.
	ErrTooLong error = &violation{"too long"}
	// ErrTooMany: there are more than MaxRecipients.
	ErrTooMany error = &violation{"more than 1000 of them"}
	// ErrControl: a value holds a control character.
	ErrControl error = &violation{"holds a control character"}
	// ErrValue: a value is not one of those that its field can have.
	ErrValue error = &violation{"impossible value"}
)

// ErrUncommitted says that the stream ended before the commit. The daemon drops
// the message; there is usually no one left to answer.
var ErrUncommitted = errors.New("the stream ended before the message was committed")

// ErrNoAnswer says that the stream ended before a whole answer. A client ends
// with a temporary failure, since it cannot know what became of the message.
var ErrNoAnswer = errors.New("the stream ended before an answer")

type violation struct{ text string }

func (v *violation) Error() string { return v.text }
func (v *violation) Unwrap() error { return ErrProtocol }

// FieldError names the field of the envelope that is wrong. Its Err is one of
// the violations above.
type FieldError struct {
	Field string // named like mxpipe's flag, or "recipient"
	Err   error
}

// Error gives "field: what is wrong".
func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }

// Unwrap returns the violation.
func (e *FieldError) Unwrap() error { return e.Err }
