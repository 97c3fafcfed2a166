package transport

import (
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

// moreInLog stands before the id in a refusal. It is longer than pflogsumm's
// line (66 characters) with what stands before it, and has no colon.
const moreInLog = "what else mxpolicyd knows of this delivery is in its log, under "

// set fills the result in. The text ends with our delivery's id, by which the
// log of mxpolicyd tells the whole story.
//
// Reports such as pflogsumm's group by the reason, so whatever differs from one
// message to the next stands where they cut. Of a deferral that is after the
// first closing bracket, which says who spoke. Of a bounce they take all, then
// leave out what is before a colon until little is left, and cut that in the
// end: there a sentence keeps the id out.
func (r *Result) set(s *status.Error, id string) {
	r.Code = s.Code
	text, id := reply.Line(s.Error()), "id="+id+")"
	who := " (mxpolicyd) ("
	if s.Via != "" {
		who = " (remote) ("
	}
	switch s.Code.Class {
	case status.Success:
		who = " ("
	case status.Permanent:
		r.Text = text + who + moreInLog + id
		return
	}
	for _, more := range []string{s.Moment, s.Via} {
		if more != "" {
			who += reply.Clean(more) + ", "
		}
	}
	r.Text = text + who + id
}

// NewID makes a name for a delivery: short, so that it fits a log line, and
// unlikely enough to be unique in any log that is kept.
func NewID() string {
	var b [6]byte
	rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}
