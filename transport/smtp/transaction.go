package smtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/message"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/reply"
)

// Transaction is one message for some recipients.
type Transaction struct {
	From       address.Address
	Recipients []Recipient
	Content    io.Reader // canonical form (package message), Size octets
	Size       int64
	EightBit   bool   // the content is not ASCII, or was declared so
	UTF8       bool   // the transaction needs SMTPUTF8; the caller checked that it is offered
	RequireTLS bool   // ask for REQUIRETLS where it is offered (RFC 8689 §2)
	Ret        string // RFC 3461 §4.3: "", "FULL" or "HDRS"
	EnvID      string // RFC 3461 §4.4, plain text
	// Point is called right before the end of the data is written: from then
	// on the server may have accepted the message, whatever happens, and only
	// the context that Point returns ends the wait for its reply.
	Point func() context.Context
}

// Recipient is one RCPT command.
type Recipient struct {
	Address address.Address
	Notify  string // RFC 3461 §4.1: "", "NEVER", or a list
	ORcpt   string // RFC 3461 §4.2: "TYPE;ADDRESS", plain text
}

// Report is all that a server said in one transaction. A reply with code 0
// was never received: its command was not sent, or the connection failed.
type Report struct {
	Mail  reply.Reply
	Rcpts []reply.Reply // as many as there were recipients
	Data  reply.Reply
	Final reply.Reply // to the whole message, for all accepted recipients
	// Err is the connection's failure, at Stage; nil when each command sent
	// was answered. The connection can not be used any more.
	Err   error
	Stage outcome.Stage
}

// Accepted counts the recipients that the server took.
func (r *Report) Accepted() int {
	n := 0
	for _, rcpt := range r.Rcpts {
		if outcome.ForReply(outcome.RCPT, rcpt, 0).Accepted {
			n++
		}
	}
	return n
}

// Send runs one transaction, each command after the reply to the one before
// (RFC 5321 §3.3). It goes on only while the server agrees: a refused MAIL
// leaves RCPT unsaid, and without an accepted recipient there is no DATA.
func (s *Session) Send(ctx context.Context, tx *Transaction) *Report {
	s.raw.bind(ctx)
	report := &Report{Rcpts: make([]reply.Reply, len(tx.Recipients))}
	fail := func(stage outcome.Stage, err error) *Report {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		report.Stage, report.Err = stage, err
		return report
	}

	var err error
	if report.Mail, err = s.command(s.mailCommand(tx)); err != nil {
		return fail(outcome.MAIL, err)
	}
	if !outcome.ForReply(outcome.MAIL, report.Mail, 0).Accepted {
		return report
	}
	for i := range tx.Recipients {
		if report.Rcpts[i], err = s.command(s.rcptCommand(tx, i)); err != nil {
			return fail(outcome.RCPT, err)
		}
		// The server is closing: it would answer nothing more (RFC 5321 §3.8).
		if report.Rcpts[i].Code == 421 {
			return report
		}
	}
	if report.Accepted() == 0 {
		return report
	}
	if report.Data, err = s.command("DATA"); err != nil {
		return fail(outcome.DATA, err)
	}
	if report.Data.Code != 354 {
		return report
	}
	dots := message.NewDotWriter(s.w)
	if err := s.writeBody(dots, tx); err != nil {
		return fail(outcome.Body, err)
	}
	if tx.Point != nil {
		ctx = tx.Point()
		s.raw.bind(ctx)
	}
	if err = dots.Close(); err == nil {
		err = s.w.Flush()
	}
	if err != nil {
		return fail(outcome.Final, err)
	}
	if report.Final, err = s.readReply(s.cfg.SubmissionTimeout); err != nil {
		return fail(outcome.Final, err)
	}
	return report
}

// errSize is a defect on our side: a body that is not what was announced must
// not be ended as if it were whole.
var errSize = errors.New("the message changed its size while it was sent")

// writeBody writes the content with its dots stuffed, all but the end, and
// has it on its way before it returns.
func (s *Session) writeBody(dots *message.DotWriter, tx *Transaction) error {
	n, err := io.Copy(dots, tx.Content)
	if err != nil {
		return err
	}
	if n != tx.Size {
		return errSize
	}
	return s.w.Flush()
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
		// RFC 3461 §4.4 allows 100 characters; a longer one is no use to anyone.
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
	if !ok || kind == "" || addr == "" {
		return ""
	}
	for i := range len(addr) {
		if addr[i] >= 0x80 {
			return "utf-8;" + utf8xtext(addr)
		}
	}
	return kind + ";" + xtext(addr)
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
