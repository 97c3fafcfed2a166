package mx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ErrStopped reports that the server was stopped while something was waited
// for.
var ErrStopped = errors.New("lab MX server stopped")

// Breach is a way in which a client broke the rules.
type Breach string

// The breaches.
const (
	// on the wire, in a command or a body (RFC 5321 §2.3.8)
	BareLF Breach = "bare LF"
	BareCR Breach = "bare CR" // likewise
	// over 998 bytes in a body, or over 8,000 in a command (RFC 5321 §4.5.3.1)
	LongLine Breach = "long line"
	// NUL in a body, or a control character in a command
	Control Breach = "control"
	// bytes over 127 that were not announced by BODY=8BITMIME or SMTPUTF8
	EightBit Breach = "eight bit"
	// a BDAT message that does not end in CRLF
	NoLastCRLF Breach = "no last CRLF"
	// sent ahead without PIPELINING, or past EHLO, DATA or another that must
	// come last (RFC 2920 §3.1)
	Pipelined Breach = "pipelined"
	// bytes after STARTTLS before its reply was sent
	EarlyTLS Breach = "early TLS"
	// a command or parameter of an extension that EHLO did not offer
	Unoffered   Breach = "unoffered"
	BadSyntax   Breach = "bad syntax"   // a command that cannot be read
	BadSequence Breach = "bad sequence" // a command at the wrong time
)

// Violation is one breach of the rules.
type Violation struct {
	Conn   int // number of the connection
	Breach Breach
	Detail string
}

// String returns the violation in one line.
func (v Violation) String() string {
	return fmt.Sprintf("connection %d: %s: %s", v.Conn, v.Breach, v.Detail)
}

// Recipient is one RCPT command that was accepted.
type Recipient struct {
	Address string
	Params  []string // as given, such as NOTIFY=NEVER
}

// Message is a message that the server took responsibility for. Its slices must
// not be changed.
type Message struct {
	ID         string // as in the final reply, "queued as LAB1"
	Conn       int    // number of the connection, from 1
	OnConn     int    // which message of its connection this is, from 1
	Hello      string // the client's EHLO or HELO name
	Sender     string // "" for the null sender
	Params     []string
	Recipients []Recipient
	// with the transparency dots taken out; nil when Options.Discard is set
	Body   []byte
	Length int // of the body
	Chunks int // BDAT commands; 0: sent by DATA
	// from the one with MAIL to the one with the end of the body: 1 is the best
	// there is
	Flights    int
	TLS        *tls.ConnectionState
	User       string      // who was logged in; empty: nobody
	Violations []Violation // of this transaction
}

// Param returns the value of a MAIL parameter in any letter case, and whether
// it was given.
func (m *Message) Param(name string) (value string, ok bool) {
	for _, p := range m.Params {
		if key, value, _ := strings.Cut(p, "="); strings.EqualFold(key, name) {
			return value, true
		}
	}
	return "", false
}

// Counters are numbers since the start.
type Counters struct {
	Connections      int
	Open             int // now
	Peak             int // most open at once
	Handshakes       int // TLS handshakes that went well, resumed ones included
	Resumed          int
	FailedHandshakes int
	Commands         int
	// commands by upper-case verb; unknown ones under ""
	Verbs  map[string]int
	Stages map[Stage]int // how often each was reached, held or not
	Logins int           // accepted
	// not accepted, broken off ones included
	BadLogins int
	Messages  int // accepted
	// whole bodies that arrived and were not accepted
	Refused int
	// connections turned away by MaxConns, and transactions by Rate
	TooMany    int
	Flights    int // of connections that have ended
	Violations int
}

// store is what the server remembers, all of it under the server's lock.
type store struct {
	messages   []Message // the latest
	bytes      int
	violations []Violation // the first
	counters   Counters
}

// Messages returns the messages that are kept, oldest first.
func (s *Server) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.store.messages)
}

// Violations returns the first breaches of the rules, at most a thousand;
// Counters knows how many there were.
func (s *Server) Violations() []Violation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.store.violations)
}

// Counters returns the numbers as they are now.
func (s *Server) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.countersLocked()
}

func (s *Server) countersLocked() Counters {
	c := s.store.counters
	c.Verbs = maps.Clone(c.Verbs)
	c.Stages = maps.Clone(c.Stages)
	return c
}

// Forget drops the messages and violations that are kept. The counters stay.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.messages, s.store.bytes, s.store.violations = nil, 0, nil
}

// Wait waits until n messages were accepted since the start and returns those
// that are kept. The error is that of ctx, or ErrStopped; the messages are
// returned in any case.
func (s *Server) Wait(ctx context.Context, n int) ([]Message, error) {
	err := s.WaitUntil(ctx, func(c Counters) bool { return c.Messages >= n })
	return s.Messages(), err
}

// WaitUntil waits until the counters are as cond wants them. Cond is called
// often and must not call the server.
func (s *Server) WaitUntil(ctx context.Context, cond func(Counters) bool) error {
	for {
		s.mu.Lock()
		ok, changed := cond(s.countersLocked()), s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return ErrStopped
		}
	}
}

// update changes what is remembered and wakes what waits.
func (s *Server) update(change func(*store)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.store)
	close(s.changed)
	s.changed = make(chan struct{})
}

// keep stores an accepted message within the bounds and gives it its name.
func (s *Server) keep(m Message) {
	if s.opts.Discard {
		m.Body = nil
	}
	s.update(func(st *store) {
		st.counters.Messages++
		st.messages = append(st.messages, m)
		st.bytes += len(m.Body)
		for len(st.messages) > s.opts.MaxMessages || st.bytes > s.opts.MaxBytes && len(st.messages) > 1 {
			st.bytes -= len(st.messages[0].Body)
			st.messages[0] = Message{}
			st.messages = st.messages[1:]
		}
	})
}
