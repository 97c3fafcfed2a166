package smtp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/internal/lab/memnet"
	"github.com/mxpipe/mxpipe/internal/lab/script"
	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/reply"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// play starts a server for the dialogue and connects to it.
func play(t *testing.T, dialogue string) (*script.Server, net.Conn) {
	t.Helper()
	authority, err := ca.New(ca.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Issue(ca.For("mx.example"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := script.StartText(map[string]*tls.Config{"good": {Certificates: []tls.Certificate{cert}}}, dialogue)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	conn, err := net.Dial("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return server, conn
}

// config is for tests in which no time runs out, however busy the host is.
func config() Config {
	return Config{Hostname: "client.example", CommandTimeout: 2 * time.Minute, SubmissionTimeout: 2 * time.Minute}
}

// begin opens a session and greets the server.
func begin(t *testing.T, dialogue string) (*script.Server, *Session) {
	t.Helper()
	server, conn := play(t, dialogue)
	s, err := Open(t.Context(), conn, config())
	if err == nil {
		err = s.Hello(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return server, s
}

// finish ends a session and has the script's own judgement.
func finish(t *testing.T, server *script.Server, s *Session) {
	t.Helper()
	s.Quit(t.Context())
	judge(t, server)
}

// judge waits for the end of the script and reports where it was left.
func judge(t *testing.T, server *script.Server) {
	t.Helper()
	c, err := server.Wait(t.Context(), 1)
	if err == nil {
		err = c.Err
	}
	if err != nil {
		t.Error(err)
	}
}

func addr(t *testing.T, s string) address.Address {
	t.Helper()
	a, err := address.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func transaction(t *testing.T, body string, to ...string) *Transaction {
	tx := &Transaction{From: addr(t, "a@client.example"), Content: strings.NewReader(body), Size: int64(len(body))}
	for _, r := range to {
		tx.Recipients = append(tx.Recipients, Recipient{Address: addr(t, r)})
	}
	return tx
}

func codes(report *Report) []int {
	list := []int{report.Mail.Code}
	for _, r := range report.Rcpts {
		list = append(list, r.Code)
	}
	return append(list, report.Data.Code, report.Final.Code)
}

// RFC 5321 §3.3: MAIL, RCPT, DATA, each after the reply before; all parameters
// that the server offers, and none that it does not.
func TestTransaction(t *testing.T) {
	server, s := begin(t, `
		S: 220 mx.example ESMTP
		C: EHLO client.example
		S: 250-mx.example
		S: 250-SIZE 1000
		S: 250-8BITMIME
		S: 250-SMTPUTF8
		S: 250 dsn
		C: MAIL FROM:<a@client.example> SIZE=15 BODY=8BITMIME RET=HDRS ENVID=x+3D1
		S: 250 2.1.0 ok
		C: RCPT TO:<b@mx.example> NOTIFY=FAILURE ORCPT=rfc822;B+2BB@old.example
		S: 250 2.1.5 ok
		C: RCPT TO:<c@mx.example> ORCPT=utf-8;\\x{FC}@old.example
		S: 550 5.1.1 no such user
		C: DATA
		S: 354 go
		BODY
		S: 250 2.0.0 queued as X1
		C: QUIT
		S: 221 bye`)
	tx := transaction(t, "Subject: x\r\n\r\n.\r", "b@mx.example", "c@mx.example")
	tx.Content = strings.NewReader("A: \xfc\r\n\r\n.\r\n..\r\n")
	tx.EightBit, tx.Ret, tx.EnvID = true, "HDRS", "x=1"
	tx.Recipients[0].Notify, tx.Recipients[0].ORcpt = "FAILURE", "rfc822;B+B@old.example"
	tx.Recipients[1].ORcpt = "rfc822;ü@old.example"
	tx.Size = int64(len("A: \xfc\r\n\r\n.\r\n..\r\n"))
	report := send(t, t.Context(), s, tx)
	if got, want := codes(report), []int{250, 250, 550, 354, 250}; !reflect.DeepEqual(got, want) || report.Err != nil {
		t.Fatalf("%v, %v at %v; want %v", got, report.Err, report.Stage, want)
	}
	if got := report.Final.Text(); got != "250 2.0.0 queued as X1" {
		t.Errorf("final reply %q", got)
	}
	finish(t, server, s)
	messages, err := server.WaitMessages(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(messages[0].Wire), "A: \xfc\r\n\r\n..\r\n...\r\n.\r\n"; got != want {
		t.Errorf("body on the wire %q, want %q", got, want)
	}
}

// A server that offers nothing gets nothing but addresses; U-labels go as
// A-labels (RFC 5321 §2.3.5).
func TestNoExtensions(t *testing.T) {
	server, s := begin(t, `
		S: 220 mx.example
		C: EHLO client.example
		S: 502 5.5.2 what?
		C: HELO client.example
		S: 250 mx.example
		C: MAIL FROM:<a@client.example>
		S: 250 ok
		C: RCPT TO:<b@xn--bcher-kva.example>
		S: 250 ok
		C: DATA
		S: 354 go
		BODY
		S: 250 ok
		C: QUIT
		S: 221 bye`)
	tx := transaction(t, "x\r\n", "b@bücher.example")
	tx.EightBit, tx.Ret, tx.EnvID, tx.RequireTLS = true, "FULL", "x", true
	tx.Recipients[0].Notify, tx.Recipients[0].ORcpt = "NEVER", "rfc822;x@y"
	if report := send(t, t.Context(), s, tx); report.Final.Code != 250 {
		t.Errorf("%v, %v", codes(report), report.Err)
	}
	finish(t, server, s)
}

// SMTPUTF8 lets the address go as it is (RFC 6531 §3.4).
func TestSMTPUTF8(t *testing.T) {
	server, s := begin(t, `
		S: 220 mx.example
		C: EHLO client.example
		S: 250-mx.example
		S: 250-8bitmime
		S: 250 smtputf8
		C: MAIL FROM:<a@client.example> BODY=8BITMIME SMTPUTF8
		S: 250 ok
		C: RCPT TO:<ü@bücher.example>
		S: 250 ok
		C: DATA
		S: 354 go
		BODY
		S: 250 ok
		C: QUIT
		S: 221 bye`)
	tx := transaction(t, "x\r\n", "ü@bücher.example")
	tx.UTF8 = true
	if report := send(t, t.Context(), s, tx); report.Final.Code != 250 {
		t.Errorf("%v, %v", codes(report), report.Err)
	}
	finish(t, server, s)
}

// What the server refuses ends the transaction there, and nothing that needs
// its consent is sent.
func TestRefusals(t *testing.T) {
	tests := []struct {
		name, dialogue string
		want           []int
	}{
		{"MAIL", "C: MAIL FROM:<*>\nS: 451 4.3.0 not now\nC: QUIT\nS: 221 bye", []int{451, 0, 0, 0, 0}},
		{"every RCPT", "C: MAIL FROM:<*>\nS: 250 ok\nC: RCPT TO:<b@*>\nS: 550 no\nC: RCPT TO:<c@*>\nS: 450 later\nC: QUIT\nS: 221 bye", []int{250, 550, 450, 0, 0}},
		{"421 at RCPT", "C: MAIL FROM:<*>\nS: 250 ok\nC: RCPT TO:<b@*>\nS: 421 closing\nC: RCPT TO:<c@*>\nS: 421 closing\nC: QUIT\nS: 221 bye", []int{250, 421, 421, 0, 0}},
		{"421 at RCPT, and it goes", "C: MAIL FROM:<*>\nS: 250 ok\nC: RCPT TO:<b@*>\nS: 421 closing\nDROP", []int{250, 421, 0, 0, 0}},
		{"421 at one RCPT, and it stays", "C: MAIL FROM:<*>\nS: 250 ok\nC: RCPT TO:<b@*>\nS: 421 not him\nC: RCPT TO:<c@*>\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 taken\nC: QUIT\nS: 221 bye", []int{250, 421, 250, 354, 250}},
		{"DATA", "C: MAIL FROM:<*>\nS: 250 ok\nC: RCPT TO:<b@*>\nS: 250 ok\nC: RCPT TO:<c@*>\nS: 250 ok\nC: DATA\nS: 554 no\nC: QUIT\nS: 221 bye", []int{250, 250, 250, 554, 0}},
		{"DATA with 250", "C: MAIL FROM:<*>\nS: 250 ok\nC: RCPT TO:<b@*>\nS: 250 ok\nC: RCPT TO:<c@*>\nS: 250 ok\nC: DATA\nS: 250 ok\nC: QUIT\nS: 221 bye", []int{250, 250, 250, 250, 0}},
		{"the message", "C: MAIL FROM:<*>\nS: 250 ok\nC: RCPT TO:<b@*>\nS: 250 ok\nC: RCPT TO:<c@*>\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 552 too big\nC: QUIT\nS: 221 bye", []int{250, 250, 250, 354, 552}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server, s := begin(t, "S: 220 mx\nC: EHLO *\nS: 250 mx\n"+tt.dialogue)
			report := send(t, t.Context(), s, transaction(t, "x\r\n", "b@mx.example", "c@mx.example"))
			if got := codes(report); !reflect.DeepEqual(got, tt.want) || report.Err != nil {
				t.Errorf("%v, %v; want %v", got, report.Err, tt.want)
			}
			finish(t, server, s)
		})
	}
}

// RSET makes ready for another transaction (RFC 5321 §4.1.1.5).
func TestReset(t *testing.T) {
	server, s := begin(t, "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: MAIL FROM:<*>\nS: 250 ok\nC: RCPT TO:<*>\nS: 550 no\nC: RSET\nS: 250 ok\nC: MAIL FROM:<*>\nS: 250 ok\nC: RCPT TO:<*>\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 ok\nC: QUIT\nS: 221 bye")
	send(t, t.Context(), s, transaction(t, "x\r\n", "b@mx.example"))
	if err := s.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if report := send(t, t.Context(), s, transaction(t, "x\r\n", "c@mx.example")); report.Final.Code != 250 {
		t.Errorf("%v, %v", codes(report), report.Err)
	}
	finish(t, server, s)
}

// RFC 3207 §4.2: what the server said in the clear is forgotten; the keyword is
// found in any letter case.
func TestStartTLS(t *testing.T) {
	server, s := begin(t, "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250-SIZE 5\nS: 250 starttls\nC: STARTTLS\nS: 220 go\nTLS good\nC: EHLO client.example\nS: 250-mx\nS: 250 PIPELINING\nC: QUIT\nS: 221 bye")
	if !s.Extensions().StartTLS || s.Extensions().MaxSize != 5 {
		t.Fatalf("extensions %+v", s.Extensions())
	}
	if err := s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.example", InsecureSkipVerify: true}); err != nil {
		t.Fatal(err)
	}
	if ext := s.Extensions(); ext.StartTLS || ext.Size || !ext.Pipelining {
		t.Errorf("extensions after TLS: %+v", ext)
	}
	if s.TLS() == nil || s.TLS().Version != tls.VersionTLS13 {
		t.Errorf("TLS state %+v", s.TLS())
	}
	finish(t, server, s)
}

func TestStartTLSFailures(t *testing.T) {
	tests := []struct {
		name, dialogue string
		stage          outcome.Stage
		code           int
		is             error
	}{
		{"refused", "S: 454 4.7.0 not now\nC: QUIT\nS: 221 bye", outcome.STARTTLS, 454, nil},
		// RFC 3207 §5: a reply in the clear after the 220 is an attack.
		{"injection", `RAW "220 go\r\n250 injected\r\n"` + "\nREST", outcome.Handshake, 0, ErrInjection},
		{"alert", "S: 220 go\nTLSALERT\nREST", outcome.Handshake, 0, nil},
		{"closed", "S: 220 go\nDROP", outcome.Handshake, 0, nil},
		{"EHLO refused after it", "S: 220 go\nTLS good\nC: EHLO *\nS: 550 no\nREST", outcome.EHLOAfterTLS, 550, nil},
		{"silence instead of a reply", "DROP", outcome.STARTTLS, 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server, s := begin(t, "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\n"+tt.dialogue)
			err := s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.example", InsecureSkipVerify: true})
			var at *Error
			if !errors.As(err, &at) || at.Stage != tt.stage || at.Reply.Code != tt.code || (at.Err == nil) != (tt.code != 0) {
				t.Fatalf("%#v, want stage %v and code %d", err, tt.stage, tt.code)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v, want %v", err, tt.is)
			}
			if tt.name == "refused" {
				finish(t, server, s)
				return
			}
			s.Close()
			judge(t, server)
		})
	}
}

func TestGreetings(t *testing.T) {
	tests := []struct {
		name, dialogue string
		stage          outcome.Stage
		code           int
		is             error
	}{
		{"554 greeting", "S: 554 no service\nEND", outcome.Greeting, 554, nil},
		{"421 greeting", "S: 421 busy\nEND", outcome.Greeting, 421, nil},
		{"greeting cut off", `RAW "220 mx"` + "\nDROP", outcome.Greeting, 0, nil},
		{"no greeting", "DROP", outcome.Greeting, 0, nil},
		{"garbage", "S: SSH-2.0-OpenSSH\nMARK said\nREST", outcome.Greeting, 0, reply.ErrMalformed},
		{"endless line", `RAW "220 "` + "\n" + `ENDLESS "xxxxxxxx"`, outcome.Greeting, 0, reply.ErrTooLong},
		{"endless reply", `ENDLESS "220-x\r\n"`, outcome.Greeting, 0, reply.ErrTooLong},
		{"EHLO 421", "S: 220 mx\nC: EHLO *\nS: 421 busy\nEND", outcome.EHLO, 421, nil},
		{"EHLO and HELO refused", "S: 220 mx\nC: EHLO *\nS: 550 no\nC: HELO *\nS: 550 no\nEND", outcome.HELO, 550, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server, conn := play(t, tt.dialogue)
			cfg := config()
			if tt.name == "garbage" { // a reply may still come after it
				cfg.CommandTimeout = 200 * time.Millisecond
				if err := server.WaitMark(t.Context(), "said"); err != nil {
					t.Fatal(err)
				}
			}
			s, err := Open(t.Context(), conn, cfg)
			if err == nil {
				err = s.Hello(t.Context())
				s.Close()
			}
			var at *Error
			if !errors.As(err, &at) || at.Stage != tt.stage || at.Reply.Code != tt.code {
				t.Fatalf("%v, want stage %v and code %d", err, tt.stage, tt.code)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v, want %v", err, tt.is)
			}
			judge(t, server)
		})
	}
}

// A delivery that is cancelled stops at once, with the cause, at any stage
// before the end of the data; after it the server's answer is waited for.
func TestCancel(t *testing.T) {
	why := errors.New("the client went away")
	for _, tt := range []struct{ name, dialogue string }{
		{"waiting for MAIL's reply", "C: MAIL FROM:<*>\nREST"},
		{"waiting for DATA's reply", "C: MAIL FROM:<*>\nS: 250 ok\nC: RCPT TO:<*>\nS: 250 ok\nC: DATA\nREST"},
		{"writing the body", "C: MAIL FROM:<*>\nS: 250 ok\nC: RCPT TO:<*>\nS: 250 ok\nC: DATA\nS: 354 go\nREAD 10\nWAIT end\nREST"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, s := begin(t, "S: 220 mx\nC: EHLO *\nS: 250 mx\n"+tt.dialogue)
			ctx, cancel := context.WithCancelCause(t.Context())
			body := strings.Repeat("x\r\n", 10<<20)
			tx := transaction(t, body, "b@mx.example")
			commands, sent := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(commands)
				for {
					select {
					case <-sent: // too early
						return
					default:
					}
					c := server.Conversations()[0]
					if got := len(c.Commands); got > 0 && (c.Commands[got-1] == "DATA" || strings.HasPrefix(tt.name, "waiting for MAIL") && strings.HasPrefix(c.Commands[got-1], "MAIL")) {
						cancel(why)
						return
					}
					time.Sleep(time.Millisecond)
				}
			}()
			report := send(t, ctx, s, tx)
			close(sent)
			<-commands
			if !errors.Is(report.Err, why) || report.Final.Code != 0 {
				t.Errorf("%v at %v, want the cause", report.Err, report.Stage)
			}
			s.Close()
			server.Open("end")
		})
	}
}

func TestNoCancelAfterThePoint(t *testing.T) {
	server, s := begin(t, "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: MAIL FROM:<*>\nS: 250 ok\nC: RCPT TO:<*>\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nWAIT answer\nS: 250 ok\nC: QUIT\nS: 221 bye")
	ctx, cancel := context.WithCancel(t.Context())
	tx := transaction(t, "x\r\n", "b@mx.example")
	tx.BeforeFinal = func() context.Context { return t.Context() }
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		server.WaitMessages(t.Context(), 1)
		cancel()
		server.Open("answer")
	}()
	defer func() { <-answered }()
	if report := send(t, ctx, s, tx); report.Final.Code != 250 {
		t.Errorf("%v, %v; the server's answer was there", codes(report), report.Err)
	}
	finish(t, server, s)
}

// A body that is shorter than announced is never ended as if it were whole.
func TestShortBody(t *testing.T) {
	server, s := begin(t, "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: MAIL FROM:<*>\nS: 250 ok\nC: RCPT TO:<*>\nS: 250 ok\nC: DATA\nS: 354 go\nREST")
	tx := transaction(t, "x\r\n", "b@mx.example")
	tx.Size = 100
	report := send(t, t.Context(), s, tx)
	if report.Err == nil || report.Stage != outcome.Body {
		t.Errorf("%v at %v", report.Err, report.Stage)
	}
	s.Close()
	c, err := server.Wait(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Messages) > 0 {
		t.Errorf("the server took %q for a message", c.Messages[0].Wire)
	}
}

// Time-outs: a reply must be there whole in time however it trickles, and a
// peer that takes nothing ends a write.
func TestTimeouts(t *testing.T) {
	t.Run("reply", func(t *testing.T) {
		_, conn := play(t, `RAW "220-x\r\n"`+"\nREST")
		cfg := config()
		cfg.CommandTimeout = 50 * time.Millisecond
		_, err := Open(t.Context(), conn, cfg)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v, want a time-out", err)
		}
	})
	t.Run("write", func(t *testing.T) {
		server, s := begin(t, "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: MAIL FROM:<*>\nS: 250 ok\nC: RCPT TO:<*>\nS: 250 ok\nC: DATA\nS: 354 go\nWAIT end\nREST")
		s.raw.stall = 50 * time.Millisecond
		body := bytes.Repeat([]byte("x\r\n"), 10<<20)
		tx := transaction(t, "", "b@mx.example")
		tx.Content, tx.Size = bytes.NewReader(body), int64(len(body))
		report := send(t, t.Context(), s, tx)
		if !errors.Is(report.Err, os.ErrDeadlineExceeded) || report.Stage != outcome.Body {
			t.Errorf("%v at %v, want a time-out in the body", report.Err, report.Stage)
		}
		s.Close()
		server.Open("end")
	})
}

func TestExtensionsGrammar(t *testing.T) {
	for _, tt := range []struct {
		lines []string
		want  Extensions
	}{
		{nil, Extensions{}},
		{[]string{"mx PIPELINING"}, Extensions{}},
		{[]string{"mx", "pipelining", "ChunKing", "8bitMIME"}, Extensions{Pipelining: true, Chunking: true, EightBitMIME: true}},
		{[]string{"mx", "SIZE"}, Extensions{Size: true}},
		{[]string{"mx", "SIZE 0"}, Extensions{Size: true}},
		{[]string{"mx", "SIZE -5"}, Extensions{Size: true}},
		{[]string{"mx", "SIZE 99999999999999999999"}, Extensions{Size: true}},
		{[]string{"mx", "SIZE=35"}, Extensions{Size: true, MaxSize: 35}},
		{[]string{"mx", "AUTH=LOGIN", "X STARTTLS", "STARTTLSX"}, Extensions{}},
	} {
		got := parseExtensions(tt.lines)
		got.Keywords = nil
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: %+v, want %+v", tt.lines, got, tt.want)
		}
	}
}

// RFC 3461 §4.2: what is no address type is left out, as it could be a
// parameter of its own.
func TestOriginalRecipient(t *testing.T) {
	for in, want := range map[string]string{
		"rfc822;a+b@x.example":      "rfc822;a+2Bb@x.example",
		"X-Local;a b":               "X-Local;a+20b",
		"rfc822;ü@x":                `utf-8;\x{FC}@x`,
		"":                          "",
		"rfc822":                    "",
		"rfc822;":                   "",
		";a@x":                      "",
		"rfc822 NOTIFY=NEVER;a@x":   "",
		"rfc822;a@x NOTIFY=SUCCESS": "rfc822;a@x+20NOTIFY+3DSUCCESS",
	} {
		if got := originalRecipient(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// What Postfix takes of a greeting and of the replies to EHLO is taken, and
// told of; afterwards nothing of the kind is.
func TestTolerance(t *testing.T) {
	const mail = "C: MAIL *\nS: 250 ok\nC: RCPT TO:<*>\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 ok\nC: QUIT\nS: 221 bye"
	for _, tt := range []struct {
		name, greeting, ehlo string
		lines                int
	}{
		{"nothing of the kind", "220 mx\\r\\n", "250-mx\\r\\n250 SIZE\\r\\n", 0},
		{"an empty line before the greeting", "\\r\\n220 mx\\r\\n", "250-mx\\r\\n250 SIZE\\r\\n", 1},
		{"a stray line before the greeting", "welcome\\r\\n220 mx\\r\\n", "250-mx\\r\\n250 SIZE\\r\\n", 1},
		{"a stray line after the greeting", "220 mx\\r\\nwelcome\\r\\n", "250-mx\\r\\n250 SIZE\\r\\n", 1},
		{"telnet on a line of its own", "\\xff\\xfb\\x01\\xff\\xfd\\x03\\r\\n220 mx\\r\\n", "250-mx\\r\\n250 SIZE\\r\\n", 1},
		{"telnet before the code", "\\xff\\xfb\\x01\\xff\\xfa\\x18\\x01\\xff\\xf0\\xff\\xf1220 mx\\r\\n", "250-mx\\r\\n250 SIZE\\r\\n", 1},
		{"telnet after the greeting", "220 mx\\r\\n\\xff\\xfb\\x01", "250-mx\\r\\n250 SIZE\\r\\n", 1},
		{"two codes in the greeting", "250-mx\\r\\n220 mx\\r\\n", "250-mx\\r\\n250 SIZE\\r\\n", 1},
		{"two codes in the EHLO reply", "220 mx\\r\\n", "220-mx\\r\\n250 SIZE\\r\\n", 1},
		{"a TAB", "220\\tmx\\r\\n", "250-mx\\r\\n250\\tSIZE\\r\\n", 2},
		{"a bare line in the EHLO reply", "220 mx\\r\\n", "250-mx\\r\\nPIPELINING\\r\\n250 SIZE\\r\\n", 1},
		{"a bare line after the EHLO reply", "220 mx\\r\\n", "250-mx\\r\\n250 SIZE\\r\\nHELP\\r\\n", 1},
		{"ten lines", strings.Repeat("x\\r\\n", 5) + "220 mx\\r\\n", "250-mx\\r\\n" + strings.Repeat("\\r\\n", 5) + "250 SIZE\\r\\n", 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, s := begin(t, `RAW "`+tt.greeting+"\"\nC: EHLO *\nRAW \""+tt.ehlo+"\"\n"+mail)
			if !s.Extensions().Size || s.Extensions().Pipelining {
				t.Errorf("%+v", s.Extensions())
			}
			if report := send(t, t.Context(), s, transaction(t, "x\r\n", "b@mx.example")); report.Final.Code != 250 {
				t.Errorf("%v, %v", codes(report), report.Err)
			}
			finish(t, server, s)
			if got := s.Junk(); got.Lines != tt.lines || got.Lines > 0 && !strings.Contains(got.String(), "no replies") {
				t.Errorf("%v", got)
			}
		})
	}
}

// There is an end to it, and after STARTTLS, and once several commands go out
// at once, there is none of it.
func TestToleranceEnds(t *testing.T) {
	send := func(s *Session) error {
		tx := transaction(t, "x\r\n", "b@mx.example")
		tx.Chunking = ChunkingPipelined
		return send(t, t.Context(), s, tx).Err
	}
	secure := func(s *Session) error {
		return s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.example", InsecureSkipVerify: true})
	}
	for _, tt := range []struct {
		name, dialogue string
		then           func(*Session) error
		want           error
	}{
		{"eleven lines", `REPEAT 11 "x\r\n"` + "\nREST", nil, reply.ErrMalformed},
		{"2,001 bytes", `REPEAT 3 "` + strings.Repeat("x", 665) + `\r\n"` + "\nREST", nil, reply.ErrMalformed},
		{"eleven lines in two replies", `REPEAT 6 "x\r\n"` + "\nS: 220 mx\nC: EHLO *\n" + `REPEAT 5 "x\r\n"` + "\nREST", nil, reply.ErrMalformed},
		{"a reply too many", "S: 220 mx\nC: EHLO *\n" + `RAW "250-mx\r\n250 SIZE\r\n250 ok\r\n"` + "\nREST", send, errUnasked},
		{"a reply with a TAB too many", "S: 220 mx\nC: EHLO *\n" + `RAW "250-mx\r\n250 SIZE\r\n250\tok\r\n"` + "\nREST", send, errUnasked},
		{"half a line", "S: 220 mx\nC: EHLO *\n" + `RAW "250-mx\r\n250 SIZE\r\n25"` + "\nREST", send, errUnasked},
		{"in the reply to STARTTLS", "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\n" + `RAW "x\r\n220 go\r\n"` + "\nREST", secure, reply.ErrMalformed},
		{"after the reply to STARTTLS", "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\n" + `RAW "220 go\r\nx\r\n"` + "\nREST", secure, ErrInjection},
		{"after the handshake", shakes + `RAW "x\r\n250 mx\r\n"` + "\nREST", secure, reply.ErrMalformed},
		{"after EHLO following the handshake", shakes + `RAW "250-mx\r\n250 SIZE\r\nx\r\n"` + "\nREST",
			func(s *Session) error { return errors.Join(secure(s), send(s)) }, errUnasked},
		{"in a flight", chunks + "C: MAIL *\nC: RCPT *\nBDAT\n" + `RAW "x\r\n250 ok\r\n250 ok\r\n250 ok\r\n"` + "\nREST", send, reply.ErrMalformed},
		{"in sequence", "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: MAIL *\n" + `RAW "x\r\n250 ok\r\n"` + "\nREST", send, reply.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, conn := play(t, tt.dialogue)
			s, err := Open(t.Context(), conn, config())
			if err == nil {
				defer s.Close()
				err = s.Hello(t.Context())
			}
			if err == nil {
				err = tt.then(s)
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

// An idle connection keeps of an EHLO reply what is understood.
func TestKeywordsAreBounded(t *testing.T) {
	lines := []string{"mx"}
	for i := range 99 {
		lines = append(lines, "X"+strings.Repeat("x", i)+strings.Repeat("y", 1800))
	}
	lines = append(lines, "SIZE 5 "+strings.Repeat("z", 1900), "AUTH PLAIN LOGIN")
	e := parseExtensions(lines)
	if len(e.Keywords) != 2 || len(e.Keywords[0]) > 200 || e.Keywords[1] != "AUTH PLAIN LOGIN" {
		t.Errorf("%d keywords: %.300q", len(e.Keywords), e.Keywords)
	}
	if e = parseExtensions(append([]string{"mx"}, strings.Split(strings.Repeat("PIPELINING ", 99), " ")...)); len(e.Keywords) > 16 {
		t.Errorf("%d keywords", len(e.Keywords))
	}
}

// Of the replies to a hundred recipients is kept what is shown.
func TestRepliesAreBrief(t *testing.T) {
	long := strings.Repeat("550-5.1.1 "+strings.Repeat("no ", 600)+"\r\n", 99) + "550 5.1.1 no\r\n"
	virtual(t, config(), "250-mx\r\n250 PIPELINING\r\n", 64<<20, func(server *memnet.Conn) {
		readUntil(server, "DATA\r\n")
		server.Write([]byte("250 ok\r\n" + strings.Repeat(long, 100) + "503 no\r\n"))
		readUntil(server, "never")
	}, func(t *testing.T, s *Session) {
		tx := transaction(t, "x\r\n")
		for range 100 {
			tx.Recipients = append(tx.Recipients, Recipient{Address: addr(t, "b@mx.example")})
		}
		report := send(t, t.Context(), s, tx)
		size := 0
		for _, r := range report.Rcpts {
			size += len(strings.Join(r.Lines, ""))
		}
		if size > 100*reply.MaxText || report.Rcpts[99].Code != 550 || !strings.HasSuffix(report.Rcpts[99].Text(), "...") {
			t.Errorf("%d bytes kept, %s", size, report.Rcpts[99].Text())
		}
	})
}
