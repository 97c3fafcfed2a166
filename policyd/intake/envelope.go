package intake

import (
	"fmt"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/transport/status"
)

const (
	// MaxAddress bounds an address of an envelope, and an original one, in
	// bytes.
	MaxAddress = 1024
	// MaxEnvelope bounds the bytes of one envelope, and MaxEnvelopes the memory
	// of all together, those of messages under way among them.
	MaxEnvelope  = 1 << 20
	MaxEnvelopes = 64 << 20
	// smallEnvelope is how large one may be that has room at all times, so
	// that ordinary mail does not wait for the envelopes of others.
	smallEnvelope = 4 << 10
	// recipientCost is what a recipient holds beside its own bytes, of which
	// there are two copies.
	recipientCost = 200
)

// ErrEnvelopes is the answer to a client whose envelope has no room beside all
// the others.
var ErrEnvelopes error = &status.Error{Code: status.New(status.Temporary, 3, 1), Text: fmt.Sprintf("the envelopes of all messages hold more than the %d MiB that mxpolicyd has for them", MaxEnvelopes>>20)}

// ErrEnvelope is the answer to a client whose envelope is too large.
var ErrEnvelope error = &status.Error{Code: status.New(status.Temporary, 5, 3), Text: fmt.Sprintf("the envelope has more than %d bytes: hand the message over for fewer recipients at a time", MaxEnvelope)}

// Envelope counts what one envelope holds. It is for one goroutine.
type Envelope struct {
	dispatcher *Dispatcher
	size       int // bytes that were added
	held       int // memory that the dispatcher counts for it
}

// Envelope begins one, which must be ended.
func (d *Dispatcher) Envelope() *Envelope { return &Envelope{dispatcher: d} }

// Add counts a recipient, or a sender, before it is kept, with all that belongs
// to it. The error is ErrEnvelope or ErrEnvelopes.
func (e *Envelope) Add(bytes int) error {
	if e.size += bytes; e.size > MaxEnvelope {
		e.size -= bytes
		return ErrEnvelope
	}
	cost := 2*bytes + recipientCost
	if e.dispatcher.envelopes.Add(int64(cost)) > MaxEnvelopes && e.size > smallEnvelope {
		e.dispatcher.envelopes.Add(-int64(cost))
		e.size -= bytes
		return ErrEnvelopes
	}
	e.held += cost
	return nil
}

// End lets the envelope go. Another may begin then.
func (e *Envelope) End() {
	e.dispatcher.envelopes.Add(-int64(e.held))
	e.size, e.held = 0, 0
}

// EnvelopeUsage tells how much memory all envelopes take.
func (d *Dispatcher) EnvelopeUsage() cache.Usage {
	return cache.Usage{Bytes: d.envelopes.Load(), MaxBytes: MaxEnvelopes}
}
