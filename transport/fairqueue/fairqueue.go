// Package fairqueue decides who is next among those that wait for a slot, so
// that one flood does not keep others waiting: neither that of one sender to
// many destinations nor that of many senders to one slow destination.
//
// What waits belongs to a [Flow], a destination and a sender domain. It stands
// in two lanes, its destination's and its sender's, and the lanes stand in two
// rings. Slots are given in turn: one to the destination whose turn it is, the
// next to the sender whose turn it is, each a lane's first to come; the lanes
// that were served go to the back of their rings. So within a flow it is first
// come, first served, between flows it is round robin (RFC 970, "fair queuing
// between the sources"), and with n destinations waiting the first of each has
// its slot after 2n slots, however many messages wait for the others; the same
// holds for senders.
//
// The package only keeps order: it knows no clock, no limit and no goroutine,
// and locks nothing.
package fairqueue

import "container/list"

// Flow is whose slot it is. Both are compared as they are; either may be empty,
// as the sender of a bounce is.
type Flow struct {
	Destination string // a recipient domain, or the next hop in its place
	Sender      string // a sender domain
}

// Cost is what an item takes beside its flow's texts, in bytes: itself, and its
// share of two lanes of its own.
const Cost = 640

// Queue keeps what waits. The zero Queue is empty. It is not safe for
// concurrent use, and must not be copied once used.
type Queue[T any] struct {
	rings    [2]ring // by destination, by sender
	bySender bool    // it is a sender's turn
	len      int
	bytes    int
}

// Item is something that waits.
type Item[T any] struct {
	Value T
	Flow  Flow
	lanes [2]*lane
	spots [2]*list.Element // in the lanes
}

// ring is the lanes in the order of their turns.
type ring struct {
	lanes map[string]*lane
	order list.List // of *lane
}

// lane is what waits with the same destination, or the same sender, the first
// to come in front.
type lane struct {
	key   string
	items list.List // of *Item
	spot  *list.Element
}

// Len is how many wait.
func (q *Queue[T]) Len() int { return q.len }

// Bytes is how much they take.
func (q *Queue[T]) Bytes() int { return q.bytes }

// cost is what an item takes.
func cost(f Flow) int { return Cost + len(f.Destination) + len(f.Sender) }

// Push has something wait.
func (q *Queue[T]) Push(f Flow, v T) *Item[T] {
	it := &Item[T]{Value: v, Flow: f}
	for i, key := range [2]string{f.Destination, f.Sender} {
		l := q.rings[i].lane(key)
		it.lanes[i], it.spots[i] = l, l.items.PushBack(it)
	}
	q.len++
	q.bytes += cost(f)
	return it
}

// lane gives the lane of a key; a new one has its turn last.
func (r *ring) lane(key string) *lane {
	l := r.lanes[key]
	if l == nil {
		if r.lanes == nil {
			r.lanes = map[string]*lane{}
		}
		l = &lane{key: key}
		l.spot = r.order.PushBack(l)
		r.lanes[key] = l
	}
	return l
}

// Pop gives whose turn it is, which waits no longer; nil: nothing waits.
func (q *Queue[T]) Pop() *Item[T] {
	if q.len == 0 {
		return nil
	}
	destinations, senders := &q.rings[0].order, &q.rings[1].order
	turn := destinations
	switch {
	case senders.Len() == 1: // so that there is nothing to share between them
	case destinations.Len() == 1:
		turn = senders
	default:
		if q.bySender {
			turn = senders
		}
		q.bySender = !q.bySender
	}
	return q.serve(turn.Front().Value.(*lane))
}

// PopFor gives what has its turn among the destinations that may be served;
// nil: nothing waits for any.
func (q *Queue[T]) PopFor(may func(destination string) bool) *Item[T] {
	for e := q.rings[0].order.Front(); e != nil; e = e.Next() {
		if l := e.Value.(*lane); may(l.key) {
			return q.serve(l)
		}
	}
	return nil
}

// serve takes the first of a lane.
func (q *Queue[T]) serve(l *lane) *Item[T] {
	it := l.items.Front().Value.(*Item[T])
	for i, l := range it.lanes {
		q.rings[i].order.MoveToBack(l.spot)
	}
	q.Remove(it)
	return it
}

// Remove takes away what waits no longer; what does not wait is left alone.
func (q *Queue[T]) Remove(it *Item[T]) {
	if it.lanes[0] == nil {
		return
	}
	for i, l := range it.lanes {
		l.items.Remove(it.spots[i])
		if l.items.Len() == 0 {
			q.rings[i].order.Remove(l.spot)
			delete(q.rings[i].lanes, l.key)
		}
	}
	it.lanes, it.spots = [2]*lane{}, [2]*list.Element{}
	q.len--
	q.bytes -= cost(it.Flow)
}
