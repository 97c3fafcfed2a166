// Package lmtp is the front end for mail servers that speak LMTP (RFC 2033)
// over a unix socket: no process for each message, and an answer of its own for
// each recipient.
//
// The protocol's grammar is the matter of github.com/emersion/go-smtp. Between
// it and the socket stands a connection of ours, which hands the library one
// command at a time, and of a message exactly what belongs to it, so that what
// is part of a message is never read as a command; which bounds lines, errors
// and waiting; and which gathers replies, so that those that go out together
// are one write. conn.go says what the library is kept from.
//
// A message's life: MAIL and RCPT are noted down; when DATA or the first BDAT
// has come, the message is read into the spool; when it is whole, a slot among
// the deliveries at once is waited for; the socket's transport delivers it for
// all recipients, in one transaction for each destination where that is
// possible; each recipient has its reply, in the order of the RCPT commands.
// What is refused for all, such as a message beyond max_message_size, is read
// to its end first. The connection stays open for the next message.
//
// A client that goes while its message is delivered has the delivery cancelled.
// What was delivered all the same, and what a client was told but did not read,
// is remembered (package served), so that the mail server's next try does not
// deliver it twice. LMTP does not carry the mail server's queue id, by which
// this is told from another message that is alike; it is read from the topmost
// Received field (RFC 5321 §4.4), which the mail server wrote itself. A message
// without one is not remembered.
//
// Every wait is bounded: five minutes for the client's next command, a minute
// for the next bytes of a message, however many come at a time, and ten minutes
// for all of it; five seconds for a slot; fifteen minutes for the delivery; ten
// seconds for replies to be taken. So is what an envelope holds, by itself and
// with all the others (package intake). What the daemon itself refuses is
// temporary, but for a message beyond max_message_size and what is no address.
package lmtp

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/intake"
)

const (
	// MaxRecipients bounds the recipients of one message; more are answered
	// with 452 4.5.3, which has the mail server send them in another one.
	MaxRecipients = 1000

	// stall is how long the client may take for its next command.
	stall = 5 * time.Minute
	// deliveryTime is how long a delivery may take. It is shorter than the
	// time-outs that the shipped configurations give the mail server.
	deliveryTime = 15 * time.Minute
	// answerTime is how long the client may take to read its replies.
	answerTime = 10 * time.Second
	// maxLine bounds a command line, its line end included, in bytes.
	maxLine = 4096
	// maxErrors bounds the commands in a row that are refused, with no
	// message between them.
	maxErrors = 20
)

// Server serves LMTP on one socket. It is safe for concurrent use.
type Server struct {
	*intake.Dispatcher
	*accept.Loops
	transport string
	library   *smtp.Server
	serving   sync.WaitGroup
	handoff   handoff
}

// New makes a server whose messages take a transport, with accept loops of its
// own. hostname is what its greeting says.
func New(dispatcher *intake.Dispatcher, loops *accept.Loops, transport, hostname string) *Server {
	s := &Server{Dispatcher: dispatcher, Loops: loops, transport: transport, handoff: handoff{conns: make(chan net.Conn), closed: make(chan struct{})}}
	s.library = smtp.NewServer(smtp.BackendFunc(s.session))
	s.library.LMTP = true
	s.library.Domain = hostname
	s.library.MaxRecipients = MaxRecipients
	// Both of these are ours to bound: the library's line limit counts in
	// message bodies too, and its size limit has one reply for all recipients.
	s.library.MaxLineLength = 0
	s.library.MaxMessageBytes = 0
	s.library.EnableSMTPUTF8 = true
	s.library.EnableDSN = true
	// Not announced, as the library wants TLS for that, but taken: no one
	// listens on the way of a local socket (RFC 8689 §4.1).
	s.library.EnableREQUIRETLS = true
	s.library.ErrorLog = libraryLog{dispatcher.Logger}
	return s
}

// Serve accepts connections until ctx ends, closes l and returns nil; an error
// means that l cannot be served any more. Connections may be open then: see
// Wait. Those with no message under way are closed with 421 at the end of ctx;
// the others go on until deliveries, a context of its own, ends. It is called
// once.
func (s *Server) Serve(ctx, deliveries context.Context, l net.Listener) error {
	s.serving.Go(func() { s.library.Serve(&s.handoff) })
	return s.Loops.Serve(ctx, l, func(c net.Conn) {
		conn := newConn(c, s.Logger)
		conn.deliveries = deliveries
		defer context.AfterFunc(ctx, conn.stop)()
		defer context.AfterFunc(deliveries, func() { conn.cut(errStopping) })()
		select {
		case s.handoff.conns <- conn:
			<-conn.done
		case <-s.handoff.closed:
		}
	})
}

// Wait returns when no connection is open any more. Call it after Serve.
func (s *Server) Wait() {
	s.Loops.Wait()
	s.handoff.Close()
	s.library.Shutdown(context.Background())
	s.serving.Wait()
}

// handoff is the listener from which the library takes the connections that the
// loops have accepted.
type handoff struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (d *handoff) Accept() (net.Conn, error) {
	select {
	case conn := <-d.conns:
		return conn, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

func (d *handoff) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

func (d *handoff) Addr() net.Addr { return &net.UnixAddr{Name: "lmtp", Net: "unix"} }

// libraryLog is the library's log: defects of ours that it caught.
type libraryLog struct{ log *slog.Logger }

func (c libraryLog) Printf(format string, v ...any) { c.say(fmt.Sprintf(format, v...)) }
func (c libraryLog) Println(v ...any)               { c.say(fmt.Sprintln(v...)) }

func (c libraryLog) say(text string) {
	c.log.Error("LMTP server error", "text", strings.TrimSpace(text))
}
