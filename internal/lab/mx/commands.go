package mx

import (
	"fmt"
	"strconv"
	"strings"
)

func (x *session) ehlo(arg string) error {
	return x.meet(StageEHLO, "EHLO", arg)
}

func (x *session) helo(arg string) error {
	return x.meet(StageHELO, "HELO", arg)
}

// meet serves EHLO and HELO. Both end a transaction that is under way (RFC 5321
// §4.1.4).
func (x *session) meet(stage Stage, verb, arg string) error {
	if arg == "" || strings.Contains(arg, " ") {
		x.breach(BadSyntax, "%s %q", verb, arg)
		x.say("501 5.5.4 a name is wanted")
		return nil
	}
	h := x.s.behaviour()
	lines := []string{h.Hostname + " greets " + arg}
	if stage == StageEHLO {
		lines = append(lines, h.offer(x.conn.State() != nil)...)
	}
	for i, line := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		lines[i] = "250" + sep + line
	}
	_, err := x.answer(stage, strings.Join(lines, "\n"), func(reply string) {
		x.begin(arg)
		if stage == StageEHLO {
			// what counts is what went out, be it by the behaviour or by an
			// action
			x.offered = offered(reply)
		}
	})
	return err
}

// begin forgets everything that the client said before.
func (x *session) begin(hello string) {
	x.hello, x.tx, x.offered, x.refused = hello, nil, 0, false
}

func (x *session) starttls(arg string) error {
	h := x.s.behaviour()
	switch {
	case arg != "":
		x.breach(BadSyntax, "STARTTLS with an argument")
		x.say(x.coded(501, "5.5.4", "no argument allowed"))
		return nil
	case x.conn.State() != nil:
		x.breach(BadSequence, "STARTTLS under TLS")
		x.say(x.coded(503, "5.5.1", "TLS is on"))
		return nil
	case h.TLS.Mode == TLSNone:
		x.breach(Unoffered, "STARTTLS")
		x.say(x.coded(502, "5.5.1", "not implemented"))
		return nil
	}
	own := x.coded(220, "2.0.0", "ready to start TLS")
	if h.TLS.Mode == TLSRefused {
		if own = h.TLS.Refusal; own == "" {
			own = x.coded(454, "4.7.0", "TLS not available due to a temporary reason")
		}
	}
	if ok, err := x.answer(StageSTARTTLS, own, nil); err != nil || !ok {
		return err
	}
	x.settle()
	if x.conn.Buffered() > 0 {
		x.breach(EarlyTLS, "%d bytes came before the reply to STARTTLS", x.conn.Buffered())
		return x.leave(Close)
	}
	x.out[len(x.out)-1] += h.TLS.Inject
	if err := x.flush(); err != nil {
		return err
	}
	if err := x.pass(StageHandshake); err != nil {
		return err
	}
	return x.handshake(h)
}

// handshake turns TLS on. The session begins anew (RFC 3207 §4.2).
func (x *session) handshake(h *behaviourState) error {
	if h.TLS.Mode == TLSBroken {
		hello, err := x.conn.Next()
		if err != nil {
			return err
		}
		if err := x.conn.Skip(len(hello)); err != nil {
			return err
		}
		x.s.update(func(st *store) { st.counters.FailedHandshakes++ })
		// A fatal alert: handshake_failure (RFC 8446 §6.2).
		if err := x.write("\x15\x03\x01\x00\x02\x02\x28"); err != nil {
			return err
		}
		return x.leave(Close)
	}
	if err := x.conn.StartTLS(x.s.ctx, h.config); err != nil {
		x.s.update(func(st *store) { st.counters.FailedHandshakes++ })
		x.s.opts.Log.Debug("handshake failed", "conn", x.number, "err", err)
		return err
	}
	x.s.update(func(st *store) {
		st.counters.Handshakes++
		if x.conn.State().DidResume {
			st.counters.Resumed++
		}
	})
	x.begin("")
	x.user = ""
	return nil
}

func (x *session) mail(arg string) error {
	refuse := func(reply string) error {
		_, err := x.answer(StageMAIL, reply, nil)
		return err
	}
	h := x.s.behaviour()
	x.refused = true
	switch {
	case x.hello == "":
		x.breach(BadSequence, "MAIL before EHLO")
		return refuse(x.coded(503, "5.5.1", "say EHLO first"))
	case x.tx != nil:
		x.breach(BadSequence, "MAIL inside a transaction")
		return refuse(x.coded(503, "5.5.1", "nested MAIL"))
	case h.NeedTLS && x.conn.State() == nil:
		return refuse(x.coded(530, "5.7.0", "issue STARTTLS first"))
	case h.Auth != nil && h.Auth.Needed && x.user == "":
		return refuse(x.coded(530, "5.7.0", "authentication required"))
	case h.MaxMessages > 0 && x.messages >= h.MaxMessages:
		return refuse(x.coded(421, "4.3.2", "enough for one connection"))
	case !x.s.inRate(h.Rate):
		return refuse(x.coded(451, "4.7.1", "rate limit exceeded, try again later"))
	}
	tx := &transaction{flight: x.conn.Flights(), Message: Message{User: x.user}}
	address, params, reply := x.path("MAIL", "FROM:", arg)
	if reply != "" {
		return refuse(reply)
	}
	tx.Sender, tx.Params = address, params
	if _, utf8 := tx.Param("SMTPUTF8"); !utf8 && !isASCII(address) {
		x.breach(EightBit, "sender %q without SMTPUTF8", address)
		return refuse(x.coded(553, "5.6.7", "SMTPUTF8 needed"))
	}
	if size, ok := tx.Param("SIZE"); ok && h.RealSize > 0 {
		if n, err := strconv.ParseInt(size, 10, 64); err != nil || n > h.RealSize {
			return refuse(x.coded(552, "5.3.4", "message too big"))
		}
	}
	_, err := x.answer(StageMAIL, x.coded(250, "2.1.0", "sender ok"), func(string) {
		x.tx, x.refused = tx, false
	})
	return err
}

func (x *session) rcpt(arg string) error {
	own, address, params := x.judge(arg)
	_, err := x.answer(StageRCPT, own, func(string) {
		x.tx.Recipients = append(x.tx.Recipients, Recipient{Address: address, Params: params})
	})
	return err
}

// judge returns the reply to a RCPT command, and what it says.
func (x *session) judge(arg string) (reply, address string, params []string) {
	if x.tx == nil {
		return x.missing("RCPT"), "", nil
	}
	h := x.s.behaviour()
	address, params, reply = x.path("RCPT", "TO:", arg)
	if reply != "" {
		return reply, "", nil
	}
	if _, utf8 := x.tx.Param("SMTPUTF8"); !utf8 && !isASCII(address) {
		x.breach(EightBit, "recipient %q without SMTPUTF8", address)
		return x.coded(553, "5.6.7", "SMTPUTF8 needed"), "", nil
	}
	if h.MaxRecipients > 0 && len(x.tx.Recipients) >= h.MaxRecipients {
		return x.coded(452, "4.5.3", "too many recipients"), "", nil
	}
	if reply := h.verdict(address); reply != "" {
		return reply, address, params
	}
	return x.coded(250, "2.1.5", "recipient ok"), address, params
}

// missing replies to a command that needs a transaction. It is the client's
// breach, unless a MAIL of the same flight was refused (RFC 2920 §3.1).
func (x *session) missing(verb string) string {
	if !x.refused || x.offered&Pipelining == 0 {
		x.breach(BadSequence, "%s without MAIL", verb)
	}
	return x.coded(503, "5.5.1", "no transaction")
}

// path reads the argument of MAIL or RCPT; reply is not empty when it must be
// refused.
func (x *session) path(verb, prefix, arg string) (address string, params []string, reply string) {
	rest, ok := arg, false
	if len(arg) >= len(prefix) && strings.EqualFold(arg[:len(prefix)], prefix) {
		rest, ok = arg[len(prefix):], true
	}
	address, params, err := parsePath(rest)
	if !ok || err != nil || verb == "RCPT" && address == "" {
		x.breach(BadSyntax, "%s %.100q", verb, arg)
		return "", nil, x.coded(501, "5.5.4", "bad syntax")
	}
	for _, p := range params {
		keyword, good := paramKeyword(verb, p)
		switch {
		case keyword == 0 || x.offered&keyword == 0:
			x.breach(Unoffered, "%s parameter %.60q", verb, p)
			return "", nil, x.coded(555, "5.5.4", "parameter not known")
		case !good:
			x.breach(BadSyntax, "%s parameter %.60q", verb, p)
			return "", nil, x.coded(501, "5.5.4", "bad parameter")
		}
	}
	return address, params, ""
}

func (x *session) rset(arg string) error {
	_, err := x.answer(StageRSET, x.coded(250, "2.0.0", "ok"), func(string) {
		x.tx, x.refused = nil, false
	})
	return err
}

func (x *session) noop(arg string) error {
	_, err := x.answer(StageNOOP, x.coded(250, "2.0.0", "ok"), nil)
	return err
}

func (x *session) vrfy(arg string) error {
	x.say(x.coded(252, "2.5.0", "send mail and see"))
	return nil
}

func (x *session) quit(arg string) error {
	if _, err := x.answer(StageQUIT, x.coded(221, "2.0.0", fmt.Sprintf("%s says bye", x.s.behaviour().Hostname)), nil); err != nil {
		return err
	}
	return x.leave(Goodbye)
}
