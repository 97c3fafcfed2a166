package intake

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/fairqueue"
)

func to(destination string) fairqueue.Flow {
	return fairqueue.Flow{Destination: destination, Sender: "bulk.example"}
}

// A flood to one destination leaves a tenth of the slots to those with nothing
// under way; they have them at once, though the flood came first and waits.
func TestFloodLeavesATenth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(40)
		ctx, cancel := context.WithCancel(t.Context())
		var flood sync.WaitGroup
		for range 100 {
			flood.Go(func() { s.Acquire(ctx, to("slow.example")) })
		}
		synctest.Wait()
		if s.used != 36 || s.queue.Len() != 64 {
			t.Fatalf("%d slots of 40 are the flood's, %d wait", s.used, s.queue.Len())
		}
		for i := range 4 {
			if !s.TryAcquire(to(fmt.Sprint(i))) {
				t.Fatalf("no slot for the %d. destination with nothing under way", i+1)
			}
		}
		if s.TryAcquire(to("4")) {
			t.Fatal("a slot too many")
		}
		// Of what waits a new destination is first, and the flood does not get
		// what is left over.
		first := false
		go func() { first = s.Acquire(ctx, to("4")) == nil }()
		synctest.Wait()
		s.Release("0")
		synctest.Wait()
		if !first || s.used != 40 {
			t.Errorf("the one that waited has it: %v; %d slots are used", first, s.used)
		}
		s.Release("1")
		synctest.Wait()
		if s.used != 39 || s.underWay["slow.example"] != 36 {
			t.Errorf("%d slots are used, %d by the flood", s.used, s.underWay["slow.example"])
		}
		cancel()
		flood.Wait()
	})
}

// Those that wait have their turns by destination and sender: however long the
// flood is that waits, the others come next.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(1)
		if !s.TryAcquire(to("slow.example")) {
			t.Fatal("no slot")
		}
		var order []string // what had the slot, one after the other
		var wg sync.WaitGroup
		send := func(name string, flow fairqueue.Flow) {
			wg.Go(func() {
				if err := s.Acquire(t.Context(), flow); err != nil {
					t.Error(err)
				}
				order = append(order, name)
				s.Release(flow.Destination)
			})
			synctest.Wait()
		}
		for range 50 {
			send("flood", to("slow.example"))
		}
		send("quiet destination", to("quiet.example"))
		send("quiet sender", fairqueue.Flow{Destination: "slow.example", Sender: "people.example"})
		s.Release("slow.example")
		wg.Wait()
		for _, name := range []string{"quiet destination", "quiet sender"} {
			if at := slices.Index(order, name); at > 4 {
				t.Errorf("the %s came after %d", name, at)
			}
		}
	})
}

// Whatever comes and goes, there are never more slots in use than there are,
// nor more for one destination than the tenth leaves, nothing waits that could
// have a slot, and all are given back.
func TestSlotsModel(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			const slots = 20
			s := NewSlots(slots)
			var wg sync.WaitGroup
			for w := range 100 {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(seed, uint64(w)))
					for range 20 {
						flow := fairqueue.Flow{Destination: fmt.Sprint(rnd.IntN(1 + w%7)), Sender: fmt.Sprint(rnd.IntN(3))}
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.IntN(400))*time.Millisecond)
						if s.Acquire(ctx, flow) == nil {
							s.mu.Lock()
							if s.used > slots || s.underWay[flow.Destination] > slots*9/10 {
								t.Errorf("%d slots in use, %v", s.used, s.underWay)
							}
							s.mu.Unlock()
							time.Sleep(time.Duration(rnd.IntN(100)) * time.Millisecond)
							s.Release(flow.Destination)
						}
						cancel()
						s.mu.Lock()
						if s.queue.Len() > 0 && s.used < slots-s.reserve {
							t.Errorf("%d wait beside %d slots in use", s.queue.Len(), s.used)
						}
						s.mu.Unlock()
					}
				})
			}
			wg.Wait()
			if s.used != 0 || len(s.underWay) != 0 || s.queue.Len() != 0 {
				t.Errorf("in the end %d in use, %v, %d wait", s.used, s.underWay, s.queue.Len())
			}
		})
	}
}

func TestFlowOfMessage(t *testing.T) {
	for want, env := range map[fairqueue.Flow]transport.Envelope{
		{Destination: "b.example", Sender: "a.example"}: {Sender: "x@A.example", Recipients: []transport.Recipient{{Address: "y@B.Example"}, {Address: "z@c.example"}}},
		{Destination: "[gw]:26", Sender: ""}:            {Nexthop: "[gw]:26", Recipients: []transport.Recipient{{Address: "y@b.example"}}},
		{Destination: "local", Sender: "a.example"}:     {Sender: `"@"@a.example`, Recipients: []transport.Recipient{{Address: "local"}}},
		{}: {},
	} {
		if got := flowOfMessage(&env); got != want {
			t.Errorf("%+v: %+v, want %+v", env, got, want)
		}
	}
}
