package intake

import (
	"context"
	"strings"
	"sync"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/fairqueue"
)

// Slots are those of max_deliveries. Who waits for one has it when its turn
// comes (package fairqueue): destinations and sender domains in turn, so that
// one slow destination's flood, or one sender's, does not keep others waiting.
//
// The last tenth is for messages to destinations with nothing under way. The
// mail for one destination never has it all, however slow that is.
//
// What waits is bounded by what may be coming in: a message that waits for a
// slot is still an upload. Slots are safe for concurrent use.
type Slots struct {
	max, reserve int

	mu       sync.Mutex
	used     int
	underWay map[string]int // messages with a slot, by destination
	queue    fairqueue.Queue[*slotWaiter]
}

type slotWaiter struct {
	ready    chan struct{} // closed when it has a slot
	admitted bool          // under Slots.mu
}

// NewSlots makes so many.
func NewSlots(n int) *Slots {
	return &Slots{max: n, reserve: n / 10, underWay: map[string]int{}}
}

// TryAcquire takes a slot if there is one at once.
func (s *Slots) TryAcquire(flow fairqueue.Flow) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.free(flow.Destination) {
		return false
	}
	s.take(flow.Destination)
	return true
}

// Acquire waits for a slot until ctx ends, and gives the cause of that.
func (s *Slots) Acquire(ctx context.Context, flow fairqueue.Flow) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.mu.Lock()
	if s.free(flow.Destination) {
		s.take(flow.Destination)
		s.mu.Unlock()
		return nil
	}
	me := &slotWaiter{ready: make(chan struct{})}
	spot := s.queue.Push(flow, me)
	s.mu.Unlock()
	select {
	case <-me.ready:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case me.admitted && ctx.Err() == nil:
		return nil
	case me.admitted:
		s.giveBack(flow.Destination)
	default:
		s.queue.Remove(spot)
	}
	return context.Cause(ctx)
}

// free reports whether a message has a slot at once. Nothing waits that could
// have it: what could was given it when it became free.
func (s *Slots) free(destination string) bool {
	return s.used < s.max-s.reserve || s.used < s.max && s.underWay[destination] == 0
}

func (s *Slots) take(destination string) {
	s.used++
	n, known := s.underWay[destination]
	if !known {
		destination = strings.Clone(destination) // a piece of an address
	}
	s.underWay[destination] = n + 1
}

// Release gives a slot back that a message to a destination had.
func (s *Slots) Release(destination string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveBack(destination)
}

// giveBack gives a slot back, and the slots that are free to those whose turn
// it is.
func (s *Slots) giveBack(destination string) {
	s.used--
	if s.underWay[destination]--; s.underWay[destination] == 0 {
		delete(s.underWay, destination)
	}
	for s.queue.Len() > 0 {
		var next *fairqueue.Item[*slotWaiter]
		switch {
		case s.used < s.max-s.reserve:
			next = s.queue.Pop()
		case s.used < s.max:
			next = s.queue.PopFor(func(destination string) bool { return s.underWay[destination] == 0 })
		}
		if next == nil {
			return
		}
		s.take(next.Flow.Destination)
		next.Value.admitted = true
		close(next.Value.ready)
	}
}

// flowOfMessage gives whose slot a message's is. One for several domains counts
// for the first.
func flowOfMessage(env *transport.Envelope) fairqueue.Flow {
	f := fairqueue.Flow{Destination: env.Nexthop, Sender: domainOf(env.Sender)}
	if f.Destination == "" && len(env.Recipients) > 0 {
		f.Destination = domainOf(env.Recipients[0].Address)
	}
	f.Destination, f.Sender = strings.ToLower(f.Destination), strings.ToLower(f.Sender)
	return f
}

// domainOf gives what stands after an address's last @.
func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }
