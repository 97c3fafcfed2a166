package internet

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/smtp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) *Internet {
	t.Helper()
	n, err := Start(2525)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	return n
}

// What is sent to a Sink is accepted and counted, whatever it offers.
func TestSink(t *testing.T) {
	n := start(t)
	text := strings.Repeat("a line\r\n.a dot\r\n", 5000)
	for name, options := range map[string]SinkOptions{
		"all":         {},
		"RSA":         {Key: ca.RSA},
		"no chunking": {NoChunking: true},
		"neither":     {NoChunking: true, NoPipelining: true},
		"plaintext":   {Plaintext: true},
		"no tickets":  {NoResumption: true},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := n.Sink(options)
			if err != nil {
				t.Fatal(err)
			}
			sessions := tls.NewLRUClientSessionCache(1)
			for range 2 {
				visit(t, n, s, sessions, text)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := s.wait(ctx, 6); err != nil {
				t.Fatal(err)
			}
			c := s.Counters()
			if c.Connections != 2 || c.Messages != 6 || c.Bytes < 6*int64(len(text)) {
				t.Errorf("%+v", c)
			}
			handshakes, resumed := int64(2), int64(1)
			if options.Plaintext {
				handshakes, resumed = 0, 0
			} else if options.NoResumption {
				resumed = 0
			}
			if c.Handshakes != handshakes || c.Resumed != resumed {
				t.Errorf("%d handshakes, %d resumed; want %d and %d", c.Handshakes, c.Resumed, handshakes, resumed)
			}
		})
	}
}

// visit opens a connection and sends three messages.
func visit(t *testing.T, n *Internet, s *Sink, sessions tls.ClientSessionCache, text string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	session, err := smtp.Open(t.Context(), conn, smtp.Config{Hostname: "client.example", CommandTimeout: time.Minute, SubmissionTimeout: time.Minute})
	if err == nil {
		err = session.Hello(t.Context())
	}
	if err == nil && session.Extensions().StartTLS {
		err = session.StartTLS(t.Context(), &tls.Config{ServerName: "h7.hosts.bench", RootCAs: n.Pool(), ClientSessionCache: sessions})
	}
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	from, to := mustParse(t, "a@sender.bench"), mustParse(t, "b@d7.hosts.bench")
	for range 3 {
		report := session.Send(t.Context(), &smtp.Transaction{
			From: from, Recipients: []smtp.Recipient{{Address: to}}, Chunking: smtp.ChunkingPipelined,
			Content: strings.NewReader(text), Size: int64(len(text)),
		})
		if report.Final.Code != 250 || report.Ending != smtp.Answered {
			t.Fatalf("%v, %v at %v", report.Final, report.Err, report.Stage)
		}
	}
}

func mustParse(t *testing.T, s string) address.Address {
	t.Helper()
	a, err := address.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A session ends when the client goes, and when the Internet does.
func TestSinkSaysBye(t *testing.T) {
	n := start(t)
	s, err := n.Sink(SinkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "NOOP\r\nDATA\r\nWHAT\r\nQUIT\r\n"); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for line := range strings.Lines(string(said)) {
		codes = append(codes, line[:3])
	}
	if got := strings.Join(codes, " "); got != "220 250 554 500 221" {
		t.Errorf("%s\n%s", got, said)
	}
}

func TestNames(t *testing.T) {
	n := start(t)
	for question, want := range map[string]string{
		"d7.hosts.bench. MX":               "10 h7.hosts.bench.",
		"d7.shared.bench. MX":              "10 h0.shared.bench. 10 h1.shared.bench. 10 h2.shared.bench.",
		"h0.shared.bench. A":               "127.16.0.1",
		"h7.hosts.bench. A":                "127.32.0.8",
		"h70000.hosts.bench. A":            "127.33.17.113",
		"h7.hosts.bench. AAAA":             "",
		"_mta-sts.d7.hosts.bench. TXT":     "",
		"_2525._tcp.h0.shared.bench. TLSA": "",
		"nonsense.bench. MX":               "",
		"hx.hosts.bench. A":                "",
	} {
		name, kind, _ := strings.Cut(question, " ")
		answer := ask(t, n, name, dns.StringToType[kind])
		var got []string
		for _, rr := range answer.Answer {
			got = append(got, strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
		if text := strings.Join(got, " "); text != want || answer.AuthenticatedData {
			t.Errorf("%s: %q, want %q", question, text, want)
		}
	}
	signed := ask(t, n, "_2525._tcp.h1.dane.bench.", dns.TypeTLSA)
	if len(signed.Answer) != 1 || !signed.AuthenticatedData {
		t.Error(signed)
	}
	if n.Questions() != 11 {
		t.Errorf("%d questions", n.Questions())
	}
}

func ask(t *testing.T, n *Internet, name string, qtype uint16) *dns.Msg {
	t.Helper()
	client := dns.Client{Timeout: time.Minute}
	answer, _, err := client.Exchange(new(dns.Msg).SetQuestion(name, qtype), n.DNS())
	if err != nil {
		t.Fatal(err)
	}
	return answer
}
