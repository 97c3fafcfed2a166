package session

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/transport/deadhost"
	"github.com/mxpipe/mxpipe/transport/dial"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/source"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Probe is what a real connection to a host showed: TCP, the greeting, EHLO,
// STARTTLS, the verdict's judgement and, if that is asked for, MAIL and RCPT.
// It is made by the code of a delivery and ends before the message.
type Probe struct {
	// that was reached; not valid when none came as far as a transaction
	Addr netip.Addr
	// Via says how a message would travel, as a delivery's text does:
	// "192.0.2.1, dane, TLS1.3".
	Via        string
	Extensions smtp.Extensions // of the last EHLO reply
	// TLS is the last handshake's state, that of one that was judged not good
	// enough included; nil when none came as far as the certificates.
	TLS   *tls.ConnectionState
	Proof verdict.Proof // what that handshake proved
	// TLSErr is why TLS did not come about where plaintext will do.
	TLSErr error
	// Note is what an MTA-STS policy in testing mode has against it.
	Note string
	// Accepted is the server's reply to RCPT; empty: it was not asked, or Err
	// says what became of it.
	Accepted string
	// Err is why a message would not go to the host; nil: it would.
	Err *status.Error
	// Addrs is what became of each address that was tried, in the order in
	// which a delivery tries them; the other fields are of the first one that
	// will do, else of the first.
	Addrs []AddrProbe
}

// AddrProbe is what became of one address.
type AddrProbe struct {
	Addr netip.Addr
	Err  *status.Error // why no message would go there; nil: one would
}

// over has the probe see the handshake that config is for. A nil Probe sees
// nothing.
func (p *Probe) over(config *tls.Config) *tls.Config {
	if p == nil {
		return config
	}
	judge := config.VerifyConnection
	// the whole handshake, with its certificates
	config.ClientSessionCache = nil
	config.VerifyConnection = func(state tls.ConnectionState) error {
		p.TLS = &state
		return judge(state)
	}
	return config
}

// noTLS notes why a connection goes on in plaintext.
func (p *Probe) noTLS(err error) {
	if p != nil {
		p.TLSErr = err
	}
}

const (
	// probeTimeout bounds a probe: an administrator waits for it at a terminal.
	// probeStep bounds its connection and each reply, so that a host that hangs
	// is found out, and what a delivery does then is tried too.
	probeTimeout, probeStep = time.Minute, 15 * time.Second
	// maxProbed is how many addresses of a host are connected to, and
	// probedAtOnce how many of them at the same time.
	maxProbed, probedAtOnce = 16, 4
)

// Probe connects to each address of a host that a source reaches, and asks
// there for a recipient if tx says for whom: no message is sent, so its Content
// is not needed. Whether the host is dead by what deliveries saw makes no
// difference; a host that answers is not dead any more.
func (d *Dialer) Probe(ctx context.Context, h *plan.Host, from *source.Choice, tx *smtp.Transaction) *Probe {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	addrs := dial.Order(d.Reaches(from, h.Addrs()), d.cfg.Prefer, d.conns.History.First(d.deadKey(h, from)))
	addrs = addrs[:min(len(addrs), maxProbed)]
	if len(addrs) == 0 {
		return &Probe{Err: hostError(ctx, h, outcome.Connect, dial.ErrNoAddress)}
	}
	probes := make([]*Probe, len(addrs))
	var all errgroup.Group
	all.SetLimit(probedAtOnce)
	for i, a := range addrs {
		all.Go(func() error {
			probes[i] = d.probeAddr(ctx, &Request{Host: h, Source: from}, a, tx)
			return nil
		})
	}
	_ = all.Wait() // none returns an error
	best := probes[max(0, slices.IndexFunc(probes, func(p *Probe) bool { return p.Err == nil }))]
	var reasons []*status.Error
	for i, p := range probes {
		best.Addrs = append(best.Addrs, AddrProbe{addrs[i], p.Err})
		if p.Err != nil {
			reasons = append(reasons, p.Err)
		}
	}
	if best.Err != nil {
		best.Err = outcome.MostTemporary(reasons)
	}
	return best
}

// probeAddr connects to one address.
func (d *Dialer) probeAddr(ctx context.Context, r *Request, addr netip.Addr, tx *smtp.Transaction) *Probe {
	h := r.Host
	only := *h
	only.Addresses.Addrs = []netip.Addr{addr}
	seen := &Probe{}
	r.Host, r.Log, r.Record = &only, slog.New(slog.DiscardHandler), &Record{}
	o := opening{
		Dialer: d, Request: r, attempt: &deadhost.Attempt{},
		probe: seen, budget: min(d.cfg.ConnectTimeout, probeStep),
	}
	c, reasons := o.tryAddresses(ctx)
	if c == nil {
		seen.Err = outcome.MostTemporary(reasons)
		if seen.TLS != nil {
			seen.Proof = d.cfg.TLS.proofOf(*seen.TLS, &h.Verdict, time.Now())
		}
		return seen
	}
	d.conns.Dead.Answered(d.deadKey(h, r.Source))
	seen.Addr, seen.Via, seen.Extensions, seen.Proof = c.addr, c.Via(), c.Extensions(), c.proof
	if c.TestingFailure != nil {
		seen.Note = c.TestingFailure.Text
	}
	if tx != nil {
		seen.ask(ctx, c, tx)
	}
	c.Quit()
	return seen
}

// ask has the server say what it makes of a recipient.
func (p *Probe) ask(ctx context.Context, c *Conn, tx *smtp.Transaction) {
	ext := c.Extensions()
	if p.Err = ext.TooLarge(tx.Size); p.Err == nil && tx.UTF8 && !ext.SMTPUTF8 {
		p.Err = ext.NoUTF8()
	}
	if p.Err != nil {
		p.Err.Host = c.Host.Host.Name
		return
	}
	report := c.session.Ask(ctx, tx)
	stage, said := outcome.MAIL, report.Mail
	if outcome.ForReply(stage, said, 0).Accepted {
		stage, said = outcome.RCPT, report.Rcpts[0]
	}
	decision, text := outcome.ForReply(stage, said, 0), said.Text()
	switch {
	case said.Code == 0 && report.Err != nil:
		decision, text = outcome.ForError(report.Stage, report.Err, 0), report.Stage.String()+": "+smtp.Words(report.Err)
	case decision.Accepted:
		p.Accepted = text
		return
	}
	if c.Relay() != "" {
		decision = decision.AtRelay()
	}
	p.Err = &status.Error{Code: decision.Code, Host: c.Host.Host.Name, Via: p.Via, Text: text}
}
