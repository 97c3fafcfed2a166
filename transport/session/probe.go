package session

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"time"

	"github.com/mxpipe/mxpipe/transport/deadhost"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Probe is what a real connection to a host showed: TCP, the greeting, EHLO,
// STARTTLS, and the verdict's judgement. It is made by the code of a delivery
// and ends before MAIL.
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
	// Err is why a message would not go to the host; nil: it would.
	Err *status.Error
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

// Probe connects to a host. Whether it is dead by what deliveries saw makes no
// difference; a host that answers is not dead any more.
func (d *Dialer) Probe(ctx context.Context, h *plan.Host) *Probe {
	timeout := min(d.cfg.ConnectTimeout, probeTimeout)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	seen := &Probe{}
	r := &Request{Host: h, Log: slog.New(slog.DiscardHandler), Record: &Record{}}
	o := opening{
		Dialer: d, Request: r, attempt: &deadhost.Attempt{},
		probe: seen, budget: timeout,
	}
	c, reasons := o.tryAddresses(ctx)
	if c == nil {
		seen.Err = outcome.MostTemporary(reasons)
		if seen.TLS != nil {
			seen.Proof = d.cfg.TLS.proofOf(*seen.TLS, &h.Verdict, time.Now())
		}
		return seen
	}
	d.conns.Dead.Answered(d.deadKey(h))
	seen.Addr, seen.Via, seen.Extensions, seen.Proof = c.addr, c.Via(), c.Extensions(), c.proof
	if c.TestingFailure != nil {
		seen.Note = c.TestingFailure.Text
	}
	c.Quit()
	return seen
}

// probeTimeout bounds a probe: an administrator waits for it at a terminal.
const probeTimeout = time.Minute
