// Package outcome says what a server's reply, or the loss of the connection
// to it, means for the recipients of a message: delivered, to be tried again,
// or refused for good; whether the next host of the domain is tried now; and
// what has become of the connection. It is pure: values in, values out.
//
// [ForReply] judges a reply, [ForError] a failure without one. The rules, in
// the order in which they are applied:
//
//   - A reply to AUTH but 235, and 530, 534, 535 and 538 anywhere (RFC 4954
//     §6), are about our login: temporary, X.7.8. At a relay more is; see
//     [Decision.AtRelay].
//   - 421 at any time is temporary, closes the connection, and the next host
//     is tried (RFC 5321 §3.8).
//   - A positive reply that the stage expects is a success. Every other reply
//     that is no refusal (354 to MAIL, 250 to DATA, 221 to anything but QUIT,
//     334) shows that client and server are out of step: temporary, close.
//   - 4yz is temporary. Before a recipient was accepted the next host is
//     tried, as Postfix does; afterwards the recipient waits for the next
//     delivery, because splitting one message's recipients over two hosts
//     gains little and may give two copies.
//   - 552 to RCPT that is about too many recipients is temporary (RFC 5321
//     §4.5.3.1.10); about a full mailbox it is not.
//   - 5yz is permanent. Before MAIL it is the host that refuses, not the
//     message, so the next host is tried; the refusal stands only if nothing
//     more temporary comes ([MostTemporary]). EHLO refused has HELO follow
//     (RFC 5321 §3.2). STARTTLS refused is never permanent: the message was not
//     even mentioned.
//   - A connection that is lost, times out or sends garbage is temporary, at
//     any stage. Once the end of the message was sent the next host is never
//     tried: the first may have accepted it, and a second copy would arrive.
//
// A wrong "permanent" loses mail and a wrong "temporary" only delays it;
// wherever a reply can be read in two ways it is read as temporary.
//
// [Merge] makes one answer out of several recipients' results.
package outcome

import (
	"strings"

	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/status"
)

// Stage is the place in an SMTP session that a reply or an error belongs to.
type Stage uint8

// The stages, in the order of a session.
const (
	Connect      Stage = iota // TCP; there is no reply
	Greeting                  // the server's first reply
	EHLO                      // the reply to EHLO on a connection in the clear
	HELO                      // the reply to HELO after EHLO was refused
	STARTTLS                  // the reply to STARTTLS
	Handshake                 // the TLS handshake; there is no reply
	EHLOAfterTLS              // the reply to EHLO after the handshake
	AUTH                      // the reply that ends a login (RFC 4954)
	MAIL                      // the reply to MAIL
	RCPT                      // the reply to one RCPT
	DATA                      // the reply to the DATA command
	// while the body is written, before its end; a reply here comes too early
	Body
	// the reply to a BDAT command that is not the last
	BDAT
	Final // the reply to the final dot or to BDAT LAST
	RSET  // the reply to RSET
)

// String gives the stage in words for logs and bounces.
func (s Stage) String() string {
	names := [...]string{
		"connect", "greeting", "EHLO", "HELO", "STARTTLS", "TLS handshake", "EHLO after STARTTLS",
		"AUTH", "MAIL FROM", "RCPT TO", "DATA", "message body", "BDAT", "end of message", "RSET",
	}
	if int(s) < len(names) {
		return names[s]
	}
	return "unknown stage"
}

// ConnState is what has become of the connection. States are ordered: of
// several decisions about one connection the greatest counts.
type ConnState uint8

// The connection states.
const (
	// Keep: go on, the connection is in step.
	Keep ConnState = iota
	// Reset: usable again after RSET.
	Reset
	// Close: never use it again. After an ordinary refusal QUIT is polite;
	// after 421, a protocol error or a lost connection it is useless.
	Close
)

// String gives the state in a word for logs.
func (c ConnState) String() string {
	switch c {
	case Keep:
		return "keep"
	case Reset:
		return "reset"
	}
	return "close"
}

// Decision is what follows from one reply or error. At RCPT it is about that
// recipient; at the stages before, about all recipients; at DATA and after,
// about the recipients accepted so far, and when there are none only Conn
// counts, because each recipient has had its own decision.
type Decision struct {
	// Code is the result. Its class is Success exactly when Accepted is set.
	Code status.Code
	// Accepted: the server agreed and the session goes on; at Final, the
	// message is delivered.
	Accepted bool
	// NextHost: the next host of the domain is tried with these recipients;
	// without another host Code is the result. Never set when a second copy
	// could come of it.
	NextHost bool
	// Conn is what has become of the connection.
	Conn ConnState
	// TryHELO: the server refused EHLO, so HELO is said on the same
	// connection before anything else of this decision is followed.
	TryHELO bool
	// TLSFailed: this host could not do TLS. Where the verdict allows
	// plaintext, it is used: on the same connection if Conn is Keep,
	// otherwise on a new one to the same host. Where it does not, the rest
	// of the decision applies.
	TLSFailed bool
	// MoreLater: the server takes no more recipients in this transaction.
	// The recipient is sent in another transaction, at once, to this host.
	MoreLater bool
}

// ForReply judges a reply. accepted is how many recipients the server has
// accepted in this transaction; where replies to several RCPT commands arrive
// together (PIPELINING), it is the number among all of them.
func ForReply(stage Stage, r reply.Reply, accepted int) Decision {
	d := forReply(stage, r, accepted)
	if accepted == 0 && afterRecipients(stage) {
		d.NextHost = false
	}
	return d
}

// codeLogin is the code of all that has to do with a login: our own trouble.
var codeLogin = status.New(status.Temporary, 7, 8)

func forReply(stage Stage, r reply.Reply, accepted int) Decision {
	switch {
	case stage == AUTH && r.Code == 235:
		return Decision{Code: status.New(status.Success, 7, 0), Accepted: true}
	case stage == AUTH && r.Class() >= 2 && r.Class() <= 5:
		// Whatever it is, no message is to blame.
		return Decision{Code: codeLogin, NextHost: true, Conn: Close}
	case r.Code == 421:
		return Decision{Code: resultCode(stage, r, status.Temporary), NextHost: true, Conn: Close}
	case noReplyBelongs(stage):
		return protocolError(stage, accepted)
	case wantsLogin(stage, r):
		// Our own trouble: a login that mxpolicyd does not have, or that the
		// server does not take. No message bounces for it.
		d := refusal(stage, r, accepted)
		d.Code = codeLogin
		d.NextHost = d.NextHost || stage == MAIL || stage == RCPT && accepted == 0
		return d
	case r.Temporary(), r.Permanent():
		return refusal(stage, r, accepted)
	case !expected(stage, r.Code), accepted == 0 && afterRecipients(stage):
		// The second: a server that goes on with a message for no one. With
		// DATA the client could send an empty message (RFC 2920 §3.1), but
		// then has to trust it to go nowhere.
		return protocolError(stage, accepted)
	}
	return Decision{Code: resultCode(stage, r, status.Success), Accepted: true}
}

// refusal judges 4yz and 5yz, 421 excepted.
func refusal(stage Stage, r reply.Reply, accepted int) Decision {
	class := status.Permanent
	if r.Temporary() {
		class = status.Temporary
	}
	d := Decision{Code: resultCode(stage, r, class), Conn: Close}
	switch stage {
	case Greeting, HELO, EHLOAfterTLS:
		d.NextHost = true
	case EHLO:
		d.NextHost = true
		if r.Permanent() {
			d.TryHELO, d.Conn = true, Keep
		}
	case STARTTLS:
		d.Code = tlsRefused(r)
		d.TLSFailed, d.NextHost, d.Conn = true, true, Keep
	case MAIL:
		d.NextHost, d.Conn = r.Temporary(), Reset
	case RCPT:
		if accepted > 0 {
			d.Conn = Keep
			if tooMany(r) {
				d.Code, d.MoreLater = status.New(status.Temporary, 5, 3), true
			}
		} else {
			if limitsRecipients(r) {
				class, d.Code = status.Temporary, status.New(status.Temporary, 5, 3)
			}
			d.NextHost, d.Conn = class == status.Temporary, Reset
		}
	case DATA:
		// With no recipient accepted a refusal is the right answer to a
		// pipelined DATA (RFC 2920 §3.1). Otherwise the transaction failed in
		// a way after which connections are not used again.
		if accepted == 0 {
			d.Conn = Reset
		}
	case RSET:
		// It refuses no one's message.
		d.Code = d.Code.WithClass(status.Temporary)
	}
	return d
}

// limitsRecipients tells whether a 552 to a RCPT means that the server takes no
// more recipients, though it has taken none in this transaction: it counts them
// over several. RFC 5321 §4.5.3.1.10 has that read as temporary. It says so by
// X.5.3, or without a code that names another reason, in words. Any other 552,
// a full mailbox above all, is as permanent as Postfix takes it for.
func limitsRecipients(r reply.Reply) bool {
	if r.Code != 552 {
		return false
	}
	enhanced, ok := enhancedCode(r)
	if ok && enhanced.Subject == 5 && enhanced.Detail == 3 {
		return true
	}
	text := strings.ToLower(r.Text())
	return (!ok || enhanced.Subject == 0 && enhanced.Detail == 0) &&
		(strings.Contains(text, "too many") || strings.Contains(text, "recipients"))
}

// noReplyBelongs tells the stages at which any reply is out of step. A
// refusal while the body is written is early but clear, so Body is not one.
func noReplyBelongs(stage Stage) bool {
	return stage == Connect || stage == Handshake || stage > RSET
}

// afterRecipients tells the stages that concern the accepted recipients.
func afterRecipients(stage Stage) bool {
	switch stage {
	case DATA, Body, BDAT, Final:
		return true
	}
	return false
}

// expected tells the replies that mean success. Clients judge by the first
// digit (RFC 5321 §4.3.2), with three exceptions: 221 closes the connection and
// promises nothing; STARTTLS has one positive reply, 220 (RFC 3207 §4), and
// after any other it is not known in which language the server goes on; for
// DATA it is 354, as the other known 3yz, 334, belongs to AUTH (RFC 4954 §4).
func expected(stage Stage, code int) bool {
	switch stage {
	case STARTTLS:
		return code == 220
	case DATA:
		return code == 354
	case Body:
		return false
	}
	return code/100 == 2 && code != 221
}

// protocolError is the decision about a peer that is out of step.
func protocolError(stage Stage, accepted int) Decision {
	return Decision{
		Code:      status.New(status.Temporary, 5, 0),
		NextHost:  accepted == 0 && stage != RSET && stage != Final,
		Conn:      Close,
		TLSFailed: stage == STARTTLS || stage == Handshake,
	}
}

// tooMany tells whether a refused RCPT means that the transaction is full.
// 452 says so, and 552 in servers that follow RFC 821 (RFC 5321 §4.5.3.1.10),
// unless their enhanced code names another reason, as 4.2.2 and 5.2.2 name a
// full mailbox. X.5.3 says so after any code (RFC 3463 §3.6): a new
// transaction is what it asks for. It cannot go on for ever, since each
// transaction that ends so has had a recipient accepted.
func tooMany(r reply.Reply) bool {
	enhanced, ok := enhancedCode(r)
	if ok && enhanced.Subject == 5 && enhanced.Detail == 3 {
		return true
	}
	if r.Code != 452 && r.Code != 552 {
		return false
	}
	return !ok || (enhanced.Subject == 0 && enhanced.Detail == 0)
}
