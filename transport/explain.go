package transport

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/deadhost"
	"github.com/mxpipe/mxpipe/transport/fallback"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/session"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Explanation is what a message to a domain would meet, found out in the very
// way of a delivery, and why.
type Explanation struct {
	Domain    string // as A-labels
	Transport string // the transport's name
	// the match of the override that applies; empty: none does
	Override string
	// where the override sends the mail instead; empty: by MX
	Nexthop string
	// the relay that it goes to instead, host:port; empty: to the hosts of its
	// own domain, or of the next hop
	Relay string
	// what connections go through, host:port; empty: nothing
	Proxy string
	// the relay for what these could not be given; empty: none
	FallbackRelay string
	// since when it could not; zero: nothing has failed
	FailingSince time.Time
	Rules        verdict.Rules // what the transport, or the override, obeys
	Route        route.Route   // Hosts in the order of trying
	// the domain's MTA-STS policy; nil: not asked for
	STS   *policycache.Entry
	Hosts []HostExplanation // one for each host of the route
	Limit *limit.KeyState   // the destination's; nil: it has none
	// suspended, or a limit is reached; nil: mail may go now
	Held *status.Error
	Err  *status.Error // why there is no route; nil: there is one
}

// HostExplanation is one host's part of an Explanation.
type HostExplanation struct {
	Host      route.Host
	Addresses route.Addresses
	Facts     verdict.Facts
	Verdict   verdict.Verdict
	Provider  string // that it belongs to
	// what the message would leave from; empty: there is no pool, or none of it
	// is left
	Source string
	// its provider is suspended or paused; nil: it is not
	Held *status.Error
	// mail for it fails fast now, and why; nil: it does not
	Dead *deadhost.Dead
	Idle int // idle connections to it
	// with which TLS begins, as the better ones failed lately; Full: as usual
	Hello handshake.Step
	Probe *Probe // nil: it was not dialled
	// why its addresses are not known; the rest is empty then
	Err *status.Error
}

// Probe is what a real connection to a host showed.
type Probe = session.Probe

// Forecast is what an Explanation comes to, for a message that comes now.
type Forecast uint8

// The forecasts. Unknown is the zero Forecast.
const (
	Unknown       Forecast = iota // look-ups failed, so no one can tell
	Undeliverable                 // it would be refused, or deferred
	Deliverable                   // a host is eligible
)

// String gives a word for the forecast.
func (f Forecast) String() string {
	switch f {
	case Undeliverable:
		return "undeliverable"
	case Deliverable:
		return "deliverable"
	}
	return "unknown"
}

// Forecast tells whether a message would be delivered: some host is eligible.
// Where nothing was dialled, that is as far as look-ups can tell.
func (e *Explanation) Forecast() Forecast {
	if e.Err != nil {
		return forecastOf(e.Err)
	}
	if e.Held != nil {
		return Undeliverable
	}
	unknown := false
	for i := range e.Hosts {
		switch e.Hosts[i].Forecast() {
		case Deliverable:
			return Deliverable
		case Unknown:
			unknown = true
		}
	}
	if unknown {
		return Unknown
	}
	return Undeliverable
}

// Forecast tells whether the host would get the message.
func (h *HostExplanation) Forecast() Forecast {
	switch {
	case h.Err != nil:
		return forecastOf(h.Err)
	case h.Verdict.Refusal != nil, h.Held != nil, h.Dead != nil, h.Probe != nil && h.Probe.Err != nil:
		return Undeliverable
	}
	return Deliverable
}

// Answer is what a message that comes now would be answered, as far as the
// explanation knows: why there is no route, or the most temporary of the
// hosts' reasons. nil: a host is eligible.
func (e *Explanation) Answer() *status.Error {
	if e.Err != nil {
		return e.Err
	}
	if e.Held != nil {
		return e.Held
	}
	var reasons []*status.Error
	for i := range e.Hosts {
		reason := e.Hosts[i].reason()
		if reason == nil {
			return nil
		}
		reasons = append(reasons, reason)
	}
	return outcome.MostTemporary(reasons)
}

// reason is why the host would not get the message; nil: it would.
func (h *HostExplanation) reason() *status.Error {
	switch {
	case h.Err != nil:
		return h.Err
	case h.Verdict.Refusal != nil:
		return &status.Error{Code: h.Verdict.Refusal.Code, Host: h.Host.Name, Text: h.Verdict.Refusal.Text}
	case h.Held != nil:
		return h.Held
	case h.Dead != nil:
		return session.DeadError(h.Host.Name, h.Dead)
	case h.Probe != nil:
		return h.Probe.Err
	}
	return nil
}

// forecastOf tells failed look-ups (X.4.3, and X.4.7 where there was no time)
// from everything else.
func forecastOf(err *status.Error) Forecast {
	if err.Code.Class == status.Temporary && err.Code.Subject == 4 && (err.Code.Detail == 3 || err.Code.Detail == 7) {
		return Unknown
	}
	return Undeliverable
}

// probesAtOnce bounds how many hosts are dialled at the same time.
const probesAtOnce = 8

// Explain answers a question. One that [Question.Check] has something against
// is answered without asking a host for a recipient.
func (t *Transport) Explain(ctx context.Context, q *Question) Explanation {
	e := Explanation{Domain: q.Domain, Transport: t.base.cfg.Name}
	addr, err := address.Parse("postmaster@" + q.Domain)
	if err != nil {
		e.Err = &status.Error{Code: status.New(status.Permanent, 1, 2), Text: "domain " + quote(q.Domain), Err: err}
		return e
	}
	e.Domain = addr.ASCII
	p, dest, failed := t.destination(addr, "")
	if failed != nil {
		e.Err = failed
		return e
	}
	if o := t.overrideOf(addr.ASCII); o != nil {
		e.Override = o.match
		if o.nexthop != (route.Destination{}) && p.via == nil {
			e.Nexthop = o.nexthop.String()
		}
	}
	e.Rules, e.Relay = p.planner.Rules(), p.relayName()
	if p.cfg.Proxy != nil {
		e.Proxy = p.cfg.Proxy.String()
	}
	if p.fallback != nil {
		e.FallbackRelay = p.fallback.relayName()
		if t.failing != nil {
			e.FailingSince, _ = t.failing.Since(fallback.Key{Transport: p.cfg.Name, Destination: dest.String()})
		}
	}
	if place, limited := p.limits.KeyState(limit.Destination, dest.String()); limited {
		e.Limit = &place
	}
	if e.Held = p.held(&dest); e.Held == nil {
		e.Held = p.suspended(addr, &dest)
	}
	found, err := p.planner.Plan(ctx, dest)
	if err != nil {
		e.Err = status.From(err, status.New(status.Temporary, 4, 3), dest.String())
		return e
	}
	e.Route, e.STS, e.Err = found.Route, found.Policy, found.Err
	e.Hosts = make([]HostExplanation, len(e.Route.Hosts))
	var all errgroup.Group
	all.SetLimit(probesAtOnce)
	for i := range e.Hosts {
		all.Go(func() error {
			e.Hosts[i] = p.explainHost(ctx, q, &dest, p.planner.Host(ctx, found, i, q.demands(p.cfg)))
			return nil
		})
	}
	_ = all.Wait() // none returns an error
	return e
}

// explainHost explains one host of a plan.
func (p *profile) explainHost(ctx context.Context, q *Question, target *plan.Target, h *plan.Host) HostExplanation {
	e := HostExplanation{Host: h.Host, Addresses: h.Addresses, Facts: h.Facts, Verdict: h.Verdict, Err: h.Err}
	if h.Err != nil {
		return e
	}
	e.Hello, e.Provider = p.dialer.Hello(h), p.delivery.Traffic.Provider(h.Host.Name)
	sender, _ := address.Parse(q.From) // one that is none is the null sender
	from, held := p.delivery.LookSource(target, sender, h)
	if e.Held = p.delivery.Traffic.HostHeld(target, h.Host.Name, from.From()); e.Held == nil {
		e.Held = held
	}
	if e.Held == nil {
		e.Held = p.dialer.LoginHeld(h)
	}
	e.Source, e.Idle = from.From(), p.dialer.IdleCount(h, from)
	if e.Held == nil {
		e.Held = p.full(limit.Provider, e.Provider)
	}
	if e.Held == nil && from != nil {
		e.Held = p.full(limit.SourceIP, from.Name)
	}
	if q.Depth == Connect && e.Held == nil && h.Verdict.Refusal == nil {
		envelope, _ := q.envelope() // without one it is asked for nobody
		e.Probe = p.dialer.Probe(ctx, h, from, envelope)
	}
	e.Dead = p.dialer.DeadState(h, from)
	return e
}

// held says what keeps mail for a target here, whatever its hosts are: a
// suspension, or a limit with no slot free now (a message would wait for one,
// for some seconds).
func (p *profile) held(target *plan.Target) *status.Error {
	if held := p.delivery.Traffic.TargetHeld(target); held != nil {
		return held
	}
	if held := p.full(limit.All, ""); held != nil {
		return held
	}
	return p.full(limit.Destination, target.String())
}

// full says that a limit has no slot for a key, nor will soon; nil: it has.
func (p *profile) full(scope limit.Scope, key string) *status.Error {
	state, limited := p.limits.KeyState(scope, key)
	if !limited || !state.Full(p.limits.MaxWait()) {
		return nil
	}
	return &status.Error{Code: status.New(status.Temporary, 4, 5), Err: &limit.Error{Scope: scope, Key: key, MaxWait: p.limits.MaxWait()}}
}
