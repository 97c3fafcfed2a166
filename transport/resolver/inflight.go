package resolver

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"
)

// How many questions are under way at once: in all, and about names that one
// owner has registered. A zone whose servers are silent holds each question for
// all of its time, so that without the second bound a few hundred names of one
// hostile zone would keep everybody else from asking. Those that wait for a
// place give up when a server would have: where servers answer, a place comes
// free in no time.
const (
	maxAtOnce   = 500
	maxPerOwner = 50
)

var errBusy = errors.New("too many DNS queries in progress, in total or for this domain")

// inFlight gives out the places for questions.
type inFlight struct {
	all     chan struct{}
	maxWait time.Duration // for a place

	mu     sync.Mutex
	owners map[string]*ownerPlaces // those with a question under way or waiting
}

type ownerPlaces struct {
	places chan struct{}
	users  int // questions under way or waiting
}

func newInFlight(maxWait time.Duration) *inFlight {
	return &inFlight{all: make(chan struct{}, maxAtOnce), maxWait: maxWait, owners: map[string]*ownerPlaces{}}
}

// enter waits for a place for a question about a name. It is given back by
// leave; without one, because ctx has ended or after maxWait, there is nothing
// to give back.
func (f *inFlight) enter(ctx context.Context, name string) (leave func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.maxWait, errBusy)
	defer cancel()
	key := ownerOf(name)
	owner := f.retain(key)
	// The owner's place comes first: who waits for it keeps no other out.
	select {
	case owner.places <- struct{}{}:
	case <-ctx.Done():
		f.release(key)
		return nil, context.Cause(ctx)
	}
	select {
	case f.all <- struct{}{}:
	case <-ctx.Done():
		<-owner.places
		f.release(key)
		return nil, context.Cause(ctx)
	}
	return func() {
		<-f.all
		<-owner.places
		f.release(key)
	}, nil
}

func (f *inFlight) retain(key string) *ownerPlaces {
	f.mu.Lock()
	defer f.mu.Unlock()
	owner := f.owners[key]
	if owner == nil {
		owner = &ownerPlaces{places: make(chan struct{}, maxPerOwner)}
		f.owners[key] = owner
	}
	owner.users++
	return owner
}

func (f *inFlight) release(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	owner := f.owners[key]
	if owner.users--; owner.users == 0 {
		delete(f.owners, key)
	}
}

// ownerOf gives the registrable domain of a name in its normal form, under
// which one owner has all the names.
func ownerOf(name string) string {
	name = strings.TrimSuffix(name, ".")
	owner, err := publicsuffix.EffectiveTLDPlusOne(name)
	if err != nil {
		return name // it is a public suffix, or the root
	}
	return owner
}
