package transport

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/forks"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/mtasts"
)

// cost is what one delivery to a hostile domain took.
type cost struct {
	result  Result
	time    time.Duration
	memory  uint64 // allocated meanwhile, by the lab's servers too
	queries int    // DNS
	logged  int    // bytes of the log
}

func (c cost) String() string {
	return fmt.Sprintf("%v, %d KiB allocated, %d DNS queries, %d bytes of log: %v %s",
		c.time.Round(time.Millisecond), c.memory>>10, c.queries, c.logged, c.result.Code, c.result.Text)
}

// costOf delivers once and measures. Memory is the whole process's, so nothing
// else may run.
func (l *lab) costOf(to string) cost {
	l.t.Helper()
	var before, after runtime.MemStats
	l.dns.Reset()
	logged := len(l.logged())
	runtime.ReadMemStats(&before)
	start := time.Now()
	c := cost{result: l.send(to)[0], time: time.Since(start)}
	runtime.ReadMemStats(&after)
	c.memory = after.TotalAlloc - before.TotalAlloc
	n := l.dns.Queries("", dns.TypeANY)
	c.queries, c.logged = n.UDP+n.TCP, len(l.logged())-logged
	return c
}

// rude is a server at every loopback address that says its words to each
// caller, and hangs up.
func (l *lab) rude(words string) (port uint16, calls *atomic.Int32) {
	l.t.Helper()
	listener, err := forks.Listen("tcp4", "0.0.0.0:0")
	l.must(err)
	calls = new(atomic.Int32)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			io.WriteString(conn, words)
			conn.Close()
		}
	}()
	l.t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return uint16(listener.Addr().(*net.TCPAddr).Port), calls
}

// TestHostileDomains sends to domains whose owners mean ill. What one of their
// records costs is bounded by counts, and what it costs here is logged.
func TestHostileDomains(t *testing.T) {
	type hostile struct {
		name           string
		zone           func(l *lab) // for the domain a.example
		words          string       // what every mail server says
		want           string
		calls, queries int    // the most
		memory         uint64 // the most, in bytes
	}
	list := func(n int, format string, args ...any) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format+"\n", append([]any{i, i / 250, i%250 + 1}, args...)...)
		}
		return b.String()
	}
	for _, h := range []hostile{
		{"1,000 MX hosts", func(l *lab) {
			l.zone("%s", list(1000, "a.example. MX %[1]d mx%[1]d.a.example.\nmx%[1]d.a.example. A 127.77.%[2]d.%[3]d"))
		}, "", "4.4.2", 100, 300, 64 << 20},
		{"1,000 talkative MX hosts", func(l *lab) {
			l.zone("%s", list(1000, "a.example. MX %[1]d mx%[1]d.a.example.\nmx%[1]d.a.example. A 127.77.%[2]d.%[3]d"))
		}, "554 5.7.1 " + strings.Repeat("go away ", 240) + "\r\n", "4.4.4", 100, 300, 64 << 20},
		{"1,000 MX hosts without addresses", func(l *lab) {
			l.zone("%s", list(1000, "a.example. MX %[1]d mx%[1]d.a.example."))
		}, "", "4.4.4", 0, 300, 64 << 20},
		{"1,000 addresses", func(l *lab) {
			l.zone("a.example. MX 10 mx.a.example.\n%s", list(1000, "mx.a.example. A 127.77.%[2]d.%[3]d"))
		}, "", "4.4.2", 5, 10, 64 << 20},
		{"1,000 addresses of both families", func(l *lab) {
			l.zone("a.example. MX 10 mx.a.example.\n%s", list(1000, "mx.a.example. A 127.77.%[2]d.%[3]d\nmx.a.example. AAAA ::ffff:127.77.%[2]d.%[3]d"))
		}, "", "4.4.2", 5, 10, 64 << 20},
		{"a CNAME loop in place of the domain", func(l *lab) {
			l.zone("a.example. CNAME b.example.\nb.example. CNAME c.example.\nc.example. CNAME b.example.")
		}, "", "4.4.3", 0, 40, 16 << 20},
		{"a CNAME loop in place of a host", func(l *lab) {
			l.zone("a.example. MX 10 mx.a.example.\nmx.a.example. CNAME mx2.a.example.\nmx2.a.example. CNAME mx.a.example.")
		}, "", "4.4.3", 0, 60, 16 << 20},
		{"a CNAME chain of 500", func(l *lab) {
			l.zone("a.example. CNAME c0.example.\n%s", list(500, "c%[1]d.example. CNAME c%[1]d.c%[1]d.example.\nc%[1]d.c%[1]d.example. CNAME x%[1]d.example."))
			for i := range 499 {
				l.zone("x%d.example. CNAME c%d.example.", i, i+1)
			}
		}, "", "4.4.3", 0, 60, 32 << 20},
	} {
		t.Run(h.name, func(t *testing.T) {
			l := newLab(t)
			port, calls := l.rude(h.words)
			h.zone(l)
			l.start(func(c *Config) {
				everything(c)
				c.Port = port
			})
			c := l.costOf("b@a.example")
			t.Logf("%d connections, %v", calls.Load(), c)
			if c.result.Code.String() != h.want {
				t.Errorf("%v, want %s", c.result.Code, h.want)
			}
			if int(calls.Load()) > h.calls || c.queries > h.queries || c.memory > h.memory {
				t.Errorf("want at most %d connections, %d queries, %d KiB", h.calls, h.queries, h.memory>>10)
			}
			c.bounded(t, l)
		})
	}
}

// bounded checks what an administrator gets to read.
func (c cost) bounded(t *testing.T, l *lab) {
	t.Helper()
	if len(c.result.Text) > 900 || strings.ContainsFunc(c.result.Text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("not a line of at most 900 bytes: %q", c.result.Text)
	}
	if c.logged > 16<<10 {
		t.Errorf("%d bytes of log", c.logged)
	}
}

// spoiled makes records for a certificate that no certificate matches.
func spoiled(n int) (list []ca.Record) {
	for i := range n {
		data := make([]byte, 32)
		binary.BigEndian.PutUint32(data, uint32(i+1))
		list = append(list, ca.Record{Usage: ca.DANEEE, Selector: ca.SPKI, Matching: ca.SHA256, Data: data})
	}
	return list
}

// show has a server show another certificate.
func show(s *mx.Server, cert tls.Certificate) {
	habits := s.Behaviour()
	habits.TLS.Certificate = cert
	s.SetBehaviour(habits)
}

// TestHostileHosts meets mail servers that prove too much: records, names and
// policies as large as they can be.
func TestHostileHosts(t *testing.T) {
	names := make([]string, 10_000)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.example", i)
	}
	var patterns []string
	for size := 0; size < 64<<10; size += len("mx: p1000.example\r\n") {
		patterns = append(patterns, fmt.Sprintf("p%d.example", len(patterns)))
	}
	for _, tt := range []struct {
		name  string
		setUp func(l *lab, server *mx.Server)
		want  string
	}{
		{"64 TLSA records, one of which matches", func(l *lab, s *mx.Server) {
			l.signed("example")
			l.tlsa("mx.a.example", ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, l.certificates["mx.a.example"].Leaf))
			l.tlsa("mx.a.example", spoiled(63)...)
		}, "2.0.0"},
		{"500 TLSA records, of which 64 are looked at", func(l *lab, s *mx.Server) {
			l.signed("example")
			l.tlsa("mx.a.example", spoiled(500)...)
		}, "4.7.5"},
		{"a certificate for 10,000 names and the right one", func(l *lab, s *mx.Server) {
			l.policy("a.example", mtasts.ModeEnforce, "mx.a.example")
			show(s, l.cert(ca.For(append(names, "mx.a.example")...)))
		}, "2.0.0"},
		{"a certificate for 10,000 other names", func(l *lab, s *mx.Server) {
			l.policy("a.example", mtasts.ModeEnforce, "mx.a.example")
			show(s, l.cert(ca.For(names...)))
		}, "4.7.5"},
		{"a policy of 64 KiB that lists the host last", func(l *lab, s *mx.Server) {
			l.policy("a.example", mtasts.ModeEnforce, append(patterns, "mx.a.example")...)
		}, "2.0.0"},
		{"a policy of 64 KiB that does not list the host", func(l *lab, s *mx.Server) {
			l.policy("a.example", mtasts.ModeEnforce, patterns...)
		}, "4.7.5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			server := l.mx("mx.a.example", nil)
			l.zone("a.example. MX 10 mx.a.example.")
			tt.setUp(l, server)
			l.start(everything)
			c := l.costOf("b@a.example")
			t.Log(c)
			if c.result.Code.String() != tt.want {
				t.Errorf("%v, want %s", c.result.Code, tt.want)
			}
			if c.memory > 64<<20 || c.queries > 20 {
				t.Errorf("too much")
			}
			c.bounded(t, l)
		})
	}
}

// TestLargestPolicy: a policy file of 64 KiB of mx lines is read, and no more.
func TestLargestPolicy(t *testing.T) {
	head, tail := "version: STSv1\nmode: enforce\n", "max_age: 86400\n"
	room := 64<<10 - len(head) - len(tail)
	lines := ""
	for i := range 1000 {
		lines += fmt.Sprintf("mx: %0*d.b\n", room/1000-len("mx: .b\n"), i)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	p, err := mtasts.ParsePolicy([]byte(head + lines + tail))
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if err != nil || len(p.MX) != 1000 {
		t.Fatalf("%d patterns, %v", len(p.MX), err)
	}
	t.Logf("%d patterns read in %v, %d KiB allocated", len(p.MX), took, (after.TotalAlloc-before.TotalAlloc)>>10)
	if got := after.TotalAlloc - before.TotalAlloc; got > 16<<20 {
		t.Errorf("%d bytes allocated for 64 KiB", got)
	}
	for what, text := range map[string]string{
		"128 KiB":              head + lines + lines + tail,
		"64 KiB of short ones": head + strings.Repeat("mx: a.b\nmx: c.d\n", room/16) + tail,
	} {
		if _, err := mtasts.ParsePolicy([]byte(text)); !errors.Is(err, mtasts.ErrTooLarge) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestInjection: whatever a server says, a log line stays one line, a status
// line has no control characters, and what the server hears next is what it
// would have heard anyway.
func TestInjection(t *testing.T) {
	// Line ends of all kinds, terminal escapes of both widths, a title, a
	// right-to-left override, an end of data.
	const evil = `a\rQUIT\r\x0b\x0c\x1b[2J\x1b]0;x\x07\xc2\x85\xc2\x9b31m\xe2\x80\xa8\xe2\x80\xaeb\x7f\x00 dsn=2.0.0 level=ERROR`
	const head = "C: EHLO client.example\n" + `RAW "250-mx ` + evil + `\r\n250-SIZE ` + evil + `\r\n250-X` + evil + `\r\n250 DSN\r\n"` + "\n"
	const transaction = "C: MAIL FROM:<a@client.example> SIZE=51\n" + `RAW "250 ` + evil + `\r\n"` + "\nC: RCPT TO:<b@a.example>\n"
	for name, dialogue := range map[string]string{
		"taken":           `RAW "220 ` + evil + `\r\n"` + "\n" + head + transaction + `RAW "250 ` + evil + `\r\n"` + "\nC: DATA\nS: 354 go\nBODY\n" + `RAW "250 2.0.0 ` + evil + `\r\n"` + "\nC: QUIT\nS: 221 bye",
		"refused":         "S: 220 mx\n" + head + transaction + `RAW "550-5.1.1 ` + evil + `\r\n550 5.1.1 ` + evil + `\r\n"` + "\nC: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye",
		"no reply at all": `RAW "` + evil + `\r\n"` + "\nEND",
		"a bare LF":       "S: 220 mx\n" + head + transaction + `RAW "450 4.2.0 later\n250 ok\r\n"` + "\nEND",
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			server := l.play("mx.a.example", dialogue)
			l.zone("a.example. MX 10 mx.a.example.")
			var log journal
			cfg := l.config()
			cfg.Debug = true               // the dialogue goes into the log too
			if name == "no reply at all" { // one may still come
				cfg.CommandTimeout = time.Second
			}
			tr, err := New(cfg, Deps{Resolver: l.resolver, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			l.must(err)
			t.Cleanup(tr.Close)
			r := tr.Deliver(t.Context(), envelope("b@a.example"), msg(t, text))[0]
			if _, err := server.Wait(t.Context(), 1); err != nil {
				t.Error(err)
			}
			printable := func(what, line string) {
				if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("%s is not printable: %q", what, line)
				}
			}
			printable("the status line", r.Code.String()+" "+r.Text)
			log.mu.Lock()
			defer log.mu.Unlock()
			for line := range strings.Lines(log.text.String()) {
				printable("a log line", strings.TrimSuffix(line, "\n"))
				if !strings.HasPrefix(line, "time=") || !strings.Contains(line, " level=INFO ") {
					t.Errorf("a line of the server's own: %s", line)
				}
			}
		})
	}
	// Names from the DNS and from certificates.
	l := newLab(t)
	cert := l.cert(ca.Spec{Names: []string{"x\r\n.example"}, CommonName: "x\r\nMAIL FROM:<>"})
	l.mx(`mx\013\010.a.example`, func(h *mx.Behaviour) { h.TLS.Certificate = cert })
	l.zone(`a.example. MX 10 mx\013\010.a.example.`)
	server := l.mx("mx.b.example", func(h *mx.Behaviour) { h.TLS.Certificate = cert })
	l.zone("b.example. MX 10 mx.b.example.")
	l.policy("b.example", mtasts.ModeEnforce, "mx.b.example")
	l.start(everything)
	for _, r := range l.send("b@a.example", "b@b.example") {
		t.Log(r.Code, r.Text)
		if r.Code.Class == 2 || strings.ContainsFunc(r.Text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%v %q", r.Code, r.Text)
		}
	}
	counts(t, server, 1, 0)
}
