package delivery

import (
	"errors"
	"net/netip"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/pause"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/replyrule"
	"github.com/mxpipe/mxpipe/transport/session"
	"github.com/mxpipe/mxpipe/transport/source"
	"github.com/mxpipe/mxpipe/transport/status"
)

// takeSource chooses what the message leaves from towards a host, but none of
// not; nil without an error: there is no pool. The choice is to be ended by
// Sent or Unsent. The error is our own trouble, or a wait.
func (d *Delivery) takeSource(h *plan.Host, provider string, not ...string) (*source.Choice, *status.Error) {
	if d.cfg.Sources == nil {
		return nil, nil
	}
	from, err := d.cfg.Sources.Take(&source.Want{
		Key:   d.cfg.Sources.By().Key(d.msg.Sender.ASCII, d.msg.Target.String(), d.msg.Name),
		Addrs: d.cfg.wantedAddrs(h), Paused: d.cfg.Traffic.sourcePaused(provider), Not: not,
	})
	return from, noSource(err)
}

// LookSource tells what a message would leave from towards a host; nothing
// follows from it. Where each message has its own, it is one of them.
func (c *Config) LookSource(target *plan.Target, sender address.Address, h *plan.Host) (*source.Choice, *status.Error) {
	if c.Sources == nil {
		return nil, nil
	}
	from, err := c.Sources.Look(&source.Want{
		Key:   c.Sources.By().Key(sender.ASCII, target.String(), ""),
		Addrs: c.wantedAddrs(h), Paused: c.Traffic.sourcePaused(c.Traffic.Provider(h.Host.Name)),
	})
	return from, noSource(err)
}

// wantedAddrs are the addresses that a source must share a family with; none:
// any source will do.
func (c *Config) wantedAddrs(h *plan.Host) []netip.Addr {
	if c.Dialer.Proxied() {
		return nil
	}
	return h.Addresses.Addrs
}

// sourcePaused tells which sources a provider gets no mail from now.
func (t *Traffic) sourcePaused(provider string) func(name string) error {
	if t.Pauses == nil {
		return nil
	}
	return func(name string) error {
		if p := t.Pauses.State(pause.Key{Scope: replyrule.SourceIP, Name: provider, Source: name}); p != nil {
			return p
		}
		return nil
	}
}

// noSource says what it comes to that no source is left: our own trouble, or a
// wait. It is never the host's fault.
func noSource(err error) *status.Error {
	var none *source.None
	if !errors.As(err, &none) {
		return nil
	}
	var paused *pause.Paused
	if none.Out+none.Families+none.Spent == 0 && errors.As(none.Pause, &paused) {
		s := paused.Status() // as with any other pause
		s.Unreached = true
		return s
	}
	s := &status.Error{Code: status.New(status.Temporary, 3, 0), Err: err}
	if none.Waits() {
		s.Code = status.New(status.Temporary, 4, 5)
	}
	return s
}

// otherSource goes on from another source when no connection could be made
// from the one that was chosen, for a reason that lies with it; false: there is
// no other, or it is not to blame.
func (v *hostDelivery) otherSource(failed *status.Error) bool {
	why := session.SourceFailed(failed)
	if why == nil || v.request.Source == nil {
		return false
	}
	v.request.Source.Failed(why)
	v.request.Source.Unsent()
	v.not = append(v.not, v.request.Source.Name)
	v.trial.Abandoned()
	v.trial = nil
	from, held := v.takeSource(v.host, v.provider, v.not...)
	if held != nil {
		return false
	}
	trial, held := v.cfg.Traffic.begin(&v.msg.Target, v.provider, from.From())
	if held != nil {
		from.Unsent()
		return false
	}
	v.request.Source, v.trial = from, trial
	return true
}

// noteSent counts the message for its source when the host took it for one of
// the recipients.
func (v *hostDelivery) noteSent(rcpts []*recipient) {
	for _, r := range rcpts {
		if r.result != nil && r.result.Code.Class == status.Success {
			v.request.Source.Sent()
			return
		}
	}
}
