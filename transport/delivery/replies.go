package delivery

import (
	"errors"

	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/session"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/status"
)

// applyReplies turns the server's replies into results. It gives back the
// recipients for whom the next host should be tried, those who did not fit into
// this transaction, and what has become of the connection.
func (d *Delivery) applyReplies(c *session.Conn, rcpts []*recipient, report *smtp.Report) (nextHost, nextTx []*recipient, state outcome.ConnState) {
	for i, r := range rcpts {
		decision, text := decide(report, i)
		if d.cfg.Relay {
			decision = decision.AtRelay()
		}
		state = max(state, decision.Conn)
		if decision.Code == wantsLogin {
			text += " [" + d.loginAdvice(c) + "]"
		}
		reason := &status.Error{Code: decision.Code, Host: c.Host.Host.Name, Via: c.Via(), Text: text}
		r.conn = c
		switch {
		case decision.MoreLater:
			nextTx = append(nextTx, r)
		case decision.NextHost:
			r.reasons = append(r.reasons, reason)
			nextHost = append(nextHost, r)
		default:
			// The host spoke for the domain: what other hosts failed with
			// before no longer matters.
			r.result = reason
		}
	}
	if len(nextHost) > 0 {
		d.noteTried(nextHost[0].reasons[len(nextHost[0].reasons)-1])
	}
	if !report.Ending.ConnUsable() {
		state = outcome.Close
	}
	return nextHost, nextTx, state
}

// loginAdvice says what helps where a server wants a login.
func (d *Delivery) loginAdvice(c *session.Conn) string {
	if d.cfg.Relay {
		return "the relay does not accept the login, or wants one: see user and password_file of the relay"
	}
	if c.Proof().TLS == 0 {
		return "the server wants TLS, which did not come about, or a login: a relay has one, with user and password_file in mxpolicyd.yaml"
	}
	return "the server wants a login: set a relay with user and password_file in mxpolicyd.yaml"
}

// wantsLogin is the code of a reply about authentication, which is our own
// trouble.
var wantsLogin = status.New(status.Temporary, 7, 8)

// errNoAnswer is said of a recipient about whom a report says nothing, which
// would be a defect of ours.
var errNoAnswer = errors.New("no reply about this recipient")

// decide finds what settles the recipient i, and gives what it means and how
// it reads. The first of these that applies decides:
//
//	MAIL was refused          its reply
//	this RCPT was refused     its reply
//	Early                     the refusal that came early
//	a reply to the message    it; only this can be a success, and only where
//	                          each command has its reply
//	a failure                 temporary
//	DATA was refused          its reply
//	421 to another recipient  it: the server goes away
//	nothing of these          temporary
func decide(report *smtp.Report, i int) (outcome.Decision, string) {
	accepted := report.Accepted()
	refused := func(stage outcome.Stage, r reply.Reply) bool {
		return r.Code != 0 && !outcome.ForReply(stage, r, accepted).Accepted
	}
	said := func(stage outcome.Stage, r reply.Reply) (outcome.Decision, string) {
		return outcome.ForReply(stage, r, accepted), r.Text()
	}
	failed := func(stage outcome.Stage, err error) (outcome.Decision, string) {
		return outcome.ForError(stage, err, accepted), stage.String() + ": " + smtp.Words(err)
	}
	switch rcpt := report.Rcpts[i]; {
	case refused(outcome.MAIL, report.Mail):
		return said(outcome.MAIL, report.Mail)
	case refused(outcome.RCPT, rcpt):
		return said(outcome.RCPT, rcpt)
	case report.Ending == smtp.Early:
		return said(outcome.Body, report.Final)
	case report.Err != nil:
		return failed(report.Stage, report.Err)
	case report.Mail.Code != 0 && rcpt.Code != 0 && report.Final.Code != 0 && (report.Ending == smtp.Answered || report.Ending == smtp.Closing):
		return said(outcome.Final, report.Final)
	case refused(outcome.DATA, report.Data):
		return said(outcome.DATA, report.Data)
	}
	for _, other := range report.Rcpts {
		if other.Code == 421 {
			return said(outcome.RCPT, other)
		}
	}
	return failed(outcome.Final, errNoAnswer)
}
