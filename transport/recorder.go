package transport

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
func (w *recordingResolver) Lookup(ctx context.Context, name string, qtype resolver.Type) (resolver.Answer, error) {
	answer, err := w.Resolver.Lookup(ctx, name, qtype)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed = true
		return answer, err
	}
	for i := range w.answers {
		if s := &w.answers[i]; s.qtype == qtype && s.name == name {
			w.failed = w.failed || !sameAnswer(&s.answer, &answer)
			return answer, nil
		}
	}
	w.answers = append(w.answers, dnsAnswer{name, qtype, answer})
	if w.expires.IsZero() || answer.Expires.Before(w.expires) {
		w.expires = answer.Expires
	}
	return answer, nil
}

// testimony gives the answers and when the first of them expires, which is the
// zero time when they do not make a whole: failures are not remembered.
func (w *recordingResolver) testimony() ([]dnsAnswer, time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed {
		return nil, time.Time{}
	}
	return w.answers, w.expires
}

// sameAnswer reports whether two answers to a question are one and the same, from
// the same exchange with a server.
func sameAnswer(a, b *resolver.Answer) bool { return a.Serial == b.Serial }
