package transport

import (
	"context"
	"reflect"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Plan is what the DNS and MTA-STS say about the hosts of a domain, with the
// verdict for each, for a mail server that finds the hosts by itself and dials
// them by itself. It is what a delivery would find, but for an override's next
// hop, of which that mail server knows nothing; the override's policies hold.
// An Outlook is shared and never changed.
type Plan struct {
	Domain   string // as A-labels
	Override string // the match of the override that applies; empty: none does
	// OwnPolicies says that the override has another mx_auth than the transport.
	OwnPolicies bool
	Rules       verdict.Rules     // what the transport, or the override, obeys
	Signed      bool              // the MX set, or its absence, is DNSSEC-validated
	STS         verdict.STS       // what is known of the MTA-STS policy, as in the Facts of each host
	Policy      policycache.Entry // and where it comes from; zero when it was not asked for
	Hosts       []HostPlan        // in the order of trying, then those that only force_ipv4 or their number leaves out here
	Err         *status.Error     // why there are no hosts; nil: there are some
}

// HostPlan is one host's part of an Outlook.
type HostPlan struct {
	Host    string
	Facts   verdict.Facts
	Verdict verdict.Verdict
	Err     *status.Error // why its addresses are not known; then Facts are incomplete and there is no verdict
}

const (
	// maxPlans bounds the outlooks that are kept.
	maxPlans = 5000
	// planTimeout bounds the making of one.
	planTimeout = time.Minute
)

// Plan gives a domain's outlook as of now. Names come as A-labels or
// U-labels; an address literal has none. It is kept for as long as it would
// come out the same: before it is given again, every answer that it was made
// of is looked up again, from the caches that it came from, and has to be the
// very same. So nothing outlives its TTL, a flush or a changed policy, and what
// is asked for often is refreshed ahead of its expiry as for deliveries.
//
// The error is the cause of ctx, or says that the transport is closed, or that
// there is no such domain.
func (t *Transport) Plan(ctx context.Context, domain string) (*Plan, error) {
	dest, err := route.ForDomain(domain)
	if err != nil || dest.Domain == "" {
		return nil, route.ErrDomain
	}
	for {
		s, err := t.outlooks.Get(ctx, dest.Domain)
		switch {
		case err != nil:
			return nil, err
		case !s.kept || s.holds(ctx):
			return &s.Plan, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		t.outlooks.Flush(dest.Domain)
	}
}

// cachedPlan is an Outlook and what it was made of.
type cachedPlan struct {
	Plan
	profile *profile
	seen    []dnsAnswer
	kept    bool // it may be given again
}

// holds reports whether all that the outlook was made of is still so.
func (s *cachedPlan) holds(ctx context.Context) bool {
	for i := range s.seen {
		q := &s.seen[i]
		answer, err := s.profile.resolver.Lookup(ctx, q.name, q.qtype)
		if err != nil || !sameAnswer(&answer, &q.answer) {
			return false
		}
	}
	if s.profile.policies == nil {
		return true
	}
	entry, err := s.profile.policies.Lookup(ctx, s.Domain)
	p := &s.Policy
	return err == nil && entry.State == p.State && entry.ID == p.ID && entry.RecordID == p.RecordID &&
		entry.Expires.Equal(p.Expires) && entry.Err == p.Err && entry.Policy.Mode == p.Policy.Mode
}

func (t *Transport) newOutlooks() *cache.Cache[string, *cachedPlan] {
	return cache.New(t.look, cache.Options{Size: maxPlans, Timeout: planTimeout})
}

// look makes an outlook, for the cache.
func (t *Transport) look(ctx context.Context, domain string) (*cachedPlan, time.Time, error) {
	p := t.base
	s := &cachedPlan{Plan: Plan{Domain: domain}}
	if o := t.overrideOf(domain); o != nil {
		p = o.profile
		s.Override = o.match
		s.OwnPolicies = !reflect.DeepEqual(p.cfg.MXAuth, t.base.cfg.MXAuth)
	}
	s.profile, s.Rules = p, p.rules
	witness := &recordingResolver{Resolver: p.resolver}
	looking := *p
	looking.resolver, looking.finder = witness, p.finder.WithResolver(witness)

	dest := route.Destination{Domain: domain}
	var both errgroup.Group
	if p.policies != nil {
		both.Go(func() (err error) {
			s.Policy, err = p.policies.Lookup(ctx, domain)
			return err
		})
	}
	way, routeErr := looking.finder.Route(ctx, dest)
	if err := both.Wait(); err != nil {
		return nil, time.Time{}, err
	}
	if p.policies != nil {
		s.STS = stsOf(s.Policy)
	}
	s.Signed = way.Secure
	if routeErr != nil {
		s.Err = routeError(ctx, routeErr, destination{dest, false})
	} else {
		s.hosts(ctx, &looking, &way)
	}
	if ctx.Err() != nil {
		return nil, time.Time{}, context.Cause(ctx) // what failed may have failed for want of time
	}
	var expires time.Time
	if s.seen, expires = witness.testimony(); time.Now().Before(expires) {
		s.kept = true
	}
	return s, expires, nil
}

// hosts looks at the hosts of a route, several at once.
func (s *cachedPlan) hosts(ctx context.Context, p *profile, way *route.Route) {
	s.Hosts = make([]HostPlan, len(way.Hosts))
	var all errgroup.Group
	all.SetLimit(hostsAtOnce)
	for i, host := range way.Hosts {
		all.Go(func() error {
			found := p.survey(ctx, way, host, s.STS, verdict.Demands{Relaxed: true})
			h := &s.Hosts[i]
			*h = HostPlan{Host: host.Name, Facts: found.facts, Verdict: found.verdict}
			if found.err != nil {
				h.Err = statusOf(ctx, found.err, host.Name)
				h.Facts = verdict.Facts{Host: host.Name, Signed: way.Secure, STS: s.STS}
			}
			return nil
		})
	}
	_ = all.Wait() // nobody returns an error
	for _, d := range way.Dropped {
		// The other mail server has its own reasons to leave hosts out.
		if d.Reason == route.NoIPv4 || d.Reason == route.TooMany {
			s.Hosts = append(s.Hosts, HostPlan{
				Host: d.Host.Name, Facts: verdict.Facts{Host: d.Host.Name, Signed: way.Secure, STS: s.STS},
				Err: &status.Error{Code: status.New(status.Temporary, 4, 4), Host: d.Host.Name, Text: d.Reason.String()},
			})
		}
	}
}
