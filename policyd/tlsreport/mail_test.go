package tlsreport

import (
	"bufio"
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

// mailServer answers one client, with other replies to some commands: "" ends
// the connection, "-" says nothing. It gives what it was told.
func mailServer(t *testing.T, other map[string]string) (address string, told func() string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan string, 1)
	go func() {
		var all strings.Builder
		defer func() { ended <- all.String() }()
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		lines := bufio.NewScanner(conn)
		verb, data := "greeting", false
		for {
			if !data {
				reply, ok := other[verb]
				if !ok {
					reply = map[string]string{"greeting": "220 mail.example", "DATA": "354 go on", "QUIT": "221 bye"}[verb]
					if reply == "" {
						reply = "250 ok"
					}
				}
				if reply == "" {
					return
				}
				if reply != "-" {
					if _, err := conn.Write([]byte(reply + "\r\n")); err != nil {
						return
					}
				}
				data = verb == "DATA" && reply == "354 go on"
			}
			if !lines.Scan() {
				return
			}
			line := lines.Text()
			switch {
			case data && line == ".":
				verb, data = ".", false
				all.WriteString(". ")
			case !data:
				verb, _, _ = strings.Cut(line, " ")
				all.WriteString(verb + " ")
			}
		}
	}()
	return l.Addr().String(), func() string { l.Close(); return <-ended }
}

// TestMail: whatever the host's own mail server says or does not say, the
// report is tried again; and the last byte is announced before it is written,
// and only then.
func TestMail(t *testing.T) {
	disk := errors.New("no space left on device")
	for _, c := range []struct {
		name  string
		other map[string]string
		disk  error // what the announcement comes to
		err   string
		last  bool
		told  string
	}{
		{name: "taken", last: true, told: "EHLO MAIL RCPT DATA . QUIT "},
		{name: "no greeting", other: map[string]string{"greeting": "554 no"}, err: "554"},
		{name: "nothing said", other: map[string]string{"greeting": "-"}, err: "deadline"},
		{name: "sender refused", other: map[string]string{"MAIL": "550 no"}, err: "550", told: "EHLO MAIL "},
		{name: "recipient refused", other: map[string]string{"RCPT": "554 relay access denied"}, err: "554", told: "EHLO MAIL RCPT "},
		{name: "recipient greylisted", other: map[string]string{"RCPT": "450 later"}, err: "450", told: "EHLO MAIL RCPT "},
		{name: "queue full", other: map[string]string{"DATA": "452 full"}, err: "452", told: "EHLO MAIL RCPT DATA "},
		{name: "message refused", other: map[string]string{".": "554 no"}, err: "554", last: true, told: "EHLO MAIL RCPT DATA . "},
		{name: "gone before the answer", other: map[string]string{".": ""}, err: "EOF", last: true, told: "EHLO MAIL RCPT DATA . "},
		{name: "no answer", other: map[string]string{".": "-"}, err: "deadline", last: true, told: "EHLO MAIL RCPT DATA . "},
		{name: "a full disk of ours", disk: disk, err: "no space", last: true, told: "EHLO MAIL RCPT DATA "},
	} {
		t.Run(c.name, func(t *testing.T) {
			address, told := mailServer(t, c.other)
			carrier := &Carrier{Server: address, From: "tlsrpt@us.example", Hostname: "mx.us.example"}
			ctx, cancel := context.WithCancel(t.Context())
			if c.err == "deadline" { // no test waits for one
				ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
			}
			defer cancel()
			last := false
			err := carrier.Mail(ctx, "reports@example.org", []byte("Subject: x\r\n\r\nx\r\n"), func() error { last = true; return c.disk })
			if c.err == "deadline" && errors.Is(err, context.DeadlineExceeded) {
				told() // it may have come at any step
				return
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || errors.Is(err, ErrRefused) {
				t.Errorf("%v, want %q", err, c.err)
			}
			if did := told(); last != c.last || !strings.HasPrefix(did, c.told) {
				t.Errorf("the last byte announced: %v, told %q", last, did)
			}
		})
	}
}

// TestMemory: 100,000 domains, each with policies of a stranger's making, take
// no more than what docs/bounds.md says, twice over for what Go adds.
func TestMemory(t *testing.T) {
	live := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := live()
	r := open(t, config("", records{}, &post{}))
	for i := range 100_000 {
		domain := strings.Repeat("x", i%50) + "." + time.Duration(i).String() + ".example"
		r.count(Session{At: time.Now(), Domain: domain, Policy: Policy{Type: TypeSTS, Domain: domain, Text: []string{"version: STSv1", "mode: enforce", "mx: mx." + domain, "max_age: 86400"}}})
		r.count(Session{At: time.Now(), Domain: domain, Policy: Policy{Type: TypeNone, Domain: domain}, Failure: failed(ValidationFailure, "mx."+domain)})
	}
	took := int64(live()) - int64(before)
	s := r.Stats()
	t.Logf("%d domains, %d MiB, %d sessions not counted", s.Domains, took>>20, s.Dropped)
	if took > 2*MaxBytes || s.Domains != MaxDomains || s.Dropped == 0 {
		t.Errorf("%d domains take %d bytes, %d sessions not counted", s.Domains, took, s.Dropped)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
