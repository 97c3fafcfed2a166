package smtp

import (
	"fmt"

	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/reply"
)

// Report is all that a server said in one transaction, and what that ended
// in. A reply with code 0 was never received: its command was not sent, or the
// connection failed first.
type Report struct {
	Mail  reply.Reply
	Rcpts []reply.Reply // as many as there were recipients
	Data  reply.Reply
	Final reply.Reply // to the whole message, for all accepted recipients

	// Ending is what the transaction ended in, and says which of the other
	// fields mean something.
	Ending Ending
	// Confirmation says what came of the NOOP after a message by BDAT.
	Confirmation Confirmation
	// Err is what failed, at Stage: the last thing that the server may have
	// acted on.
	Err   error
	Stage outcome.Stage
}

// Ending is what a transaction ended in. Each of them is one legal state of a
// [Report]; there is no other:
//
//	Ending     Err, Stage  Final               the message            connection
//	Answered   none        as due              as Final says          goes on
//	Closing    none        as due              as Final says          is closed
//	Early      none        4yz or 5yz          was not accepted       is closed
//	CutOff     set         none                was not accepted       is closed
//	Spoiled    set         none                was not accepted       is closed
//	Ended      set         none, as all others may have been accepted is closed
//	Lost       set         none                may have been accepted is closed
//	OutOfStep  set         none, as all others may have been accepted is closed
//
// Without Final the replies to MAIL, RCPT and DATA still count where they are
// refusals. After OutOfStep, and after Lost where all went out in one flight,
// none is left, since it is not known what each of them answered.
type Ending uint8

// The endings.
const (
	// Lost: the connection failed in a way that leaves open whether the server
	// accepted the message. It is the zero value, so that a report which
	// was never completed promises nothing.
	Lost Ending = iota
	// Answered: each command that was sent has its reply, and the message, if
	// it was sent, was sent whole.
	Answered
	// Closing: the same, but the connection is of no use any more: the server
	// said 421, or it was sent something that it may not have swallowed (a
	// chunk for no one), or waits for a message for no one.
	Closing
	// Early: the server refused the message before it was written whole.
	Early
	// CutOff: the connection failed before the message was written whole, or
	// while the server's kernel is known to lack some of it.
	CutOff
	// Spoiled: the message could not be read, or changed while it was sent:
	// our own trouble, which another connection would not cure.
	Spoiled
	// Ended: the connection ended, not by silence, before a single byte of a
	// reply to the transaction came, when the message may have left whole:
	// an idle connection gone stale, or a server that restarts.
	Ended
	// OutOfStep: the replies do not add up: there were more of them than
	// commands, or one that accepts where there was nothing to accept.
	OutOfStep
)

// String gives the ending in a word, for logs and tests.
func (e Ending) String() string {
	names := [...]string{"lost", "answered", "closing", "early", "cut off", "spoiled", "ended", "out of step"}
	if int(e) < len(names) {
		return names[e]
	}
	return "unknown ending"
}

// Confirmation is what a server that was given its first message by BDAT
// answered to the NOOP at the flight's end (RFC 2920 §3.1). Servers exist that
// answer BDAT with more than one reply, and when the true one comes late, it
// comes where the reply to NOOP is due. What is neither 2yz nor 500 nor 502
// there is out of step.
type Confirmation uint8

// The confirmations.
const (
	// Unasked: there was no NOOP, or no time to wait for the reply to it.
	Unasked Confirmation = iota
	// Confirmed: 2yz. The server counts as we do. After a refusal for good QUIT
	// followed, since a true reply that comes after a false refusal reads like
	// this one.
	Confirmed
	// Unconfirmed: 500, 502, ten seconds of silence, or the end of the
	// connection, which leave the reply to the message as it is, as does 2yz
	// where the replies before it were in doubt; or, with OutOfStep, any other
	// reply. The host is better given DATA.
	Unconfirmed
)

// ConnUsable says whether the connection is in step and goes on.
func (e Ending) ConnUsable() bool { return e == Answered }

// SafeToRetry says that the server has not accepted the message, because it
// cannot have seen all of it, and that another connection may do better.
func (e Ending) SafeToRetry() bool { return e == CutOff }

// Accepted counts the recipients that the server took.
func (r *Report) Accepted() int {
	n := 0
	for _, rcpt := range r.Rcpts {
		if outcome.ForReply(outcome.RCPT, rcpt, 0).Accepted {
			n++
		}
	}
	return n
}

// errOutOfStep is what makes a report OutOfStep: it counts as a malformed
// reply, whichever of them it was.
func errOutOfStep(what string) error { return fmt.Errorf("%w: %s", reply.ErrMalformed, what) }
