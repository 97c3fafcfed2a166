// Package resolver asks the DNS, as a stub resolver that trusts a validating
// one nearby (RFC 4035 §4.9). A [Resolver.Lookup] goes this way:
//
//  1. The name is checked and brought to one form. It is always absolute:
//     search domains are never applied.
//  2. The cache answers, or the flight that is under way for the same name and
//     type is waited for. Negative answers are cached too (RFC 2308), and so
//     are failures, for seconds at first and for minutes where they go on (RFC
//     9520). Entries in use are refreshed ahead of their expiry.
//  3. Otherwise the servers are asked in their order, in several rounds, by
//     UDP from a fresh socket with EDNS, DO and AD, and by TCP when an answer
//     is truncated. What does not match the question is no answer to it. A
//     server that answers SERVFAIL, REFUSED, NOTIMP, FORMERR or nonsense is
//     skipped for the next one; one that takes no EDNS at all is asked without,
//     and its AD does not count.
//  4. The answer's CNAME records are followed from the name to the records.
//     Records beside that chain are ignored. Where the server did not follow
//     it to the end, the target is asked for by itself.
//
// An [Answer] is secure when a server whose AD flag counts said so in every
// step. An [Answer] without records is proven: it says that the name has none
// of the type, or does not exist. Everything else is an [*Error] and temporary;
// no failure ever turns into "there is no such record".
//
// A resolver whose AD flag counts is not backed up by one whose flag does not:
// as soon as one server of the list is trusted, the untrusted ones of the list
// are left out. Otherwise anyone who makes validation fail (SERVFAIL for a
// forged answer) would have the forged answer taken from the next server, and
// DANE switched off with it.
//
// The record types of the DNS library stay in this package: others see a [Type]
// and the values of [Records].
//
// Bounds: 16 aliases; 50 addresses, 100 MX, 64 TLSA or 100 other records an
// answer; 64 KiB a message, 100 datagrams that are no answer to a question, 500
// questions at once and 50 about the names of one owner, a day for a TTL and
// an hour for a negative one.
package resolver

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/transport/inflight"
)

// Config says whom a Resolver asks, and how patiently.
type Config struct {
	// Servers are asked in this order: host, host:port, [v6] or [v6]:port;
	// the port is 53 if there is none. A host that is a name is looked up by
	// the system. A server that did not answer is asked last for a while.
	Servers []string
	// TrustAD says which servers' AD flag counts.
	TrustAD TrustAD
	// Timeout is how long one server may take over one question; 0 means 5s.
	Timeout time.Duration
	// Attempts is how many times the list of servers is gone through; 0
	// means 3.
	Attempts int
	// CacheBytes is how many bytes the cached answers may take; 0 means 128
	// MiB. An answer takes about 500 bytes, so that there is room for two
	// about each of 100,000 domains and for those about their hosts.
	CacheBytes int64
	// Now is the clock that answers expire by; nil means time.Now.
	Now func() time.Time
	// Logger is told what servers do wrong; nil means nothing is.
	Logger *slog.Logger
}

// Resolver looks names up. It is safe for concurrent use.
type Resolver struct {
	cfg     Config
	servers []*server
	cache   *cache.Cache[question, kept]
	flight  *inflight.Places
	silence
}

// How many questions are under way at once: in all, and about names of one
// owner.
const (
	maxAtOnce   = 500
	maxPerOwner = 50
)

var errBusy = errors.New("too many DNS queries in progress, in total or for this domain")

// question is what is asked for; its name is normal.
type question struct {
	name  string
	qtype Type
	once  bool // that there are no records is not kept
}

// New makes a Resolver, which must be closed. An error means that the list of
// servers is empty or malformed.
func New(cfg Config) (*Resolver, error) {
	cfg.Timeout = cmp.Or(max(cfg.Timeout, 0), 5*time.Second)
	cfg.Attempts = cmp.Or(max(cfg.Attempts, 0), 3)
	cfg.CacheBytes = cmp.Or(max(cfg.CacheBytes, 0), 128<<20)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	all, err := parseServers(cfg.Servers)
	if err != nil {
		return nil, err
	}
	servers, left := choose(all, cfg.TrustAD)
	for _, s := range left {
		cfg.Logger.Warn("resolver not used: its answers cannot be trusted like those of the other servers (trust_ad)", "server", s.addr)
	}
	r := &Resolver{cfg: cfg, servers: servers, flight: inflight.New(maxAtOnce, maxPerOwner, cfg.Timeout)}
	r.cache = cache.New(r.load, cache.Options[question, kept]{
		Bytes: cfg.CacheBytes,
		Cost:  cost,
		Keep: func(q question, e cache.Entry[kept]) bool {
			return !q.once || e.Err != nil || e.Value.existence == Exists
		},
		Now: cfg.Now,
		// Every server times out in every round, by UDP and then by TCP,
		// and once more when it is asked whether it is there at all. (One
		// that refuses EDNS is not silent, and is asked twice more.)
		Timeout: 2*cfg.Timeout*time.Duration(cfg.Attempts*len(servers)) + aliveTime*time.Duration(len(servers)),
	})
	return r, nil
}

// Close cancels the look-ups under way and waits for them to end.
func (r *Resolver) Close() {
	// The error could only be that of the context, which has no end.
	_ = r.cache.Close(context.Background())
}

// Lookup finds the records of a type at a name, following aliases unless CNAME
// itself is asked for. The name is in DNS presentation form, with or without
// the final dot; international names come as A-labels.
//
// The error is always an *Error, and temporary. When ctx ends the look-up goes
// on for others and for the cache. What Answer points to is shared: do not
// change it.
func (r *Resolver) Lookup(ctx context.Context, name string, qtype Type) (Answer, error) {
	return r.lookup(ctx, name, qtype, false)
}

// LookupOnce is Lookup for a caller that keeps itself what an answer says,
// until it expires: that there are no records is not kept twice. Records are,
// to be looked at, and failures are remembered as always.
func (r *Resolver) LookupOnce(ctx context.Context, name string, qtype Type) (Answer, error) {
	if a, ok, err := r.Known(name, qtype); ok {
		return a, err
	}
	return r.lookup(ctx, name, qtype, true)
}

func (r *Resolver) lookup(ctx context.Context, name string, qtype Type, once bool) (Answer, error) {
	normal, err := normalName(name)
	if err != nil {
		return Answer{}, &Error{Name: name, Type: qtype, Kind: BadName, Err: err}
	}
	if !qtype.known() {
		return Answer{}, &Error{Name: name, Type: qtype, Kind: BadName, Err: errType}
	}
	q := question{name: normal, qtype: qtype, once: once}
	for {
		entry, err := r.cache.GetEntry(ctx, q)
		if err == nil {
			return answerOf(q, entry), nil
		}
		var e *Error
		if !errors.As(err, &e) {
			// The caller's context has ended, or the resolver is closed.
			e = &Error{Name: normal, Type: qtype, Kind: Cancelled, Err: err}
			if errors.Is(err, context.DeadlineExceeded) {
				e.Kind = Timeout
			}
		}
		if !r.outdated(e) {
			return Answer{}, e
		}
		r.cache.Flush(q)
	}
}

// Known gives what Lookup would give at once, from the cache; otherwise nothing
// is asked, and ok is false.
func (r *Resolver) Known(name string, qtype Type) (a Answer, ok bool, err error) {
	normal, err := normalName(name)
	if err != nil {
		return Answer{}, false, nil
	}
	q := question{name: normal, qtype: qtype}
	entry, ok := r.cache.Peek(q)
	if !ok {
		return Answer{}, false, nil
	}
	var e *Error
	if errors.As(entry.Err, &e) && r.outdated(e) {
		return Answer{}, false, nil
	}
	return answerOf(q, entry), true, entry.Err
}

// Drop forgets an answer, for who keeps what is made of it until it expires: it
// is asked for again when it is next wanted. Failures stay.
func (r *Resolver) Drop(name string, qtype Type) {
	normal, err := normalName(name)
	if err != nil {
		return
	}
	q := question{name: normal, qtype: qtype}
	if entry, ok := r.cache.Entry(q); ok && entry.Err == nil {
		r.cache.Flush(q)
	}
}

// Pending reports whether a question has been put to the servers that none of
// them has answered yet, and how long ago.
func (r *Resolver) Pending(name string, qtype Type) (so time.Duration, ok bool) {
	normal, err := normalName(name)
	if err != nil {
		return 0, false
	}
	since, ok := r.cache.Pending(question{name: normal, qtype: qtype})
	if !ok {
		return 0, false
	}
	return r.cfg.Now().Sub(since), true
}

// Cached lists the answers in the cache, the last used first.
func (r *Resolver) Cached() []Answer {
	var list []Answer
	for _, q := range r.cache.Keys() {
		if e, ok := r.cache.Entry(q); ok && e.Err == nil {
			list = append(list, answerOf(q, e))
		}
	}
	return list
}

// CachedFailures lists the failures that are remembered, the last used first.
func (r *Resolver) CachedFailures() []*Error {
	var list []*Error
	for _, q := range r.cache.Keys() {
		var e *Error
		if entry, ok := r.cache.Entry(q); ok && errors.As(entry.Err, &e) && !r.outdated(e) {
			list = append(list, e)
		}
	}
	return list
}

// Generation is a number that changes whenever answers or failures that were
// given may no longer hold although they have not expired: after a flush, and
// when a resolver that said nothing speaks again. What is made of several
// answers holds until the first of them expires, or the number changes.
func (r *Resolver) Generation() uint64 { return r.generation.Load() }

// Flush forgets the cached answers and failures about a domain and the names
// below it, and tells how many there were. An empty domain means all of them.
func (r *Resolver) Flush(domain string) int {
	normal, err := normalName(domain)
	if err != nil && domain != "" {
		return 0
	}
	defer r.generation.Add(1)
	return r.cache.FlushAll(func(q question) bool {
		return domain == "" || q.name == normal || strings.HasSuffix(q.name, "."+normal)
	})
}

// Stats gives the cache's counters.
func (r *Resolver) Stats() cache.Stats { return r.cache.Stats() }

// load answers a question from the servers, for the cache.
func (r *Resolver) load(ctx context.Context, q question) (kept, time.Time, error) {
	a := kept{secure: true}
	canonical, ttl, aliases := q.name, maxTTL, 0
	for {
		p, err := r.ask(ctx, question{name: canonical, qtype: q.qtype})
		if err != nil {
			// The caller knows the name that it asked for.
			err.Name = q.name
			r.remember(ctx, q, err)
			return kept{}, err.Expires, err
		}
		canonical = p.canonical
		a.existence = p.existence
		a.records, a.omitted = p.records, uint32(p.omitted)
		a.secure = a.secure && p.secure
		ttl, aliases = min(ttl, p.ttl), aliases+p.aliases
		if !p.unfinished {
			if canonical != q.name {
				a.canonical = &canonical
			}
			return a, r.cfg.Now().Add(ttl), nil
		}
		if aliases > maxAliases {
			err := &Error{Name: q.name, Type: q.qtype, Kind: Malformed, Err: errAliases}
			r.remember(ctx, q, err)
			return kept{}, err.Expires, err
		}
	}
}

// ask puts one question to the servers until one of them answers.
func (r *Resolver) ask(ctx context.Context, q question) (response, *Error) {
	leave, err := r.flight.Enter(ctx, q.name)
	if err != nil {
		e := contextError(ctx, q)
		if errors.Is(err, inflight.ErrBusy) || e.Kind == Timeout {
			e.Kind, e.Err = Timeout, errBusy
		}
		return response{}, e
	}
	defer leave()
	var reason *Error
	before := r.heard.Load()
	for range r.cfg.Attempts {
		for _, s := range inOrder(r.servers, r.cfg.Now()) {
			start := time.Now()
			p, err := r.askServer(ctx, s, q)
			if ctx.Err() != nil && err != nil {
				return response{}, contextError(ctx, q)
			}
			s.note(p, err, time.Since(start))
			if err == nil || !err.silent() {
				r.spoke()
			}
			if err == nil {
				s.answered()
				return p, nil
			}
			r.cfg.Logger.Debug("look-up failed", "name", q.name, "type", q.qtype, "server", s.addr, "error", err)
			if err.Kind == Timeout || err.Kind == Unreachable {
				s.failed(r.cfg.Now())
			}
			// What a server said tells more than the silence of another.
			if reason == nil || reason.silent() || !err.silent() {
				reason = err
			}
		}
	}
	reason.heard = r.heard.Load() != before
	return response{}, reason
}

// put puts one question to one server, in such a form.
func (r *Resolver) put(ctx context.Context, s *server, q question, query *dns.Msg) (response, *Error) {
	fail := func(kind Kind, err error) (response, *Error) {
		return response{}, &Error{Name: q.name, Type: q.qtype, Kind: kind, Server: s.addr, Err: err}
	}
	got, err := exchange(ctx, udp, s.addr, query, r.cfg.Timeout)
	if errors.Is(err, errTruncated) {
		// RFC 2181 §9: a truncated answer says nothing but that there is more.
		got, err = exchange(ctx, tcp, s.addr, query, r.cfg.Timeout)
	}
	if err != nil {
		return fail(kindOf(err), err)
	}
	if got.msg.Rcode != dns.RcodeSuccess && got.msg.Rcode != dns.RcodeNameError {
		return fail(kindOfRcode(got.msg.Rcode), extendedError(got.msg))
	}
	p, err := parseResponse(got.msg, q)
	if err != nil {
		return fail(Malformed, err)
	}
	p.secure = got.msg.AuthenticatedData && query.IsEdns0() != nil && r.cfg.TrustAD.trusts(got.from)
	if got.msg.AuthenticatedData {
		s.gaveAD.Store(true)
	}
	return p, nil
}

// contextError is the error of a look-up whose own context has ended.
func contextError(ctx context.Context, q question) *Error {
	e := &Error{Name: q.name, Type: q.qtype, Kind: Cancelled, Err: context.Cause(ctx)}
	if errors.Is(e.Err, context.DeadlineExceeded) {
		e.Kind = Timeout
	}
	return e
}
