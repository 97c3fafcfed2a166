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
	// NOOP was answered after the message, by what is no reply to RCPT
	sure    bool
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
		if f.alone && f.read > 0 {
			t.leaveOpen(*t.envelope()[f.read-1].into)
		}
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
		r, err = t.sayNOOP()
	} else {
		return
	}
	switch {
	case err == nil && outcome.ForReply(outcome.RSET, r, 0).Accepted:
		t.report.Confirmation = Confirmed
		t.sure = !aboutAddress(r)
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

// addUp looks whether the replies that were believed so far can be: as many as
// there were commands, and in their order.
func (t *transfer) addUp() {
	r := t.report
	if t.stopped || r.Ending != Answered && r.Ending != Closing && r.Ending != Early {
		return
	}
	order, why := t.manners.order(r, t.confirm)
	if order == impossible && r.Ending != Early {
		t.outOfStep(errOutOfStep(why))
		return
	}
	switch err := t.unasked(); {
	case err == errUnasked:
		t.outOfStep(err)
		return
	case r.Ending == Early:
		return
	case err != nil && r.Ending == Answered && r.Final.Code != 0:
		r.Ending = Closing // with the reply it went
	}
	switch {
	case order == doubted:
		t.assure(why)
	case r.Confirmation == Confirmed && !t.sure:
		t.assure("the reply to NOOP is one to an address")
	}
	if r.Final.Class() == 2 { // and not out of step
		t.manners.learn(r)
	}
}

// assure has the server show that it has no more to say to the transaction,
// whose replies are in doubt. The reply to NOOP shows it where all were
// accepted: what stands in its place is the true one to the message, or that to
// NOOP, and either accepts. A refusal needs QUIT, whose reply nothing can be
// taken for, since a recipient who was accepted may stand in the place of one
// who was not. The end of the connection will do for it as well: all has been
// said. NOOP is not said twice on a connection, nor after DATA.
func (t *transfer) assure(why string) {
	took := t.report.Final.Class() == 2
	enough := took && t.report.Accepted() == len(t.report.Rcpts)
	if enough && t.sure {
		t.behind()
		return
	}
	if enough && t.chunked && !t.noop && t.report.Ending == Answered {
		r, err := t.sayNOOP()
		if err == nil && !outcome.ForReply(outcome.RSET, r, 0).Accepted {
			err = errOutOfStep("not a reply to NOOP: " + r.Text())
		}
		if err != nil {
			t.outOfStep(err)
			return
		}
		if t.sure = !aboutAddress(r); t.sure {
			t.behind()
			return
		}
	}
	r, err := t.ask("QUIT", reply.ReadBrief, silence)
	switch {
	case err == nil && r.Code == 221, err != nil && !took && ended(err) && !t.raw.over():
		t.report.Ending = Closing
	case err == nil:
		t.outOfStep(errOutOfStep("not a reply to QUIT: " + r.Text()))
	case err == errUnasked || errors.Is(err, reply.ErrMalformed):
		t.outOfStep(err)
	default:
		t.outOfStep(errOutOfStep(why))
	}
}

// behind ends a connection whose server was taken at its word and may still be
// one reply behind: of the next message nothing would show it. A host that is
// not trusted yet gets DATA, whose 354 brings replies in step.
func (t *transfer) behind() {
	t.report.Ending = Closing
	if t.confirm {
		t.report.Confirmation = Unconfirmed
	}
}

// sayNOOP says NOOP after a message whose replies are all there.
func (t *transfer) sayNOOP() (reply.Reply, error) {
	t.noop = true
	return t.ask("NOOP", t.readBrief, silence)
}

// outOfStep notes that the replies do not add up, so that none of them counts.
func (t *transfer) outOfStep(err error) {
	t.fail(OutOfStep, outcome.Final, err)
	if t.confirm {
		t.report.Confirmation = Unconfirmed
	}
}

// leaveOpen puts 421, the last reply of a connection that ended before all
// replies of its only flight had come, in the place of refusals for good: one
// that is missing may be one of the first, and the message may have been taken
// for whom such a refusal seems to be.
func (t *transfer) leaveOpen(last reply.Reply) {
	list := t.envelope()
	for i := range list {
		if list[i].into.Permanent() {
			*list[i].into = last
		}
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
