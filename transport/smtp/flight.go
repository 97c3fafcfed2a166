package smtp

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/reply"
)

// pendingReply is a reply that is waited for.
type pendingReply struct {
	stage outcome.Stage
	into  *reply.Reply
}

// flight is what is sent without waiting, and the replies to it.
type flight struct {
	*transfer
	list    []pendingReply
	final   bool       // the message is in it
	written chan error // one value, when writing is over

	mu   sync.Mutex
	done bool // everything is written
	at   int  // the reply that is waited for
}

// flown is what became of a flight.
type flown struct {
	read    int           // replies
	stage   outcome.Stage // of the reply that is still due
	written bool          // all of it was written
	whole   bool          // so was the message, before the last reply came
	unseen  bool          // the server is known to lack some of it
	// the connection ended, and not a byte of a reply to the transaction had
	// come
	mute  bool
	alone bool  // there was no other flight
	err   error // of the connection
}

const (
	// lastWords is how long a reply is waited for that explains why a write
	// failed.
	lastWords = time.Second
	// silence is how long a server is waited for from which nothing more need
	// come: after 421, after the NOOP after a message, and after a greeting
	// that is none.
	silence = 10 * time.Second
	// tail is more than what may follow a message: a NOOP in a TLS
	// record of its own, or what crypto/tls answers to the server's.
	tail = 64
)

// fly writes a flight, and at the same time reads the replies to it; what is
// brief is written first, since the replies to it fill no buffer either. final
// says that the message is in it.
func (t *transfer) fly(list []pendingReply, final bool, write func() error) flown {
	f := &flight{transfer: t, list: list, final: final, written: make(chan error, 1)}
	// the wait for a reply begins when all is written
	t.raw.readUntil(time.Time{})
	if t.brief {
		f.written <- f.write(write)
	} else {
		go func() { f.written <- f.write(write) }()
	}
	if list[0].stage == outcome.MAIL {
		if _, err := t.r.Peek(1); err != nil {
			lost := f.lost(0, err)
			lost.mute = ended(err)
			return lost
		}
	}
	for read := range list {
		r, err := t.readBrief(t.r.Reader)
		if err != nil {
			return f.lost(read, err)
		}
		t.trace("S", r.Text())
		*list[read].into = r
		if f.next(read, r); t.leaving && !f.worthWaiting(read) {
			if t.stopped = read+1 < len(list); t.stopped {
				t.report.Ending = Closing
			}
			break
		}
	}
	return f.landed()
}

// worthWaiting says whether more is waited for after 421 at reply i: another
// recipient may have been accepted, or may still be, and with the message in
// the flight only the count of all replies tells whose the others are.
func (f *flight) worthWaiting(i int) bool {
	if f.list[i].stage != outcome.RCPT {
		return false
	}
	return f.final || f.report.Accepted() > 0 || i+1 < len(f.list) && f.list[i+1].stage == outcome.RCPT
}

func (f *flight) write(write func() error) error {
	err := write()
	if err == nil {
		err = f.w.Flush()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = true
	switch {
	case err == nil:
		if f.final {
			f.afterwards()
		}
		f.raw.readUntil(time.Now().Add(f.patience()))
	case errors.As(err, new(*contentError)):
		f.raw.readUntil(past)
	default:
		f.raw.readUntil(time.Now().Add(lastWords))
	}
	return err
}

// next notes the reply i, and has the next one waited for, from now on if all
// is written.
func (f *flight) next(i int, r reply.Reply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard(f.list[i].stage, r)
	if f.at = i + 1; f.done && f.at < len(f.list) {
		f.raw.readUntil(time.Now().Add(f.patience()))
	}
}

// patience is how long the next reply may take. The caller holds f.mu.
func (f *flight) patience() time.Duration {
	wait := f.cfg.CommandTimeout
	if f.list[min(f.at, len(f.list)-1)].stage == outcome.Final {
		wait = f.cfg.SubmissionTimeout
	}
	if f.leaving {
		wait = min(wait, silence)
	}
	return wait
}

// landed ends a flight whose replies are all there. They came before all of it
// was written when some of it still waits to be taken by the kernel, or for the
// other side's: what it cannot have read, it has not answered.
func (f *flight) landed() flown {
	f.raw.endWrites()
	defer f.raw.allowWrites()
	err := <-f.written
	if errors.As(err, new(*contentError)) {
		return flown{read: len(f.list), stage: outcome.Body, err: err, unseen: true}
	}
	behind := 0
	if f.confirm || f.tls != nil {
		behind = tail
	}
	written := err == nil
	whole := written || f.end > 0 && f.sent.n >= f.end
	return flown{read: len(f.list), written: written, whole: whole && f.raw.unacknowledged() <= behind}
}

// lost closes a connection that failed, finds out whether the server can have
// all of the flight, and chooses the error to report. What did not even leave
// was not seen. What left but was not acknowledged when the server's side was
// closed in good order was not seen either: the end of a stream acknowledges
// all that came before. A reset proves nothing, as a server that has read
// everything may not have acknowledged it yet.
func (f *flight) lost(read int, readErr error) flown {
	f.raw.giveUp()
	writeErr := <-f.written
	content := errors.As(writeErr, new(*contentError))
	closed := errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF)
	unseen := writeErr != nil || closed && f.raw.unacknowledged() > 0
	f.raw.Close()
	stage := f.list[read].stage
	if stage == outcome.Final {
		stage = outcome.Body
	}
	err := readErr
	// A defect of our own content tells more, then a write that failed by
	// itself.
	if content || writeErr != nil && errors.Is(readErr, os.ErrDeadlineExceeded) {
		err = writeErr
	}
	return flown{read: read, stage: stage, written: writeErr == nil, unseen: unseen, alone: f.final && f.list[0].stage == outcome.MAIL, err: err}
}

// ended tells the end of a connection from silence and from what is no reply.
func ended(err error) bool {
	var t interface{ Timeout() bool }
	return !(errors.As(err, &t) && t.Timeout()) && !errors.Is(err, reply.ErrMalformed) && !errors.Is(err, reply.ErrTooLong) && !errors.Is(err, net.ErrClosed)
}
