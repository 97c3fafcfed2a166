package pipe

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/mxpipe/mxpipe/policyd/served"
	"github.com/mxpipe/mxpipe/policyd/spool"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/status"
)

// deliver hands the message over for the recipients that neither have it yet
// nor are about to get it from an earlier try.
func (r *request) deliver(ctx context.Context, way Deliverer, msg *spool.Message, mine map[flight]struct{}) []transport.Result {
	have := r.recall(msg)
	results := make([]transport.Result, len(r.env.Recipients))
	env := r.env
	env.Recipients = nil
	var index []int
	for i, rcpt := range r.env.Recipients {
		results[i].Recipient = rcpt.Address
		if line, ok := have[rcpt.Address]; ok {
			r.log.Info("not delivered again", "to", rcpt.Address, "text", line)
			results[i].Code, results[i].Text = status.New(status.Success, 0, 0), line
			continue
		}
		if _, ok := mine[flightOf(&r.env, rcpt.Address)]; !ok && r.env.QueueID != "" {
			r.log.Info("put off: an earlier try is still under way", "to", rcpt.Address)
			results[i].Code, results[i].Text = status.New(status.Temporary, 3, 0), "an earlier try of this message is still under way"
			continue
		}
		env.Recipients = append(env.Recipients, rcpt)
		index = append(index, i)
	}
	if len(index) > 0 {
		for k, result := range way.Deliver(ctx, &env, &msg.Message) {
			results[index[k]] = result
		}
	}
	return results
}

// recall gives the recipients that have the message from an earlier try.
func (r *request) recall(msg *spool.Message) map[string]string {
	if !r.Served.Known(r.env.QueueID) {
		return nil
	}
	key, err := served.KeyOf(r.env.QueueID, r.env.Sender, &msg.Message)
	if err != nil {
		return nil // the delivery will say what is wrong with reading it
	}
	return r.Served.Recall(key)
}

// conclude answers with one status for all recipients. When the mail server
// will try recipients again that have the message, they are written down
// first; the same when it can not be told that they have it. A try that comes
// after the answer may begin at once.
func (r *request) conclude(msg *spool.Message, results []transport.Result, w *watch, mine map[flight]struct{}) {
	merged := make([]outcome.Result, len(results))
	have := map[string]string{}
	var all []string
	for i, result := range results {
		merged[i] = outcome.Result{Recipient: result.Recipient, Code: result.Code, Text: result.Text}
		all = append(all, result.Recipient)
		if result.Code.Class == status.Success {
			have[result.Recipient] = result.Text
		}
	}
	code, text := outcome.Merge(merged)
	if code.Class == status.Temporary {
		r.remember(msg, have)
		r.flights.end(mine)
		r.conn.answer(code, text) // who does not hear it tries again as well
		return
	}
	var err error
	if w.gone() {
		err = transport.ErrGone
	} else {
		r.flights.end(mine)
		err = r.tell(code, text, w)
	}
	if err != nil {
		r.remember(msg, have)
		r.log.Warn("the mail server did not wait for its answer", "dsn", code.String(), "error", err)
		return
	}
	if r.Served.Known(r.env.QueueID) {
		if key, err := served.KeyOf(r.env.QueueID, r.env.Sender, &msg.Message); err == nil {
			r.Served.Forget(key, all)
		}
	}
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

func (r *request) remember(msg *spool.Message, have map[string]string) {
	if len(have) == 0 {
		return
	}
	key, err := served.KeyOf(r.env.QueueID, r.env.Sender, &msg.Message)
	if err == nil {
		err = r.Served.Remember(key, have)
	}
	if err != nil {
		r.log.Error("can not write down who has the message; a further try may deliver it twice", "error", err)
	}
}
