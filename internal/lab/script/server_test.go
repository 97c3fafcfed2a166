package script

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/smtp"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// start plays dialogues and holds the client to them at the end of the test.
func start(t *testing.T, configs map[string]*tls.Config, dialogues ...string) *Server {
	t.Helper()
	s, err := StartText(configs, dialogues...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// dial opens a raw connection, with a deadline so that a mistake does not hang
// the test.
func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { conn.Close() })
	return conn
}

func say(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

func finished(t *testing.T, s *Server, n int) Conversation {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := s.Wait(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func certificates(t *testing.T) (*ca.Authority, map[string]*tls.Config) {
	t.Helper()
	a, err := ca.New(ca.Options{})
	if err != nil {
		t.Fatal(err)
	}
	configs := map[string]*tls.Config{}
	for name, spec := range map[string]ca.Spec{"good": ca.For("mx.example"), "bad": ca.ExpiredFor("mx.example")} {
		cert, err := a.Issue(spec)
		if err != nil {
			t.Fatal(err)
		}
		configs[name] = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	return a, configs
}

func TestDialogueWithTLS(t *testing.T) {
	a, configs := certificates(t)
	s := start(t, configs, `
		S: 220 mx.example ESMTP
		C: EHLO *
		S: 250-mx.example
		S: 250 STARTTLS
		C: STARTTLS
		S: 220 go
		TLS good
		C: EHLO *
		S: 250 mx.example
		C: MAIL FROM:<a@a.example>*
		S: 250 sender ok
		C: RCPT TO:<b@b.example>
		S: 250 recipient ok
		C: DATA
		S: 354 go
		BODY
		S: 250 2.0.0 queued as X1
		C: QUIT
		S: 221 bye
	`)
	client, err := smtp.Dial(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		client.StartTLS(&tls.Config{RootCAs: a.Pool(), ServerName: "mx.example"}),
		client.Mail("a@a.example"), client.Rcpt("b@b.example"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w, err := client.Data()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "Subject: secret\r\n\r\n.dot\r\n")
	if err := errors.Join(w.Close(), client.Quit()); err != nil {
		t.Fatal(err)
	}

	c := finished(t, s, 1)
	if c.Err != nil {
		t.Fatal(c.Err)
	}
	if c.TLS == nil || c.TLS.ServerName != "mx.example" || c.TLS.Version != tls.VersionTLS13 {
		t.Errorf("TLS state is %+v", c.TLS)
	}
	if len(c.Messages) != 1 || string(c.Messages[0].Text) != "Subject: secret\r\n\r\n.dot\r\n" ||
		string(c.Messages[0].Wire) != "Subject: secret\r\n\r\n..dot\r\n.\r\n" {
		t.Errorf("messages are %+v", c.Messages)
	}
	if m := c.Messages[0]; m.Chunked || !slices.Equal(m.Envelope, []string{"MAIL FROM:<a@a.example>", "RCPT TO:<b@b.example>", "DATA"}) {
		t.Errorf("the envelope is %q", m.Envelope)
	}
	if bytes.Contains(c.Raw, []byte("secret")) || !bytes.Contains(c.Raw, []byte("STARTTLS\r\n\x16\x03")) {
		t.Error("the raw stream must hold the plaintext before STARTTLS and records after it")
	}
	if !bytes.HasPrefix(c.Clear, []byte("EHLO localhost\r\nSTARTTLS\r\nEHLO localhost\r\nMAIL")) || !bytes.HasSuffix(c.Clear, []byte(".\r\nQUIT\r\n")) {
		t.Errorf("the clear stream is %q", c.Clear)
	}
	if c.Flights != 8 { // two EHLO, STARTTLS, MAIL, RCPT, DATA, the body, QUIT
		t.Errorf("%d flights", c.Flights)
	}
}

func TestRefusedCertificate(t *testing.T) {
	a, configs := certificates(t)
	const before = "S: 220 hi\nC: EHLO *\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n"
	s := start(t, configs, before+"TLS bad fails\nEND", before+"TLSALERT\nEND")
	for n := 1; n <= 2; n++ {
		client, err := smtp.Dial(s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if err := client.StartTLS(&tls.Config{RootCAs: a.Pool(), ServerName: "mx.example"}); err == nil {
			t.Error("the handshake should fail")
		}
		client.Close()
		c := finished(t, s, n)
		if c.Err != nil || c.TLS != nil || (n == 1) != (c.TLSError != nil) {
			t.Errorf("conversation %d: %v, TLS error %v", n, c.Err, c.TLSError)
		}
	}
}

func TestFlightsAndChunks(t *testing.T) {
	s := start(t, nil, `
		S: 220 hi
		C: EHLO *
		S: 250 CHUNKING
		C: MAIL FROM:<>
		C: RCPT TO:<a@b.example>
		BDAT
		FLIGHTS 2
		S: 250 ok
		S: 250 ok
		S: 250 more
		BDAT
		QUIET
		S: 250 done
		C? QUIT
		END
	`)
	conn := dial(t, s)
	r := bufio.NewReader(conn)
	answers := func(n int) {
		for range n {
			if _, err := r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
	}
	answers(1)
	say(t, conn, "EHLO x\r\n")
	answers(1)
	say(t, conn, "MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nBDAT 3\r\na\r\n")
	answers(3)
	say(t, conn, "BDAT 3 LAST\r\n.\r\n")
	answers(1)
	conn.Close()
	c := finished(t, s, 1)
	if c.Err != nil || c.Flights != 3 || len(c.Messages) != 1 {
		t.Fatalf("%v, %d flights, %d messages", c.Err, c.Flights, len(c.Messages))
	}
	if m := c.Messages[0]; !m.Chunked || string(m.Text) != "a\r\n.\r\n" || m.Envelope[0] != "MAIL FROM:<>" {
		t.Errorf("message %+v", m)
	}
}

func TestHowTheServerLeaves(t *testing.T) {
	s := start(t, nil,
		"S: 220 hi\nRAW \"250 half\"\nDROP",
		"C: go\nRESET",
		"REPEAT 3 \"ab\"\nREAD 4\nREST",
		"C: go\nENDLESS \"250-more\\r\\n\"",
		"DRIP 1ms \"ab\"",
	)
	if got, err := io.ReadAll(dial(t, s)); err != nil || string(got) != "220 hi\r\n250 half" {
		t.Errorf("drop: %q, %v", got, err)
	}
	conn := dial(t, s)
	say(t, conn, "go\r\n")
	if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset: %v", err)
	}
	conn = dial(t, s)
	say(t, conn, "\x00\r\n\xffrest")
	got := make([]byte, 6)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "ababab" {
		t.Errorf("repeat: %q, %v", got, err)
	}
	conn.Close()
	if c := finished(t, s, 3); string(c.Clear) != "\x00\r\n\xffrest" {
		t.Errorf("kept %q", c.Clear)
	}
	conn = dial(t, s)
	say(t, conn, "go\r\n")
	if _, err := io.CopyN(io.Discard, conn, 1<<20); err != nil {
		t.Errorf("endless: %v", err)
	}
	conn.Close()
	finished(t, s, 4)
	conn = dial(t, s)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "ababab" {
		t.Errorf("drip: %q, %v", got, err)
	}
	conn.Close()
	if c := finished(t, s, 5); c.Err != nil || s.Connections() != 5 {
		t.Errorf("%v after %d connections", c.Err, s.Connections())
	}
}

func TestGate(t *testing.T) {
	s := start(t, nil, "WAIT first\nS: 220 late\nMARK said\nSLEEP 1ms\nWAIT second\nEND")
	conn := dial(t, s)
	if err := s.waitOpen(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("before the gate was open: %v", err)
	}
	s.Open("second")
	s.Open("first")
	s.Open("first")
	if err := s.WaitMark(t.Context(), "said"); err != nil {
		t.Error(err)
	}
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "220 late\r\n" {
		t.Errorf("%q, %v", line, err)
	}
	conn.Close()
	finished(t, s, 1)
}

func TestDeviations(t *testing.T) {
	tests := []struct{ name, dialogue, client, want string }{
		{"another line", "C: MAIL *", "RSET\r\n", `step 1 (C: MAIL *): the client said "RSET"`},
		{"a bare LF", "C: *", "RSET\n", "bare LF"},
		{"the end too early", "C: QUIT", "", "EOF"},
		{"cut off in a line", "C: QUIT", "QUI", "unexpected EOF"},
		{"not the end", "END", "QUIT\r\n", `the client said "QUIT"`},
		{"did not wait", "C: a\nQUIET", "a\r\nb\r\n", "did not wait"},
		{"flights", "C: a\nFLIGHTS 2", "a\r\n", "has sent 1 flights"},
		{"left by an optional line", "C? QUIT\nC: MAIL *", "RSET\r\n", `step 2 (C: MAIL *): the client said "RSET"`},
		{"no chunk", "BDAT", "BDAT x LAST\r\n", `the client said "BDAT x LAST"`},
		{"body cut off", "BODY", "a\r\n.\r", "EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := StartText(nil, tt.dialogue)
			if err != nil {
				t.Fatal(err)
			}
			conn := dial(t, s)
			say(t, conn, tt.client)
			conn.(*net.TCPConn).CloseWrite()
			c := finished(t, s, 1)
			if c.Err == nil || !strings.Contains(c.Err.Error(), tt.want) {
				t.Errorf("got %v", c.Err)
			}
			if err := s.Close(); err != c.Err {
				t.Errorf("Close returns %v", err)
			}
		})
	}
}

func TestWhoeverIsTooMany(t *testing.T) {
	s, err := StartText(nil, "S: 220 hi")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		io.Copy(io.Discard, dial(t, s))
	}
	finished(t, s, 2)
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "no script for this connection") {
		t.Errorf("got %v", err)
	}

	one, err := Parse("S: 220 hi")
	if err != nil {
		t.Fatal(err)
	}
	s, err = Start(Options{Addr: "127.0.0.2:0", Scripts: []Script{one}, Repeat: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		io.Copy(io.Discard, dial(t, s))
	}
	if finished(t, s, 3); len(s.Conversations()) != 3 || !strings.HasPrefix(s.Addr(), "127.0.0.2:") {
		t.Errorf("%d conversations on %s", len(s.Conversations()), s.Addr())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestStartRefuses(t *testing.T) {
	for _, opts := range []Options{
		{Scripts: []Script{{StartTLS("nowhere")}}},
		{Scripts: []Script{{FailTLS("nowhere")}}},
		{Scripts: []Script{{Drop(), Send("250 late")}}},
		{Addr: "127.0.0.1:notaport"},
	} {
		if s, err := Start(opts); err == nil {
			s.Close()
			t.Errorf("%v was started", opts)
		}
	}
}

func TestCloseCutsShort(t *testing.T) {
	s, err := Start(Options{Scripts: []Script{{Send("220 hi"), WaitFor("never")}}})
	if err != nil {
		t.Fatal(err)
	}
	dial(t, s)
	if err := s.waitOpen(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error)
	go func() {
		_, err := s.WaitMessages(context.Background(), 1)
		waited <- err
	}()
	if err := s.Close(); err == nil {
		t.Error("a script that was cut short must not pass")
	}
	if err := <-waited; !errors.Is(err, ErrClosed) {
		t.Errorf("WaitMessages: %v", err)
	}
}
