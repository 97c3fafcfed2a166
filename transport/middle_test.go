package transport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/forks"
)

// middle is a man in the middle: it takes connections to a mail server at the
// server's address, passes on what is said, and tampers with it.
type middle struct {
	tamper   tamper
	server   string // where the real one listens
	listener net.Listener
	wg       sync.WaitGroup
	ctx      context.Context
	cancel   context.CancelFunc

	mu  sync.Mutex
	saw bytes.Buffer // what the client said, as far as it was to be understood
}

// tamper is what a man in the middle does beyond listening.
type tamper struct {
	greeting string // in place of the server's; it hangs up after it
	hide     string // the EHLO keyword that it takes out
	starttls string // its own reply to STARTTLS
	// what it sends in the clear after the server's reply to STARTTLS
	behind string
	cut    bool             // it cuts the line in the handshake
	cutAll bool             // it cuts every line at once
	cert   *tls.Certificate // it shakes hands itself, with this certificate
	// breaks tells which TLS hellos do not come through: it cuts the line, or
	// with swallow says nothing more; nil: all do.
	breaks  func(hello []byte) bool
	swallow bool
}

// postQuantum reports whether a hello brings a post-quantum key share: no other
// is as large.
func postQuantum(hello []byte) bool { return len(hello) > 1000 }

// withoutRSA reports whether a hello offers no RSA key exchange.
func withoutRSA(hello []byte) bool {
	// The record's header, the message's, the version and the random come
	// before the session id and the suites (RFC 8446 §4.1.2).
	rest := hello[5+4+2+32:]
	rest = rest[1+int(rest[0]):]
	suites := rest[2 : 2+int(rest[0])<<8|int(rest[1])]
	// TLS_RSA_WITH_AES_128_GCM_SHA256
	return !bytes.Contains(suites, []byte{0, 0x9c})
}

// between puts a man in the middle at an address, before a server.
func between(t *testing.T, addr, server string, tamper tamper) *middle {
	t.Helper()
	listener, err := forks.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	m := &middle{tamper: tamper, server: server, listener: listener}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			m.wg.Go(func() { m.serve(conn) })
		}
	})
	t.Cleanup(func() {
		m.cancel()
		listener.Close()
		m.wg.Wait()
	})
	return m
}

// heard reports whether it could read a text.
func (m *middle) heard(text string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Contains(m.saw.Bytes(), []byte(text))
}

// Write notes what the client said.
func (m *middle) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.saw.Write(p)
}

// tampered is one connection of a man in the middle.
type tampered struct {
	*middle
	client, server net.Conn
	fromClient     *bufio.Reader
	fromServer     *bufio.Reader
}

func (m *middle) serve(client net.Conn) {
	defer client.Close()
	if m.tamper.cutAll {
		return
	}
	server, err := net.Dial("tcp", m.server)
	if err != nil {
		return
	}
	defer server.Close()
	stop := context.AfterFunc(m.ctx, func() {
		client.Close()
		server.Close()
	})
	defer stop()
	r := &tampered{middle: m}
	r.use(client, server)
	if m.tamper.greeting != "" {
		io.WriteString(client, m.tamper.greeting+"\r\n")
		return
	}
	if !r.reply() {
		return
	}
	for {
		line, err := r.fromClient.ReadString('\n')
		if err != nil {
			return
		}
		m.Write([]byte(line))
		verb := strings.ToUpper(strings.TrimSpace(line))
		switch {
		case verb == "STARTTLS" && m.tamper.starttls != "":
			io.WriteString(client, m.tamper.starttls+"\r\n")
		case verb == "STARTTLS":
			io.WriteString(server, line)
			r.secure()
			return
		case strings.HasPrefix(verb, "EHLO"), strings.HasPrefix(verb, "HELO"):
			io.WriteString(server, line)
			if !r.reply() {
				return
			}
		default:
			io.WriteString(server, line)
			r.pass()
			return
		}
	}
}

func (r *tampered) use(client, server net.Conn) {
	r.client, r.fromClient = client, bufio.NewReader(client)
	r.server, r.fromServer = server, bufio.NewReader(server)
}

// reply passes a reply on, without what it hides.
func (r *tampered) reply() bool {
	var lines []string
	for {
		line, err := r.fromServer.ReadString('\n')
		if err != nil {
			return false
		}
		last := len(line) > 3 && line[3] == ' '
		if r.tamper.hide == "" || !strings.Contains(strings.ToUpper(line[4:]), r.tamper.hide) {
			lines = append(lines, line)
		}
		if last {
			break
		}
	}
	end := []byte(lines[len(lines)-1])
	end[3] = ' '
	lines[len(lines)-1] = string(end)
	_, err := io.WriteString(r.client, strings.Join(lines, ""))
	return err == nil
}

// secure is what it does once the client has asked for TLS.
func (r *tampered) secure() {
	line, err := r.fromServer.ReadString('\n')
	if err != nil {
		return
	}
	io.WriteString(r.client, line+r.tamper.behind)
	if r.tamper.cut {
		return
	}
	if r.tamper.breaks != nil {
		header, err := r.fromClient.Peek(5)
		if err != nil {
			return
		}
		hello, err := r.fromClient.Peek(5 + int(header[3])<<8 + int(header[4]))
		if err != nil {
			return
		}
		if r.tamper.breaks(hello) {
			if r.tamper.swallow {
				io.Copy(io.Discard, r.fromClient)
			}
			return
		}
	}
	if r.tamper.cert != nil {
		server := tls.Client(r.server, &tls.Config{InsecureSkipVerify: true})
		client := tls.Server(r.client, &tls.Config{Certificates: []tls.Certificate{*r.tamper.cert}})
		if server.HandshakeContext(r.ctx) != nil || client.HandshakeContext(r.ctx) != nil {
			return
		}
		r.use(client, server)
	}
	r.pass()
}

// pass lets everything through, and listens, until either side is done.
func (r *tampered) pass() {
	r.wg.Go(func() {
		defer r.server.Close()
		io.Copy(io.MultiWriter(r.middle, r.server), r.fromClient)
	})
	io.Copy(r.client, r.fromServer)
}
