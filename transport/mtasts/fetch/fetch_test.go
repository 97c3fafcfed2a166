package fetch

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
	"github.com/mxpipe/mxpipe/transport/mtasts"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

const (
	domain = "example.org"
	host   = "mta-sts.example.org"
	policy = "version: STSv1\r\nmode: enforce\r\nmx: mx.example.org\r\nmax_age: 604800\r\n"
)

// addresses is a Resolver that knows the same addresses for every host.
type addresses []string

func (a addresses) Addresses(_ context.Context, asked string) ([]netip.Addr, error) {
	if asked != host {
		return nil, fmt.Errorf("unexpected look-up of %s", asked)
	}
	var addrs []netip.Addr
	for _, s := range a {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	return addrs, nil
}

type noAddresses struct{ error }

func (n noAddresses) Addresses(context.Context, string) ([]netip.Addr, error) { return nil, n.error }

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, address)
}

// serve starts a policy host and gives a Client that finds it.
func serve(t *testing.T, cfg *tls.Config, handler http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = cfg
	s.StartTLS()
	t.Cleanup(s.Close)
	return clientOf(s.Listener.Addr())
}

func clientOf(addr net.Addr) *Client {
	at := netip.MustParseAddrPort(addr.String())
	return New(Config{Resolver: addresses{at.Addr().String()}, Dial: dial, Roots: testCA.pool, Port: at.Port()})
}

func answer(contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = []string{contentType}
		if contentType == "" {
			w.Header()["Content-Type"] = nil
		}
		io.WriteString(w, body)
	}
}

func wantFailure(t *testing.T, err error, want mtasts.Failure, text string) {
	t.Helper()
	var failed *mtasts.Error
	if !errors.As(err, &failed) {
		t.Fatalf("error %v of type %T", err, err)
	}
	if failed.Failure != want || !strings.Contains(failed.Error(), text) {
		t.Errorf("%v: %v; want %v: ...%s...", failed.Failure, failed, want, text)
	}
}

func TestFetch(t *testing.T) {
	var asked *http.Request
	c := serve(t, testCA.good(), func(w http.ResponseWriter, r *http.Request) {
		asked = r
		answer("text/plain", policy)(w, r)
	})
	p, err := c.Fetch(t.Context(), domain)
	if err != nil {
		t.Fatal(err)
	}
	if p.Mode != mtasts.ModeEnforce || p.MaxAge != 604800*time.Second || !p.Match("mx.example.org") {
		t.Errorf("policy %+v", p)
	}
	// RFC 8461 §3.2 and §7.1
	if asked.Method != "GET" || asked.URL.String() != "/.well-known/mta-sts.txt" || asked.TLS.ServerName != host || asked.TLS.NegotiatedProtocol != "http/1.1" ||
		asked.Host != fmt.Sprintf("%s:%d", host, c.cfg.Port) {
		t.Errorf("%s %s of %s with SNI %q", asked.Method, asked.URL, asked.Host, asked.TLS.ServerName)
	}
	for _, header := range []string{"Cookie", "Accept-Encoding", "If-Modified-Since", "If-None-Match"} {
		if asked.Header.Get(header) != "" {
			t.Errorf("%s: %s sent", header, asked.Header.Get(header))
		}
	}
}

func TestFetchDefaultsToPort443(t *testing.T) {
	var dialled string
	c := New(Config{Resolver: addresses{"192.0.2.1"}, Dial: func(_ context.Context, network, address string) (net.Conn, error) {
		dialled = network + " " + address
		return nil, errors.New("enough")
	}})
	_, err := c.Fetch(t.Context(), domain)
	wantFailure(t, err, mtasts.FailureFetch, "enough")
	if dialled != "tcp 192.0.2.1:443" {
		t.Errorf("dialled %s", dialled)
	}
}

func TestFetchJudgesTheAnswer(t *testing.T) {
	large := policy + "pad: " + strings.Repeat("x", 64<<10-len(policy)-5)
	tests := []struct {
		name    string // with the section of RFC 8461
		handler http.HandlerFunc
		failure mtasts.Failure
		text    string
	}{
		{"§3.2 media type with charset", answer("text/plain; charset=utf-8", policy), 0, ""},
		{"§3.2 media type with other parameters", answer(`text/plain; a="b;c"; format=flowed`, policy), 0, ""},
		{"§3.2 media type with broken parameters", answer("text/plain ;;; =", policy), 0, ""},
		{"§3.2 media type in capitals", answer("Text/PLAIN", policy), 0, ""},
		{"§3.2 media type HTML", answer("text/html", policy), mtasts.FailureFetch, "text/html"},
		{"§3.2 media type text/plainer", answer("text/plainer", policy), mtasts.FailureFetch, "text/plainer"},
		{"§3.2 media type octet-stream", answer("application/octet-stream", policy), mtasts.FailureFetch, "octet-stream"},
		{"§3.2 no media type", answer("", policy), mtasts.FailureFetch, "instead of text/plain"},
		{"§3.2 no policy", answer("text/plain", "hello"), mtasts.FailureInvalid, "hello"},
		{"§3.2 nothing", answer("text/plain", ""), mtasts.FailureInvalid, "no version"},
		{"§3.3 404", status(404), mtasts.FailureFetch, "404"},
		{"§3.3 500", status(500), mtasts.FailureFetch, "500"},
		{"§3.3 201", status(201), mtasts.FailureFetch, "201"},
		{"§3.3 203", status(203), mtasts.FailureFetch, "203"},
		{"§3.3 206", status(206), mtasts.FailureFetch, "206"},
		{"§3.3 301", status(301), mtasts.FailureFetch, "301"},
		{"§3.3 302", status(302), mtasts.FailureFetch, "302"},
		{"§3.3 307", status(307), mtasts.FailureFetch, "307"},
		{"§3.3 308", status(308), mtasts.FailureFetch, "308"},
		{"§3.3 304", status(304), mtasts.FailureFetch, "304"},
		{"§3.3 64 KiB exactly", answer("text/plain", large), 0, ""},
		{"§3.3 64 KiB and one, length told", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(large)+1))
			answer("text/plain", large+"x")(w, r)
		}, mtasts.FailureInvalid, "too large"},
		{"§3.3 64 KiB and one, in chunks", func(w http.ResponseWriter, r *http.Request) {
			answer("text/plain", large[:100])(w, r)
			w.(http.Flusher).Flush()
			io.WriteString(w, large[100:]+"x")
		}, mtasts.FailureInvalid, "too large"},
		{"§3.3 endless body", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			for chunk := []byte(strings.Repeat("x", 4096)); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, mtasts.FailureInvalid, "too large"},
		{"§3.3 body cut off", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(policy)+1))
			answer("text/plain", policy)(w, r)
		}, mtasts.FailureFetch, "unexpected EOF"},
		{"§3.3 compressed though not asked to", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			io.WriteString(z, policy)
			z.Close()
		}, mtasts.FailureFetch, "gzip"},
		{"connection dropped", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, mtasts.FailureFetch, "EOF"},
		{"control characters never reach the text", answer("text/\x1b[31mhtml", policy), mtasts.FailureFetch, `text/\x1b[31mhtml`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := serve(t, testCA.good(), tt.handler).Fetch(t.Context(), domain)
			if tt.failure == mtasts.FailureNone {
				if err != nil || p.Mode != mtasts.ModeEnforce {
					t.Errorf("%+v, %v", p, err)
				}
				return
			}
			wantFailure(t, err, tt.failure, tt.text)
		})
	}
}

// status answers with a policy under another status than 200. A redirect leads
// to a good policy on the same server, so that following it would succeed.
func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		if r.URL.Path == "/elsewhere" {
			io.WriteString(w, policy)
			return
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(code)
		if code != http.StatusNotModified {
			io.WriteString(w, policy)
		}
	}
}

func TestFetchJudgesTheCertificate(t *testing.T) {
	old, year := time.Now().Add(-2*time.Hour), 365*24*time.Hour
	tests := []struct {
		name    string // with the section of RFC 8461
		cfg     *tls.Config
		failure mtasts.Failure
		text    string
	}{
		{"§3.3 valid", testCA.good(), 0, ""},
		{"§3.3 wildcard as the left-most label", testCA.issue(leaf{names: []string{"*.example.org"}}), 0, ""},
		{"§3.3 one of several names", testCA.issue(leaf{names: []string{"a.example", host}}), 0, ""},
		{"§3.3 the bare domain", testCA.issue(leaf{names: []string{domain}}), mtasts.FailureWebPKI, "not " + host},
		{"§3.3 another host", testCA.issue(leaf{names: []string{"mta-sts.provider.example"}}), mtasts.FailureWebPKI, "not " + host},
		{"§3.3 wildcard over two labels", testCA.issue(leaf{names: []string{"*.org"}}), mtasts.FailureWebPKI, "not " + host},
		{"§3.3 wildcard within a label", testCA.issue(leaf{names: []string{"mta-*.example.org"}}), mtasts.FailureWebPKI, "not " + host},
		{"§3.3 only DNS-ID: a common name", testCA.issue(leaf{commonName: host}), mtasts.FailureWebPKI, "legacy Common Name"},
		{"§3.3 only DNS-ID: its address", testCA.issue(leaf{ips: []net.IP{net.IPv4(127, 0, 0, 1)}}), mtasts.FailureWebPKI, host},
		{"§3.3 expired", testCA.issue(leaf{names: []string{host}, from: old.Add(-year), until: old}), mtasts.FailureWebPKI, "expired"},
		{"§3.3 not yet valid", testCA.issue(leaf{names: []string{host}, from: time.Now().Add(time.Hour)}), mtasts.FailureWebPKI, "not yet valid"},
		{"§3.3 unknown authority", newAuthority().issue(leaf{names: []string{host}}), mtasts.FailureWebPKI, "unknown authority"},
		{"§3.3 control characters in its names", testCA.issue(leaf{names: []string{"a\n\x1bb.example"}}), mtasts.FailureWebPKI, ""},
		{"§7.2 TLS 1.2", limit(testCA.good(), tls.VersionTLS12), 0, ""},
		{"§7.2 TLS 1.1", limit(testCA.good(), tls.VersionTLS11), mtasts.FailureFetch, "version"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			requests := new(atomic.Int32)
			p, err := serve(t, tt.cfg, func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				answer("text/plain", policy)(w, r)
			}).Fetch(t.Context(), domain)
			if tt.failure == mtasts.FailureNone {
				if err != nil || p.Mode != mtasts.ModeEnforce {
					t.Errorf("%+v, %v", p, err)
				}
				return
			}
			wantFailure(t, err, tt.failure, tt.text)
			if strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Errorf("control characters in %q", err)
			}
			if requests.Load() != 0 {
				t.Error("the server was asked all the same")
			}
		})
	}
}

func limit(cfg *tls.Config, version uint16) *tls.Config {
	cfg = cfg.Clone()
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, version
	return cfg
}

// TestFetchJudgesTheCertificateByItsClock: the clock is handed in.
func TestFetchJudgesTheCertificateByItsClock(t *testing.T) {
	c := serve(t, testCA.good(), answer("text/plain", policy))
	c.cfg.Now = func() time.Time { return time.Now().AddDate(200, 0, 0) }
	_, err := c.Fetch(t.Context(), domain)
	wantFailure(t, err, mtasts.FailureWebPKI, "expired")
}

// The environment's proxy is not ours.
func TestFetchUsesNoProxy(t *testing.T) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	if _, err := serve(t, testCA.good(), answer("text/plain", policy)).Fetch(t.Context(), domain); err != nil {
		t.Error(err)
	}
}

func TestFetchRefusesWhatIsNoDomain(t *testing.T) {
	c := New(Config{Resolver: noAddresses{errors.New("looked up")}, Dial: dial})
	for _, name := range []string{"", "Example.org", "example.org.", "[192.0.2.1]", "a/b", "user@example.org", "example.org:8443", "a\r\nb"} {
		_, err := c.Fetch(t.Context(), name)
		wantFailure(t, err, mtasts.FailureFetch, mtasts.ErrDomain.Error())
	}
}

// listen starts a server that is no web server.
func listen(t *testing.T, serve func(net.Conn)) *Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return clientOf(l.Addr())
}

func TestFetchFromRudeServers(t *testing.T) {
	overTLS := func(speak func(w io.Writer)) func(net.Conn) {
		return func(conn net.Conn) {
			s := tls.Server(conn, testCA.good())
			if _, err := http.ReadRequest(bufio.NewReader(s)); err == nil {
				speak(s)
			}
			s.Close()
		}
	}
	tests := []struct {
		name  string
		serve func(net.Conn)
		text  string
	}{
		{"plaintext HTTP", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"+policy)
		}, "TLS"},
		{"closes at once", func(net.Conn) {}, "TLS"},
		{"no HTTP", overTLS(func(w io.Writer) { io.WriteString(w, "220 mx.example.org ESMTP\r\n") }), "malformed"},
		{"endless header", overTLS(func(w io.Writer) {
			io.WriteString(w, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(w, "X-Header: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
					return
				}
			}
		}), "headers exceed"},
		{"endless header line", overTLS(func(w io.Writer) {
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 1000)); err != nil {
					return
				}
			}
		}), "headers exceed"},
		{"endless interim answers", overTLS(func(w io.Writer) {
			for {
				if _, err := io.WriteString(w, "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"); err != nil {
					return
				}
			}
		}), "headers exceed"},
		{"two lengths", overTLS(func(w io.Writer) {
			io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"+policy)
		}), "Content-Length"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := listen(t, tt.serve).Fetch(t.Context(), domain)
			wantFailure(t, err, mtasts.FailureFetch, tt.text)
		})
	}
}

func TestFetchWithoutHost(t *testing.T) {
	_, err := New(Config{Resolver: noAddresses{errors.New("SERVFAIL")}, Dial: dial}).Fetch(t.Context(), domain)
	wantFailure(t, err, mtasts.FailureFetch, "SERVFAIL")
	_, err = New(Config{Resolver: addresses{}, Dial: dial}).Fetch(t.Context(), domain)
	wantFailure(t, err, mtasts.FailureFetch, errNoAddresses.Error())

	_, err = clientOf(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: ports.For(t)}).Fetch(t.Context(), domain)
	wantFailure(t, err, mtasts.FailureFetch, "refused")
}
