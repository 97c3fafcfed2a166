package transport

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/bench/delay"
	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/session"
)

// TestRoundTrips counts what a message costs on the line, by what waits for
// what. Over a new connection with TLS 1.3 it is six, and TCP's own handshake
// before them:
//
//  1. the greeting: the client may not speak before it (RFC 5321 §3.1);
//  2. EHLO: whether STARTTLS is offered is in its reply, and EHLO must be the
//     last command of a group (RFC 2920 §3.1);
//  3. STARTTLS, the last of a group too, and nothing may follow it before its
//     reply (RFC 3207 §4);
//  4. the handshake, one trip with TLS 1.3, two with TLS 1.2 unless a session
//     is resumed;
//  5. EHLO once more, together with the client's Finished: all that was heard
//     in the clear must be forgotten (RFC 3207 §4.2), so without it nothing is
//     known of PIPELINING and CHUNKING;
//  6. the message.
//
// RFC 3207 forces the third and the fifth. Over a connection that is warm, the
// last one is all that is left.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	const (
		none       = 0
		pipelining = mx.AllKeywords &^ mx.Chunking
	)
	for _, tt := range []struct {
		name       string
		keywords   mx.Keyword
		tls        uint16 // 0: plaintext
		cold, warm int
		// over a new connection with a TLS session of the one before; 0: not
		// tried
		resumed int
	}{
		{"TLS 1.3, CHUNKING and PIPELINING", mx.AllKeywords, tls.VersionTLS13, 6, 1, 0},
		{"TLS 1.3, PIPELINING", pipelining, tls.VersionTLS13, 7, 2, 0},
		{"TLS 1.3, neither", none, tls.VersionTLS13, 9, 4, 0},
		{"TLS 1.2, CHUNKING and PIPELINING", mx.AllKeywords, tls.VersionTLS12, 7, 1, 6},
		{"plaintext, CHUNKING and PIPELINING", mx.AllKeywords, 0, 3, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			server := l.mx("far.example", func(h *mx.Behaviour) {
				h.Keywords = tt.keywords
				h.TLS.Certificate = l.cert(ca.For("mx1.a.example"))
				h.TLS.MaxVersion = tt.tls
				// TLS 1.3 sends session tickets unasked, between two trips.
				h.TLS.NoResumption = tt.resumed == 0
				if tt.tls == 0 {
					h.TLS = mx.TLS{}
				}
			})
			addr := l.address()
			line, err := delay.Start(fmt.Sprintf("%s:%d", addr, l.port), server.Addr(), 0)
			l.must(err)
			t.Cleanup(line.Stop)
			l.zone("mx1.a.example. A %s\na.example. MX 10 mx1.a.example.", addr)
			l.startPooled(func(c *Config) { c.ConnReuseLimit = 3 })
			tenKB := text + strings.Repeat("0123456789abcdef\n", 10<<10/18)
			pass := func(what string, want int) {
				before := line.Trips()
				expect(t, l.sendText(t.Context(), tenKB, "b@a.example"), "2.0.0 mx1.a.example")
				if got := line.Trips() - before; got != want {
					t.Errorf("%s: %d round trips, want %d", what, got, want)
				}
			}
			pass("cold", tt.cold)
			pass("warm", tt.warm)
			if tt.resumed > 0 {
				server.DropConnections()
				stale := func(c session.IdleConn) bool { return c.Stale }
				for l.idle.Retire(stale) == 0 {
					time.Sleep(time.Millisecond)
				}
				pass("resumed", tt.resumed)
				if c := server.Counters(); c.Resumed != 1 {
					t.Errorf("%d handshakes were resumed", c.Resumed)
				}
			}
			messages := server.Messages()
			if got := messages[1].Flights; got != tt.warm || messages[1].OnConn != 2 {
				t.Errorf("the server counts %d flights of message %d of its connection, want %d of the second", got, messages[1].OnConn, tt.warm)
			}
			if v := server.Violations(); len(v) > 0 {
				t.Errorf("rules broken: %v", v)
			}
		})
	}
}
