package smtp

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/mxpipe/mxpipe/transport/message"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/reply"
)

// transfer is one transaction under way.
type transfer struct {
	*Session
	tx      *Transaction
	report  *Report
	w       *bufio.Writer
	chunked bool
	// all of it fits into one write, which no reply has to be read for
	brief   bool
	confirm bool // NOOP follows the chunk
	leaving bool // the last reply was 421
	stopped bool // further replies are due that nothing waits for

	sent meter // what the connection took
	// how much it has to take for the message to be whole; 0: not known yet
	end int64
}

// meter counts what a connection takes.
type meter struct {
	io.Writer
	n int64
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.Writer.Write(p)
	m.n += int64(n)
	return n, err
}

// release gives back what the transaction used.
func (t *transfer) release() {
	t.cfg.Buffers.backWriter(t.w)
	t.idle()
}

// oneFlight sends everything at once (RFC 2920 §3.1, RFC 3030 §4.2). From the
// first byte on the server may end up with the message, so whatever happens
// is judged as if the whole message had been sent.
func (t *transfer) oneFlight() {
	list := append(t.envelope(), pendingReply{outcome.Final, &t.report.Final})
	f := t.fly(list, true, func() error {
		if err := t.writeEnvelope(); err != nil {
			return err
		}
		return t.writeChunk()
	})
	t.judge(f)
	if t.report.Ending == Answered && t.report.Accepted() == 0 {
		// A server that forgot to swallow the chunk would run it as commands.
		t.report.Ending = Closing
	}
}

// pipelined sends the envelope in one flight, with DATA at its end unless the
// message goes by BDAT.
func (t *transfer) pipelined() {
	list := t.envelope()
	if !t.chunked {
		list = append(list, pendingReply{outcome.DATA, &t.report.Data})
	}
	f := t.fly(list, false, func() error {
		if err := t.writeEnvelope(); err != nil || t.chunked {
			return err
		}
		return t.writeLine(t.w, "DATA")
	})
	switch {
	case f.err != nil && !t.wentAway(f.err):
		// There is no message without its content.
		t.fail(CutOff, list[min(f.read, len(list)-1)].stage, f.err)
	case f.err != nil, t.stopped:
	case !f.whole:
		t.fail(CutOff, list[0].stage, errUnasked)
	case t.report.Accepted() == 0:
		// A go-ahead for no one: the way out is an empty message, which might
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
	if !t.envelopeInSequence() {
		return
	}
	if !t.chunked {
		if !t.sendCommand(outcome.DATA, "DATA", &t.report.Data) || t.report.Data.Code != 354 {
			return
		}
	}
	t.message()
}

// envelopeInSequence says MAIL and RCPT, and reports whether the server takes a
// message for anyone.
func (t *transfer) envelopeInSequence() bool {
	if !t.sendCommand(outcome.MAIL, t.mailCommand(t.tx), &t.report.Mail) {
		return false
	}
	if !outcome.ForReply(outcome.MAIL, t.report.Mail, 0).Accepted {
		return false
	}
	for i := range t.tx.Recipients {
		if !t.sendCommand(outcome.RCPT, t.rcptCommand(t.tx, i), &t.report.Rcpts[i]) {
			return false
		}
	}
	return t.report.Accepted() > 0
}

// sendCommand sends one command to a server that does not do PIPELINING.
func (t *transfer) sendCommand(stage outcome.Stage, line string, into *reply.Reply) bool {
	timeout := t.cfg.CommandTimeout
	if t.leaving {
		timeout = min(timeout, silence)
	}
	var err error
	if *into, err = t.ask(line, t.readBrief, timeout); err != nil {
		if !t.wentAway(err) {
			t.fail(CutOff, stage, err)
		}
		return false
	}
	t.heard(stage, *into)
	return true
}

// heard notes what a reply says about the connection.
func (t *transfer) heard(stage outcome.Stage, r reply.Reply) {
	t.leaving = r.Code == 421
	if t.leaving && (stage == outcome.RCPT || stage == outcome.Final) {
		t.report.Ending = Closing
	}
}

// wentAway tells whether the connection ended as the server had announced with
// 421, the last that it said: no one's message was accepted.
func (t *transfer) wentAway(err error) bool {
	return t.leaving && t.raw.cause() == nil && (ended(err) || errors.Is(err, os.ErrDeadlineExceeded))
}

// message sends the message itself to a server that waits for it.
func (t *transfer) message() {
	if err := t.unasked(); err != nil {
		if !t.wentAway(err) {
			t.fail(CutOff, outcome.Body, err)
		}
		return
	}
	t.judge(t.fly([]pendingReply{{outcome.Final, &t.report.Final}}, true, func() error {
		if t.chunked {
			return t.writeChunk()
		}
		return t.writeData()
	}))
}

// judge says what became of the message that was in a flight.
func (t *transfer) judge(f flown) {
	switch {
	case t.stopped:
	case f.err == nil && f.whole:
		t.confirmed(f.written)
	case f.err == nil && (t.report.Final.Temporary() || t.report.Final.Permanent()):
		t.report.Ending = Early
	case f.err == nil:
		t.outOfStep(errOutOfStep("the message was accepted before it was sent whole"))
	case t.leaving && (ended(f.err) || t.report.Accepted() == 0 && t.wentAway(f.err)):
		// As it had said that it would, or without a word for anybody.
	case f.unseen:
		t.fail(CutOff, f.stage, f.err)
	case f.mute:
		t.fail(Ended, outcome.Final, f.err)
	default:
		if f.alone {
			// What was counted is fewer than there were commands, and one of
			// those that are missing may be one of the first.
			t.forget()
		}
		t.fail(Lost, outcome.Final, f.err)
	}
}

// confirmed waits for the reply to the NOOP after the message, if there was
// one. asked says that it has left.
func (t *transfer) confirmed(asked bool) {
	final := t.report.Final
	switch {
	case !t.confirm || final.Code == 421:
		return
	case !asked:
		t.report.Ending = Closing
		return
	}
	var r reply.Reply
	var err error
	if t.ext.Pipelining {
		r, err = t.readReply(silence)
	} else if final.Class() == 2 {
		t.noop = true
		r, err = t.ask("NOOP", t.readBrief, silence)
	} else {
		t.quitFirst()
		return
	}
	switch {
	case err == nil && outcome.ForReply(outcome.RSET, r, 0).Accepted:
		t.report.Confirmation = Confirmed
		t.quitFirst()
	case err == nil && (r.Code == 500 || r.Code == 502):
		t.report.Confirmation = Unconfirmed
	case err != nil && t.raw.over():
		t.report.Ending = Closing // it was us who did not wait
	case err != nil && (ended(err) || errors.Is(err, os.ErrDeadlineExceeded)):
		t.report.Ending, t.report.Confirmation = Closing, Unconfirmed
	default:
		t.outOfStep(errOutOfStep("not a reply to NOOP: " + r.Text()))
	}
}

// quitFirst says goodbye before a refusal for good is believed. What stood
// where the reply to NOOP was due may have been the true reply to the message,
// and the one to NOOP be still on its way: then it comes where that to QUIT is
// due. The connection carries no further message in any case. Where nobody was
// accepted the reply to the message decides nothing.
func (t *transfer) quitFirst() {
	if !t.report.Final.Permanent() || t.report.Accepted() == 0 {
		return
	}
	r, err := t.ask("QUIT", reply.ReadBrief, silence)
	switch {
	case err == nil && r.Code != 221:
		t.outOfStep(errOutOfStep("not a reply to QUIT: " + r.Text()))
	case err == errUnasked || errors.Is(err, reply.ErrMalformed):
		t.outOfStep(err)
	default:
		t.report.Ending = Closing
	}
}

// addUp looks whether the replies that were believed so far can be: as many as
// there were commands, and none that contradicts another.
func (t *transfer) addUp() {
	r := t.report
	switch {
	case t.stopped || r.Ending != Answered && r.Ending != Closing && r.Ending != Early:
		return
	case r.Ending == Early:
		if t.unasked() == errUnasked {
			t.outOfStep(errUnasked)
		}
		return
	}
	accepted := r.Accepted()
	final := outcome.ForReply(outcome.Final, r.Final, 1).Accepted
	switch {
	case refused(outcome.MAIL, r.Mail) && (accepted > 0 || r.Data.Code == 354 || final):
		t.outOfStep(errOutOfStep("the sender was refused and the rest accepted"))
		return
	case accepted == 0 && final:
		t.outOfStep(errOutOfStep("every recipient was refused and the message accepted"))
		return
	}
	switch err := t.unasked(); {
	case err == errUnasked:
		t.outOfStep(err)
	case err != nil && r.Ending == Answered && r.Final.Code != 0:
		r.Ending = Closing // with the reply it went
	}
}

func refused(stage outcome.Stage, r reply.Reply) bool {
	return r.Code != 0 && !outcome.ForReply(stage, r, 1).Accepted
}

// outOfStep notes that the replies do not add up, so that none of them counts.
func (t *transfer) outOfStep(err error) {
	t.fail(OutOfStep, outcome.Final, err)
	if t.confirm {
		t.report.Confirmation = Unconfirmed
	}
}

// forget drops the replies, since it is not known what each of them answered.
func (t *transfer) forget() {
	*t.report = Report{Rcpts: make([]reply.Reply, len(t.tx.Recipients))}
}

// fail notes the connection's failure. When the context ended, its cause is
// the reason, not the deadline that it set off.
func (t *transfer) fail(ending Ending, stage outcome.Stage, err error) {
	if errors.As(err, new(*contentError)) {
		ending = Spoiled
	} else if cause := t.raw.cause(); cause != nil {
		err = cause
	}
	if ending == Ended || ending == OutOfStep || errors.Is(err, errUnasked) {
		t.forget()
	}
	t.report.Final = reply.Reply{}
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

// afterwards has the rest of the transaction end at the later of its own time
// and SubmissionTimeout from now on, the message having been written whole.
func (t *transfer) afterwards() {
	var hard context.Context
	if t.tx.BeforeFinal != nil {
		hard = t.tx.BeforeFinal()
	}
	t.raw.bear(time.Now().Add(t.cfg.SubmissionTimeout), hard)
}

// writeChunk writes the message as one chunk, the last (RFC 3030 §2).
func (t *transfer) writeChunk() error {
	if err := t.writeLine(t.w, "BDAT "+strconv.FormatInt(t.tx.Size, 10)+" LAST"); err != nil {
		return err
	}
	if err := t.copy(t.w); err != nil || !t.confirm || !t.ext.Pipelining {
		return err
	}
	t.end, t.noop = t.sent.n+int64(t.w.Buffered()), true
	return t.writeLine(t.w, "NOOP")
}

// writeData writes the message with its dots stuffed, and its end.
func (t *transfer) writeData() error {
	dots := message.NewDotWriter(t.w)
	if err := t.copy(dots); err != nil {
		return err
	}
	return dots.Close()
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
