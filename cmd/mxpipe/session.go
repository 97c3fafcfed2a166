package main

import (
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/transport/status"
)

// bufferSize is the size of the pieces in which a message is handed on, and so
// of what mxpipe holds of any message. A message that fits goes to the daemon
// with its envelope and its commit in one write.
const bufferSize = wire.MaxData

// session is one message on its way to the daemon.
type session struct {
	opt    *options
	clock  clock
	parent parent
	socket int
}

// run hands over the message and returns what came of it.
func (s *session) run() result {
	err := s.send()
	if err != nil && err != errSpoke {
		return failure(err)
	}
	committed := err == nil
	a, err := wire.ReadAnswer(answerReader{s})
	if err != nil {
		return failure(s.unanswered(err, committed))
	}
	return outcomeOf(a, committed)
}

// unanswered explains an answer that did not come.
func (s *session) unanswered(err error, committed bool) error {
	var ours *status.Error
	switch {
	case errors.As(err, &ours):
		return err
	case errors.Is(err, wire.ErrProtocol):
		return localError(codeSystem, s.opt.socket+": not an answer from mxpolicyd: "+err.Error())
	case committed:
		return localError(codeNoDaemon, s.opt.socket+": the daemon closed the connection before it answered")
	}
	return localError(codeNoDaemon, s.opt.socket+": the daemon closed the connection before it had the message")
}

// send sends the whole request. It returns errSpoke when the daemon answered or
// went away before that.
func (s *session) send() error {
	piece := make([]byte, bufferSize)
	var out []byte
	for {
		n, end, err := s.fill(piece)
		if err != nil {
			return err
		}
		if n == 0 && s.socket == noSocket {
			return localError(codeSystem, "empty message on standard input")
		}
		if end && s.parent.gone() {
			return localError(codeSystem, "the mail server that started mxpipe is gone, so the message may be truncated: not delivered")
		}
		if s.socket == noSocket {
			if out, err = s.open(n); err != nil {
				return err
			}
		}
		out = wire.AppendData(out, piece[:n])
		if end {
			out = wire.AppendCommit(out)
		}
		if err := s.write(out); err != nil || end {
			return err
		}
		out = out[:0]
	}
}

// open connects to the daemon and returns the start of the request, with room
// for n bytes of message after it.
func (s *session) open(n int) ([]byte, error) {
	if err := s.dial(); err != nil {
		return nil, err
	}
	left := s.clock.left()
	if left <= 0 {
		return nil, s.clock.expired(s.accepting())
	}
	e := s.opt.envelope
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
func (s *session) fill(piece []byte) (n int, end bool, err error) {
	for n < len(piece) {
		_, ofSocket, err := s.wait(unix.POLLIN, unix.POLLIN, "the message on standard input")
		if err != nil {
			return 0, false, err
		}
		if spoken(ofSocket) {
			return 0, false, errSpoke
		}
		got, err := unix.Read(stdin, piece[n:])
		switch {
		case err == unix.EINTR, err == unix.EAGAIN:
		case err != nil:
			return 0, false, localError(codeSystem, "reading standard input: "+err.Error())
		case got == 0:
			return n, true, nil
		default:
			n += got
		}
	}
	return n, false, nil
}

// answerReader reads what the daemon sends, as long as there is a parent to
// tell it to: an answer that is not read counts as not heard, and the daemon
// keeps it for the mail server's next try.
type answerReader struct{ *session }

func (r answerReader) Read(p []byte) (int, error) {
	for {
		if _, _, err := r.wait(0, unix.POLLIN, "the daemon's answer"); err != nil {
			return 0, err
		}
		n, err := unix.Read(r.socket, p)
		switch {
		case err == unix.EINTR, err == unix.EAGAIN:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}
