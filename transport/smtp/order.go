package smtp

import (
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/reply"
)

// order is what the replies to a transaction say about their own order. A
// server that answers one command twice moves all replies that follow by one,
// and when the last of them, the true one to the message, comes late, there are
// as many replies as commands. Then each stands where the next one is due.
type order uint8

const (
	// inOrder: nothing speaks against it.
	inOrder order = iota
	// doubted: it is believed when the server has shown that nothing more is
	// to come.
	doubted
	// impossible: they cannot be the replies to these commands.
	impossible
)

// manners is how a server has answered on a connection so far.
type manners struct {
	// coded: a message that it took had an enhanced code in its reply
	coded bool
	// rcpt is what it says to recipients, when that is neither coded nor what
	// it says to messages; empty: not known
	rcpt string
}

// order says what the replies of a transaction tell about their order, and why.
// first says that it was ended by NOOP, the server not being trusted yet. The
// first of these that applies decides:
//
//	MAIL refused, and anything else accepted              impossible
//	every RCPT refused, and the message accepted          impossible
//	a reply that belongs nowhere (354 to RCPT, 250 to
//	DATA, 221) beside a refusal for good                  impossible
//	the reply to the message is about an address: X.1.z
//	(RFC 3463 §3.2), as those to MAIL and RCPT are        doubted
//	the message accepted without an enhanced code, where
//	one was accepted with it before                       doubted
//	the message accepted with the words for recipients,
//	where one was accepted with others before             doubted
//	BDAT, or DATA itself, refused, and something refused
//	for good, when a recipient was accepted               doubted
//	the message accepted without an enhanced code and a
//	recipient refused, by a host not trusted yet          doubted
//	anything else                                         in order
//
// No more follows from X.0.z and X.2.z to X.7.z at MAIL and RCPT: sound servers
// say all of them there. 354 puts what comes before it in order, so that a
// refusal after the final dot is believed as it is; and a message for nobody is
// about nobody.
func (m *manners) order(r *Report, first bool) (o order, why string) {
	accepted := r.Accepted()
	message := outcome.ForReply(outcome.Final, r.Final, 1).Accepted
	switch {
	case refused(outcome.MAIL, r.Mail) && (accepted > 0 || r.Data.Code == 354 || message):
		return impossible, "the sender was refused and the rest accepted"
	case accepted == 0 && message:
		return impossible, "every recipient was refused and the message accepted"
	case r.misplaced() && r.refusesForGood():
		return impossible, "a refusal beside a reply that belongs to no command"
	case accepted == 0:
		return inOrder, ""
	case aboutAddress(r.Final):
		return doubted, "the reply to the message is one to an address: " + r.Final.Text()
	case message && m.coded && r.Final.Status.IsZero():
		return doubted, "the reply to the message lacks the code of those before: " + r.Final.Text()
	case message && m.rcpt != "" && m.rcpt == r.Final.Text():
		return doubted, "the reply to the message is one to a recipient: " + r.Final.Text()
	case r.stopped() && r.refusesForGood():
		return doubted, "refused: " + r.Final.Text()
	case first && message && r.Final.Status.IsZero() && accepted < len(r.Rcpts):
		return doubted, "a recipient refused, the message accepted: " + r.Final.Text()
	}
	return inOrder, ""
}

// learn notes how the server answered a message that it took.
func (m *manners) learn(r *Report) {
	switch final := r.Final.Text(); {
	case !r.Final.Status.IsZero():
		*m = manners{coded: true}
	case m.coded || m.rcpt != "":
	default:
		for _, rcpt := range r.Rcpts {
			if text := rcpt.Text(); !refused(outcome.RCPT, rcpt) && text != final {
				m.rcpt = text
			}
		}
	}
}

// misplaced says whether there is a reply that is neither a refusal nor what
// its command has as an answer.
func (r *Report) misplaced() bool {
	return r.any(func(stage outcome.Stage, r reply.Reply) bool {
		return refused(stage, r) && !r.Temporary() && !r.Permanent()
	})
}

// refusesForGood says whether someone's bounce may come of the replies. MAIL's
// decides for all where it is refused, and the one to a message for nobody
// decides nothing.
func (r *Report) refusesForGood() bool {
	if refused(outcome.MAIL, r.Mail) {
		return r.Mail.Permanent()
	}
	nobody := r.Accepted() == 0
	return r.any(func(stage outcome.Stage, r reply.Reply) bool {
		return r.Permanent() && !(nobody && stage > outcome.RCPT)
	})
}

// any says whether f holds for one of the replies.
func (r *Report) any(f func(outcome.Stage, reply.Reply) bool) bool {
	for _, rcpt := range r.Rcpts {
		if f(outcome.RCPT, rcpt) {
			return true
		}
	}
	return f(outcome.MAIL, r.Mail) || f(outcome.DATA, r.Data) || f(outcome.Final, r.Final)
}

// stopped says whether the message was refused, or DATA, where nothing but
// their number tells what the replies before answered.
func (r *Report) stopped() bool {
	last := r.Final
	if last.Code == 0 || r.Data.Code != 0 && r.Data.Code != 354 {
		last = r.Data
	} else if r.Data.Code == 354 {
		return false
	}
	return last.Temporary() || last.Permanent()
}

func refused(stage outcome.Stage, r reply.Reply) bool {
	return r.Code != 0 && !outcome.ForReply(stage, r, 1).Accepted
}

// aboutAddress says whether a reply is about an address, by its enhanced code
// (RFC 3463 §3.2): the one to MAIL or RCPT.
func aboutAddress(r reply.Reply) bool { return r.Status.Subject == 1 }
