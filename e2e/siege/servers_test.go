package siege

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// processes is how many processes of a mail server send to one bad domain: as
// many as Postfix has by default.
const processes = 20

// line is the longest line that a reply may have.
var line = strings.Repeat("x", 1990)

// servers are mail servers that hold up, or fill up, who comes to them.
func servers() []attack {
	return []attack{
		server("drip", "20 deliveries to a server that answers a byte a second", "", 30, func(c *dialogue) {
			for c.write("2") && c.sleep(time.Second) && c.write("20-") && c.sleep(time.Second) && c.write("x\r\n") {
			}
		}),
		server("slow reader", "20 messages of 3 MB to a server that reads a kilobyte a second", large, 100, func(c *dialogue) {
			c.write("220 mx\r\n")
			c.line()
			c.write("250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
			for range 2 {
				c.line()
			}
			c.write("250 ok\r\n250 ok\r\n")
			for c.sleep(time.Second) {
				if _, err := io.CopyN(io.Discard, c.r, 1<<10); err != nil {
					return
				}
			}
		}),
		server("silent", "20 deliveries to a server that says nothing", "", 30, func(c *dialogue) {
			_, _ = io.Copy(io.Discard, c.r) // until it hangs up
		}),
		server("endless", "20 deliveries to a server whose reply has no end", "", 50, func(c *dialogue) {
			for c.write("220-" + line + "\r\n") {
			}
		}),
		server("refusals", "20 messages for 100 recipients, each refused with 100 lines of 2,000 bytes", "", 100, func(c *dialogue) {
			c.write("220 mx\r\n")
			c.line()
			c.write("250-mx\r\n250 PIPELINING\r\n")
			c.line()
			c.write("250 ok\r\n")
			long := strings.Repeat("450-"+line+"\r\n", 99) + "450 no\r\n"
			for strings.HasPrefix(c.line(), "RCPT") && c.write(long) {
			}
		}),
		server("keywords", "idle connections to a server that offers 98 keywords of 2,000 bytes", "", 50, func(c *dialogue) {
			c.write("220 mx\r\n")
			c.line()
			c.write("250-mx\r\n" + strings.Repeat("250-"+line+"\r\n", 98) + "250 ok\r\n")
			for _, reply := range []string{"250 ok\r\n", "250 ok\r\n", "354 go\r\n"} {
				c.line()
				c.write(reply)
			}
			for c.line() != "." && c.err == nil {
			}
			c.write("250 ok\r\n")
			_, _ = io.Copy(io.Discard, c.r)
		}),
		server("goodbye", "20 deliveries to a server that refuses each and never says goodbye", "", 30, func(c *dialogue) {
			c.write("220 mx\r\n")
			c.line()
			c.write("250 mx\r\n")
			c.line()
			c.write("450 later\r\n")
			_, _ = io.Copy(io.Discard, c.r)
		}),
		{name: "SYN", does: "20 deliveries to a server that swallows SYNs", most: 30, run: swallow},
	}
}

// server is an attack by one mail server to which mail goes.
func server(name, does, text string, most int, serve func(*dialogue)) attack {
	if text == "" {
		text = "Subject: bad\r\n\r\nbad\r\n"
	}
	return attack{name: name, does: does, most: most, run: func(ctx context.Context, f *field) error {
		domain := strings.ReplaceAll(name, " ", "-") + ".bad.example"
		stop, err := f.host("mx."+domain, func(conn net.Conn) { serve(&dialogue{ctx: ctx, Conn: conn, r: bufio.NewReader(conn)}) })
		if err != nil {
			return err
		}
		defer stop()
		if err := f.mailTo(domain, "mx."+domain); err != nil {
			return err
		}
		rcpts := 1
		if name == "refusals" {
			rcpts = 100
		}
		f.mail(ctx, f.n(processes), text, func(int) []string { return recipients(rcpts, "", domain) })
		return nil
	}}
}

// dialogue is a bad server's end of a connection.
type dialogue struct {
	net.Conn
	ctx context.Context
	r   *bufio.Reader
	err error
}

// write says something, and reports whether that can be gone on with.
func (c *dialogue) write(text string) bool {
	if c.err == nil {
		_, c.err = io.WriteString(c.Conn, text)
	}
	return c.err == nil
}

// line reads a line.
func (c *dialogue) line() string {
	if c.err != nil {
		return ""
	}
	text, err := c.r.ReadString('\n')
	c.err = err
	return strings.TrimRight(text, "\r\n")
}

func (c *dialogue) sleep(d time.Duration) bool {
	rest(c.ctx, d)
	return c.err == nil && c.ctx.Err() == nil
}

// swallow has a port with a full backlog, where the kernel drops SYNs.
func swallow(ctx context.Context, f *field) error {
	addr := f.address()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrInet4{Port: f.port, Addr: [4]byte(net.ParseIP(addr).To4())}
	if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fd, to), unix.Listen(fd, 0)); err != nil {
		return err
	}
	for range 3 { // they are never accepted
		if conn, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", addr, f.port), 50*time.Millisecond); err == nil {
			defer conn.Close()
		}
	}
	if err := errors.Join(f.dns.Add("mx.syn.bad.example. A "+addr), f.mailTo("syn.bad.example", "mx.syn.bad.example")); err != nil {
		return err
	}
	f.mail(ctx, f.n(processes), "Subject: bad\r\n\r\nbad\r\n", func(int) []string { return []string{"x@syn.bad.example"} })
	return nil
}

// chains are servers that prove too much.
func chains() []attack {
	return []attack{{
		name: "chains", most: 150,
		does: "messages to a domain with 100 hosts, each with a chain of 1,400 tiny certificates",
		run: func(ctx context.Context, f *field) error {
			chain, err := tinyChain()
			if err != nil {
				return err
			}
			var hosts []string
			for i := range f.n(100) {
				name := fmt.Sprintf("mx%d.chains.bad.example", i)
				config := &tls.Config{Certificates: []tls.Certificate{chain.of(i)}}
				stop, err := f.host(name, func(conn net.Conn) { refuseOverTLS(conn, config) })
				if err != nil {
					return err
				}
				defer stop()
				hosts = append(hosts, name)
			}
			if err := f.mailTo("chains.bad.example", hosts...); err != nil {
				return err
			}
			f.mail(ctx, 1, "Subject: bad\r\n\r\nbad\r\n", func(int) []string { return []string{"x@chains.bad.example"} })
			return nil
		},
	}}
}

// refuseOverTLS makes the handshake, and takes nothing.
func refuseOverTLS(conn net.Conn, config *tls.Config) {
	c := &dialogue{Conn: conn, r: bufio.NewReader(conn)}
	c.write("220 mx\r\n")
	c.line()
	c.write("250-mx\r\n250 STARTTLS\r\n")
	c.line()
	c.write("220 go\r\n")
	secure := tls.Server(conn, config)
	if c.err != nil || secure.Handshake() != nil {
		return
	}
	c = &dialogue{Conn: secure, r: bufio.NewReader(secure)}
	for _, reply := range []string{"250 mx\r\n", "450 later\r\n", "221 bye\r\n"} {
		c.line()
		c.write(reply)
	}
}

// tiny is a chain of certificates that are as small as can be, and as many as a
// TLS client of Go's takes.
type tiny struct {
	leaf   []byte
	key    ed25519.PrivateKey
	serial int // where the serial number stands in leaf
	many   int
}

const mostHandshake = 262_144 - 1000

func tinyChain() (*tiny, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	mark := uint64(0x7152535455565758)
	der, err := x509.CreateCertificate(rand.Reader,
		&x509.Certificate{SerialNumber: new(big.Int).SetUint64(mark), NotAfter: time.Now().Add(time.Hour)},
		&x509.Certificate{}, key.Public(), key)
	if err != nil {
		return nil, err
	}
	at := strings.Index(string(der), string(binary.BigEndian.AppendUint64(nil, mark)))
	if at < 0 {
		return nil, errors.New("no serial number in the certificate")
	}
	return &tiny{leaf: der, key: key, serial: at, many: min(1400, mostHandshake/(len(der)+5))}, nil
}

// of makes the chain of one host: no certificate is another's. The signatures
// are wrong; nobody looks at them where nothing is to be proven.
func (c *tiny) of(host int) (cert tls.Certificate) {
	cert.PrivateKey = c.key
	for i := range c.many {
		der := append([]byte(nil), c.leaf...)
		binary.BigEndian.PutUint64(der[c.serial:], 0x7100000000000000+uint64(host)<<16+uint64(i))
		cert.Certificate = append(cert.Certificate, der)
	}
	return cert
}
