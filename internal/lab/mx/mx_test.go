package mx

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/smtp"
	"slices"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
)

func TestOrdinaryDeliveryOverTLS(t *testing.T) {
	a, cert := certificate(t, ca.For(host))
	s := serve(t, Options{Behaviour: Modern(cert)})
	c, err := smtp.Dial(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		c.Hello("client.example"),
		c.StartTLS(&tls.Config{RootCAs: a.Pool(), ServerName: host}),
		c.Mail("a@a.example"), c.Rcpt("b@b.example"), c.Rcpt("c@b.example"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	const body = "Subject: x\r\n\r\n.\r\n..dots\r\n"
	io.WriteString(w, body)
	if err := errors.Join(w.Close(), c.Quit()); err != nil {
		t.Fatal(err)
	}

	m := wait(t, s, 1)[0]
	if m.Sender != "a@a.example" || len(m.Recipients) != 2 || m.Recipients[1].Address != "c@b.example" || m.Hello != "client.example" {
		t.Errorf("the envelope is %+v", m)
	}
	if v, ok := m.Param("body"); !ok || v != "8BITMIME" {
		t.Errorf("parameters are %q", m.Params)
	}
	if string(m.Body) != body || m.Length != len(body) || m.Chunks != 0 {
		t.Errorf("the body is %q", m.Body)
	}
	if m.TLS == nil || m.TLS.ServerName != host || m.Conn != 1 || m.OnConn != 1 {
		t.Errorf("connection %d, message %d, TLS %v", m.Conn, m.OnConn, m.TLS)
	}
	if m.Flights != 5 { // MAIL, RCPT, RCPT, DATA, the body
		t.Errorf("%d flights", m.Flights)
	}
	if v := s.Violations(); len(v) != 0 {
		t.Errorf("violations: %v", v)
	}
	until(t, s, "the end of the connection", func(c Counters) bool { return c.Open == 0 })
	got := s.Counters()
	if got.Connections != 1 || got.Peak != 1 || got.Handshakes != 1 || got.Resumed != 0 || got.Messages != 1 ||
		got.Verbs["RCPT"] != 2 || got.Verbs["EHLO"] != 2 || got.Commands != 8 || got.Flights != 9 {
		t.Errorf("counters are %+v", got)
	}
}

func TestFlights(t *testing.T) {
	s := serve(t, Options{Behaviour: plain()})
	c := connect(t, s).hello()
	c.deliver()
	c.send(envelope + "DATA\r\n")
	c.expect("250", "250", "354")
	c.send("hi\r\n.\r\n")
	c.expect("250")
	c.send(envelope)
	c.expect("250", "250")
	c.send("BDAT 2\r\nhiBDAT 2 LAST\r\n\r\n")
	c.expect("250", "250")
	c.send(envelope + "BDAT 4 LAST\r\nhi\r\n" + envelope + "BDAT 4 LAST\r\nhi\r\n")
	c.expect("250", "250", "250", "250", "250", "250 2.0.0 queued as LAB5")
	for i, want := range []struct{ flights, chunks int }{{1, 1}, {2, 0}, {2, 2}, {1, 1}, {1, 1}} {
		m := s.Messages()[i]
		if m.Flights != want.flights || m.Chunks != want.chunks || string(m.Body) != "hi\r\n" || m.OnConn != i+1 {
			t.Errorf("message %d: %d flights, %d chunks, body %q", i+1, m.Flights, m.Chunks, m.Body)
		}
	}
	if v := s.Violations(); len(v) != 0 {
		t.Errorf("violations: %v", v)
	}
}

// A flight that comes in pieces is one flight for a server that settles.
func TestSettledFlight(t *testing.T) {
	h := plain()
	s := serve(t, Options{Behaviour: h})
	c := connect(t, s).hello()
	h.Settle = patience // cut short by the end of the stream below
	s.SetBehaviour(h)
	for _, piece := range []string{"MAIL FROM:<>\r\n", "RCPT TO:", "<b@b.example>\r\n", "BDAT 2 LAST\r\n", "\r\n"} {
		c.send(piece)
	}
	c.conn.(interface{ CloseWrite() error }).CloseWrite()
	c.expect("250", "250", "250")
	if m := wait(t, s, 1)[0]; m.Flights != 1 || m.Sender != "" {
		t.Errorf("%d flights", m.Flights)
	}
}

func TestOffers(t *testing.T) {
	a, cert := certificate(t, ca.For(host))
	h := Modern(cert)
	h.Keywords |= RequireTLS
	h.TLS.Keyword = "starttls"
	h.Extra = []string{"X-LAB 1"}
	s := serve(t, Options{Behaviour: h})
	c := connect(t, s)
	c.expect("220 " + host)
	got := keywords(c)
	if _, ok := got["REQUIRETLS"]; ok || len(got) != 9 || got["SIZE"] != "52428800" || got["X-LAB"] != "1" {
		t.Errorf("in plaintext: %v", got)
	}
	if _, ok := got["starttls"]; !ok {
		t.Errorf("no starttls in %v", got)
	}
	if err := c.secure(&tls.Config{RootCAs: a.Pool(), ServerName: host}); err != nil {
		t.Fatal(err)
	}
	got = keywords(c)
	if _, ok := got["REQUIRETLS"]; !ok || len(got) != 9 {
		t.Errorf("under TLS: %v", got)
	}
	c.send("MAIL FROM:<> REQUIRETLS BODY=8BITMIME\r\n")
	c.expect("250 2.1.0")

	s.SetBehaviour(Behaviour{Keywords: Size})
	got = keywords(c)
	if size, ok := got["SIZE"]; !ok || size != "" || len(got) != 1 {
		t.Errorf("after the change: %v", got)
	}
	c.send("MAIL FROM:<> BODY=8BITMIME\r\n")
	c.expect("555 parameter")
	if v := s.Violations(); len(v) != 1 || v[0].Breach != Unoffered || v[0].Conn != 1 {
		t.Errorf("violations: %v", v)
	}
	if s.Behaviour().Keywords != Size {
		t.Error("Behaviour does not return the behaviour")
	}
}

func TestTLSBehaviour(t *testing.T) {
	a, good := certificate(t, ca.For(host))
	expired, err := a.Issue(ca.ExpiredFor(host))
	if err != nil {
		t.Fatal(err)
	}
	trust := &tls.Config{RootCAs: a.Pool(), ServerName: host}
	s := serve(t, Options{Behaviour: Modern(good)})
	for _, tt := range []struct {
		name string
		tls  TLS
		want func(error) bool
	}{
		{"expired", TLS{Mode: TLSWorks, Certificate: expired},
			func(err error) bool { var e x509.CertificateInvalidError; return errors.As(err, &e) }},
		{"by server name", TLS{Mode: TLSWorks, Certificate: expired, BySNI: map[string]tls.Certificate{host: good}},
			func(err error) bool { return err == nil }},
		{"handshake failure", TLS{Mode: TLSBroken},
			func(err error) bool { return err != nil && strings.Contains(err.Error(), "handshake failure") }},
		{"too old", TLS{Mode: TLSWorks, Certificate: good, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
			func(err error) bool { return err != nil && strings.Contains(err.Error(), "protocol version") }},
		{"not offered but there", TLS{Mode: TLSHidden, Certificate: good}, func(err error) bool { return err == nil }},
		{"plaintext before the handshake (RFC 3207 §6)", TLS{Mode: TLSWorks, Certificate: good, Inject: "250 injected\r\n"},
			func(err error) bool { return err != nil && strings.Contains(err.Error(), "before the handshake") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := Modern(good)
			h.TLS = tt.tls
			s.SetBehaviour(h)
			c := connect(t, s).hello()
			if err := c.secure(trust); !tt.want(err) {
				t.Errorf("the client says: %v", err)
			}
		})
	}
	if v := s.Violations(); len(v) != 0 {
		t.Errorf("violations: %v", v)
	}
	for _, tt := range []struct {
		tls   TLS
		reply string
	}{
		{TLS{}, "502 5.5.1"},
		{TLS{Mode: TLSRefused}, "454 4.7.0"},
		{TLS{Mode: TLSRefused, Refusal: "501 no"}, "501 no"},
	} {
		h := plain()
		h.TLS = tt.tls
		s.SetBehaviour(h)
		c := connect(t, s).hello()
		c.send("STARTTLS\r\n")
		c.expect(tt.reply)
		c.deliver()
	}
	until(t, s, "failed handshakes", func(c Counters) bool { return c.FailedHandshakes == 4 && c.Handshakes == 2 })
}

func TestResumption(t *testing.T) {
	a, cert := certificate(t, ca.For(host))
	s := serve(t, Options{Behaviour: Modern(cert)})
	config := &tls.Config{RootCAs: a.Pool(), ServerName: host, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for range 2 {
		c := connect(t, s).hello()
		if err := c.secure(config); err != nil {
			t.Fatal(err)
		}
		c.deliver()
		// tickets are good for longer than a behaviour
		s.SetBehaviour(Modern(cert))
	}
	if c := s.Counters(); c.Handshakes != 2 || c.Resumed != 1 || !s.Messages()[1].TLS.DidResume {
		t.Errorf("counters are %+v", c)
	}
}

func TestRecipientsAndLimits(t *testing.T) {
	h := plain()
	h.MaxRecipients, h.MaxMessages, h.MaxConns = 2, 1, 1
	h.Size, h.RealSize = 1000, 10
	s := serve(t, Options{Behaviour: h})
	c := connect(t, s).hello()
	c.send("MAIL FROM:<> SIZE=11\r\n")
	c.expect("552 5.3.4")
	c.send("MAIL FROM:<>\r\nRCPT TO:<NoSuch.user@b.example>\r\nRCPT TO:<later@b.example>\r\nRCPT TO:<full@b.example>\r\n" +
		"RCPT TO:<one@b.example> NOTIFY=NEVER\r\nRCPT TO:<two@b.example>\r\nRCPT TO:<three@b.example>\r\nDATA\r\n")
	c.expect("250", "550 5.1.1", "450 4.2.0", "452 4.2.2", "250 2.1.5", "250", "452 4.5.3", "354")
	c.send("12345678\r\nx\r\n.\r\n")
	c.expect("552 5.3.4") // more than it really takes
	c.send("MAIL FROM:<>\r\nRCPT TO:<one@b.example> NOTIFY=NEVER\r\nBDAT 10\r\n12345678\r\nBDAT 2 LAST\r\n\r\n")
	c.expect("250", "250", "250", "552 5.3.4")
	c.send("MAIL FROM:<>\r\nRCPT TO:<one@b.example> NOTIFY=NEVER\r\nBDAT 10 LAST\r\n12345678\r\n")
	c.expect("250", "250", "250")

	other := connect(t, s)
	other.expect("421 4.3.2")
	other.over()

	c.send("MAIL FROM:<>\r\n")
	c.expect("421 4.3.2")
	c.over()
	m := s.Messages()
	if len(m) != 1 || len(m[0].Recipients) != 1 || !slices.Equal(m[0].Recipients[0].Params, []string{"NOTIFY=NEVER"}) {
		t.Errorf("messages are %+v", m)
	}
	if c := s.Counters(); c.Refused != 2 || c.Messages != 1 || c.Peak != 2 {
		t.Errorf("counters are %+v", c)
	}
}

func TestMemoryHasABound(t *testing.T) {
	s := serve(t, Options{Behaviour: plain(), MaxMessages: 3, MaxBytes: 8})
	c := connect(t, s).hello()
	for range 4 {
		c.deliver()
	}
	// two bodies of four bytes
	if m := wait(t, s, 4); len(m) != 2 || m[1].ID != "LAB4" {
		t.Errorf("kept %+v", m)
	}
	s.Forget()
	if len(s.Messages()) != 0 || s.Counters().Messages != 4 {
		t.Error("Forget must drop the messages and keep the counters")
	}

	s = serve(t, Options{Behaviour: plain(), MaxMessages: 3, Discard: true, Addr: "127.0.0.3:0"})
	c = connect(t, s).hello()
	for range 4 {
		c.deliver()
	}
	if m := wait(t, s, 4); len(m) != 3 || m[2].Body != nil || m[2].Length != 4 {
		t.Errorf("kept %+v", m)
	}
	if !strings.HasPrefix(s.Addr(), "127.0.0.3:") {
		t.Errorf("listens on %s", s.Addr())
	}
}

func TestStopWakesWaiters(t *testing.T) {
	s, err := Start(Options{})
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error)
	go func() {
		_, err := s.Wait(context.Background(), 1)
		waited <- err
	}()
	c := connect(t, s)
	c.expect("220")
	if err := errors.Join(s.Stop(), s.Stop()); err != nil {
		t.Error(err)
	}
	if err := <-waited; !errors.Is(err, ErrStopped) {
		t.Errorf("Wait returns %v", err)
	}
	c.over()
	if _, err := Start(Options{Addr: "127.0.0.1:notaport"}); err == nil {
		t.Error("a bad address was taken")
	}
}
