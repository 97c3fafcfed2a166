package delivery

import (
	"time"

	"github.com/mxpipe/mxpipe/transport/session"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Found is what a delivery found beside its results, for metrics and TLS
// reports.
type Found struct {
	Took time.Duration
	// Phases is the time spent in each phase, all hosts together; 0 when the
	// delivery never came to it, as with connect, greeting and TLS over a
	// connection that was open already.
	Phases [Phases]time.Duration
	STS    verdict.STS // what was known of the domain's MTA-STS policy
	// Resent is how many times the message was sent again though it may have
	// arrived already.
	Resent int
	// the hosts that were judged, in the order of trying
	Attempts []session.Attempt
}

// Phase is a part of a delivery's time.
type Phase uint8

// The phases, in the order of a delivery to one host.
const (
	// for a turn: max_deliveries, limits, a host that complained of too much
	PhaseWait Phase = iota
	// route, addresses, TLSA records, MTA-STS policy
	PhaseDNS
	// TCP, and the wait for another delivery's trial of the same host
	PhaseConnect
	PhaseGreeting    // the server's greeting and the first EHLO
	PhaseTLS         // STARTTLS, the handshake and the second EHLO
	PhaseTransaction // MAIL to the reply to the whole message
	Phases
)

// String gives a word for metrics.
func (p Phase) String() string {
	if p >= Phases {
		return "unknown"
	}
	return [Phases]string{"wait", "dns", "connect", "greeting", "tls", "transaction"}[p]
}

// addPhase adds the time since start to a phase.
func (d *Delivery) addPhase(p Phase, start time.Time) { session.Spend(&d.found.Phases[p], start) }
