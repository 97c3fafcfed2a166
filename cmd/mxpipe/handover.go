package main

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/transport/status"
)

// bufferSize is the size of the pieces in which a message is handed on, and so
// of what mxpipe holds of any message. A message that fits goes to
// the daemon with its envelope and its commit in one write.
const bufferSize = wire.MaxData

// handover is one message on its way to the daemon.
type handover struct {
	opt     *options
	clock   clock
	starter starter
	socket  int
}

// run hands over the message and returns what came of it.
func (h *handover) run() outcome {
	err := h.send()
	if err != nil && err != errSpoke {
		return failure(err)
	}
	committed := err == nil
	a, err := wire.ReadAnswer(socketReader{h.socket, h.clock})
	if err != nil {
		return failure(h.unanswered(err, committed))
	}
	return verdict(a, committed)
}

// unanswered explains an answer that did not come.
func (h *handover) unanswered(err error, committed bool) error {
	var ours *status.Error
	switch {
	case errors.As(err, &ours):
		return err
	case errors.Is(err, wire.ErrProtocol):
		return trouble(codeSystem, h.opt.socket+": not an answer of mxpolicyd: "+err.Error())
	case committed:
		return trouble(codeNoDaemon, h.opt.socket+": the daemon went away before it answered")
	}
	return trouble(codeNoDaemon, h.opt.socket+": the daemon went away before it had the message")
}

// send sends the whole request. It returns errSpoke when the daemon answered or
// went away before that.
func (h *handover) send() error {
	piece := make([]byte, bufferSize)
	var out []byte
	for {
		n, end, err := h.fill(piece)
		if err != nil {
			return err
		}
		if n == 0 && h.socket == noSocket {
			return trouble(codeSystem, "standard input is empty, which no message is")
		}
		if end && h.starter.gone() {
			return trouble(codeSystem, "the mail server that started mxpipe is gone, the message may be cut off; not delivered")
		}
		if h.socket == noSocket {
			if out, err = h.open(n); err != nil {
				return err
			}
		}
		out = wire.AppendData(out, piece[:n])
		if end {
			out = wire.AppendCommit(out)
		}
		if err := send(h.socket, out, h.clock); err != nil || end {
			return err
		}
		out = out[:0]
	}
}

// open connects to the daemon and returns the start of the request, with room
// for n bytes of message behind it.
func (h *handover) open(n int) ([]byte, error) {
	var err error
	if h.socket, err = dial(h.opt.socket, h.clock); err != nil {
		return nil, err
	}
	left := h.clock.left()
	if left <= 0 {
		return nil, h.clock.expired("the daemon to take connections at " + h.opt.socket)
	}
	e := h.opt.envelope
	e.Timeout = left - margin(left)
	const frames = 1024 // an ordinary envelope and the frames' headers
	out, err := wire.AppendEnvelope(make([]byte, 0, n+frames), &e)
	if err != nil {
		return nil, misuse(explain(err))
	}
	return out, nil
}

// margin is the part of the time that the daemon is not told of, so that its
// answer, which says more, comes before we give up.
func margin(left time.Duration) time.Duration {
	return min(left/10, 5*time.Second)
}

// fill reads standard input until piece is full or the input ends. It returns
// errSpoke when the daemon has something to say meanwhile.
func (h *handover) fill(piece []byte) (n int, end bool, err error) {
	// poll passes over the socket while it is -1.
	fds := []unix.PollFd{{Fd: stdin, Events: unix.POLLIN}, {Fd: int32(h.socket), Events: unix.POLLIN}}
	for n < len(piece) {
		if err := h.clock.wait(fds, "the message on standard input"); err != nil {
			return 0, false, err
		}
		if spoken(fds[1].Revents) {
			return 0, false, errSpoke
		}
		got, err := unix.Read(stdin, piece[n:])
		switch {
		case err == unix.EINTR, err == unix.EAGAIN:
		case err != nil:
			return 0, false, trouble(codeSystem, "reading standard input: "+err.Error())
		case got == 0:
			return n, true, nil
		default:
			n += got
		}
	}
	return n, false, nil
}
