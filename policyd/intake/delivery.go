package intake

import (
	"context"
	"log/slog"

	"github.com/mxpipe/mxpipe/policyd/served"
	"github.com/mxpipe/mxpipe/policyd/spool"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/status"
)

// Delivery is what became of a message. The front end says what the mail
// server knows of it: Remember or Forget, and in any case End or Detach.
type Delivery struct {
	// Results has one result for each recipient of the envelope, in their
	// order.
	Results []transport.Result

	dispatcher *Dispatcher
	env        *transport.Envelope
	msg        *spool.Message
	log        *slog.Logger
	name       served.Key // zero until it is asked for
	attempt    *attempt
}

// Deliver hands the message over for the recipients that neither have it yet
// nor are about to get it from an earlier try. The envelope and the message
// belong to the Delivery until it ends or is detached.
func (s *Slot) Deliver(ctx context.Context, env *transport.Envelope, msg *spool.Message, log *slog.Logger) *Delivery {
	d := &Delivery{
		Results:    make([]transport.Result, len(env.Recipients)),
		dispatcher: s.dispatcher, env: env, msg: msg, log: log,
		attempt: s.dispatcher.inFlight.begin(ctx, env),
	}
	left, index := d.left()
	left.Waited = s.waited
	if len(index) > 0 {
		for k, result := range s.transport.Deliver(ctx, &left, &msg.Message) {
			d.Results[index[k]] = result
		}
	}
	return d
}

// left gives the envelope for those recipients that are to be served now, and
// where each stood; the others get their results.
func (d *Delivery) left() (left transport.Envelope, index []int) {
	have := d.recall()
	left = *d.env
	left.Recipients = nil
	for i, rcpt := range d.env.Recipients {
		result := &d.Results[i]
		result.Recipient = rcpt.Address
		if line, ok := have[rcpt.Address]; ok {
			d.log.Info("not delivered again", "to", rcpt.Address, "text", line)
			result.Code, result.Text = status.New(status.Success, 0, 0), line
			continue
		}
		if !d.attempt.flights[flightOf(d.env, rcpt.Address)] && d.env.QueueID != "" {
			d.log.Info("deferred: an earlier attempt is still in progress", "to", rcpt.Address)
			result.Code, result.Text = status.New(status.Temporary, 3, 0), "an earlier attempt to deliver this message is still in progress"
			continue
		}
		left.Recipients = append(left.Recipients, rcpt)
		index = append(index, i)
	}
	return left, index
}

// recall gives the recipients that have the message from an earlier try.
func (d *Delivery) recall() map[string]string {
	if !d.dispatcher.Served.Known(d.env.QueueID) {
		return nil
	}
	key, err := d.key()
	if err != nil {
		return nil // the delivery will say what is wrong with reading it
	}
	return d.dispatcher.Served.Recall(key)
}

// key gives the name of the message, which is made once.
func (d *Delivery) key() (served.Key, error) {
	if d.name != (served.Key{}) {
		return d.name, nil
	}
	var err error
	d.name, err = served.KeyOf(d.env.QueueID, d.env.Sender, &d.msg.Message)
	return d.name, err
}

// Detach is for who has told the results and cannot know yet whether the mail
// server has read them, and will not keep the message and the envelope until
// then: they are its own again. Further tries may begin at once. It reports
// whether some recipient has the message, so that one of Remember and Forget is
// to be called.
func (d *Delivery) Detach() (owed bool) {
	defer d.End()
	for _, result := range d.Results {
		owed = owed || result.Code.Class == status.Success && d.env.QueueID != ""
	}
	if owed {
		if _, err := d.key(); err != nil {
			d.log.Error("cannot read the message again; the next attempt may deliver it twice", "error", err)
			owed = false
		}
	}
	d.msg, d.env = nil, &transport.Envelope{QueueID: d.env.QueueID, Sender: d.env.Sender}
	return owed
}

// Remember writes down which recipients have the message: the mail server will
// try them again, or may not know that they have it.
func (d *Delivery) Remember() {
	have := map[string]string{}
	for _, result := range d.Results {
		if result.Code.Class == status.Success {
			have[result.Recipient] = result.Text
		}
	}
	if len(have) == 0 {
		return
	}
	key, err := d.key()
	if err == nil {
		err = d.dispatcher.Served.Remember(key, have)
	}
	if err != nil {
		d.log.Error("cannot record which recipients have the message; the next attempt may deliver it twice", "error", err)
	}
}

// Forget drops what is known of the message: the mail server has its answer,
// and is done with the recipients that are not to be tried again.
func (d *Delivery) Forget() {
	if !d.dispatcher.Served.Known(d.env.QueueID) {
		return
	}
	key, err := d.key()
	if err != nil {
		return
	}
	var done []string
	for _, result := range d.Results {
		if result.Code.Class != status.Temporary {
			done = append(done, result.Recipient)
		}
	}
	d.dispatcher.Served.Forget(key, done)
}

// Answered says that the answer goes to the mail server, which may not read it:
// another try waits a little for that news.
func (d *Delivery) Answered() { d.dispatcher.inFlight.answered(d.attempt) }

// End lets further tries of the message begin. It is called when what became
// of this one is known, and written down where that is needed; a second call
// does nothing.
func (d *Delivery) End() { d.dispatcher.inFlight.end(d.attempt) }
