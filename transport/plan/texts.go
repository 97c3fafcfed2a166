package plan

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
)

// Writer makes a text of a whole plan, such as an answer in some protocol. It
// is known by its address: there is one for each kind of text.
type Writer struct{ Write func(*Plan) string }

// textKey is what a text is kept under.
type textKey struct {
	source *source
	name   string // the domain, or domain:port
}

// keyOf gives the key of a text.
func keyOf(s *source, domain string, port uint16) textKey {
	if port != 0 {
		domain += ":" + strconv.Itoa(int(port))
	}
	return textKey{s, domain}
}

// target is what the text is about.
func (k textKey) target() Target {
	domain, port, _ := strings.Cut(k.name, ":")
	n, _ := strconv.ParseUint(port, 10, 16) // none is 0
	return Target{Destination: route.Destination{Domain: domain, Port: uint16(n)}}
}

// source is whose text it is, and what kind of text.
type source struct {
	planner *Planner
	writer  *Writer
}

// sources are those of a planner: one for each Writer.
type sources struct{ atomic.Pointer[[]*source] }

// source gives that of a Writer.
func (p *Planner) source(w *Writer) *source {
	for {
		var list []*source
		old := p.sources.Load()
		if old != nil {
			list = *old
		}
		for _, s := range list {
			if s.writer == w {
				return s
			}
		}
		more := append(list[:len(list):len(list)], &source{p, w})
		p.sources.CompareAndSwap(old, &more)
	}
}

// keptText is a text with what its plan was made of, as far as that may change
// before the text expires. It is small, since there are many.
type keptText struct {
	text  string
	since generations // before anything was asked
	// the Serial of the domain's policy; 0: none was asked for
	policy uint64
}

// generations are those of the resolver and of the cache of policies.
type generations struct{ dns, policies uint64 }

// now gives what they are.
func (p *Planner) now() (g generations) {
	g.dns, _ = p.generation()
	if p.policies != nil {
		g.policies = p.policies.Generation()
	}
	return g
}

// notBefore compares two moments.
func (g generations) notBefore(o generations) bool { return g.dns >= o.dns && g.policies >= o.policies }

// newTexts makes the cache of texts.
func newTexts(c *Cache, bytes int64) *cache.Cache[textKey, keptText] {
	return cache.New(c.loadText, cache.Options[textKey, keptText]{
		Bytes:   bytes,
		Cost:    func(k textKey, e cache.Entry[keptText]) int { return len(k.name) + len(e.Value.text) + 16 },
		Timeout: 2 * lookupTimeout,
	})
}

// Text gives what a Writer makes of the whole plan for a domain's mail, as of
// now, at a port or, if that is 0, at the usual one, and for a message that
// makes no demands of its own. It is [Planner.Plan] for those who need no plan.
// The error is the cause of ctx, or says that the cache is closed.
func (p *Planner) Text(ctx context.Context, domain string, port uint16, w *Writer) (string, error) {
	texts, key := p.cfg.Cache.texts, keyOf(p.source(w), domain, port)
	begun := p.now()
	for {
		kept, hit, err := texts.Hit(ctx, key)
		switch {
		case err != nil:
			return "", err
		case p.textHolds(&kept, domain):
			return kept.text, nil
		case !hit && kept.since.notBefore(begun):
			// It was made for this call, or after it began. To hold it against
			// what changes meanwhile might have it made for ever.
			return kept.text, nil
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		}
		texts.Flush(key)
	}
}

// textHolds reports whether all that a text was made of is still what it was.
// It has not expired.
func (p *Planner) textHolds(kept *keptText, domain string) bool {
	now := p.now()
	return now.dns == kept.since.dns &&
		(kept.policy == 0 || now.policies == kept.since.policies || p.policies.Unchanged(domain, kept.policy))
}

// loadText makes a text, for the cache.
func (c *Cache) loadText(ctx context.Context, key textKey) (keptText, time.Time, error) {
	p := key.source.planner
	kept := keptText{since: p.now()}
	plan, policy := p.whole(ctx, key.target())
	if ctx.Err() != nil {
		// What failed may have failed for want of time.
		return keptText{}, time.Time{}, context.Cause(ctx)
	}
	kept.text, kept.since.dns = key.source.writer.Write(plan), plan.generation
	expires := plan.expires
	if policy != nil {
		if kept.policy = policy.Serial; kept.policy == 0 || p.policies == nil {
			expires = time.Time{} // nobody could tell when the policy changes
		}
		expires = earlier(expires, policy.Until)
	}
	if d, ok := p.cfg.Resolver.(dropper); ok && time.Now().Before(expires) {
		// The domain's own, and no other's.
		d.Drop(plan.Target.Domain, resolver.TypeMX)
	}
	return kept, expires, nil
}

// dropper is what a resolver with a cache can do for who keeps what is made of
// an answer.
type dropper interface {
	Drop(name string, qtype resolver.Type)
}

// whole makes the whole plan for a target, from the one that is kept if that
// holds, and keeps nothing. It gives the entry of the policy as of now too.
func (p *Planner) whole(ctx context.Context, target Target) (*Plan, *policycache.Entry) {
	known, ok := p.cfg.Cache.plans.Entry(cacheKey{p, target})
	plan := known.Value
	if ok && p.stillCurrent(plan) {
		policy, same := p.policyOf(ctx, plan)
		if same {
			return p.lookupHosts(ctx, plan, plan.unknown()), policy
		}
	}
	plan = p.load(ctx, target)
	return p.lookupHosts(ctx, plan, plan.unknown()), plan.Policy
}
