package outcome

import (
	"strings"

	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/status"
)

// resultCode is the enhanced code of a result: subject and detail of the
// server's own enhanced code if it sent one, otherwise those that its basic
// code stands for. The class is what was decided, which is why an enhanced
// code whose class contradicts the reply still serves: 550 4.7.1 is a 5.7.1.
func resultCode(stage Stage, r reply.Reply, class status.Class) status.Code {
	if c, ok := enhancedCode(r); ok {
		return c.WithClass(class)
	}
	if class == status.Success {
		return status.New(class, 0, 0)
	}
	subject, detail := basicCode(stage, r.Code)
	if tooBig(stage, r) {
		subject, detail = 3, 4
	}
	return status.New(class, subject, detail)
}

// tooBig finds the refusal of a MAIL for its SIZE parameter that goes by a
// code which means something else: Courier says "534 SIZE=Message too big.",
// where 534 is about authentication (RFC 4954 §6).
func tooBig(stage Stage, r reply.Reply) bool {
	return stage == MAIL && r.Code == 534 && len(r.Lines) > 0 && len(r.Lines[0]) >= 5 && strings.EqualFold(r.Lines[0][:5], "SIZE=")
}

// wantsLogin finds the replies about authentication (RFC 4954 §6): 530, 534,
// 535 and 538, but for Courier's 534.
func wantsLogin(stage Stage, r reply.Reply) bool {
	switch r.Code {
	case 530, 535, 538:
		return true
	case 534:
		return !tooBig(stage, r)
	}
	return false
}

// AtRelay is what a decision is where the server is a relay, which knows us by
// our login or not at all. A refusal there that has to do with a login by its
// enhanced code (X.7.8, X.7.9 and X.7.11, RFC 4954 §6), whatever its basic
// code, or that says that a command comes too early, as in "503 5.5.1 AUTH
// first", is our own trouble: no message is to blame.
func (d Decision) AtRelay() Decision {
	if d.Code.Class != status.Permanent {
		return d
	}
	switch [2]uint16{d.Code.Subject, d.Code.Detail} {
	case [2]uint16{7, 8}, [2]uint16{7, 9}, [2]uint16{7, 11}, [2]uint16{5, 1}:
		d.Code = codeLogin
	}
	return d
}

// enhancedCode finds the enhanced code of the first line, whatever its class.
func enhancedCode(r reply.Reply) (status.Code, bool) {
	if !r.Status.IsZero() {
		return r.Status, true
	}
	if len(r.Lines) == 0 {
		return status.Code{}, false
	}
	c, _, ok := status.Parse(strings.TrimLeft(r.Lines[0], " "))
	return c, ok
}

// tlsRefused is the code for a refused STARTTLS. Whether it matters is for the
// verdict to say, and failures of policy are temporary, so the class is. A
// subject of 7 is about security and stays; 454 "not available due to
// temporary reason" (RFC 3207 §4) is X.7.0 in the registry; any other refusal
// means what X.7.4 says, "security features not supported" (RFC 3463 §3.8).
func tlsRefused(r reply.Reply) status.Code {
	if c, ok := enhancedCode(r); ok && c.Subject == 7 {
		return c.WithClass(status.Temporary)
	}
	if r.Temporary() {
		return status.New(status.Temporary, 7, 0)
	}
	return status.New(status.Temporary, 7, 4)
}

// basicCode gives subject and detail for a refusal without an enhanced code.
//
// A pair stands here when the registry (RFC 5248 §2.4 and its updates) knows
// one meaning for the basic code, or when RFC 5321 §4.2.2 describes the basic
// code in the words with which RFC 3463 §3 describes the detail. Everything
// else is X.0.0, which is what Postfix gives to all of them: above all 550,
// which servers use for unknown users and for their policies alike. A guess
// of 5.1.1 would have a list manager strike a good address off because of a
// blocked sender; 450, 451 and 554 are no clearer.
func basicCode(stage Stage, code int) (subject, detail uint16) {
	switch code {
	case 421:
		// "service not available"; X.3.2 names shutdown, load and maintenance
		return 3, 2
	case 453, 521: // registry: X.3.2; RFC 7504 §3
		return 3, 2
	case 452: // "insufficient system storage"; registry: X.3.1
		return 3, 1
	case 455, 504, 555: // a parameter; X.5.4 "invalid command arguments"
		return 5, 4
	case 500: // "command unrecognized"; X.5.2 "the command is unrecognized"
		return 5, 2
	case 501: // "syntax error in parameters or arguments"; X.5.4
		return 5, 4
	case 502, 503:
		// "not implemented", "bad sequence"; X.5.1 "out of sequence or
		// unsupported"
		return 5, 1
	case 422, 432: // registry: X.7.12
		return 7, 12
	case 523: // registry: X.7.10
		return 7, 10
	case 524, 538: // registry: X.7.11; RFC 4954 §6
		return 7, 11
	case 525: // registry: X.7.13
		return 7, 13
	case 530: // "authentication required"; RFC 4954 §6
		return 7, 0
	case 533: // registry: X.7.1
		return 7, 1
	case 534: // registry: X.7.9; RFC 4954 §6
		return 7, 9
	case 535: // "credentials invalid"; RFC 4954 §6
		return 7, 8
	}
	return addressOrSize(stage, code)
}

// addressOrSize covers the basic codes whose meaning depends on the command.
func addressOrSize(stage Stage, code int) (subject, detail uint16) {
	switch {
	case code == 551 && stage == RCPT:
		// "user not local"; X.1.6 "mailbox has moved"
		return 1, 6
	case code == 556 && stage == RCPT:
		// "domain does not accept mail"; RFC 7504 §4
		return 1, 10
	case code == 553 && stage == RCPT:
		// "mailbox name not allowed"; X.1.3, bad destination
		return 1, 3
	case code == 553 && stage == MAIL: // the same of the sender: X.1.7
		return 1, 7
	case code == 552 && stage == RCPT:
		// "exceeded storage allocation"; X.2.2, mailbox full
		return 2, 2
	case code == 552 && (stage == MAIL || stage == DATA || stage == Body || stage == BDAT || stage == Final):
		return 3, 4 // RFC 1870 §6.2, §6.3: the message is too big
	}
	return 0, 0
}
