package mx

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/script/smtpconn"
)

// maxCommand is the longest command line taken.
const maxCommand = 8000

// errLeft ends a session on purpose; the connection is closed or about to be.
var errLeft = errors.New("session over")

// session is one connection, served by one goroutine.
type session struct {
	s      *Server
	conn   *smtpconn.Conn
	number int // of the connection
	place  int // among those that were open when it came

	out   []string // replies that wait to be sent, with their CRLFs
	hello string   // "" before EHLO and HELO
	// the last MAIL was; what follows in its flight is no breach
	refused  bool
	offered  Keyword
	last     bool // the command before must be the last of its flight
	messages int
	user     string // who is logged in; empty: nobody
	tx       *transaction
}

// transaction is a mail transaction, from MAIL on.
type transaction struct {
	Message
	flight int // the one that brought MAIL
	body   body
	spoilt bool // a BDAT of this transaction was refused
}

func (x *session) run() {
	var err error
	if h := x.s.behaviour(); h.TLS.Mode == TLSFirst {
		err = x.handshake(h)
	}
	if err == nil {
		err = x.greet()
	}
	for err == nil {
		err = x.next()
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		x.say("421 4.4.2 timeout")
		x.flush()
	}
}

func (x *session) greet() error {
	h := x.s.behaviour()
	own := "220 " + h.Hostname + " ESMTP lab"
	if h.MaxConns > 0 && x.place > h.MaxConns {
		own = "421 4.3.2 too many connections"
		x.s.update(func(st *store) { st.counters.TooMany++ })
	}
	_, err := x.answer(StageGreeting, own, nil)
	return err
}

// next serves one command. Before it waits for one, it sends the replies that
// have gathered.
func (x *session) next() error {
	if x.conn.Buffered() == 0 && len(x.out) > 0 {
		x.settle()
		if x.conn.Buffered() == 0 {
			if err := x.flush(); err != nil {
				return err
			}
		}
	}
	ahead := len(x.out) > 0
	raw, err := x.conn.ReadLine(maxCommand)
	if errors.Is(err, smtpconn.ErrLongLine) {
		x.breach(LongLine, "%.60q…", raw)
		x.say(x.coded(500, "5.5.2", "line too long"))
		return errors.Join(x.flush(), x.conn.Bye(), errLeft)
	}
	if err != nil {
		return err
	}
	line := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
	verb, arg, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	if ahead && (x.last || x.offered&Pipelining == 0) {
		x.breach(Pipelined, "%.60q came before the reply to the command before it", line)
	}
	x.s.opts.Log.Debug("command", "conn", x.number, "line", line)
	if !x.sound(raw, line) {
		return nil
	}
	return x.dispatch(verb, arg)
}

// sound refuses lines that a command cannot be.
func (x *session) sound(raw []byte, line string) bool {
	switch {
	case !bytes.HasSuffix(raw, []byte("\r\n")):
		x.breach(BareLF, "in command %.60q", line)
	case strings.Contains(line, "\r"):
		x.breach(BareCR, "in command %.60q", line)
	case strings.IndexFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0:
		x.breach(Control, "in command %.60q", line)
	default:
		return true
	}
	x.say(x.coded(500, "5.5.2", "bad line"))
	return false
}

var commands = map[string]func(*session, string) error{
	"EHLO": (*session).ehlo, "HELO": (*session).helo, "STARTTLS": (*session).starttls, "AUTH": (*session).auth,
	"MAIL": (*session).mail, "RCPT": (*session).rcpt, "DATA": (*session).data, "BDAT": (*session).bdat,
	"RSET": (*session).rset, "NOOP": (*session).noop, "QUIT": (*session).quit, "VRFY": (*session).vrfy,
}

// Commands that must be the last of a flight (RFC 2920 §3.1).
const lastOfFlight = " EHLO HELO DATA VRFY EXPN TURN QUIT NOOP STARTTLS AUTH "

func (x *session) dispatch(verb, arg string) error {
	serve, known := commands[verb]
	counted := verb
	if !known {
		counted = ""
	}
	x.last = strings.Contains(lastOfFlight, " "+verb+" ")
	x.s.update(func(st *store) {
		st.counters.Commands++
		st.counters.Verbs[counted]++
	})
	if !known {
		x.breach(BadSyntax, "unknown command %.60q", verb)
		x.say(x.coded(500, "5.5.2", "command not recognized"))
		return nil
	}
	return serve(x, arg)
}

// answer replies at a stage where an action may strike. The effect is what a
// positive reply brings about; it has happened when the client sees the reply.
func (x *session) answer(stage Stage, own string, effect func(reply string)) (ok bool, err error) {
	action := x.s.take(stage)
	if err := x.strike(action); err != nil {
		return false, err
	}
	return x.conclude(action, own, effect)
}

// strike does what an action does before any reply.
func (x *session) strike(action Action) error {
	if err := x.hold(action); err != nil {
		return err
	}
	if action.Reply == "" && action.Drop != Stay {
		return x.leave(action.Drop)
	}
	return nil
}

// conclude replies, with the server's own words or the action's, and does what
// the action does after the reply.
func (x *session) conclude(action Action, own string, effect func(reply string)) (ok bool, err error) {
	if action.Reply != "" && positive(own) {
		own = action.Reply
	}
	if ok = positive(own); ok && effect != nil {
		effect(own)
	}
	x.say(own)
	if action.Drop != Stay {
		return ok, x.leave(action.Drop)
	}
	if strings.HasPrefix(own, "421") {
		return ok, x.leave(Goodbye)
	}
	return ok, nil
}

// pass lets an action strike at a stage that has no reply of its own.
func (x *session) pass(stage Stage) error {
	action := x.s.take(stage)
	if err := x.strike(action); err != nil || action.Reply == "" {
		return err
	}
	_, err := x.conclude(action, "250", nil)
	return err
}

func positive(reply string) bool {
	return strings.HasPrefix(reply, "2") || strings.HasPrefix(reply, "3")
}

// hold waits for an action's channel. It notices when the client leaves, if it
// is to mind.
func (x *session) hold(action Action) error {
	if action.Hold == nil {
		return nil
	}
	if err := x.flush(); err != nil {
		return err
	}
	for {
		select {
		case <-action.Hold:
			return nil
		case <-x.s.ctx.Done():
			return x.s.ctx.Err()
		case <-time.After(time.Millisecond):
		}
		if action.Alone {
			continue
		}
		if err := x.conn.Settle(10 * time.Millisecond); err != nil {
			return err
		}
	}
}

func (x *session) leave(how Drop) error {
	x.flush()
	switch how {
	case Reset:
		x.conn.Reset()
	case Goodbye:
		x.conn.Bye()
	default:
		x.conn.Close()
	}
	return errLeft
}

// say puts a reply, whose lines are separated by \n, after those that wait.
func (x *session) say(reply string) {
	x.out = append(x.out, strings.ReplaceAll(reply, "\n", "\r\n")+"\r\n")
}

// coded makes a reply; the enhanced status code is left out where it was not
// offered (RFC 2034 §4).
func (x *session) coded(code int, enhanced, text string) string {
	if x.offered&EnhancedStatusCodes == 0 {
		return fmt.Sprintf("%d %s", code, text)
	}
	return fmt.Sprintf("%d %s %s", code, enhanced, text)
}

// settle waits for the rest of a flight, where the behaviour asks for it. A
// client that has closed its side still gets its replies; the next read tells.
func (x *session) settle() {
	if quiet := x.s.behaviour().Settle; quiet > 0 {
		x.conn.Settle(quiet)
	}
}

// flush sends the replies that wait, as slowly as the behaviour asks.
func (x *session) flush() error {
	out := x.out
	x.out = nil
	if len(out) == 0 {
		return nil
	}
	h := x.s.behaviour()
	if h.Delay <= 0 && h.Drip <= 0 {
		return x.write(strings.Join(out, ""))
	}
	for _, reply := range out {
		if err := x.pause(h.Delay); err != nil {
			return err
		}
		if h.Drip <= 0 {
			if err := x.write(reply); err != nil {
				return err
			}
			continue
		}
		for i := range len(reply) {
			if err := x.write(reply[i : i+1]); err != nil {
				return err
			}
			if err := x.pause(h.Drip); err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *session) write(text string) error {
	x.s.opts.Log.Debug("reply", "conn", x.number, "text", text)
	_, err := x.conn.Write([]byte(text))
	return err
}

func (x *session) pause(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-x.s.ctx.Done():
		return x.s.ctx.Err()
	}
}

// breach notes a violation, for the server and for the transaction under way.
func (x *session) breach(breach Breach, format string, args ...any) {
	v := Violation{Conn: x.number, Breach: breach, Detail: fmt.Sprintf(format, args...)}
	x.s.opts.Log.Warn("violation", "conn", x.number, "breach", string(breach), "detail", v.Detail)
	if x.tx != nil && len(x.tx.Violations) < 100 {
		x.tx.Violations = append(x.tx.Violations, v)
	}
	x.s.update(func(st *store) {
		st.counters.Violations++
		if len(st.violations) < 1000 {
			st.violations = append(st.violations, v)
		}
	})
}
