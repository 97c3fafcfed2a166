package plan

import (
	"context"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
)

// recordingResolver is a resolver that remembers what it answered.
type recordingResolver struct {
	route.Resolver

	mu      sync.Mutex
	answers []dnsAnswer
	failed  bool      // something could not be answered, or changed on the way
	expires time.Time // the earliest
}

// dnsAnswer is one answer.
type dnsAnswer struct {
	name   string
	qtype  resolver.Type
	answer resolver.Answer
}

// Lookup implements route.Resolver.
func (r *recordingResolver) Lookup(ctx context.Context, name string, qtype resolver.Type) (resolver.Answer, error) {
	answer, err := r.Resolver.Lookup(ctx, name, qtype)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.failed = true
		return answer, err
	}
	for i := range r.answers {
		if s := &r.answers[i]; s.qtype == qtype && s.name == name {
			r.failed = r.failed || !sameAnswer(&s.answer, &answer)
			return answer, nil
		}
	}
	r.answers = append(r.answers, dnsAnswer{name, qtype, answer})
	if r.expires.IsZero() || answer.Expires.Before(r.expires) {
		r.expires = answer.Expires
	}
	return answer, nil
}

// recorded gives the answers and when the first of them expires, which is the
// zero time when they do not make a whole: failures are not remembered.
func (r *recordingResolver) recorded() ([]dnsAnswer, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed {
		return nil, time.Time{}
	}
	return r.answers, r.expires
}

// sameAnswer reports whether two answers to a question are one and the same, from
// the same exchange with a server.
func sameAnswer(a, b *resolver.Answer) bool { return a.Serial == b.Serial }
