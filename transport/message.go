package transport

import (
	"cmp"
	"crypto/rand"
	"encoding/base32"
	"io"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/transport/message"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/status"
)

// Envelope is what a mail server asks for: a message's sender, recipients and
// the parameters of their delivery. Addresses are as the mail server wrote
// them; Deliver reads and judges them.
type Envelope struct {
	ID      string // our name for this delivery, from NewID
	QueueID string // the mail server's own; may be empty
	Peer    Peer
	// for its turn, before Deliver was called; for metrics
	Waited time.Duration

	Sender     string // "" is the null sender
	Recipients []Recipient
	// deliver there instead of to the recipients' domains; may be empty
	Nexthop string

	EightBit    bool   // BODY=8BITMIME was declared
	SMTPUTF8    bool   // RFC 6531
	RequireTLS  bool   // RFC 8689
	Ret         string // RFC 3461 §4.3: "", "FULL" or "HDRS"
	EnvID       string // RFC 3461 §4.4, plain text
	Quarantined bool   // a content check marked the message: refuse it
}

// Recipient is one envelope recipient.
type Recipient struct {
	Address string
	Notify  string // RFC 3461 §4.1, upper case: "", "NEVER", or a comma list
	ORcpt   string // RFC 3461 §4.2: "TYPE;ADDRESS", plain text; may be empty
}

// Peer is the local process that handed the message over, for the log; the
// zero Peer is unknown.
type Peer struct {
	UID, PID int
}

// Message is the content of a message, in canonical form (package message).
// It is read several times, and by several goroutines at once.
type Message struct {
	Content io.ReaderAt // Facts.Size bytes
	Facts   message.Facts
	Header  message.Header
}

// Result is what became of one recipient.
type Result struct {
	Recipient string      // as in the envelope
	Code      status.Code // its class is what the mail server acts on
	// one printable line for the mail server's log and bounces
	Text string
}

// set fills the result in. The text ends with our delivery's id, by which the
// log of mxpolicyd tells the whole story. In a failure it stands in brackets of
// its own, after those that say who spoke (the remote address, or mxpolicyd):
// reports such as pflogsumm's read a reason up to the first closing bracket, so
// that equal reasons are one there.
func (r *Result) set(s *status.Error, id string) {
	r.Code = s.Code
	text := reply.Line(s.Error())
	switch {
	case s.Code.Class != status.Success:
		address, how, _ := strings.Cut(s.Via, ", ")
		if how != "" {
			how += ", "
		}
		r.Text = text + " (" + cmp.Or(address, "mxpolicyd") + ") (" + how + "id=" + id + ")"
	case s.Via != "":
		r.Text = text + " (" + s.Via + ", id=" + id + ")"
	default:
		r.Text = text + " (id=" + id + ")"
	}
}

// NewID makes a name for a delivery: short, so that it fits a log line, and
// unlikely enough to be unique in any log that is kept.
func NewID() string {
	var b [6]byte
	rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}
