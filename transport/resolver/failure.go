package resolver

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// How long a failure is remembered (RFC 9520 §3.2): briefly at first, as most
// pass, and for longer with each failure after it, while somebody asks.
const (
	firstPause = 5 * time.Second
	maxPause   = 5 * time.Minute
)

// failureBytes is about what a remembered failure takes: an Error with the
// error of the network in it.
const failureBytes = 600

// aliveTime is how long a server may take to show that it is there. It has the
// answer, or is not fit to be asked.
const aliveTime = time.Second

// remembered is what the next failure of a question must know of the last.
type remembered struct {
	pause time.Duration
	// heard tells that servers answered other questions meanwhile.
	heard bool
	// mute tells that no server says anything to anybody, as far as is known.
	// It is not the question's fault then, and the first word of a server
	// voids it.
	mute bool
	// generation is the resolver's, at the time.
	generation uint64
}

// Holds is until when a caller need not ask again to hear the same. It is a
// little before Expires, so that who asks then gets the question put again
// while the failure is still remembered, and waits for nothing. The zero time
// means that every moment may bring something else: the failure is not
// remembered, or is the silence of servers that may speak again.
func (e *Error) Holds() time.Time {
	if e.mute || e.Expires.IsZero() {
		return time.Time{}
	}
	return e.Expires.Add(-e.pause / 10)
}

// silence tells the silence that meets one question from that of servers which
// are down or out of reach.
type silence struct {
	heard      atomic.Uint64 // how often servers said something
	muted      atomic.Bool   // failures are remembered that the next word voids
	generation atomic.Uint64
}

// spoke notes that a server said something, whatever it was.
func (s *silence) spoke() {
	s.heard.Add(1)
	if s.muted.Load() && s.muted.CompareAndSwap(true, false) {
		s.generation.Add(1)
	}
}

// outdated reports whether a failure no longer counts: it was the silence of a
// server that has spoken since.
func (s *silence) outdated(e *Error) bool { return e.mute && e.generation != s.generation.Load() }

// remember decides how long a failure is the answer to a question.
//
// A question that the servers answer with a failure, and one that is dropped by
// servers which answer others, is left alone for longer each time: it is the
// authoritative servers that do not do their work, or an attacker who wants us
// to ask. Servers that say nothing at all are our own trouble, which ends at a
// moment that nothing announces: they are asked again after the shortest pause,
// and their first answer, to whatever it is, voids all that was remembered.
func (r *Resolver) remember(ctx context.Context, q question, e *Error) {
	if e.Kind == Cancelled || e.Kind == BadName {
		return
	}
	var last *Error
	kept, _ := r.cache.Last(q)
	now := r.cfg.Now()
	if errors.As(kept.Err, &last) && (last.mute || now.Sub(kept.Expires) > maxPause) {
		last = nil // nothing follows from that
	}
	if e.Err == errBusy {
		// Nobody was asked. It says nothing of the next time.
		e.pause, e.Expires = firstPause, now.Add(firstPause)
		return
	}
	if e.silent() && !e.heard && ctx.Err() == nil && !r.alive(ctx) {
		e.mute = true
		e.generation = r.generation.Load()
		r.muted.Store(true)
	}
	e.pause = firstPause
	if last != nil && !e.mute {
		e.pause = min(2*last.pause, maxPause)
	}
	e.Expires = now.Add(e.pause)
}

// alive asks the servers for something that all of them know.
func (r *Resolver) alive(ctx context.Context) bool {
	for _, s := range r.servers {
		if _, err := exchange(ctx, udp, s.addr, newQuery(question{name: ".", qtype: Type(dns.TypeSOA)}), min(aliveTime, r.cfg.Timeout)); err == nil {
			r.spoke()
			return true
		}
	}
	return false
}
