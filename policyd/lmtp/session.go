package lmtp

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/emersion/go-smtp"

	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/status"
)

// session is what the library calls for one connection.
type session struct {
	*Server
	conn *conn
	env  transport.Envelope
	open bool // MAIL was accepted, and what it began has not ended
	// names are the recipients as the library spells them.
	names []string
	// transfer is the one that goes on. The library itself does not wait for
	// that of a BDAT when it resets the session or ends it.
	transfer sync.WaitGroup
	broken   bool // off, by the client's own word
	held     *intake.Envelope
}

func (s *Server) session(c *smtp.Conn) (smtp.Session, error) {
	return &session{Server: s, conn: c.Conn().(*conn), held: s.Envelope()}, nil
}

// Mail begins a message. In the middle of another one it ends the connection:
// the library would keep the recipients of the one before, answer for them as
// if they had got the message, and put those that follow among them.
func (s *session) Mail(from string, o *smtp.MailOptions) error {
	if s.open {
		s.conn.err = errNested
		return errNested
	}
	if limit := s.Spool.Max(); s.conn.size > limit {
		return &smtp.SMTPError{Code: 552, EnhancedCode: smtp.EnhancedCode{5, 3, 4},
			Message: fmt.Sprintf("the message is larger than max_message_size (%d bytes)", limit)}
	}
	s.held.End() // of one that was given up
	if err := s.hold(from, status.New(status.Permanent, 1, 7)); err != nil {
		return err
	}
	s.env = transport.Envelope{
		Peer:       s.conn.peer,
		Sender:     spell(from),
		EightBit:   o.Body == smtp.Body8BitMIME,
		SMTPUTF8:   o.UTF8,
		RequireTLS: o.RequireTLS,
		Ret:        string(o.Return),
		EnvID:      short(xtext(s.conn.param)),
	}
	s.names, s.open = nil, true
	return nil
}

// errNested is the reply to MAIL in the middle of a message (RFC 5321
// §4.1.4).
var errNested = &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 5, 1}, Message: "MAIL in the middle of a message: reconnect"}

// short gives a parameter's value, unless it is too long to be one.
func short(value string) string {
	if len(value) > intake.MaxAddress {
		return ""
	}
	return value
}

// Rcpt adds a recipient. Whether its address is one is for the transport to
// say.
func (s *session) Rcpt(to string, o *smtp.RcptOptions) error {
	rcpt := transport.Recipient{Address: spell(to), ORcpt: originalRecipient(s.conn.param)}
	if err := s.hold(to, status.New(status.Permanent, 1, 3), rcpt.ORcpt); err != nil {
		return err
	}
	for i, n := range o.Notify {
		if i > 0 {
			rcpt.Notify += ","
		}
		rcpt.Notify += string(n)
	}
	s.env.Recipients = append(s.env.Recipients, rcpt)
	s.names = append(s.names, to)
	return nil
}

// hold counts an address, with what belongs to it, before it is kept. The error
// is the reply; tooLong that for what is longer than any address.
func (s *session) hold(mailbox string, tooLong status.Code, with ...string) error {
	if len(mailbox) > intake.MaxAddress {
		return replyTo(tooLong, fmt.Sprintf("the address has more than %d bytes", intake.MaxAddress))
	}
	size := len(mailbox)
	for _, one := range with {
		size += len(one)
	}
	var refused *status.Error
	if err := s.held.Add(size); errors.As(err, &refused) {
		return replyTo(refused.Code, refused.Text)
	}
	return nil
}

// spell gives an address the quotes that the library took off.
func spell(mailbox string) string {
	i := strings.LastIndexByte(mailbox, '@')
	if i < 0 {
		return mailbox
	}
	return address.Quote(mailbox[:i]) + mailbox[i:]
}

// Data is not called for LMTP.
func (s *session) Data(io.Reader) error { return errNoLMTP }

var errNoLMTP = &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 5}, Message: "this is an LMTP server"}

// Reset forgets the message. After a transfer that it broke off there is no
// other on this connection: the library would take the result of this one,
// which it has not waited for, for that of the next.
func (s *session) Reset() {
	s.transfer.Wait()
	if s.broken {
		s.conn.err = errBroken
	}
	s.forget()
}

// forget lets the envelope go.
func (s *session) forget() {
	s.env, s.names, s.open = transport.Envelope{}, nil, false
	s.held.End()
}

// Logout ends the session.
func (s *session) Logout() error {
	s.transfer.Wait()
	s.forget()
	return nil
}
