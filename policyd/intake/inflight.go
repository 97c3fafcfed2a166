package intake

import (
	"sync"

	"github.com/mxpipe/mxpipe/transport"
)

// inFlight are the messages that are on their way at this moment. A client that
// goes while a server has the whole message and has not answered yet leaves a
// delivery behind that may well succeed. Its mail server tries again, perhaps
// before the server's answer is there to be remembered.
type inFlight struct {
	mu  sync.Mutex
	all map[flight]struct{}
}

// flight is a message of a mail server's queue on its way to one recipient. Two
// mail servers that happen to use the same queue id hold each other up for a
// while, no more.
type flight struct{ queueID, sender, recipient string }

func flightOf(env *transport.Envelope, recipient string) flight {
	return flight{env.QueueID, env.Sender, recipient}
}

// begin notes an envelope's recipients, and gives those that are not on their
// way already. Without a queue id nothing is noted.
func (f *inFlight) begin(env *transport.Envelope) map[flight]struct{} {
	if env.QueueID == "" {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	mine := map[flight]struct{}{}
	for _, rcpt := range env.Recipients {
		this := flightOf(env, rcpt.Address)
		if _, ok := f.all[this]; !ok {
			mine[this] = struct{}{}
		}
	}
	for this := range mine {
		f.all[this] = struct{}{}
	}
	return mine
}

// end is called with what begin gave, when what became of it is known, and
// written down where that is needed. It may be called twice.
func (f *inFlight) end(mine map[flight]struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for this := range mine {
		delete(f.all, this)
		delete(mine, this) // the next one that begins it is another's
	}
}
