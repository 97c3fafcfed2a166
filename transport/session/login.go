package session

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/relay"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/sasl"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Relay is how a Dialer that leads to a relay connects. The zero Relay is none.
type Relay struct {
	Name     string // host:port
	TLS      relay.TLS
	Login    *Login // nil: nobody logs in
	Fallback bool   // it takes what the domains' own hosts do not
}

// user is whose connections these are, for the pool.
func (r Relay) user() string {
	if r.Login == nil {
		return ""
	}
	return r.Login.credentials.User
}

// Login is who we are at one relay, and what came of telling it. Dialers that
// lead to the same relay share it, so that they do not try more often than one
// of them would. It is safe for concurrent use.
type Login struct {
	credentials *sasl.Credentials
	logins
}

// NewLogin makes a Login that nobody has tried yet.
func NewLogin(c *sasl.Credentials) *Login { return &Login{credentials: c} }

// Retry has the next connection log in at once, although the relay refused it
// less than a minute ago: the administrator may have changed something.
func (l *Login) Retry() { l.forget() }

// codeLogin is the code of all that keeps us from logging in: our own trouble.
var codeLogin = status.New(status.Temporary, 7, 8)

const (
	// loginPause is how long nobody tries to log in after a refusal: some
	// servers lock an account after a few of them.
	loginPause = time.Minute
	// loginsAtOnce is how many connections log in at the same time where the
	// last login went well. When the password has just changed, so many
	// refusals can come of it.
	loginsAtOnce = 3
)

// LoginError is a login that did not come about. It has no password in it.
type LoginError struct {
	User      string
	Mechanism string // empty: it did not come to one
	Said      string // what the relay said, or what is wrong
	// Refused says that the relay refused it, and when: it is tried again a
	// minute later. Zero: it was not refused.
	Refused time.Time
	again   bool // it is only told again: nobody tried
}

// Error says what happened, for people.
func (e *LoginError) Error() string {
	var b strings.Builder
	b.WriteString("login")
	if e.User != "" {
		b.WriteString(" of " + reply.Line(e.User))
	}
	if e.Mechanism != "" {
		b.WriteString(" by " + e.Mechanism)
	}
	b.WriteString(" failed: " + e.Said)
	return b.String()
}

// loginError makes a host's reason of a login that did not come about.
func loginError(h *plan.Host, err *LoginError) *status.Error {
	e := &status.Error{Code: codeLogin, Host: h.Host.Name, Err: err}
	if err.again {
		e.Moment = "not tried again before " + err.Refused.Add(loginPause).UTC().Format("15:04:05 UTC")
	}
	return e
}

// login logs in where that is wanted. The connection is closed on error.
func (o *opening) login(ctx context.Context, c *Conn) error {
	if o.cfg.Relay.Login == nil {
		return nil
	}
	err := o.logIn(ctx, c, o.cfg.Relay.Login)
	if err != nil {
		c.session.Close()
	}
	var failed *LoginError
	if errors.As(err, &failed) && !failed.again {
		o.Log.Warn("the relay does not take the login", "host", c.Host.Host.Name, "address", c.addr.String(), "text", failed.Error())
	}
	return err
}

func (o *opening) logIn(ctx context.Context, c *Conn, login *Login) error {
	credentials := login.credentials
	// The verdict has seen to it. What would leave here is a password, so it is
	// looked at once more.
	if c.proof.Level() < verdict.TLSAuthenticated {
		return &verdict.Failure{Code: status.New(status.Temporary, 7, 5), Rule: verdict.Relayed, Cause: verdict.NoSTARTTLS,
			Text: "relay: no login over a connection that is not authenticated"}
	}
	offered := c.session.Extensions().Auth
	exchange, err := credentials.Choose(offered, sasl.Server{Host: c.Host.Host.Name, Port: c.Host.Port})
	switch {
	case errors.Is(err, sasl.ErrNone) && len(offered) == 0:
		return &LoginError{User: credentials.User, Said: "the server does not offer AUTH"}
	case errors.Is(err, sasl.ErrNone):
		return &LoginError{User: credentials.User, Said: "the server offers " + strings.Join(offered, ", ") + ", and auth has " + credentials.Order()}
	case err != nil:
		return &LoginError{User: credentials.User, Said: err.Error()}
	}
	end, err := login.begin(ctx)
	if err != nil {
		return err
	}
	var failed *LoginError
	defer func() { end(failed) }()
	start := time.Now()
	err = c.session.Auth(ctx, smtp.Login{Client: exchange.Client, Proven: exchange.Proven, Hide: credentials.Hide})
	Spend(&o.Record.TLS, start)
	if err == nil {
		failed = loggedIn
		return nil
	}
	var at *smtp.Error
	if ctx.Err() != nil || !errors.As(err, &at) {
		return err
	}
	failed = &LoginError{User: credentials.User, Mechanism: exchange.Mechanism.String(), Refused: time.Now()}
	if failed.Said = reply.Line(status.Words(cmp.Or(at.Err, error(errReply(at.Reply.Text()))))); at.Reply.Code == 421 {
		failed.Refused = time.Time{} // it has no time for anybody
	}
	return failed
}

// errReply is a reply as an error.
type errReply string

func (e errReply) Error() string { return string(e) }

// loggedIn is the outcome of a login that went well.
var loggedIn = &LoginError{}

// logins keeps tries to log in apart: one at a time until the first
// goes well, then a few, and none for a minute after a refusal. The zero logins
// is ready; it is safe for concurrent use.
type logins struct {
	mu      sync.Mutex
	good    bool
	failed  *LoginError // the last one, if it was refused
	trying  int
	changed chan struct{} // closed when a login ends; nil: nothing waits
}

// refused gives the refusal because of which nobody may try now; nil: one may.
func (l *logins) refused() *LoginError {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refusal()
}

// refusal is refused, with l.mu held.
func (l *logins) refusal() *LoginError {
	if l.failed == nil || time.Since(l.failed.Refused) >= loginPause {
		return nil
	}
	told := *l.failed
	told.again = true
	return &told
}

// begin waits until a login may be tried. end is to be called with what came of
// it; nil: it was not the relay that ended it. The error is a *LoginError, or
// the cause of ctx.
func (l *logins) begin(ctx context.Context) (end func(*LoginError), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if refused := l.refusal(); refused != nil {
			return nil, refused
		}
		most := 1
		if l.good {
			most = loginsAtOnce
		}
		if l.trying < most {
			l.trying++
			return l.end, nil
		}
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		l.mu.Lock()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

func (l *logins) end(failed *LoginError) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trying--
	switch {
	case failed == loggedIn:
		l.good, l.failed = true, nil
	case failed != nil && !failed.Refused.IsZero():
		l.good, l.failed = false, failed
	}
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// forget has the next connection log in at once, whatever came of the last.
func (l *logins) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = nil
}

// LoginHeld says why a relay gets no mail now, as it refused the login lately;
// nil: it may.
func (d *Dialer) LoginHeld(h *plan.Host) *status.Error {
	if refused := d.LoginRefused(); refused != nil {
		return loginError(h, refused)
	}
	return nil
}

// LoginRefused gives the refusal because of which nobody logs in now; nil:
// there is none.
func (d *Dialer) LoginRefused() *LoginError {
	if d.cfg.Relay.Login == nil {
		return nil
	}
	return d.cfg.Relay.Login.refused()
}
