package transport

import (
	"fmt"
	"slices"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/delivery"
	"github.com/mxpipe/mxpipe/transport/fallback"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/relay"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/sasl"
	"github.com/mxpipe/mxpipe/transport/session"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// relayed is a profile that leads to a relay, with the target that stands for
// it: mail for all domains goes there, and none of their own policies applies.
type relayed struct {
	*profile
	target plan.Target
}

// newRelayed makes the way to a relay. It shares limits, TLS settings and
// source addresses with the profile that it belongs to, and nothing that was
// proven or logged in with.
func (t *Transport) newRelayed(of *profile, r *relay.Relay, planning plan.Config, connect session.Config, deps Deps) (*relayed, error) {
	planning.Port, planning.Rules.Relay = r.Port, verdict.RelayTLS
	if r.TLS == relay.NoTLS {
		planning.Rules.Relay = verdict.RelayPlain
	}
	connect.Name += " relay " + r.String()
	login, err := t.login(r, deps.ReadFile)
	if err != nil {
		return nil, err
	}
	connect.Relay = session.Relay{Name: r.String(), TLS: r.TLS, Login: login, Fallback: connect.Relay.Fallback}
	p := t.assemble(of.cfg, planning, connect, of.delivery.Traffic, of.sources)
	p.via, p.delivery.Relay = r, true
	return &relayed{p, plan.Target{Destination: r.Destination(), Named: true}}, nil
}

// login gives the login of a relay; nil: it wants none. Overrides that have the
// transport's relay share it.
func (t *Transport) login(r *relay.Relay, read func(name string) ([]byte, error)) (*session.Login, error) {
	if l := t.logins[r]; l != nil || len(r.Auth) == 0 {
		return l, nil
	}
	password := ""
	if r.PasswordFile != "" {
		text, err := read(r.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("relay: %w", err)
		}
		var problem string
		if password, problem = relay.Password(text); problem != "" {
			return nil, fmt.Errorf("relay: %s %s", r.PasswordFile, problem)
		}
	}
	l := session.NewLogin(sasl.New(r.User, password, r.Auth))
	if t.logins == nil {
		t.logins = map[*relay.Relay]*session.Login{}
	}
	t.logins[r] = l
	return l, nil
}

// relayFor says which relay takes mail; nil: none. dest is where it would go
// without one, o the override for that, and own the recipient's own domain. A
// next hop that names a configured relay is that relay, with its login, of
// several the one of the recipient's override, else the first in the order of
// the configuration; else an override's relay comes before the transport's.
func (t *Transport) relayFor(dest plan.Target, own string, o *override) *relayed {
	byDomain := t.overrideOf(own)
	if dest.Named {
		// Several may be there, with a login each.
		for _, r := range append([]*relayed{byDomain.relayed()}, t.relays...) {
			if r != nil && r.via.Is(dest.Destination, t.base.cfg.Port) {
				return r
			}
		}
	}
	switch {
	case o != nil && o.relay != nil:
		return o.relay
	case dest.Named && byDomain != nil && byDomain.relay != nil:
		return byDomain.relay
	case o != nil, dest.Named && byDomain != nil:
		return nil // it has said otherwise
	}
	return t.base.relay
}

// relayed gives the relay of an override; nil: there is none.
func (o *override) relayed() *relayed {
	if o == nil {
		return nil
	}
	return o.relay
}

// addRelay adds one that is configured; overrides that have the transport's
// relay add none.
func (t *Transport) addRelay(r *relayed) {
	known := func(other *relayed) bool { return other.via == r.via }
	if !slices.ContainsFunc(t.relays, known) {
		t.relays = append(t.relays, r)
	}
}

// relayName names the relay that a profile leads to, host:port; empty: it leads
// to the domains' own hosts.
func (p *profile) relayName() string {
	if p.via == nil {
		return ""
	}
	return p.via.String()
}

// fallBack notes what a delivery says about its destination, and gives the
// recipients whose message goes on by the fallback relay; nil: none does.
func (t *Transport) fallBack(p *targetRcpts, d *delivery.Delivery, m *delivery.Message) *targetRcpts {
	way := p.profile.fallback
	if way == nil || t.failing == nil {
		return nil
	}
	rest := p.some(d.Unreached)
	key := p.failingKey()
	for i := range p.rcpts {
		if d.Result(i).Code.Class == status.Success {
			t.failing.Succeeded(key)
			break
		}
	}
	if len(rest.rcpts) == 0 {
		return nil
	}
	failed := t.failing.Failed(key)
	settings := p.profile.cfg.FallbackRelay
	if m.Demands.RequireTLS || d.Policy() != "" && !settings.Trusted {
		return nil
	}
	d.Waits()
	if failed < settings.After {
		return nil
	}
	rest.profile, rest.target = way.profile, way.target
	return rest
}

// failingKey is what a target is remembered by when it fails.
func (p *targetRcpts) failingKey() fallback.Key {
	return fallback.Key{Transport: p.profile.cfg.Name, Destination: p.target.String()}
}

// suspended says why mail for a recipient's domain goes nowhere now, be it to a
// relay or to a next hop; nil: it may. Where it goes to the domain's own hosts,
// the delivery asks by itself.
func (p *profile) suspended(rcpt address.Address, target *plan.Target) *status.Error {
	own, err := route.ForDomain(rcpt.ASCII)
	if err != nil {
		return nil // an address that nobody can suspend
	}
	if p.via == nil && own.Domain == target.Domain {
		return nil
	}
	return p.delivery.Traffic.TargetHeld(&plan.Target{Destination: own})
}

// RetryLogins has relays logged in at again at once that refused the login less
// than a minute ago.
func (t *Transport) RetryLogins() {
	for _, l := range t.logins {
		l.Retry()
	}
}
