package pipe

import (
	"context"

	"github.com/mxpipe/mxpipe/policyd/served"
	"github.com/mxpipe/mxpipe/policyd/spool"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/status"
)

// deliver hands the message over for the recipients that do not have it yet.
func (r *request) deliver(ctx context.Context, way Deliverer, msg *spool.Message) []transport.Result {
	have := r.recall(msg)
	results := make([]transport.Result, len(r.env.Recipients))
	env := r.env
	env.Recipients = nil
	var index []int
	for i, rcpt := range r.env.Recipients {
		if line, ok := have[rcpt.Address]; ok {
			r.log.Info("not delivered again", "to", rcpt.Address, "text", line)
			results[i] = transport.Result{Recipient: rcpt.Address, Code: status.New(status.Success, 0, 0), Text: line}
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
		return nil
	}
	return r.Served.Recall(key)
}

// conclude answers with one status for all recipients. When the mail server
// will try recipients again that have the message, they are written down
// first; the same when it can not be told that they have it.
func (r *request) conclude(msg *spool.Message, results []transport.Result) {
	merged := make([]outcome.Result, len(results))
	have := map[string]string{}
	for i, result := range results {
		merged[i] = outcome.Result{Recipient: result.Recipient, Code: result.Code, Text: result.Text}
		if result.Code.Class == status.Success {
			have[result.Recipient] = result.Text
		}
	}
	code, text := outcome.Merge(merged)
	if code.Class == status.Temporary {
		r.remember(msg, have)
		r.answer(code, text)
		return
	}
	if err := r.answer(code, text); err != nil {
		r.remember(msg, have)
		r.log.Warn("the mail server did not wait for its answer", "dsn", code.String(), "error", err)
		return
	}
	if r.Served.Known(r.env.QueueID) {
		if key, err := served.KeyOf(r.env.QueueID, r.env.Sender, &msg.Message); err == nil {
			r.Served.Forget(key)
		}
	}
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
