package browser

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/mxpipe/mxpipe/policyd/history"
)

// peer is a destination of the hour that was.
type peer struct {
	domain, host, provider string
	tls, mx                string
	weight                 int // messages of a thousand
	median                 time.Duration
	deferred, refused      float64 // of them
	deferral, refusal      string  // what the host says then
}

const noUser = "550 5.1.1 no such user"

// peers are those that a mail server has: a few large ones, many small ones,
// and some with trouble.
var peers = []peer{
	{"bulky.example", "mx1.bulky.example", "bulky", "encrypted", "none", 300, 300 * time.Millisecond, .008, .010, "450 4.2.0 mailbox busy", noUser},
	{"shop.example", "mx1.bulky.example", "bulky", "encrypted", "none", 120, 320 * time.Millisecond, .006, .004, "450 4.2.0 mailbox busy", noUser},
	{"sts.example", "mx.sts.example", "sts.example", "authenticated", "mtasts", 170, 180 * time.Millisecond, .002, .006, "450 4.2.0 try again later", noUser},
	{"both.example", "mx.both.example", "both.example", "authenticated", "dnssec", 110, 90 * time.Millisecond, 0, .004, "", noUser},
	{"dane-ee.example", "mx.dane-ee.example", "dane-ee.example", "authenticated", "dnssec", 90, 70 * time.Millisecond, 0, .003, "", noUser},
	{"none.example", "mx.none.example", "none.example", "encrypted", "none", 80, 420 * time.Millisecond, .02, .008, "451 4.7.1 greylisted, try again later", noUser},
	{"users.example", "mx.users.example", "users.example", "authenticated", "none", 60, 210 * time.Millisecond, .01, .05, "452 4.2.2 mailbox full", noUser},
	{"plain.example", "mx.plain.example", "plain.example", "none", "none", 20, 640 * time.Millisecond, .03, 0, "450 4.2.0 try again later", ""},
	{"down.example", "mx2.down.example", "down.example", "encrypted", "none", 30, 900 * time.Millisecond, 0, 0, "", ""},
}

// lastHour makes the deliveries of 58 minutes before now, as mxpolicyd keeps
// them in its state directory.
func lastHour(now time.Time) (lines []byte) {
	r := rand.New(rand.NewPCG(1, 2))
	sum := 0
	for _, p := range peers {
		sum += p.weight
	}
	for m := -58; m < -1; m++ {
		begin := now.Truncate(time.Minute).Add(time.Duration(m) * time.Minute)
		n := 26 + int(12*math.Sin(float64(m)/9)) + r.IntN(9)
		if m >= -36 && m < -32 {
			n *= 3 // a newsletter
		}
		for i := range n {
			at := r.IntN(sum)
			k := 0
			for at >= peers[k].weight {
				at -= peers[k].weight
				k++
			}
			e := entry(&peers[k], r, begin.Add(time.Duration(i)*time.Minute/time.Duration(n)))
			e.ID, e.QueueID = fmt.Sprintf("h%03d%03d", m+58, i), fmt.Sprintf("4bX%03d%03dz", m+58, i)
			lines = append(lines, line(e)...)
		}
	}
	return lines
}

// entry is one delivery to a peer.
func entry(p *peer, r *rand.Rand, at time.Time) history.Entry {
	took := time.Duration(float64(p.median) * math.Exp(r.NormFloat64()*.7))
	reused := r.Float64() < .64
	if reused {
		took /= 3
	}
	e := history.Entry{
		At: at, Transport: "default", Destination: p.domain, Provider: p.provider, Host: p.host, Address: "192.0.2.7:25", Source: "192.0.2.1",
		Sender: "@client.example", Recipients: []string{"@" + p.domain}, Count: 1, TLSLevel: p.tls, MXLevel: p.mx, Reused: reused,
		Took: history.Seconds(took), Phases: []history.Phase{{Name: "mail", Took: history.Seconds(took / 3)}, {Name: "body", Took: history.Seconds(took * 2 / 3)}},
		Code: "2.0.0", Text: p.host + ": 250 2.0.0 ok",
	}
	if p.tls != "none" {
		e.TLS = "TLS1.3"
	}
	switch x := r.Float64(); {
	case x < p.deferred:
		e.Code, e.Text = p.deferral[4:9], p.host+": "+p.deferral
	case x < p.deferred+p.refused:
		e.Code, e.Text = p.refusal[4:9], p.host+": "+p.refusal
	}
	return e
}
