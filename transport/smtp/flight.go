package smtp

import (
	"errors"
	"io"
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
	written chan error // one value, when writing is over

	mu   sync.Mutex
	done bool // everything is written
	at   int  // the reply that is waited for
}

// lastWords is how long the other direction is waited for when one is over:
// for the reply that explains why a write failed, and for the rest of a write
// whose reply is there already.
const lastWords = time.Second

// fly writes a flight, and at the same time reads the replies to it; what is
// brief is written first, since the replies to it fill no buffer either. It
// gives how many were read, and whether they all came before everything was
// written. A reply of 421 ends it: no other follows.
func (t *transfer) fly(list []pendingReply, write func() error) (read int, early bool, err error) {
	f := &flight{transfer: t, list: list, written: make(chan error, 1)}
	t.raw.readUntil(time.Time{}) // the wait for a reply begins when all is written
	if t.brief {
		f.written <- f.write(write)
	} else {
		go func() { f.written <- f.write(write) }()
	}
	for read < len(list) {
		r, err := reply.Read(t.r.Reader)
		if err != nil {
			return read, false, f.lost(err)
		}
		t.trace("S", r.Text())
		*list[read].into = r
		read++
		if r.Code == 421 {
			t.report.Ending = Closing
			break
		}
		f.next(read)
	}
	select {
	case <-f.written:
		return read, false, nil
	case <-time.After(lastWords):
		// The server does not even want to hear the rest.
		t.raw.Close()
		<-f.written
		return read, true, nil
	}
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
		f.raw.readUntil(time.Now().Add(f.patience()))
	case errors.As(err, new(*contentError)):
		f.raw.readUntil(past)
	default:
		f.raw.readUntil(time.Now().Add(lastWords))
	}
	return err
}

// next has the next reply waited for, from now on if all is written.
func (f *flight) next(at int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at = at; f.done && at < len(f.list) {
		f.raw.readUntil(time.Now().Add(f.patience()))
	}
}

// lost closes a connection that failed, finds out whether the server can have
// all of the flight, and chooses the error to report. What did not even leave
// was not seen. What left but was not acknowledged when the server's side was
// closed in good order was not seen either: the end of a stream acknowledges
// all that came before. A reset proves nothing, as a server that has read
// everything may not have acknowledged it yet.
func (f *flight) lost(readErr error) error {
	f.raw.giveUp()
	writeErr := <-f.written
	ended := errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF)
	f.cutOff = writeErr != nil && !errors.As(writeErr, new(*contentError)) || ended && f.raw.unacknowledged()
	f.raw.Close()
	return f.blame(readErr, writeErr)
}

// patience is how long the next reply may take. The caller holds f.mu.
func (f *flight) patience() time.Duration {
	if f.list[min(f.at, len(f.list)-1)].stage == outcome.Final {
		return f.cfg.SubmissionTimeout
	}
	return f.cfg.CommandTimeout
}

// blame chooses the error that tells more: a defect of our own content comes
// first, then a write that failed by itself, then what reading found.
func (f *flight) blame(readErr, writeErr error) error {
	switch {
	case errors.As(writeErr, new(*contentError)):
		return writeErr
	case writeErr != nil && errors.Is(readErr, os.ErrDeadlineExceeded):
		return writeErr
	}
	return readErr
}
