package delivery

import (
	"errors"
	"strconv"

	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/pause"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/provider"
	"github.com/mxpipe/mxpipe/transport/replyrule"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/suspension"
)

// Traffic is what holds mail back or slows it down beside the transport's own
// limits: what the administrator has suspended, and what receivers ask for in
// their replies. Transports share all but the name. The zero Traffic holds
// nothing back.
type Traffic struct {
	Transport string
	Suspended *suspension.List // nil: nothing is
	Providers *provider.Table  // nil: each host is its own
	Rules     *replyrule.Rules // nil: no reply asks for anything
	Pauses    *pause.Pauses    // nil: with Rules nil
	// Load is what all transports have under way at each provider; nil: each
	// transport counts for itself.
	Load *limit.Providers
	// ProviderLimits are those that hold at a provider in the place of the
	// transport's, by its name.
	ProviderLimits map[string]limit.Limit
}

// Provider names a host's provider.
func (t *Traffic) Provider(host string) string {
	if t.Providers == nil {
		return host
	}
	return t.Providers.Of(host).Name
}

// TargetHeld says why a target gets no mail now; nil: it may. A next
// hop is suspended by its name, too.
func (t *Traffic) TargetHeld(target *plan.Target) *status.Error {
	if t.Suspended == nil {
		return nil
	}
	if s := t.Suspended.Find(t.Transport, target.Domain, ""); s != nil {
		return s.Err()
	}
	return nil
}

// HostHeld says why a host gets no mail of a target now, for its provider's
// suspension or a pause; nil: it may. from names the source that the mail
// leaves from, empty where there is no pool. It changes nothing.
func (t *Traffic) HostHeld(target *plan.Target, host, from string) *status.Error {
	name := t.Provider(host)
	if held := t.suspended(name); held != nil {
		return held
	}
	if t.Pauses == nil {
		return nil
	}
	if p := t.Pauses.State(keysOf(target, name, from)...); p != nil {
		return pausedStatus(p)
	}
	return nil
}

// pausedStatus is the reason of a paused host, which has nothing to do with the
// message.
func pausedStatus(p *pause.Paused) *status.Error {
	held := p.Status()
	held.Unreached = true
	return held
}

func (t *Traffic) suspended(provider string) *status.Error {
	if t.Suspended == nil {
		return nil
	}
	if s := t.Suspended.Find("", "", provider); s != nil {
		return s.Err()
	}
	return nil
}

// keysOf gives what a pause of mail from a source to a provider's host can hold
// for.
func keysOf(target *plan.Target, provider, from string) []pause.Key {
	return []pause.Key{
		{Scope: replyrule.Provider, Name: provider},
		{Scope: replyrule.Domain, Name: target.Domain},
		{Scope: replyrule.SourceIP, Name: provider, Source: from},
	}
}

// begin asks for leave to try a host from a source. The trial, which may be
// nil, is to be ended; the error is why the host gets no mail now.
func (t *Traffic) begin(target *plan.Target, provider, from string) (*pause.Trial, *status.Error) {
	if held := t.suspended(provider); held != nil {
		return nil, held
	}
	if t.Pauses == nil {
		return nil, nil
	}
	trial, err := t.Pauses.Begin(keysOf(target, provider, from)...)
	var paused *pause.Paused
	if errors.As(err, &paused) {
		return nil, pausedStatus(paused)
	}
	return trial, nil
}

// heed does what the host's replies ask for, and ends the trial. It reports
// whether the provider's other hosts are to be left alone.
func (v *hostDelivery) heed(trial *pause.Trial, rcpts []*recipient) (enough bool) {
	rule, said := v.rule(rcpts)
	switch {
	case rule == nil && v.answered:
		trial.Over()
		return false
	case rule == nil:
		trial.Abandoned()
		return false
	case rule.Do == replyrule.Slow:
		trial.Over()
		if v.permit.Slow() {
			v.msg.Log.Info("the host refuses connections as too many, slowing down", "host", v.host.Host.Name, "text", said)
			v.cfg.Conns.Retire(v.host.Host.Name) // it counts them too
		}
		return true
	}
	distrusts(rcpts)
	key := pause.Key{Scope: rule.Scope, Name: v.provider}
	switch rule.Scope {
	case replyrule.Domain:
		key.Name = v.msg.Target.Domain
	case replyrule.SourceIP:
		key.Source = v.request.Source.From()
	}
	if v.cfg.Traffic.Pauses.Pause(key, rule.Pause, said) {
		v.msg.Log.Warn("a receiver asks for a pause of "+rule.Pause.String(), "host", v.host.Host.Name, "target", key.String(), "text", said)
		v.cfg.Conns.Retire(v.host.Host.Name)
	}
	return true
}

// distrusts notes that a temporary reply that a pause follows from is about us,
// not about the recipients.
func distrusts(rcpts []*recipient) {
	for _, r := range rcpts {
		if said := r.lastReason(); said != nil && said.Code.Class == status.Temporary {
			said.Unreached = true
		}
	}
}

// lastReason is what the last host said to a recipient; nil: nothing.
func (r *recipient) lastReason() *status.Error {
	if r.result == nil && len(r.reasons) > 0 {
		return r.reasons[len(r.reasons)-1]
	}
	return r.result
}

// rule finds the first reply to a recipient that a rule is about.
func (v *hostDelivery) rule(rcpts []*recipient) (*replyrule.Rule, string) {
	if v.cfg.Traffic.Rules == nil {
		return nil, ""
	}
	for _, r := range rcpts {
		said := r.lastReason()
		if said == nil || said.Code.Class == status.Success || len(said.Text) < 4 {
			continue
		}
		if code, err := strconv.Atoi(said.Text[:3]); err == nil {
			if rule := v.cfg.Traffic.Rules.Find(v.provider, code, said.Text[4:]); rule != nil {
				return rule, said.Text
			}
		}
	}
	return nil, ""
}
