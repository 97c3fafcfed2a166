package resolver

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// plainTime is for how long a server that takes no EDNS is asked without it,
// until it is tried again.
const plainTime = 10 * time.Minute

// edns is what a server has shown of EDNS (RFC 6891).
type edns struct {
	plain  atomic.Int64 // until when it is asked without, Unix nanoseconds
	gaveAD atomic.Bool  // it has validated an answer, which takes EDNS
}

// refusesEDNS reports whether a failure may mean that the server does not know
// EDNS (RFC 6891 §7).
func refusesEDNS(k Kind) bool { return k == FormErr || k == NotImp }

// askServer puts one question to one server: with EDNS, without which there is
// no DNSSEC, or without it to a server that refuses it.
//
// Going without EDNS turns DANE off, so no one must be able to bring it about.
// Silence, which anyone on the way can cause, is never a reason. A code is one
// only if the server says the same about the root, where no zone's owner has a
// hand in, and answers without EDNS what it refused with. And it is none from
// a server that has validated before: what is wrong with that one will pass,
// and mail waits meanwhile.
func (r *Resolver) askServer(ctx context.Context, s *server, q question) (response, *Error) {
	now := r.cfg.Now()
	if s.plain.Load() > now.UnixNano() {
		return r.put(ctx, s, q, plainQuery(q))
	}
	p, failed := r.put(ctx, s, q, newQuery(q))
	if failed == nil && s.plain.Load() != 0 && s.plain.Swap(0) != 0 {
		r.cfg.Logger.Info("resolver supports EDNS again", "server", s.addr)
	}
	if failed == nil || !refusesEDNS(failed.Kind) || s.gaveAD.Load() {
		return p, failed
	}
	root := question{name: ".", qtype: Type(dns.TypeSOA)}
	got, err := exchange(ctx, udp, s.addr, newQuery(root), r.cfg.Timeout)
	if err != nil || !refusesEDNS(kindOfRcode(got.msg.Rcode)) {
		return p, failed
	}
	p, again := r.put(ctx, s, q, plainQuery(q))
	if again != nil && (again.silent() || refusesEDNS(again.Kind)) {
		return p, failed
	}
	if s.plain.Swap(now.Add(plainTime).UnixNano()) == 0 {
		r.cfg.Logger.Warn("resolver does not support EDNS: queried without it, and its answers count as not validated", "server", s.addr)
	}
	return p, again
}
