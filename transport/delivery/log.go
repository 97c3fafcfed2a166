package delivery

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/session"
)

// maxTried bounds what the log tells of the hosts that were tried before: a
// domain can have many, all of them talkative.
const maxTried = 8 << 10

// told is what a log line tells: a result that some recipients share.
type told struct {
	code, host, text string
	moment           string // what is true of the reason only now
	cause            outcome.Cause
	conn             *session.Conn // nil: the result is from elsewhere
	to               []string
}

// same reports whether two recipients share a result.
func (g *told) same(o *told) bool {
	return g.code == o.code && g.host == o.host && g.text == o.text && g.moment == o.moment && g.cause == o.cause && g.conn == o.conn
}

// Log writes, after Run, one log line for each group of recipients that share a
// result. only names the recipients that it is about; nil: it is about all.
func (d *Delivery) Log(only []int) {
	var groups []told
next:
	for i := range d.rcpts {
		if only != nil && !slices.Contains(only, i) {
			continue
		}
		r := &d.rcpts[i]
		g := told{code: r.result.Code.String(), host: r.result.Host, text: reply.Line(r.result.Error()), moment: reply.Line(r.result.Moment), cause: outcome.CauseOf(r.result)}
		if r.conn != nil && r.conn.Host.Host.Name == g.host {
			g.conn = r.conn
		}
		for n := range groups {
			if groups[n].same(&g) {
				groups[n].to = append(groups[n].to, r.Address.String())
				continue next
			}
		}
		g.to = append(g.to, r.Address.String())
		groups = append(groups, g)
	}
	for i := range groups {
		d.logResult(&groups[i])
	}
}

// logResult writes one line. It is written for every message, so it is built
// without a copy for each of its parts.
func (d *Delivery) logResult(g *told) {
	attrs := append(make([]slog.Attr, 0, 20),
		slog.String("from", reply.Clean(d.msg.Sender.String())), slog.String("to", reply.Clean(strings.Join(g.to, ","))),
		slog.String("host", g.host), slog.String("dsn", g.code), slog.String("text", g.text),
		slog.Int64("size", d.msg.Facts.Size), slog.Duration("took", d.found.Took.Round(time.Millisecond)))
	if g.cause != outcome.NoCause {
		attrs = append(attrs, slog.String("cause", g.cause.String()))
	}
	if g.moment != "" {
		attrs = append(attrs, slog.String("moment", g.moment))
	}
	if c := g.conn; c != nil {
		attrs = append(attrs, slog.String("address", c.Addr().String()), slog.String("via", c.Via()),
			slog.String("tls_level", c.Proof().Level().String()), slog.String("mx_level", c.Host.Verdict.MX.String()))
		if c.Source() != "" {
			attrs = append(attrs, slog.String("source", c.Local().String()))
		}
		if c.Relay() != "" {
			attrs = append(attrs, slog.String("relay", c.Relay()))
		}
		if c.TestingFailure != nil {
			attrs = append(attrs, slog.String("testing", reply.Line(c.TestingFailure.Text)))
		}
		if c.TLSErr != nil {
			attrs = append(attrs, slog.String("tls_error", reply.Line(c.TLSErr.Error())))
		}
	}
	// Both break a DKIM signature, and somebody will wonder.
	if n := d.msg.Facts.Folds; n > 0 {
		attrs = append(attrs, slog.Int64("folded", n))
	}
	if n := d.msg.Facts.StrayCRs; n > 0 {
		attrs = append(attrs, slog.Int64("stray_cr", n))
	}
	// Somebody will wonder about a second copy.
	if n := d.found.Resent; n > 0 {
		attrs = append(attrs, slog.Int("resent", n))
	}
	if d.msg.Direct != "" {
		attrs = append(attrs, slog.String("direct", d.msg.Direct))
	}
	attrs = append(attrs, d.msg.LogTail...)
	if tried := d.triedBefore(g.code + " " + g.text); len(tried) > 0 {
		attrs = append(attrs, slog.String("tried", reply.Cut(strings.Join(tried, "; "), maxTried)))
	}
	what := "refused"
	switch g.code[0] {
	case '2':
		what = "delivered"
	case '4':
		what = "deferred"
	}
	d.msg.Log.LogAttrs(context.Background(), slog.LevelInfo, what, attrs...)
}

// triedBefore gives the hosts' reasons but for the one that the line tells as
// its text.
func (d *Delivery) triedBefore(said string) []string {
	if i := slices.Index(d.tried, said); i >= 0 {
		return slices.Delete(slices.Clone(d.tried), i, i+1)
	}
	return d.tried
}
