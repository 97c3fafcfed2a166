package outcome

import (
	"context"
	"errors"
	"syscall"

	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/status"
)

// ForError judges a failure without a reply: no connection, a lost one, a
// time-out, a malformed reply, our own giving up. The result is always
// temporary and the connection always closed.
//
// stage is the last thing that the server may have acted on, not the reply
// that was waited for: when BDAT LAST has already left in one flight with
// MAIL, everything up to its reply is Final, since the server may have taken
// the message though not even its reply to MAIL arrived. accepted is as in
// [ForReply].
//
// A *status.Error in err keeps its subject and detail. The end of the caller's
// own context looks like a host's time-out here; the caller asks its context
// before it tries another host.
func ForError(stage Stage, err error, accepted int) Decision {
	d := Decision{
		Code:     lostCode(stage, err),
		NextHost: stage != Final && stage != RSET,
		Conn:     Close,
		// A server that refuses our certificate under TLS 1.3 says so after
		// the handshake, so a connection lost at the first command inside TLS
		// is a failure of TLS; a server that is only slow there is not.
		TLSFailed: stage == STARTTLS || stage == Handshake || (stage == EHLOAfterTLS && !isTimeout(err)),
	}
	var ours *status.Error
	switch {
	case errors.As(err, &ours) && !ours.Code.IsZero():
		d.Code = ours.Code.WithClass(status.Temporary)
	case errors.Is(err, context.Canceled):
		// Nothing waits for the result any more, or the daemon ends.
		d.Code = status.New(status.Temporary, 3, 2)
		d.NextHost, d.TLSFailed = false, false
	case errors.Is(err, reply.ErrMalformed), errors.Is(err, reply.ErrTooLong):
		d = protocolError(stage, accepted)
	}
	if accepted == 0 && afterRecipients(stage) {
		d.NextHost = false
	}
	return d
}

// lostCode is what Postfix gives too: X.4.1 "no answer from host", X.4.2 "bad
// connection" (RFC 3463 §3.5), X.7.5 for a handshake. A server that hangs up
// as soon as it has accepted can be faster than connect(2), which then says
// ECONNRESET, where a SYN that is refused is ECONNREFUSED; whichever call
// learns of it, the host has answered.
func lostCode(stage Stage, err error) status.Code {
	switch {
	case stage == Connect && !errors.Is(err, syscall.ECONNRESET):
		return status.New(status.Temporary, 4, 1)
	case stage == Handshake:
		return status.New(status.Temporary, 7, 5)
	}
	return status.New(status.Temporary, 4, 2)
}

// isTimeout asks as package net does, without importing it.
func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// MostTemporary picks the reason that stands when no host is left, from all
// hosts' reasons in the order in which they were tried; nil entries are
// skipped, and without any the result is nil.
//
// Temporary beats permanent: as long as one host may accept the message
// later, no one has refused it for the domain. Among equals, what a host said
// or what its policy asks beats the network's troubles (X.4.Z), which tell the
// administrator less; then the first counts, because hosts are tried in the
// domain's own order of preference. An error without a class of 4 or 5 is
// trouble of our own and returned as temporary.
func MostTemporary(errs []*status.Error) *status.Error {
	var best *status.Error
	for _, e := range errs {
		if e != nil && (best == nil || rank(e.Code) > rank(best.Code)) {
			best = e
		}
	}
	if best != nil && best.Code.Class != status.Temporary && best.Code.Class != status.Permanent {
		mended := *best
		mended.Code = best.Code.WithClass(status.Temporary)
		return &mended
	}
	return best
}

func rank(c status.Code) int {
	r := 0
	if c.Class != status.Permanent {
		r = 2
	}
	if c.Subject != 4 {
		r++
	}
	return r
}
