package plan

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
)

// recordingResolver is a resolver that remembers for how long what it answered
// holds, remembered failures included. What cannot be held, because a look-up
// ended early or is still under way, has no such time.
type recordingResolver struct {
	route.Resolver

	mu      sync.Mutex
	never   bool      // something does not hold beyond this moment
	expires time.Time // the earliest; zero: nothing was asked
}

// peeker is what a resolver with a cache can do besides.
type peeker interface {
	Known(name string, qtype resolver.Type) (resolver.Answer, bool, error)
	Pending(name string, qtype resolver.Type) (so time.Duration, ok bool)
}

// Lookup implements route.Resolver.
func (r *recordingResolver) Lookup(ctx context.Context, name string, qtype resolver.Type) (resolver.Answer, error) {
	answer, err := r.Resolver.Lookup(ctx, name, qtype)
	r.record(&answer, err)
	return answer, err
}

// Known gives what Lookup would give at once, where the resolver can.
func (r *recordingResolver) Known(name string, qtype resolver.Type) (resolver.Answer, bool, error) {
	p, ok := r.Resolver.(peeker)
	if !ok {
		return resolver.Answer{}, false, nil
	}
	answer, ok, err := p.Known(name, qtype)
	if ok {
		r.record(&answer, err)
	}
	return answer, ok, err
}

// Pending tells for how long a question has been under way, where the resolver
// can.
func (r *recordingResolver) Pending(name string, qtype resolver.Type) (time.Duration, bool) {
	if p, ok := r.Resolver.(peeker); ok {
		return p.Pending(name, qtype)
	}
	return 0, false
}

func (r *recordingResolver) record(answer *resolver.Answer, err error) {
	expires := answer.Expires
	if err != nil {
		expires = remembered(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case expires.IsZero():
		r.never = true
	case r.expires.IsZero() || expires.Before(r.expires):
		r.expires = expires
	}
}

// remembered gives until when a failed look-up is not tried again; the zero
// time: it is not remembered.
func remembered(err error) time.Time {
	var failed *resolver.Error
	if errors.As(err, &failed) {
		return failed.Expires
	}
	return time.Time{}
}

// unasked is how long holds what nothing had to be asked for.
const unasked = time.Hour

// recorded gives until when everything that was answered holds; the zero time:
// not beyond this moment.
func (r *recordingResolver) recorded() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.never:
		return time.Time{}
	case r.expires.IsZero():
		return time.Now().Add(unasked)
	}
	return r.expires
}
