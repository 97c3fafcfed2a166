package smtp

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mxpipe/mxpipe/transport/message"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/reply"
)

// transfer is one transaction under way.
type transfer struct {
	*Session
	ctx     context.Context
	tx      *Transaction
	report  *Report
	w       *bufio.Writer
	chunked bool
	brief   bool // all of it fits into one write, which no reply has to be read for
	cutOff  bool // the connection failed before the server had all of the flight
}

// pendingReply is a reply that is waited for.
type pendingReply struct {
	stage outcome.Stage
	into  *reply.Reply
}

// oneFlight sends everything at once (RFC 2920 §3.1, RFC 3030 §4.2). From the
// first byte on the server may end up with the message, so whatever happens
// is judged as if the whole message had been sent.
func (t *transfer) oneFlight() {
	t.point()
	list := append(t.envelope(), pendingReply{outcome.Final, &t.report.Final})
	_, early, err := t.exchange(list, func() error {
		if err := t.writeEnvelope(); err != nil {
			return err
		}
		return t.writeChunk()
	})
	if err != nil {
		t.fail(outcome.Final, err)
		t.report.SafeToRetry = t.cutOff
		return
	}
	if t.report.Accepted() > 0 && t.inStep() != nil && !t.leaving() {
		// Which of the replies was that to the message, nobody can tell.
		t.report.Final = reply.Reply{}
		t.fail(outcome.Final, errUnasked)
		return
	}
	// A server that forgot to swallow the chunk would run it as commands.
	t.report.OutOfStep = t.report.OutOfStep || early || t.report.Accepted() == 0
	t.report.Early = early
}

// leaving tells whether the server has said 421 behind the replies that were
// due, as it may when it closes after each message.
func (t *transfer) leaving() bool {
	ahead, _ := t.r.Peek(min(3, t.r.Buffered()))
	return string(ahead) == "421"
}

// pipelined sends the envelope in one flight, with DATA at its end unless the
// message goes by BDAT.
func (t *transfer) pipelined() {
	list := t.envelope()
	if !t.chunked {
		list = append(list, pendingReply{outcome.DATA, &t.report.Data})
	}
	read, _, err := t.exchange(list, func() error {
		if err := t.writeEnvelope(); err != nil || t.chunked {
			return err
		}
		return t.writeLine(t.w, "DATA")
	})
	if err != nil {
		t.report.SafeToRetry = true // there is no message without its content
		t.fail(list[min(read, len(list)-1)].stage, err)
		return
	}
	if t.report.OutOfStep {
		return
	}
	if t.report.Accepted() == 0 {
		// A go-ahead for nobody: the way out is an empty message, which might
		// be delivered, or the end of the connection.
		t.report.OutOfStep = t.report.Data.Code == 354
		return
	}
	if t.chunked || t.report.Data.Code == 354 {
		t.message()
	}
}

// inSequence sends each command after the reply to the one before. A refused
// MAIL leaves RCPT unsaid, and without an accepted recipient there is no DATA.
func (t *transfer) inSequence() {
	var err error
	if t.report.Mail, err = t.command(t.mailCommand(t.tx)); err != nil {
		t.report.SafeToRetry = true
		t.fail(outcome.MAIL, err)
		return
	}
	if !outcome.ForReply(outcome.MAIL, t.report.Mail, 0).Accepted {
		return
	}
	for i := range t.tx.Recipients {
		if t.report.Rcpts[i], err = t.command(t.rcptCommand(t.tx, i)); err != nil {
			t.report.SafeToRetry = true
			t.fail(outcome.RCPT, err)
			return
		}
		// The server is closing: it would answer nothing more (RFC 5321 §3.8).
		if t.report.Rcpts[i].Code == 421 {
			t.report.OutOfStep = true
			return
		}
	}
	if t.report.Accepted() == 0 {
		return
	}
	if !t.chunked {
		if t.report.Data, err = t.command("DATA"); err != nil {
			t.report.SafeToRetry = true
			t.fail(outcome.DATA, err)
			return
		}
		if t.report.Data.Code != 354 {
			return
		}
	}
	t.message()
}

// message sends the message itself to a server that waits for it.
func (t *transfer) message() {
	if err := t.inStep(); err != nil {
		t.report.SafeToRetry = true
		t.fail(outcome.Body, err)
		return
	}
	var whole atomic.Bool
	_, early, err := t.exchange([]pendingReply{{outcome.Final, &t.report.Final}}, func() error {
		write := t.writeData
		if t.chunked {
			t.point()
			write = t.writeChunk
		}
		err := write()
		// What is left is in the buffer: with its last byte the server may
		// have the message, so the flush already counts as the end.
		whole.Store(err == nil)
		return err
	})
	switch {
	case err != nil && whole.Load():
		t.report.SafeToRetry = t.cutOff
		t.fail(outcome.Final, err)
	case err != nil:
		t.report.SafeToRetry = !errors.As(err, new(*contentError)) // which another connection would not mend
		t.fail(outcome.Body, err)
	case early || !whole.Load():
		t.report.Early, t.report.OutOfStep = true, true
	}
}

// exchange writes, and at the same time reads the replies that are due; what is
// brief is written first, since the replies to it fill no buffer either. It
// gives how many were read, and whether they all came before everything was
// written. A reply of 421 ends it: no other follows.
func (t *transfer) exchange(list []pendingReply, write func() error) (read int, early bool, err error) {
	e := &exchange{transfer: t, list: list, written: make(chan error, 1)}
	t.raw.readUntil(time.Time{}) // the wait for a reply begins when all is written
	if t.brief {
		e.written <- e.write(write)
	} else {
		go func() { e.written <- e.write(write) }()
	}
	for read < len(list) {
		r, err := reply.Read(t.r.Reader)
		if err != nil {
			return read, false, e.lost(err)
		}
		t.trace("S", r.Text())
		*list[read].into = r
		read++
		if r.Code == 421 {
			t.report.OutOfStep = true
			break
		}
		e.next(read)
	}
	select {
	case <-e.written:
		return read, false, nil
	case <-time.After(lastWords):
		// The server does not even want to hear the rest.
		t.raw.Close()
		<-e.written
		return read, true, nil
	}
}

// lastWords is how long the other direction is waited for when one is over:
// for the reply that explains why a write failed, and for the rest of a write
// whose reply is there already.
const lastWords = time.Second

// exchange is one flight and its replies.
type exchange struct {
	*transfer
	list    []pendingReply
	written chan error // one value, when writing is over

	mu   sync.Mutex
	done bool // everything is written
	at   int  // the reply that is waited for
}

func (e *exchange) write(write func() error) error {
	err := write()
	if err == nil {
		err = e.w.Flush()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.done = true
	switch {
	case err == nil:
		e.raw.readUntil(time.Now().Add(e.patience()))
	case errors.As(err, new(*contentError)):
		e.raw.readUntil(past)
	default:
		e.raw.readUntil(time.Now().Add(lastWords))
	}
	return err
}

// next has the next reply waited for, from now on if all is written.
func (e *exchange) next(at int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.at = at; e.done && at < len(e.list) {
		e.raw.readUntil(time.Now().Add(e.patience()))
	}
}

// lost closes a connection that failed, finds out whether the server can have
// all of the flight, and chooses the error to report. What did not even leave
// was not seen. What left but was not acknowledged when the server's side was
// closed in good order was not seen either: the end of a stream acknowledges
// all that came before. A reset proves nothing, as a server that has read
// everything may not have acknowledged it yet.
func (e *exchange) lost(readErr error) error {
	e.raw.giveUp()
	writeErr := <-e.written
	ended := errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF)
	e.cutOff = writeErr != nil && !errors.As(writeErr, new(*contentError)) || ended && e.raw.unacknowledged()
	e.raw.Close()
	return e.blame(readErr, writeErr)
}

// patience is how long the next reply may take. The caller holds e.mu.
func (e *exchange) patience() time.Duration {
	if e.list[min(e.at, len(e.list)-1)].stage == outcome.Final {
		return e.cfg.SubmissionTimeout
	}
	return e.cfg.CommandTimeout
}

// blame chooses the error that tells more: a defect of our own content comes
// first, then a write that failed by itself, then what reading found.
func (e *exchange) blame(readErr, writeErr error) error {
	switch {
	case errors.As(writeErr, new(*contentError)):
		return writeErr
	case writeErr != nil && errors.Is(readErr, os.ErrDeadlineExceeded):
		return writeErr
	}
	return readErr
}

// envelope lists the replies to MAIL and RCPT.
func (t *transfer) envelope() []pendingReply {
	list := []pendingReply{{outcome.MAIL, &t.report.Mail}}
	for i := range t.report.Rcpts {
		list = append(list, pendingReply{outcome.RCPT, &t.report.Rcpts[i]})
	}
	return list
}

func (t *transfer) writeEnvelope() error {
	if err := t.writeLine(t.w, t.mailCommand(t.tx)); err != nil {
		return err
	}
	for i := range t.tx.Recipients {
		if err := t.writeLine(t.w, t.rcptCommand(t.tx, i)); err != nil {
			return err
		}
	}
	return nil
}

// writeChunk writes the message as one chunk, the last (RFC 3030 §2).
func (t *transfer) writeChunk() error {
	if err := t.writeLine(t.w, "BDAT "+strconv.FormatInt(t.tx.Size, 10)+" LAST"); err != nil {
		return err
	}
	return t.copy(t.w)
}

// writeData writes the message with its dots stuffed, and its end.
func (t *transfer) writeData() error {
	dots := message.NewDotWriter(t.w)
	if err := t.copy(dots); err != nil {
		return err
	}
	// All of it is on its way before the end is, so that a delivery can be
	// cancelled up to here.
	if err := t.w.Flush(); err != nil {
		return err
	}
	t.point()
	return dots.Close()
}

// point passes the point from which on the server may have the message.
func (t *transfer) point() {
	if t.tx.BeforeFinal != nil {
		t.ctx = t.tx.BeforeFinal()
		t.raw.bind(t.ctx)
	}
}

// contentError is a failure to read the message: our trouble, not the server's.
type contentError struct{ error }

func (e *contentError) Unwrap() error { return e.error }

// errSize is a defect on our side: a body that is not what was announced must
// not be ended as if it were whole.
var errSize = errors.New("the message changed its size while it was sent")

// copy writes the content. A message that turns out shorter or longer than
// announced is an error before its end is written.
func (t *transfer) copy(w io.Writer) error {
	content := &contentReader{Reader: t.tx.Content}
	n, err := io.Copy(w, content)
	switch {
	case content.err != nil:
		return &contentError{content.err}
	case err != nil:
		return err
	case n != t.tx.Size:
		return &contentError{errSize}
	}
	return nil
}

// contentReader tells errors of reading from those of writing.
type contentReader struct {
	io.Reader
	err error
}

func (r *contentReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// fail notes the connection's failure. When the context ended, its cause is
// the reason, not the deadline that it set off.
func (t *transfer) fail(stage outcome.Stage, err error) {
	if t.ctx.Err() != nil {
		err = context.Cause(t.ctx)
	}
	t.report.Stage, t.report.Err = stage, err
}
