package smtp

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/reply"
)

// Transaction is one message for some recipients.
type Transaction struct {
	From       address.Address
	Recipients []Recipient
	Content    io.Reader // canonical form (package message), Size bytes
	Size       int64
	EightBit   bool // the content is not ASCII, or was declared so
	// the transaction needs SMTPUTF8; the caller checked that it is offered
	UTF8       bool
	RequireTLS bool // ask for REQUIRETLS where it is offered (RFC 8689 §2)
	Chunking   Chunking
	Ret        string // RFC 3461 §4.3: "", "FULL" or "HDRS"
	EnvID      string // RFC 3461 §4.4, plain text
	// Confirm has a message that goes by BDAT followed by NOOP, so that a reply
	// too many shows even when the true one comes late (see Confirmation). It
	// is for the first message by BDAT to a host, and has no effect on a
	// connection where it was done before.
	Confirm bool
	// BeforeFinal is called when the message was written whole and only the
	// reply to it is waited for. From then on the server may have accepted it,
	// and the context of Send does not end the wait before SubmissionTimeout
	// is over; the context that BeforeFinal returns always does. Until then
	// the context of Send ends everything, and nothing was accepted.
	BeforeFinal func() context.Context
}

// Recipient is one RCPT command.
type Recipient struct {
	Address address.Address
	Notify  string // RFC 3461 §4.1: "", "NEVER", or a list
	ORcpt   string // RFC 3461 §4.2: "TYPE;ADDRESS", plain text
}

// Chunking says how a message is sent to a server that offers CHUNKING.
type Chunking uint8

// The ways of chunking.
const (
	ChunkingOff Chunking = iota // DATA
	// BDAT after the recipients' replies (RFC 3030 §2)
	ChunkingWaiting
	ChunkingPipelined // BDAT in one flight with MAIL and RCPT
)

// commandRoom is more than a command takes with all of its parameters, but for
// addresses of a length that none has.
const commandRoom = 600

// Send runs one transaction (RFC 5321 §3.3), in as few flights as the server
// allows:
//
//	CHUNKING and PIPELINING   MAIL RCPT.. BDAT            one flight
//	PIPELINING                MAIL RCPT.. DATA | message  two flights
//	CHUNKING                  MAIL | RCPT | .. | BDAT
//	neither                   MAIL | RCPT | .. | DATA | message
//
// Replies are matched to commands strictly in their order, and are read while
// commands and message are still being written, so that neither side can
// block the other with full buffers.
//
// It ends when ctx does, at the latest SubmissionTimeout after the last byte of
// the message was written, whatever the server drips.
func (s *Session) Send(ctx context.Context, tx *Transaction) *Report {
	t, err := s.transfer(ctx, tx)
	defer t.release()
	if err != nil {
		return t.report
	}
	t.brief = tx.Size+int64(len(tx.Recipients)+1)*commandRoom <= writeSize
	t.chunked = s.ext.Chunking && tx.Chunking != ChunkingOff
	t.confirm = t.chunked && tx.Confirm && !s.noop
	switch {
	case t.chunked && s.ext.Pipelining && tx.Chunking == ChunkingPipelined:
		t.oneFlight()
	case s.ext.Pipelining:
		t.pipelined()
	default:
		t.inSequence()
	}
	t.addUp()
	return t.report
}

// Ask asks a server what it makes of an envelope: MAIL and RCPT, one after the
// other, and RSET. No message is sent. The report's replies to MAIL and RCPT
// count, and what failed; its Ending says nothing about a message.
func (s *Session) Ask(ctx context.Context, tx *Transaction) *Report {
	t, err := s.transfer(ctx, tx)
	defer t.release()
	if err == nil {
		t.envelopeInSequence()
	}
	if t.report.Err == nil && !t.leaving {
		// What it answers changes nothing: the connection is not used again.
		_, _ = s.command("RSET")
	}
	return t.report
}

// transfer begins a transaction, and fails on a connection that is dead or out
// of step.
func (s *Session) transfer(ctx context.Context, tx *Transaction) (*transfer, error) {
	s.begin(ctx)
	t := &transfer{
		Session: s, tx: tx,
		report: &Report{Ending: Answered, Rcpts: make([]reply.Reply, len(tx.Recipients))},
		sent:   meter{Writer: s.conn},
	}
	t.w = s.cfg.Buffers.writer(&t.sent)
	if err := s.unasked(); err != nil {
		t.fail(CutOff, outcome.MAIL, err)
		return t, err
	}
	s.strict = true
	return t, nil
}

// mailCommand builds MAIL with the parameters that the server offers.
func (s *Session) mailCommand(tx *Transaction) string {
	var b strings.Builder
	b.WriteString("MAIL FROM:<" + wire(tx.From, tx.UTF8) + ">")
	if s.ext.Size {
		b.WriteString(" SIZE=" + strconv.FormatInt(tx.Size, 10))
	}
	if s.ext.EightBitMIME && (tx.EightBit || tx.UTF8) {
		b.WriteString(" BODY=8BITMIME")
	}
	if tx.UTF8 {
		b.WriteString(" SMTPUTF8")
	}
	if tx.RequireTLS && s.ext.RequireTLS && s.tls != nil {
		b.WriteString(" REQUIRETLS")
	}
	if s.ext.DSN {
		if tx.Ret != "" {
			b.WriteString(" RET=" + tx.Ret)
		}
		// RFC 3461 §4.4 allows 100 characters; a longer one is no use to
		// anyone.
		if id := xtext(tx.EnvID); id != "" && len(id) <= 100 {
			b.WriteString(" ENVID=" + id)
		}
	}
	return b.String()
}

// rcptCommand builds RCPT with the parameters that the server offers.
func (s *Session) rcptCommand(tx *Transaction, i int) string {
	rcpt := &tx.Recipients[i]
	var b strings.Builder
	b.WriteString("RCPT TO:<" + wire(rcpt.Address, tx.UTF8) + ">")
	if s.ext.DSN {
		if rcpt.Notify != "" {
			b.WriteString(" NOTIFY=" + rcpt.Notify)
		}
		if o := originalRecipient(rcpt.ORcpt); o != "" && len(o) <= 500 {
			b.WriteString(" ORCPT=" + o)
		}
	}
	return b.String()
}

func wire(a address.Address, utf8 bool) string {
	if utf8 {
		return a.UTF8()
	}
	return a.Wire()
}

// originalRecipient encodes "TYPE;ADDRESS" for ORCPT. An address that is not
// ASCII becomes one of type utf-8 in the form that needs no SMTPUTF8
// (RFC 6533 §3, utf-8-addr-xtext).
func originalRecipient(s string) string {
	kind, addr, ok := strings.Cut(s, ";")
	if !ok || addr == "" || !isAddrType(kind) {
		return ""
	}
	for i := range len(addr) {
		if addr[i] >= 0x80 {
			return "utf-8;" + utf8xtext(addr)
		}
	}
	return kind + ";" + xtext(addr)
}

// isAddrType reports whether a word is an address type: an atom (RFC 3461
// §4.2). Anything else would be a parameter of its own.
func isAddrType(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return s != ""
}

// xtext encodes as RFC 3461 §4 wants: printable ASCII but "+" and "=".
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > 0x20 && c < 0x7f && c != '+' && c != '=' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "+%02X", c)
		}
	}
	return b.String()
}

// utf8xtext encodes as RFC 6533 §3 wants: what is not QCHAR as \x{HEX}.
func utf8xtext(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r > 0x20 && r < 0x7f && r != '+' && r != '=' && r != '\\' {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\x{%X}`, r)
		}
	}
	return b.String()
}
