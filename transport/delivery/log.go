package delivery

import (
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

// logResults writes one log line for each group of recipients that share a
// result.
func (d *Delivery) logResults() {
	type group struct {
		code, host, text string
		cause            outcome.Cause
		conn             *session.Conn
	}
	to := map[group][]string{}
	var order []group
	for _, r := range d.rcpts {
		g := group{r.result.Code.String(), r.result.Host, reply.Line(r.result.Error()), outcome.CauseOf(r.result), nil}
		if r.conn != nil && r.conn.Host.Host.Name == g.host {
			g.conn = r.conn
		}
		if to[g] == nil {
			order = append(order, g)
		}
		to[g] = append(to[g], r.Address.String())
	}
	for _, g := range order {
		log := d.msg.Log.With("from", reply.Clean(d.msg.Sender.String()), "to", reply.Clean(strings.Join(to[g], ",")),
			"host", g.host, "dsn", g.code, "text", g.text, "size", d.msg.Facts.Size, "took", d.found.Took.Round(time.Millisecond))
		if g.cause != outcome.NoCause {
			log = log.With("cause", g.cause.String())
		}
		if c := g.conn; c != nil {
			log = log.With("address", c.Addr().String(), "via", c.Via(), "tls_level", c.Proof().Level().String(), "mx_level", c.Host.Verdict.MX.String())
			if c.TestingFailure != nil {
				log = log.With("testing", reply.Line(c.TestingFailure.Text))
			}
			if c.TLSErr != nil {
				log = log.With("tls_error", reply.Line(c.TLSErr.Error()))
			}
		}
		// Both break a DKIM signature, and somebody will wonder.
		if n := d.msg.Facts.Folds; n > 0 {
			log = log.With("folded", n)
		}
		if n := d.msg.Facts.StrayCRs; n > 0 {
			log = log.With("stray_cr", n)
		}
		log = log.With(d.msg.LogTail...)
		if tried := d.triedBefore(g.code + " " + g.text); len(tried) > 0 {
			log = log.With("tried", reply.Cut(strings.Join(tried, "; "), maxTried))
		}
		switch g.code[0] {
		case '2':
			log.Info("delivered")
		case '4':
			log.Info("deferred")
		default:
			log.Info("refused")
		}
	}
}

// triedBefore gives the hosts' reasons but for the one that the line tells as
// its text.
func (d *Delivery) triedBefore(told string) []string {
	if i := slices.Index(d.tried, told); i >= 0 {
		return slices.Delete(slices.Clone(d.tried), i, i+1)
	}
	return d.tried
}
