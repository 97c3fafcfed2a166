package transport

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/delivery"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/status"
)

// Deliver delivers one message and says what became of each recipient, in
// their order. When ctx ends, what is not done yet is temporary, with the
// cause of ctx in the text.
func (t *Transport) Deliver(ctx context.Context, env *Envelope, msg *Message) []Result {
	results := make([]Result, len(env.Recipients))
	for i := range results {
		results[i].Recipient = env.Recipients[i].Address
	}
	sender, err := address.Parse(env.Sender)
	if err != nil {
		for i := range results {
			t.reject(env, &results[i], &status.Error{Code: status.New(status.Permanent, 1, 7), Text: "sender " + quote(env.Sender), Err: err})
		}
		return results
	}
	list := t.split(env, results)
	if len(list) == 1 { // as nearly always
		t.deliver(ctx, list[0], sender, env, msg, results)
		return results
	}
	var all errgroup.Group
	all.SetLimit(maxDestinations)
	for _, p := range list {
		all.Go(func() error {
			t.deliver(ctx, p, sender, env, msg, results)
			return nil
		})
	}
	_ = all.Wait() // none returns an error
	return results
}

// deliver does the work of one destination, and tells of it.
func (t *Transport) deliver(ctx context.Context, p *targetRcpts, sender address.Address, env *Envelope, msg *Message, results []Result) {
	m := p.message(env, msg)
	m.Sender = sender
	d := t.run(ctx, p, m, env)
	rest := t.fallBack(p, d, m)
	if rest == nil {
		t.end(p, d, m, env, results)
		return
	}
	if own := p.without(rest); len(own.rcpts) > 0 {
		t.end(own, d, m, env, results)
	}
	direct := d.Result(rest.from[0])
	rest.from = nil
	m = rest.message(env, msg)
	m.Sender, m.Direct = sender, direct.Code.String()+" "+reply.Line(direct.Error())
	t.end(rest, t.run(ctx, rest, m, env), m, env, results)
}

// run runs one delivery.
func (t *Transport) run(ctx context.Context, p *targetRcpts, m *delivery.Message, env *Envelope) *delivery.Delivery {
	m.Log = t.log.With("id", env.ID, "queue_id", env.QueueID, "transport", p.profile.cfg.Name)
	m.Traced = t.traces.Covers(p.target.Domain)
	for i := range m.Recipients {
		m.Traced = m.Traced || t.traces.Covers(m.Recipients[i].Address.ASCII)
	}
	d := delivery.New(&p.profile.delivery, m)
	defer t.inProgress.begin(d, InProgress{
		ID: env.ID, QueueID: env.QueueID, Destination: p.target.String(), Recipients: len(m.Recipients), Since: time.Now(),
	})()
	d.Run(ctx)
	return d
}

// end gives recipients of a delivery their results, and tells of them.
func (t *Transport) end(p *targetRcpts, d *delivery.Delivery, m *delivery.Message, env *Envelope, results []Result) {
	d.Log(p.from)
	for i, at := range p.indexes {
		results[at].set(d.Result(p.in(i)), env.ID)
	}
	if t.observe == nil {
		return
	}
	found := d.Found()
	e := &Event{
		Envelope: env, Transport: p.profile.cfg.Name, Destination: p.target.Destination, Named: p.target.Named,
		Relay: p.profile.relayName(), Fallback: m.Direct != "",
		TLSRequiredNo: m.Demands.TLSRequiredNo,
		Folds:         m.Facts.Folds, StrayCRs: m.Facts.StrayCRs,
		Resent: found.Resent, Took: found.Took, Phases: found.Phases, STS: found.STS, Attempts: found.Attempts,
	}
	e.Results, e.Outcomes = e.result[:0], e.outcome[:0]
	for i, at := range p.indexes {
		result := d.Result(p.in(i))
		e.Results = append(e.Results, result.Code)
		e.Outcomes = append(e.Outcomes, Outcome{env.Recipients[at].Address, result})
	}
	e.Phases[PhaseWait] += max(env.Waited, 0)
	t.observe(e)
}

// reject gives a recipient for whom there is nothing to try its result.
func (t *Transport) reject(env *Envelope, r *Result, why *status.Error) {
	r.set(why, env.ID)
	if t.observe != nil {
		t.observe(&Event{
			Envelope: env, Transport: t.base.cfg.Name,
			Results: []status.Code{why.Code}, Outcomes: []Outcome{{r.Recipient, why}},
		})
	}
	said := "refused"
	if why.Code.Class == status.Temporary {
		said = "deferred"
	}
	t.log.Info(said, "id", env.ID, "queue_id", env.QueueID, "transport", t.base.cfg.Name,
		"from", reply.Line(env.Sender), "to", reply.Line(r.Recipient), "dsn", why.Code.String(), "text", reply.Line(why.Error()))
}
