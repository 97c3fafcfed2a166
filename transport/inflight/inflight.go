// Package inflight bounds how much is asked of others at once: in all, and
// about names that one owner has registered.
//
// Servers that are silent hold each question for all of its time. With a bound
// on all questions alone, a few hundred names of one hostile zone would keep
// everybody else from asking. So a question needs two places: one of its
// owner's, and then one of all. Who waits for the first keeps nobody else out.
// The owner is the registrable domain of the name (public suffix list).
//
// Who waits for a place gives up after a time: where servers answer, a place
// comes free in no time.
package inflight

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/transport/registrable"
)

// ErrBusy says that no place came free in time.
var ErrBusy = errors.New("too much in progress, in all or for this domain")

// Places are given out to what is in progress. They are safe for concurrent
// use, and have nothing to stop.
type Places struct {
	all      chan struct{}
	perOwner int
	maxWait  time.Duration

	mu     sync.Mutex
	owners map[string]*owner // those with something in progress or waiting
}

type owner struct {
	places chan struct{}
	users  int // in progress or waiting
}

// New makes places: so many in all, so many for each owner of a name, and each
// waited for so long.
func New(all, perOwner int, maxWait time.Duration) *Places {
	return &Places{all: make(chan struct{}, all), perOwner: perOwner, maxWait: maxWait, owners: map[string]*owner{}}
}

// Enter waits for a place for something about a name, which is in its normal
// form. It is given back by leave. The error is ErrBusy or the cause of ctx's
// end; nothing is to be given back then.
func (p *Places) Enter(ctx context.Context, name string) (leave func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.maxWait, ErrBusy)
	defer cancel()
	key := registrable.Domain(name)
	o := p.retain(key)
	select {
	case o.places <- struct{}{}:
	case <-ctx.Done():
		p.release(key)
		return nil, context.Cause(ctx)
	}
	select {
	case p.all <- struct{}{}:
	case <-ctx.Done():
		<-o.places
		p.release(key)
		return nil, context.Cause(ctx)
	}
	return func() {
		<-p.all
		<-o.places
		p.release(key)
	}, nil
}

func (p *Places) retain(key string) *owner {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.owners[key]
	if o == nil {
		o = &owner{places: make(chan struct{}, p.perOwner)}
		p.owners[key] = o
	}
	o.users++
	return o
}

func (p *Places) release(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.owners[key]
	if o.users--; o.users == 0 {
		delete(p.owners, key)
	}
}
