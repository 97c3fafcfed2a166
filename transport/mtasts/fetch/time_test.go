package fetch

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/transport/mtasts"
)

// pipes hands out connections whose other ends serve. Everything runs on the
// clock of testing/synctest. The test waits for the servers by ended.
func pipes(serve func(net.Conn)) (cfg Config, ended *sync.WaitGroup) {
	ended = new(sync.WaitGroup)
	return Config{
		Resolver: addresses{"192.0.2.1"}, Roots: testCA.pool,
		Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			ended.Go(func() {
				serve(theirs)
				theirs.Close()
			})
			return ours, nil
		},
	}, ended
}

// RFC 8461 §3.3 suggests a minute for the whole fetch, wherever it hangs.
func TestFetchTakesAtMostAMinute(t *testing.T) {
	good := testCA.good()
	dribble := func(w io.Writer, head string) {
		_, err := io.WriteString(w, head)
		for err == nil {
			time.Sleep(time.Second)
			_, err = io.WriteString(w, "x")
		}
	}
	for name, serve := range map[string]func(net.Conn){
		"at the handshake":     func(c net.Conn) { io.Copy(io.Discard, c) },
		"before the answer":    func(c net.Conn) { io.Copy(io.Discard, tls.Server(c, good)) },
		"in a dribbled header": afterRequest(good, func(w io.Writer) { dribble(w, "HTTP/1.1 200 OK\r\nX-Header: ") }),
		"in a dribbled body":   afterRequest(good, func(w io.Writer) { dribble(w, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n") }),
		"after half a body": afterRequest(good, func(w io.Writer) {
			io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\nversion")
			time.Sleep(time.Hour)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				cfg, ended := pipes(serve)
				defer ended.Wait()
				_, err := New(cfg).Fetch(t.Context(), domain)
				wantFailure(t, err, mtasts.FailureFetch, "timed out after 1m0s (")
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != Timeout {
					t.Errorf("after %v: %v", time.Since(start), err)
				}
			})
		})
	}
}

func afterRequest(cfg *tls.Config, speak func(io.Writer)) func(net.Conn) {
	return func(conn net.Conn) {
		s := tls.Server(conn, cfg)
		if _, err := http.ReadRequest(bufio.NewReader(s)); err == nil {
			speak(s)
		}
	}
}

// A slow server that is done within the minute is waited for.
func TestFetchWaitsForASlowServer(t *testing.T) {
	good := testCA.good()
	synctest.Test(t, func(t *testing.T) {
		cfg, ended := pipes(afterRequest(good, func(w io.Writer) {
			io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n")
			for _, b := range []byte(policy)[:40] {
				time.Sleep(time.Second)
				w.Write([]byte{b})
			}
			io.WriteString(w, policy[40:])
			w.(*tls.Conn).Close()
		}))
		defer ended.Wait()
		p, err := New(cfg).Fetch(t.Context(), domain)
		if err != nil || p.Mode != mtasts.ModeEnforce {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

func TestFetchEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(3*time.Second, cancel)
		start := time.Now()
		cfg, ended := pipes(func(c net.Conn) { io.Copy(io.Discard, c) })
		defer ended.Wait()
		_, err := New(cfg).Fetch(ctx, domain)
		if !errors.Is(err, context.Canceled) || time.Since(start) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// dials records when which address was dialled, and answers by a table: after
// how long, and whether well.
type dials struct {
	mu     sync.Mutex
	start  time.Time
	order  []string
	after  map[string]time.Duration
	ok     map[string]bool
	opened []*closable
}

type closable struct {
	net.Conn
	from   string
	closed bool
}

func (c *closable) Close() error { c.closed = true; return nil }

func (d *dials) dial(ctx context.Context, _, address string) (net.Conn, error) {
	d.mu.Lock()
	d.order = append(d.order, address+" +"+time.Since(d.start).String())
	d.mu.Unlock()
	select {
	case <-time.After(d.after[address]):
	case <-ctx.Done():
		// A connection may be made just when it is no longer wanted.
		if !d.ok[address] {
			return nil, ctx.Err()
		}
	}
	if !d.ok[address] {
		return nil, errors.New(address + " refused")
	}
	conn := &closable{from: address}
	d.mu.Lock()
	d.opened = append(d.opened, conn)
	d.mu.Unlock()
	return conn, nil
}

func TestRace(t *testing.T) {
	const a, b, c = "[2001:db8::1]:443", "192.0.2.1:443", "[2001:db8::2]:443"
	addrs := []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("192.0.2.1")}
	tests := []struct {
		name  string // with the section of RFC 8305
		after map[string]time.Duration
		ok    map[string]bool
		order []string
		from  string
	}{
		{"§5 the first answers in time", nil, map[string]bool{a: true, b: true}, []string{a + " +0s"}, a},
		{"§5 the first is slow, the next wins", map[string]time.Duration{a: time.Hour}, map[string]bool{a: true, b: true},
			[]string{a + " +0s", b + " +250ms"}, b},
		{"§4 families take turns", map[string]time.Duration{a: time.Hour, b: time.Hour}, map[string]bool{c: true},
			[]string{a + " +0s", b + " +250ms", c + " +500ms"}, c},
		{"§5 a failure starts the next at once", nil, map[string]bool{c: true}, []string{a + " +0s", b + " +0s", c + " +0s"}, c},
		{"§5 the slow first still wins", map[string]time.Duration{a: 10 * time.Second}, map[string]bool{a: true},
			[]string{a + " +0s", b + " +250ms", c + " +250ms"}, a},
		{"all fail", nil, nil, []string{a + " +0s", b + " +0s", c + " +0s"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &dials{start: time.Now(), after: tt.after, ok: tt.ok}
				conn, err := New(Config{Dial: d.dial}).race(t.Context(), addrs)
				if !slices.Equal(d.order, tt.order) {
					t.Errorf("dialled %v, want %v", d.order, tt.order)
				}
				if tt.from == "" {
					if err == nil || err.Error() != a+" refused" {
						t.Errorf("error %v", err)
					}
					return
				}
				if err != nil || conn.(*closable).from != tt.from {
					t.Fatalf("%v, %v; want %s", conn, err, tt.from)
				}
				for _, o := range d.opened {
					if o.closed != (o.from != tt.from) {
						t.Errorf("%s: closed %t", o.from, o.closed)
					}
				}
			})
		})
	}
}

func TestRaceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var many []netip.Addr
		for i := range byte(100) {
			many = append(many, netip.AddrFrom4([4]byte{192, 0, 2, i}))
		}
		d := &dials{start: time.Now()}
		if _, err := New(Config{Dial: d.dial}).race(t.Context(), many); err == nil || len(d.order) != maxAddresses {
			t.Errorf("%d dialled, %v", len(d.order), err)
		}
	})
}

func TestRaceEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		d := &dials{start: time.Now(), after: map[string]time.Duration{"192.0.2.1:443": time.Hour}}
		_, err := New(Config{Dial: d.dial}).race(ctx, []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")})
		if !errors.Is(err, context.DeadlineExceeded) || len(d.order) != 1 {
			t.Errorf("%v after dialling %v", err, d.order)
		}
	})
}
