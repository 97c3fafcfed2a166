package transport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/forks"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// hostile is a mail server, or somebody in its place, that agrees to STARTTLS
// and means no TLS. In the clear it takes any message.
type hostile struct {
	// answer is what follows the client's hello; the connection ends after it.
	answer func(conn net.Conn, hello []byte)
	offers atomic.Int32 // connections that STARTTLS is offered on; 0: all
	wg     sync.WaitGroup
	conns  atomic.Int32
	mails  atomic.Int32 // MAIL commands
}

// hostile starts one for theHost.
func (l *lab) hostile(answer func(conn net.Conn, hello []byte)) *hostile {
	l.t.Helper()
	h := &hostile{answer: answer}
	addr := l.address()
	listener, err := forks.Listen("tcp", fmt.Sprintf("%s:%d", addr, l.port))
	l.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	h.wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			n := int(h.conns.Add(1))
			h.wg.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				most := int(h.offers.Load())
				h.serve(conn, most == 0 || n <= most)
			})
		}
	})
	l.t.Cleanup(func() {
		cancel()
		listener.Close()
		h.wg.Wait()
	})
	l.zone("%s. A %s", theHost, addr)
	l.zone("%s. MX 10 %s.", theDomain, theHost)
	return h
}

func (h *hostile) serve(conn net.Conn, offersTLS bool) {
	r := bufio.NewReader(conn)
	io.WriteString(conn, "220 mx\r\n")
	for body := false; ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		reply := "250 ok\r\n"
		switch verb := strings.ToUpper(strings.TrimSpace(line)); {
		case body && verb == ".":
			body = false
		case body:
			continue
		case strings.HasPrefix(verb, "EHLO") && offersTLS:
			reply = "250-mx\r\n250 STARTTLS\r\n"
		case verb == "STARTTLS":
			io.WriteString(conn, "220 go\r\n")
			header, err := r.Peek(5)
			if err != nil {
				return
			}
			hello := make([]byte, 5+int(header[3])<<8+int(header[4]))
			if _, err := io.ReadFull(r, hello); err == nil {
				h.answer(conn, hello)
			}
			return
		case strings.HasPrefix(verb, "MAIL"):
			h.mails.Add(1)
		case verb == "DATA":
			body, reply = true, "354 go\r\n"
		case verb == "QUIT":
			return
		}
		io.WriteString(conn, reply)
	}
}

// flood writes the same bytes until nobody takes them any more.
func flood(record ...byte) func(net.Conn, []byte) {
	many := bytes.Repeat(record, 1000)
	return func(conn net.Conn, _ []byte) {
		for {
			if _, err := conn.Write(many); err != nil {
				return
			}
		}
	}
}

// retryRequest is a HelloRetryRequest that asks for a group (RFC 8446 §4.1.4).
func retryRequest(hello []byte, group tls.CurveID) []byte {
	random := sha256.Sum256([]byte("HelloRetryRequest"))
	session := hello[5+4+2+32+1:][:hello[5+4+2+32]]
	body := append([]byte{3, 3}, random[:]...)
	body = append(append(body, byte(len(session))), session...)
	body = append(body, 0x13, 0x01, 0) // TLS_AES_128_GCM_SHA256
	body = append(body, 0, 12, 0, 43, 0, 2, 3, 4, 0, 51, 0, 2, byte(group>>8), byte(group))
	message := append([]byte{2, 0, 0, byte(len(body))}, body...)
	return append([]byte{22, 3, 3, 0, byte(len(message))}, message...)
}

// What hostile servers make of a handshake ends it, soon and within bounds:
// nothing is sent where TLS is required, nothing is remembered, and it is told
// as a handshake that failed, not as a server without STARTTLS.
func TestHostileHandshakes(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(net.Conn, []byte){
		"empty records":           flood(22, 3, 3, 0, 0),
		"warnings":                flood(21, 3, 3, 0, 2, 1, 90),
		"empty alerts":            flood(21, 3, 3, 0, 0),
		"change cipher specs":     flood(20, 3, 3, 0, 1, 1),
		"application data":        flood(23, 3, 3, 0, 1, 0),
		"no TLS":                  flood([]byte("250 ok\r\n")...),
		"a record of 64 KiB":      flood(22, 3, 3, 0xff, 0xff),
		"a message of 16 MB":      flood(22, 3, 3, 0, 4, 2, 0xff, 0xff, 0xff),
		"a close_notify":          func(c net.Conn, _ []byte) { c.Write([]byte{21, 3, 3, 0, 2, 1, 0}) },
		"no more":                 func(net.Conn, []byte) {},
		"half a record":           func(c net.Conn, _ []byte) { c.Write([]byte{22, 3, 3, 0, 90, 2}) },
		"replies after STARTTLS":  func(c net.Conn, _ []byte) { io.WriteString(c, "250 mx\r\n250 ok\r\n250 ok\r\n") },
		"its own hello back":      func(c net.Conn, hello []byte) { c.Write(hello) },
		"SSL 2":                   func(c net.Conn, _ []byte) { c.Write([]byte{0x80, 4, 4, 0, 2, 0}) },
		"a retry without a share": func(c net.Conn, hello []byte) { c.Write(retryRequest(hello, 0x0100)) },
		"retries without an end": func(c net.Conn, hello []byte) {
			for {
				if _, err := c.Write(retryRequest(hello, tls.CurveP384)); err != nil {
					return
				}
			}
		},
	} {
		for _, signed := range []bool{false, true} {
			t.Run(fmt.Sprint(name, "/", signed), func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				h := l.hostile(answer)
				if signed {
					l.signed(theDomain, "hosts.example")
					l.tlsa(theHost, ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, l.cert(ca.For(theHost)).Leaf))
				}
				var attempts []Attempt
				l.observe = func(e *Event) { attempts = append(attempts, e.Attempts...) }
				l.startPooled(everything)
				result := l.send("b@" + theDomain)
				conns, mails := 5, 1
				if signed {
					conns, mails = 3, 0
					expect(t, result, "4.7.5 (DANE)")
					if len(attempts) != 1 || attempts[0].Failure == nil || attempts[0].Failure.Cause != verdict.HandshakeFailed {
						t.Errorf("for reports: %+v", attempts)
					}
				} else {
					expect(t, result, "2.0.0 plaintext")
					if len(attempts) != 1 || attempts[0].TLSErr == nil {
						t.Errorf("for reports: %+v", attempts)
					}
				}
				if got := h.conns.Load(); int(got) > conns {
					t.Errorf("%d connections, want at most %d", got, conns)
				}
				if got := h.mails.Load(); int(got) != mails {
					t.Errorf("MAIL was said %d times, want %d", got, mails)
				}
				if list := l.transport.Snapshot().Hellos; len(list) > 0 {
					t.Errorf("remembered: %+v", list)
				}
			})
		}
	}
}

// Who breaks the first hello and strips STARTTLS before the next has one
// message in plaintext, and no more: nothing is remembered of the second hello,
// which was never made, and the connection is not kept.
func TestHelloBrokenAndSTARTTLSStripped(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	h := l.hostile(func(net.Conn, []byte) {})
	h.offers.Store(1)
	var attempts []Attempt
	l.observe = func(e *Event) { attempts = append(attempts, e.Attempts...) }
	l.startPooled(everything)
	expect(t, l.send("b@"+theDomain), "2.0.0 plaintext")
	if len(attempts) != 1 || attempts[0].TLSErr == nil {
		t.Errorf("for reports: %+v", attempts)
	}
	if list := l.transport.Snapshot().Hellos; len(list) > 0 {
		t.Errorf("remembered: %+v", list)
	}
	expect(t, l.send("b@"+theDomain), "2.0.0 plaintext")
	if got := h.conns.Load(); got != 3 {
		t.Errorf("%d connections for two messages, want 3", got)
	}
}

// What somebody on the wire makes of the hellos of mail that nothing protects
// is remembered for that mail alone: where TLS is required the first hello is
// the full one, over TLS 1.3 with a post-quantum share.
func TestRememberedForWhatItWasSeenWith(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.tlsServer(func(s *mx.TLS) { s.MinVersion, s.MaxVersion = tls.VersionTLS10, tls.VersionTLS10 })
	l.zone("sts.example. MX 10 %s.", theHost)
	l.policy("sts.example", mtasts.ModeEnforce, theHost)
	l.start(func(c *Config) { everything(c); c.ConnReuseLimit = 0 })
	expect(t, l.send("b@"+theDomain), "2.0.0 weak TLS, TLS1.0")
	behaviour := server.Behaviour()
	behaviour.TLS.MinVersion, behaviour.TLS.MaxVersion = 0, 0
	server.SetBehaviour(behaviour)
	before := server.Counters().Connections
	expect(t, l.send("b@sts.example"), "2.0.0 mtasts, TLS1.3")
	if n := server.Counters().Connections - before; n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	messages := server.Messages()
	if got := messages[len(messages)-1].TLS.CurveID; got != tls.X25519MLKEM768 {
		t.Errorf("under MTA-STS the group was %v", got)
	}
	// What is remembered says what to begin with, and nothing of what it ends
	// in: the server chooses the best of what is offered.
	expect(t, l.send("b@"+theDomain), "2.0.0 webpki, TLS1.3")
}
