package transport

import (
	"strconv"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/status"
)

// set fills the result in. The text ends with our delivery's id, by which the
// log of mxpolicyd tells the whole story.
func (r *Result) set(s *status.Error, id string) {
	r.Code = s.Code
	r.Text = clean(s.Error()) + " ("
	if s.Via != "" {
		r.Text += s.Via + ", "
	}
	r.Text += "id=" + id + ")"
}

// reject settles a recipient for whom there is nothing to try.
func (t *Transport) reject(env *Envelope, r *Result, why *status.Error) {
	r.set(why, env.ID)
	if t.observe != nil {
		t.observe(&Event{Transport: t.base.cfg.Name, Results: []status.Code{why.Code}})
	}
	said := "refused"
	if why.Code.Class == status.Temporary {
		said = "deferred"
	}
	t.log.Info(said, "id", env.ID, "queue_id", env.QueueID, "transport", t.base.cfg.Name,
		"from", clean(env.Sender), "to", clean(r.Recipient), "dsn", why.Code.String(), "text", clean(why.Error()))
}

// report writes one log line for each group of recipients that share a result.
func (d *delivery) report(took time.Duration) {
	type group struct {
		code, host, text string
		conn             *hostConn
	}
	to := map[group][]string{}
	var order []group
	for _, r := range d.rcpts {
		g := group{r.result.Code.String(), r.result.Host, clean(r.result.Error()), nil}
		if r.conn != nil && r.conn.host.Host.Name == g.host {
			g.conn = r.conn
		}
		if to[g] == nil {
			order = append(order, g)
		}
		to[g] = append(to[g], r.Address.String())
	}
	for _, g := range order {
		log := d.log.With("from", reply.Clean(d.sender.String()), "to", reply.Clean(strings.Join(to[g], ",")),
			"host", g.host, "dsn", g.code, "text", g.text, "size", d.msg.Facts.Size, "took", took.Round(time.Millisecond))
		if c := g.conn; c != nil {
			log = log.With("address", c.addr.String(), "via", c.via(), "tls_level", c.proof.Level().String(), "mx_level", c.host.Verdict.MX.String())
			if c.tested != nil {
				log = log.With("testing", clean(c.tested.Text))
			}
			if c.tlsErr != nil {
				log = log.With("tls_error", clean(c.tlsErr.Error()))
			}
		}
		if d.env.Peer != (Peer{}) {
			log = log.With("uid", d.env.Peer.UID, "pid", d.env.Peer.PID)
		}
		if len(d.tried) > 0 {
			log = log.With("tried", reply.Cut(strings.Join(d.tried, "; "), maxTried))
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

// maxText leaves room for the rest of a status line, which has 900 bytes.
const maxText = 700

// maxTried bounds what the log tells of the hosts that were tried before: a
// domain can have many, all of them talkative.
const maxTried = 8 << 10

// clean makes a text fit for logs and bounces, whatever a stranger wrote into
// a certificate or a record: one printable line of at most maxText bytes.
func clean(text string) string { return reply.Cut(reply.Clean(text), maxText) }

func quote(s string) string {
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return strconv.QuoteToASCII(s)
}

func size(n int64) string { return strconv.FormatInt(n, 10) + " bytes" }
