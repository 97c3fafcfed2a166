package intake

import (
	"context"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/transport"
)

// inFlight are the messages that are on their way at this moment. A client that
// goes while a server has the whole message and has not answered yet leaves a
// delivery behind that may well succeed. Its mail server tries again, perhaps
// before the server's answer is there to be remembered; or, when it was started
// anew, before it is known that its answer was not read.
type inFlight struct {
	mu  sync.Mutex
	all map[flight]*attempt
}

// attempt is a delivery and the flights that belong to it.
type attempt struct {
	flights  map[flight]bool
	answered bool          // it has its answer, which may be unread
	over     chan struct{} // closed when it has ended
}

// flight is a message of a mail server's queue on its way to one recipient. Two
// mail servers that happen to use the same queue id hold each other up for a
// while, no more.
type flight struct{ queueID, sender, recipient string }

func flightOf(env *transport.Envelope, recipient string) flight {
	return flight{env.QueueID, env.Sender, recipient}
}

// unreadWait is how long a try waits for the news whether the answer to the one
// before was read.
const unreadWait = 2 * time.Second

// begin notes those of an envelope's recipients that are not on their way
// already. For those that are answered it waits a little, until it is known
// whether the answer was read. Without a queue id nothing is noted.
func (f *inFlight) begin(ctx context.Context, env *transport.Envelope) *attempt {
	this := &attempt{flights: map[flight]bool{}, over: make(chan struct{})}
	if env.QueueID == "" {
		return this
	}
	f.await(ctx, env)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, rcpt := range env.Recipients {
		one := flightOf(env, rcpt.Address)
		if f.all[one] == nil {
			f.all[one] = this
			this.flights[one] = true
		}
	}
	return this
}

// await waits for the attempts that are answered.
func (f *inFlight) await(ctx context.Context, env *transport.Envelope) {
	var timer <-chan time.Time
	for _, rcpt := range env.Recipients {
		f.mu.Lock()
		before := f.all[flightOf(env, rcpt.Address)]
		wait := before != nil && before.answered
		f.mu.Unlock()
		if !wait {
			continue
		}
		if timer == nil {
			timer = time.After(unreadWait)
		}
		select {
		case <-before.over:
		case <-timer:
			return
		case <-ctx.Done():
			return
		}
	}
}

// answered says that the answer is on its way to the mail server.
func (f *inFlight) answered(a *attempt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a.answered = true
}

// end is called with what begin gave, when what became of it is known, and
// written down where that is needed. It may be called twice.
func (f *inFlight) end(a *attempt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(a.flights) == 0 {
		return
	}
	for one := range a.flights {
		delete(f.all, one)
	}
	clear(a.flights) // the next one that begins them is another's
	close(a.over)
}
