package main

import "github.com/mxpipe/mxpipe/internal/wire"

// bufferSize is the size of the pieces in which a message is handed on, and so
// of what mxpipe holds of any message. A message that fits goes to the daemon
// with its envelope and its commit in one write.
const bufferSize = 16 << 10

// session is one message on its way to the daemon, with all that it works in.
// It lies on the stack of main, which therefore grows once, and at once, to
// what it needs: an allocation is two page faults, and a stack that grows by
// little nine.
type session struct {
	options options
	start   int64 // by nanotime
	parent  parent
	socket  int

	// of the request: an ordinary envelope and the frames' headers
	head  [1024]byte
	reply [wire.AnswerSize]byte
	stat  [1024]byte // of the parent
	line  [maxLine]byte
	piece [bufferSize]byte
}

// run hands over the message and returns what came of it.
func (s *session) run() result {
	err := s.send()
	if err != nil && err != errSpoke {
		return failed(err)
	}
	committed := err == nil
	a, err := s.answer()
	if err != nil {
		return failed(s.unanswered(err, committed))
	}
	return outcomeOf(a, committed)
}

// unanswered explains an answer that did not come.
func (s *session) unanswered(err error, committed bool) error {
	if _, ours := err.(*failure); ours {
		return err
	}
	switch {
	case err != wire.ErrNoAnswer:
		return localError(codeSystem, s.options.socket+": not an answer from mxpolicyd: "+err.Error())
	case committed:
		return localError(codeNoDaemon, s.options.socket+": the daemon closed the connection before it answered")
	}
	return localError(codeNoDaemon, s.options.socket+": the daemon closed the connection before it had the message")
}

// send sends the whole request. It returns errSpoke when the daemon answered or
// went away before that.
func (s *session) send() error {
	start := s.head[:0]
	for {
		n, end, err := s.fill()
		if err != nil {
			return err
		}
		if n == 0 && s.socket == noSocket {
			return localError(codeSystem, "empty message on standard input")
		}
		if end && s.parent.gone(s.stat[:]) {
			return localError(codeSystem, "the mail server that started mxpipe is gone, so the message may be truncated: not delivered")
		}
		if s.socket == noSocket {
			if start, err = s.open(start); err != nil {
				return err
			}
		}
		if n > 0 {
			start = wire.AppendDataHeader(start, n)
		}
		var commit [8]byte
		last := commit[:0]
		if end {
			last = wire.AppendCommit(last)
		}
		if err := s.write(start, s.piece[:n], last); err != nil || end {
			return err
		}
		start = start[:0]
	}
}

// open connects to the daemon and appends the start of the request.
func (s *session) open(dst []byte) ([]byte, error) {
	if err := s.dial(); err != nil {
		return nil, err
	}
	left := s.left()
	if left <= 0 {
		return nil, s.expired(s.accepting())
	}
	e := &s.options.envelope
	e.Timeout = wire.Milliseconds(milliseconds(left - margin(left)))
	dst, err := wire.AppendEnvelope(dst, e)
	if err != nil {
		return nil, misuse(explain(err))
	}
	return dst, nil
}

// margin is the part of the time that the daemon is not told of, so that its
// answer, which says more, comes before we give up.
func margin(left int64) int64 { return min(left/10, 5*second) }

// fill reads standard input until the piece is full or the input ends. It
// returns errSpoke when the daemon has something to say meanwhile.
func (s *session) fill() (n int, end bool, err error) {
	for ofIn := int16(0); n < len(s.piece); {
		// Where all writers have closed there is nothing more to wait for.
		if ofIn&pollHup == 0 {
			var ofSocket int16
			if ofIn, ofSocket, err = s.wait(pollIn, pollIn, "the message on standard input"); err != nil {
				return 0, false, err
			}
			if spoken(ofSocket) {
				return 0, false, errSpoke
			}
		}
		got, failure := read(stdin, s.piece[n:])
		switch {
		case failure == eintr, failure == eagain:
		case failure != 0:
			return 0, false, localError(codeSystem, "reading standard input: "+failure.Error())
		case got == 0:
			return n, true, nil
		default:
			n += got
		}
	}
	return n, false, nil
}

// answer reads what the daemon answers, as long as there is a parent to tell it
// to: an answer that is not read counts as not heard, and the daemon keeps it
// for the mail server's next try. A parent that is on its way out hears nothing
// any more, though its pidfd tells only when it is dead. It returns
// wire.ErrNoAnswer for a daemon that went away.
func (s *session) answer() (wire.Answer, error) {
	have := 0
	for {
		if _, _, err := s.wait(0, pollIn, "the daemon's answer"); err != nil {
			return wire.Answer{}, err
		}
		if gone, _ := s.parent.leaving(s.stat[:]); gone {
			return wire.Answer{}, errOrphan
		}
		n, failure := read(s.socket, s.reply[have:])
		if failure == eintr || failure == eagain {
			continue
		}
		have += n
		a, err := wire.ParseAnswer(view(s.reply[:have]))
		if err != wire.ErrNoAnswer || n == 0 {
			return a, err
		}
	}
}
