package session

import (
	"net/netip"
	"time"

	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Record is what getting connections took and showed, for metrics and TLS
// reports. The zero Record is ready. It belongs to one goroutine at a time.
type Record struct {
	// The time spent waiting for a place at an address, on TCP and on the
	// wait for another delivery's trial of the same host, on the server's
	// greeting and the first EHLO, and on STARTTLS, the handshake and the
	// second EHLO; all hosts together. 0: it did not come to that.
	Wait, Connect, Greeting, TLS time.Duration
	// the hosts that were judged, in the order of trying
	Attempts []Attempt

	first [1]Attempt // most deliveries need one host
}

// Attempt is one host, or one of its addresses, with which TLS came about or
// did not. One that was lost before that could be told is none.
type Attempt struct {
	Facts   *verdict.Facts
	Verdict *verdict.Verdict
	// Addr and Local are the two ends of the connection. Both are invalid when
	// the host failed its verdict before it was dialled.
	Addr, Local netip.Addr
	// HELO is what the server called itself by; empty: nothing that could be
	// a name.
	HELO  string
	Proof verdict.Proof
	// the policy that the host failed; nil: none
	Failure *verdict.Failure
	// what a policy in testing mode has against it; nil: nothing
	TestingFailure *verdict.Failure
	// TLSErr is why a server that offers STARTTLS got the message in the
	// clear; nil: that did not happen.
	TLSErr error
	Reused bool // over a connection that had carried another message before
	// the host took the message for a recipient; for the user of
	// the connection to say
	Delivered bool
}

// Add notes a host that was judged, and gives its place among them.
func (r *Record) Add(a Attempt) int {
	if r.Attempts == nil {
		r.Attempts = r.first[:0]
	}
	r.Attempts = append(r.Attempts, a)
	return len(r.Attempts) - 1
}

// Spend adds the time since start to a phase, and at least a nanosecond, to
// show that it came to that.
func Spend(phase *time.Duration, start time.Time) {
	*phase += max(time.Since(start), 1)
}
