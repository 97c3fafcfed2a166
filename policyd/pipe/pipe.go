// Package pipe is the front end for mxpipe: one request a connection, over a
// unix socket, in the protocol of package wire.
//
// A request's life: the envelope is read; the message is read into the spool;
// when the commit is there, a slot among the deliveries at once is waited for,
// and the transport delivers; the answer is written. A connection that
// closes before the commit drops the message. One that closes after it
// cancels the delivery, as far as that is still possible: what was delivered
// all the same is remembered (package served), so that the mail server's next
// try does not deliver it twice. A try that comes while an earlier one of the
// same message is still on its way to the same recipient is deferred (package
// intake).
//
// A request keeps the transport that it began with, whatever is reloaded
// meanwhile.
//
// Every wait is bounded: a minute for the whole envelope and then for the
// client's next bytes, ten minutes for the message, five seconds for a slot,
// the time that the client sent for all of it, and ten seconds for the answer
// to be taken. So is what all envelopes hold together (package intake). What
// the daemon itself refuses is temporary, but for a message beyond
// max_message_size.
package pipe

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/intake"
)

const (
	// answerTime is how long the client may take to read its answer.
	answerTime = 10 * time.Second
	// longest bounds the time-out that a client may ask for.
	longest = 24 * time.Hour
)

// Server serves mxpipe. It is safe for concurrent use.
type Server struct {
	*intake.Dispatcher
	*accept.Loops
	readers sync.Pool // *wire.Reader
}

// New makes a server that brings its messages to a dispatcher, with accept
// loops of its own.
func New(dispatcher *intake.Dispatcher, loops *accept.Loops) *Server {
	return &Server{Dispatcher: dispatcher, Loops: loops}
}

// Serve accepts connections until ctx ends, closes l and returns nil; an error
// means that l cannot be served any more. Connections may be open then: see
// Wait. Those that have not sent an envelope by the end of ctx are turned away;
// the others go on until deliveries, a context of its own, ends.
func (s *Server) Serve(ctx, deliveries context.Context, l net.Listener) error {
	return s.Loops.Serve(ctx, l, func(conn net.Conn) { s.serve(ctx, deliveries, conn) })
}
