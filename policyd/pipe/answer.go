package pipe

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/status"
)

// conclude answers with one status for all recipients. When the mail server
// will try recipients again that have the message, they are written down
// first; the same when it cannot be told that they have it. Another try of
// recipients that have the message, or are refused, may begin only when it is
// known whether the answer was read: a mail server that is started anew can be
// faster than the news that its answer was not.
func (r *request) conclude(d *intake.Delivery, w *watch) {
	merged := make([]outcome.Result, len(d.Results))
	for i, result := range d.Results {
		merged[i] = outcome.Result{Recipient: result.Recipient, Code: result.Code, Text: result.Text}
	}
	code, text := outcome.Merge(merged)
	if code.Class == status.Temporary {
		d.Remember()
		d.End()
		r.conn.answer(code, text) // who does not hear it tries again as well
		return
	}
	var err error
	if w.gone() {
		err = transport.ErrGone
	} else {
		d.Answered()
		err = r.tell(code, text, w)
	}
	if err != nil {
		d.Remember()
		d.End()
		r.log.Info("the mail server did not wait for the answer", "dsn", code.String(), "error", err)
		return
	}
	d.Forget()
	d.End()
}

var errUnread = errors.New("it was not read in time")

// tell answers and waits until the client has closed the connection. It returns
// nil when the client has read the answer: one that was killed before that
// leaves it unread, and the kernel tells (ECONNRESET).
func (r *request) tell(code status.Code, text string, w *watch) error {
	if err := r.conn.answer(code, text); err != nil {
		return err
	}
	r.conn.until(time.Now().Add(answerTime))
	<-w.over
	switch {
	case errors.Is(w.err, io.EOF):
		return nil
	case w.err == nil, errors.Is(w.err, os.ErrDeadlineExceeded):
		return errUnread
	}
	return w.err
}
