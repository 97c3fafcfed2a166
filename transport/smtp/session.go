// Package smtp is a client for one SMTP connection (RFC 5321), written for a
// mail server's way out: it knows the commands and their order, bounds every
// wait, and judges nothing. What a reply means for a recipient is the matter
// of package outcome, whether the connection is secure enough that of package
// verdict.
//
// In order: [Open] reads the greeting, which [OpenTLS] does under TLS;
// [Session.Hello] says EHLO, or HELO to servers that refuse EHLO;
// [Session.StartTLS] turns the connection into a TLS one and says EHLO again,
// forgetting what the server said in the clear; [Session.Auth] logs in;
// [Session.Send] runs one mail transaction; [Session.Reset] makes ready for
// another; [Session.Quit] or [Session.Close] end it.
//
// Until STARTTLS, and until several commands go out at once, up to ten lines
// that are no replies are skipped ([reply.Junk]), as Postfix does.
//
// The client refuses: bytes that follow the reply to STARTTLS in the clear,
// by which a man in the middle could have its replies taken for the server's
// (RFC 3207 §4.2 has everything forgotten that was said before); replies that
// are malformed or without end (package reply); and commands with control
// characters in them.
//
// Every method takes a context and ends when it ends. A Session is used by
// one goroutine at a time.
package smtp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/status"
)

// ErrInjection says that the server sent bytes in the clear after its reply
// to STARTTLS: someone may be in the middle. The caller closes the connection
// and treats the host as one whose TLS failed, without plaintext.
var ErrInjection = errors.New("plaintext arrived before the TLS handshake: possible injection")

// Error tells where a session failed, and by what: the server's reply, or the
// connection. The caller hands its parts to package outcome.
type Error struct {
	Stage outcome.Stage
	Reply reply.Reply // its Code is 0 when there was no reply
	Err   error       // nil when there was a reply
}

// Error gives the server's words, or the connection's trouble.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%v: %s", e.Stage, Words(e.Err))
	}
	return fmt.Sprintf("%v: %s", e.Stage, e.Reply.Text())
}

// Unwrap returns the connection's trouble.
func (e *Error) Unwrap() error { return e.Err }

// Words says what became of a connection, in words for people that are the same
// each time: without the ports that package net names, one of which is ours.
func Words(err error) string {
	text := status.Words(err)
	var op *net.OpError
	// An alert has no ports, and who has sent it is a part of the reason.
	if errors.As(err, &op) && op.Err != nil && op.Op != "remote error" {
		text = strings.Replace(text, op.Error(), op.Err.Error(), 1)
	}
	for _, end := range []error{io.ErrUnexpectedEOF, io.EOF} {
		if rest, found := strings.CutSuffix(text, end.Error()); found && errors.Is(err, end) {
			return rest + "the server closed the connection"
		}
	}
	return text
}

// Config is what sessions share. Times as in transport.Config.
type Config struct {
	Hostname string
	// OwnNames are names that no other server has: those of this host.
	OwnNames          []string
	CommandTimeout    time.Duration
	SubmissionTimeout time.Duration
	// HandshakeSilence is how long the server may send nothing in the TLS
	// handshake; 0: CommandTimeout, which bounds the whole of it in any case.
	HandshakeSilence time.Duration
	// Trace is called with each line of the dialogue, "C" or "S" first, never
	// with message bodies; nil: not called.
	Trace func(who, line string)
	// Buffers is shared by all sessions; nil: this one has its own.
	Buffers *Buffers
}

// Session is one SMTP connection.
type Session struct {
	cfg     Config
	raw     *deadlineConn
	conn    net.Conn // raw, or the TLS connection over it
	r       lazyReader
	ext     Extensions
	tls     *tls.Conn // conn, or nil when there is no TLS
	noop    bool      // NOOP was said after a message, which is not done twice
	manners manners
	// strict: no line is skipped any more that is no reply. It would hide
	// what a man in the middle put before the handshake, and under PIPELINING
	// it might be the answer to something.
	strict bool
	junk   reply.Junk // what was skipped until then
	own    string     // the one of OwnNames that the server calls itself by
	name   string     // what it calls itself by, if that could be a host's name
	// takes the password out of what the server says; nil: there is none
	hide reply.Hide
}

// Open takes over a connection and reads the greeting. On error the
// connection is closed.
func Open(ctx context.Context, conn net.Conn, cfg Config) (*Session, error) {
	s := newSession(conn, cfg)
	// What comes after a line that is no reply comes soon, or is not SMTP.
	s.junk.Skipped = func() { s.raw.readSooner(time.Now().Add(silence)) }
	s.raw.bind(ctx)
	return s.greeted(ctx, s.junk.Read)
}

// OpenTLS takes over a connection that is TLS from the first byte (RFC 8314
// §3.3), shakes hands as config says, and reads the greeting. On error the
// connection is closed.
func OpenTLS(ctx context.Context, conn net.Conn, cfg Config, config *tls.Config) (*Session, error) {
	s := newSession(conn, cfg)
	s.raw.bind(ctx)
	s.strict = true
	if err := s.handshake(ctx, config); err != nil {
		s.Close()
		return nil, err
	}
	return s.greeted(ctx, reply.Read)
}

func newSession(conn net.Conn, cfg Config) *Session {
	if cfg.Buffers == nil {
		cfg.Buffers = &Buffers{}
	}
	s := &Session{cfg: cfg, raw: &deadlineConn{Conn: conn, stall: cfg.CommandTimeout}}
	s.r.buffers = cfg.Buffers
	s.use(s.raw)
	return s
}

// greeted reads the greeting.
func (s *Session) greeted(ctx context.Context, read readFunc) (*Session, error) {
	r, err := s.readWith(read, s.cfg.CommandTimeout)
	if err == nil && outcome.ForReply(outcome.Greeting, r, 0).Accepted {
		s.introduced(r)
		return s, nil
	}
	s.Close()
	return nil, s.failure(ctx, outcome.Greeting, r, err)
}

func (s *Session) use(conn net.Conn) {
	s.r.giveBack()
	s.conn, s.r.conn = conn, conn
	s.r.borrow()
}

// begin makes ready to talk until ctx ends.
func (s *Session) begin(ctx context.Context) {
	s.raw.bind(ctx)
	s.r.borrow()
}

// idle lets go what an idle session has no use for. Every method that may be
// the last for a while ends with it.
func (s *Session) idle() {
	s.raw.loose()
	s.r.giveBack()
}

// Junk returns what the server said in its greeting and its replies to EHLO
// and HELO that is no reply, and was skipped.
func (s *Session) Junk() *reply.Junk { return &s.junk }

// Extensions returns what the server offered in its last EHLO reply.
func (s *Session) Extensions() Extensions { return s.ext }

// TLS returns the state of the TLS connection, nil when there is none.
func (s *Session) TLS() *tls.ConnectionState {
	if s.tls == nil {
		return nil
	}
	state := s.tls.ConnectionState()
	return &state
}

// Hello greets the server, with HELO if it refuses EHLO (RFC 5321 §3.2).
func (s *Session) Hello(ctx context.Context) error {
	s.begin(ctx)
	return s.hello(ctx, outcome.EHLO)
}

func (s *Session) hello(ctx context.Context, stage outcome.Stage) error {
	read := s.junk.Read
	if s.strict {
		read = reply.Read
	}
	r, err := s.ask("EHLO "+s.cfg.Hostname, read, s.cfg.CommandTimeout)
	if err != nil {
		return s.failure(ctx, stage, r, err)
	}
	switch decision := outcome.ForReply(stage, r, 0); {
	case decision.Accepted:
		s.ext = parseExtensions(r.Lines)
		s.introduced(r)
		if !s.strict {
			if err := s.junk.Skip(s.r.Reader); err != nil {
				return s.failure(ctx, stage, r, err)
			}
		}
		return nil
	case !decision.TryHELO:
		return s.failure(ctx, stage, r, nil)
	}
	s.ext = Extensions{}
	r, err = s.ask("HELO "+s.cfg.Hostname, read, s.cfg.CommandTimeout)
	if err != nil || !outcome.ForReply(outcome.HELO, r, 0).Accepted {
		return s.failure(ctx, outcome.HELO, r, err)
	}
	s.introduced(r)
	return nil
}

// introduced looks at what a server calls itself: the first word of its
// greeting, and of its reply to EHLO and HELO (RFC 5321 §4.2, §4.1.1.1).
func (s *Session) introduced(r reply.Reply) {
	name, _, _ := strings.Cut(r.Lines[0], " ")
	name = strings.TrimSuffix(name, ".")
	if isHostName(name) {
		s.name = strings.Clone(name) // the line may be long
	}
	for _, own := range s.cfg.OwnNames {
		if strings.EqualFold(name, own) {
			s.own = own
		}
	}
}

// isHostName reports whether a word may be a domain or an address literal,
// and so nothing that a log or a report must be wary of.
func isHostName(word string) bool {
	return word != "" && len(word) <= 255 && !strings.ContainsFunc(word, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-._[]:", c)
	})
}

// Name returns the name that the server last introduced itself by, in its
// greeting or its reply to EHLO or HELO; empty: none that could be one.
func (s *Session) Name() string { return s.name }

// OwnName returns the name of this host by which the server has called itself,
// so that it is this host; empty: it has not.
func (s *Session) OwnName() string { return s.own }

// StartTLS asks for TLS, shakes hands as config says, and greets the server
// again (RFC 3207 §4). An error whose stage is outcome.STARTTLS and that
// carries a reply leaves the connection usable in the clear; after any other
// the caller closes it.
func (s *Session) StartTLS(ctx context.Context, config *tls.Config) error {
	s.begin(ctx)
	if err := s.unasked(); err != nil {
		return s.failure(ctx, outcome.STARTTLS, reply.Reply{}, err)
	}
	s.strict = true
	r, err := s.command("STARTTLS")
	if err != nil || r.Code != 220 {
		return s.failure(ctx, outcome.STARTTLS, r, err)
	}
	if s.unasked() == errUnasked {
		return &Error{Stage: outcome.Handshake, Err: ErrInjection}
	}
	if err := s.handshake(ctx, config); err != nil {
		return err
	}
	s.ext = Extensions{}
	return s.hello(ctx, outcome.EHLOAfterTLS)
}

// handshake makes the connection a TLS one.
func (s *Session) handshake(ctx context.Context, config *tls.Config) error {
	conn := tls.Client(s.raw, config)
	s.raw.readUntil(time.Now().Add(s.cfg.CommandTimeout))
	s.raw.silence = s.cfg.HandshakeSilence
	err := conn.HandshakeContext(ctx)
	s.raw.silence = 0
	if err != nil {
		return s.failure(ctx, outcome.Handshake, reply.Reply{}, err)
	}
	s.tls = conn
	s.use(conn)
	return nil
}

// Trace has trace called with each line from now on, as Config.Trace is; nil
// ends it. A session that serves one message after the other tells each one's
// dialogue to whom it concerns.
func (s *Session) Trace(trace func(who, line string)) { s.cfg.Trace = trace }

// Stale reports whether an idle session is of no use any more: the server has
// closed it, or said something unasked. It opens what has arrived, and asks
// the server nothing.
func (s *Session) Stale() bool {
	s.r.borrow()
	defer s.r.giveBack()
	return s.unasked() != nil
}

// OutOfStep reports whether an idle session is stale because the server has
// said something that is no 4yz, its goodbye, and goes on: most likely the late
// reply to a command that it had answered before, so that it counts otherwise
// than we do.
func (s *Session) OutOfStep() bool {
	s.r.borrow()
	defer s.r.giveBack()
	if s.unasked() != errUnasked {
		return false
	}
	s.raw.polling = true
	defer func() { s.raw.polling = false }()
	for {
		ahead, err := s.r.Peek(s.r.Buffered() + 1)
		if err != nil {
			return errors.Is(err, errWouldBlock) && ahead[0] != '4'
		}
	}
}

// Reset ends a failed transaction (RFC 5321 §4.1.1.5).
func (s *Session) Reset(ctx context.Context) error {
	s.begin(ctx)
	defer s.idle()
	r, err := s.command("RSET")
	if err != nil || !outcome.ForReply(outcome.RSET, r, 0).Accepted {
		return s.failure(ctx, outcome.RSET, r, err)
	}
	return nil
}

// Quit says goodbye, waits for the reply until ctx ends, and closes the
// connection. The reply changes nothing, so there is no error.
func (s *Session) Quit(ctx context.Context) {
	s.begin(ctx)
	_, _ = s.command("QUIT")
	// with TLS's close_notify, so that the server need not wonder
	s.conn.Close()
	s.Close()
}

// Close closes the connection without a word.
func (s *Session) Close() { s.raw.Close() }

// errUnasked says that a reply is there that nothing was asked for, be it late
// or made up: from now on each would be taken for the answer to the command
// before, at worst the one to RCPT for the one to the message.
var errUnasked = errOutOfStep("one reply more than commands")

// unasked fails when the server has said something that was not asked for, or
// has ended the connection. It opens all that has arrived, be it in our
// buffer, in crypto/tls or in the kernel, and waits for nothing.
func (s *Session) unasked() error {
	for {
		if s.r.Buffered() == 0 {
			s.raw.polling = true
			_, err := s.r.Peek(1)
			s.raw.polling = false
			if errors.Is(err, errWouldBlock) {
				return nil
			}
			if err != nil {
				return err
			}
		}
		if s.strict {
			return errUnasked
		}
		if err := s.junk.Skip(s.r.Reader); err != nil {
			return err
		}
		if s.r.Buffered() > 0 {
			return errUnasked
		}
	}
}

// command sends one line and waits for its reply.
func (s *Session) command(line string) (reply.Reply, error) {
	return s.ask(line, s.readBrief, s.cfg.CommandTimeout)
}

// ask sends one line and reads its reply.
func (s *Session) ask(line string, read readFunc, timeout time.Duration) (reply.Reply, error) {
	if err := s.unasked(); err != nil {
		return reply.Reply{}, err
	}
	if err := s.writeLine(s.conn, line); err != nil {
		return reply.Reply{}, err
	}
	return s.readWith(read, timeout)
}

// readFunc is reply.Read or one of its like.
type readFunc = func(*bufio.Reader) (reply.Reply, error)

// errControl is a defect of the caller: addresses are checked long before.
var errControl = errors.New("a command may not contain control characters")

func (s *Session) writeLine(w io.Writer, line string) error {
	if strings.ContainsFunc(line, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return errControl
	}
	s.trace("C", line)
	return writeRaw(w, line)
}

func writeRaw(w io.Writer, line string) error {
	_, err := io.WriteString(w, line+"\r\n")
	return err
}

// readBrief reads a reply, without what nobody may read.
func (s *Session) readBrief(br *bufio.Reader) (reply.Reply, error) {
	if s.hide != nil {
		return reply.ReadHiding(br, s.hide)
	}
	return reply.ReadBrief(br)
}

// readReply reads one reply that has to be there whole within the timeout.
func (s *Session) readReply(timeout time.Duration) (reply.Reply, error) {
	return s.readWith(s.readBrief, timeout)
}

func (s *Session) readWith(read readFunc, timeout time.Duration) (reply.Reply, error) {
	s.raw.readUntil(time.Now().Add(timeout))
	r, err := read(s.r.Reader)
	if err == nil {
		s.trace("S", r.Text())
	}
	return r, err
}

func (s *Session) trace(who, line string) {
	if s.cfg.Trace != nil {
		s.cfg.Trace(who, line)
	}
}

// failure wraps what went wrong. When the context ended, its cause is the
// reason, not the deadline that it set off.
func (s *Session) failure(ctx context.Context, stage outcome.Stage, r reply.Reply, err error) error {
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		r = reply.Reply{}
	}
	return &Error{Stage: stage, Reply: r, Err: err}
}
