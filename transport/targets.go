package transport

import (
	"cmp"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/delivery"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/status"
)

// targetRcpts are the recipients of an envelope that have one target.
type targetRcpts struct {
	profile *profile
	target  plan.Target
	rcpts   []smtp.Recipient
	indexes []int // in the envelope
	from    []int // in the delivery that had them; nil: all of its, in order
}

// in gives the place of a recipient in the delivery.
func (p *targetRcpts) in(i int) int {
	if p.from == nil {
		return i
	}
	return p.from[i]
}

// some gives those of the recipients that are chosen, as a part of the same
// delivery.
func (p *targetRcpts) some(chosen func(i int) bool) *targetRcpts {
	part := &targetRcpts{profile: p.profile, target: p.target}
	for i := range p.rcpts {
		if chosen(i) {
			part.rcpts, part.indexes, part.from = append(part.rcpts, p.rcpts[i]), append(part.indexes, p.indexes[i]), append(part.from, i)
		}
	}
	return part
}

// without gives those that are not in a part.
func (p *targetRcpts) without(part *targetRcpts) *targetRcpts {
	return p.some(func(i int) bool { return !slices.Contains(part.from, i) })
}

// message makes the message for them.
func (p *targetRcpts) message(env *Envelope, msg *Message) *delivery.Message {
	m := &delivery.Message{
		Target: p.target, Name: cmp.Or(env.QueueID, env.ID), Recipients: p.rcpts, Content: msg.Content, Facts: msg.Facts,
		Demands:  p.profile.demands(env, msg),
		EightBit: env.EightBit, SMTPUTF8: env.SMTPUTF8, Ret: env.Ret, EnvID: env.EnvID,
		Refused: refusal(p.profile.cfg, env, msg),
	}
	if env.Peer != (Peer{}) {
		m.LogTail = []slog.Attr{slog.Int("uid", env.Peer.UID), slog.Int("pid", env.Peer.PID)}
	}
	return m
}

// split sorts the recipients by destination, in the order of their first
// recipients. Recipients that have none get their result here.
func (t *Transport) split(env *Envelope, results []Result) []*targetRcpts {
	var list []*targetRcpts
	// Named or not: what leads nowhere is the fault of one address, and not of
	// another that a next hop sent there.
	type key struct {
		profile *profile
		target  plan.Target
	}
	byKey := map[key]*targetRcpts{}
	for i, r := range env.Recipients {
		addr, err := address.Parse(r.Address)
		if err == nil && addr.IsNull() {
			err = address.ErrEmpty
		}
		if err != nil {
			t.reject(env, &results[i], &status.Error{Code: status.New(status.Permanent, 1, 3), Text: "recipient " + quote(r.Address), Err: err})
			continue
		}
		profile, target, failed := t.destination(addr, env.Nexthop)
		if failed == nil {
			failed = profile.suspended(addr, &target)
		}
		if failed != nil {
			t.reject(env, &results[i], failed)
			continue
		}
		k := key{profile, target}
		p := byKey[k]
		if p == nil {
			p = &targetRcpts{profile: profile, target: target}
			byKey[k] = p
			list = append(list, p)
		}
		p.indexes = append(p.indexes, i)
		p.rcpts = append(p.rcpts, smtp.Recipient{Address: addr, Notify: r.Notify, ORcpt: r.ORcpt})
	}
	return list
}

// destination says where mail for a recipient goes, and in which way. What
// the mail server names as its next hop comes before the recipient's domain,
// unless it is that; overrides are looked for under the name that was chosen,
// and that of the domain keeps its demands.
// A relay comes before all of that.
func (t *Transport) destination(rcpt address.Address, nexthop string) (p *profile, dest plan.Target, failed *status.Error) {
	own, err := route.ForDomain(rcpt.ASCII)
	switch {
	case nexthop != "" && !isOwn(nexthop, own, err):
		dest.Named = true
		if dest.Destination, err = route.ParseNexthop(nexthop); err != nil && t.base.relay != nil {
			return t.base.relay.profile, t.base.relay.target, nil
		} else if err != nil {
			return nil, dest, &status.Error{Code: status.New(status.Temporary, 3, 5), Text: "next hop " + quote(nexthop), Err: err}
		}
	case rcpt.ASCII == "":
		return nil, dest, &status.Error{Code: status.New(status.Permanent, 1, 3), Text: "recipient " + quote(rcpt.String()) + " has no domain"}
	case err != nil:
		return nil, dest, &status.Error{Code: status.New(status.Permanent, 1, 2), Text: "domain " + quote(rcpt.Domain), Err: err}
	default:
		dest.Destination = own
	}
	o := t.overrideOf(dest.Domain)
	if r := t.relayFor(dest, own.Domain, o); r != nil {
		return r.profile, r.target, nil
	}
	p = t.base
	if o != nil {
		p = o.profile
	}
	if dest.Named {
		p = t.elsewhere.profile(p, t.overrideOf(own.Domain))
	}
	if o != nil && o.nexthop != (route.Destination{}) {
		dest = plan.Target{Destination: o.nexthop, Named: true}
	}
	return p, dest, nil
}

// elsewhere has the profiles for mail that the mail server's next hop takes to
// other hosts than those of the recipient's domain. What an override demands of
// the domain's hosts by pin and local_policy it demands of any.
type elsewhere struct {
	mu   sync.Mutex
	made map[elsewhereKey]*profile
}

// elsewhereKey is the profile that the next hop has, and that of the domain.
type elsewhereKey struct{ nexthop, own *profile }

// profile gives the one for a next hop that has p; own is the override of the
// recipient's domain, nil where there is none.
func (e *elsewhere) profile(p *profile, own *override) *profile {
	if own == nil || own.profile == p {
		return p
	}
	rules := p.planner.Rules().Keeping(own.planner.Rules())
	if rules == p.planner.Rules() {
		return p
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	key := elsewhereKey{p, own.profile}
	if known := e.made[key]; known != nil {
		return known
	}
	strict := *p
	strict.planner = p.planner.Under(rules, own.match)
	strict.delivery.Planner = strict.planner
	if e.made == nil {
		e.made = map[elsewhereKey]*profile{}
	}
	e.made[key] = &strict
	return &strict
}

// overrideOf finds the override for a domain; nil: there is none.
func (t *Transport) overrideOf(domain string) *override {
	for i := range t.overrides {
		if matches(t.overrides[i].match, domain) {
			return &t.overrides[i]
		}
	}
	return nil
}

// isOwn reports whether the mail server's next hop is nothing but the
// recipient's own domain, as Postfix writes it when there is no other.
func isOwn(nexthop string, own route.Destination, err error) bool {
	if err != nil {
		return false
	}
	d, err := route.ForDomain(nexthop)
	return err == nil && d == own
}

// matches reports whether an override's pattern names a domain.
func matches(pattern, domain string) bool {
	if strings.HasPrefix(pattern, ".") {
		return len(domain) > len(pattern) && strings.HasSuffix(domain, pattern)
	}
	return domain == pattern
}

func quote(s string) string {
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return strconv.QuoteToASCII(s)
}
