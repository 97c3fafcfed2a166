package transport

import (
	"time"

	"github.com/mxpipe/mxpipe/transport/delivery"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/session"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Event is what a delivery found: one message on its way to the recipients of
// one destination. It is for metrics, the history and TLS reports. An
// observer may keep one, and changes nothing that it points to.
type Event struct {
	Envelope    *Envelope         // of which these are some recipients
	Outcomes    []Outcome         // one for each of them
	Transport   string            // the transport's name
	Destination route.Destination // zero for a recipient that has none
	// the administrator named the destination; the domain's own policies do not
	// count then
	Named bool
	// the relay that the mail went to, host:port; empty: to its own hosts
	Relay string
	// it is the one for what the own hosts could not be given
	Fallback bool
	// "TLS-Required: No": no policy was asked for
	TLSRequiredNo bool
	// Folds and StrayCRs are what the message was changed by (message.Facts).
	Folds, StrayCRs int64
	Resent          int           // as in delivery.Found
	Results         []status.Code // one for each recipient
	Took            time.Duration
	Phases          [Phases]time.Duration // as in delivery.Found
	// what was known of the domain's MTA-STS policy
	STS verdict.STS
	// the hosts that were judged, in the order of trying
	Attempts []Attempt

	result  [1]status.Code // most deliveries are of one recipient
	outcome [1]Outcome
}

// Outcome is what became of one recipient.
type Outcome struct {
	Recipient string        // as in the envelope
	Status    *status.Error // its Host is the host that decided
}

// Attempt is one host, or one of its addresses, with which TLS came about or
// did not.
type Attempt = session.Attempt

// Phase is a part of a delivery's time.
type Phase = delivery.Phase

// The phases of a delivery.
const (
	PhaseWait        = delivery.PhaseWait
	PhaseDNS         = delivery.PhaseDNS
	PhaseConnect     = delivery.PhaseConnect
	PhaseGreeting    = delivery.PhaseGreeting
	PhaseTLS         = delivery.PhaseTLS
	PhaseTransaction = delivery.PhaseTransaction
	Phases           = delivery.Phases
)

// Traces are the domains whose mail is logged in full for a while.
type Traces = delivery.Traces

// ErrTraces says that too many domains are traced already.
var ErrTraces = delivery.ErrTraces
