package smtp

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strconv"
	"sync/atomic"

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

// oneFlight sends everything at once (RFC 2920 §3.1, RFC 3030 §4.2). From the
// first byte on the server may end up with the message, so whatever happens
// is judged as if the whole message had been sent.
func (t *transfer) oneFlight() {
	t.point()
	list := append(t.envelope(), pendingReply{outcome.Final, &t.report.Final})
	_, early, err := t.fly(list, func() error {
		if err := t.writeEnvelope(); err != nil {
			return err
		}
		return t.writeChunk()
	})
	switch {
	case err != nil:
		t.lose(outcome.Final, err)
	case early:
		t.early()
	case t.report.Accepted() > 0 && t.inStep() != nil && !t.leaving():
		// Which of the replies was that to the message, nobody can tell.
		t.outOfStep(t.inStep())
	case t.report.Accepted() == 0:
		// A server that forgot to swallow the chunk would run it as commands.
		t.report.Ending = Closing
	}
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
	read, _, err := t.fly(list, func() error {
		if err := t.writeEnvelope(); err != nil || t.chunked {
			return err
		}
		return t.writeLine(t.w, "DATA")
	})
	switch {
	case err != nil:
		// There is no message without its content.
		t.fail(CutOff, list[min(read, len(list)-1)].stage, err)
	case t.report.Ending == Closing:
	case t.report.Accepted() == 0:
		// A go-ahead for nobody: the way out is an empty message, which might
		// be delivered, or the end of the connection.
		if t.report.Data.Code == 354 {
			t.report.Ending = Closing
		}
	case t.chunked, t.report.Data.Code == 354:
		t.message()
	}
}

// inSequence sends each command after the reply to the one before. A refused
// MAIL leaves RCPT unsaid, and without an accepted recipient there is no DATA.
func (t *transfer) inSequence() {
	var err error
	if t.report.Mail, err = t.command(t.mailCommand(t.tx)); err != nil {
		t.fail(CutOff, outcome.MAIL, err)
		return
	}
	if !outcome.ForReply(outcome.MAIL, t.report.Mail, 0).Accepted {
		return
	}
	for i := range t.tx.Recipients {
		if t.report.Rcpts[i], err = t.command(t.rcptCommand(t.tx, i)); err != nil {
			t.fail(CutOff, outcome.RCPT, err)
			return
		}
		if t.report.Rcpts[i].Code == 421 {
			t.report.Ending = Closing
			return
		}
	}
	if t.report.Accepted() == 0 {
		return
	}
	if !t.chunked {
		if t.report.Data, err = t.command("DATA"); err != nil {
			t.fail(CutOff, outcome.DATA, err)
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
		t.fail(CutOff, outcome.Body, err)
		return
	}
	var whole atomic.Bool
	_, early, err := t.fly([]pendingReply{{outcome.Final, &t.report.Final}}, func() error {
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
		t.lose(outcome.Final, err)
	case err != nil:
		t.fail(CutOff, outcome.Body, err)
	case early || !whole.Load():
		t.early()
	}
}

// early judges a reply to the message that came before the message was written
// whole: as a refusal it counts, and it can be nothing else.
func (t *transfer) early() {
	if t.report.Final.Temporary() || t.report.Final.Permanent() {
		t.report.Ending = Early
		return
	}
	t.outOfStep(errOutOfStep("the message was answered before it was sent"))
}

// lose notes the connection's failure after the end of the message had been
// sent.
func (t *transfer) lose(stage outcome.Stage, err error) {
	if t.cutOff {
		t.fail(CutOff, stage, err)
		return
	}
	t.fail(Lost, stage, err)
}

// outOfStep notes that the replies do not add up.
func (t *transfer) outOfStep(err error) {
	*t.report = Report{Rcpts: make([]reply.Reply, len(t.tx.Recipients))}
	t.fail(OutOfStep, outcome.Final, err)
}

// fail notes the connection's failure. When the context ended, its cause is
// the reason, not the deadline that it set off.
func (t *transfer) fail(ending Ending, stage outcome.Stage, err error) {
	switch {
	case errors.As(err, new(*contentError)):
		ending = Spoiled
	case t.ctx.Err() != nil:
		err = context.Cause(t.ctx)
	}
	t.report.Ending, t.report.Stage, t.report.Err = ending, stage, err
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
