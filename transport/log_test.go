package transport

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/mtasts"
)

// TestLogLine: one line for each result, by whose keys a message is followed.
func TestLogLine(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx1.a.example", nil)
	l.zone("a.example. MX 10 mx0.a.example.\na.example. MX 20 mx1.a.example.\nb.example. TXT here")
	l.dead("mx0.a.example")
	l.policy("a.example", mtasts.ModeEnforce, "*.a.example")
	l.start(everything)
	expect(t, l.sendAs(func(e *Envelope) { e.Peer = Peer{UID: 12, PID: 34} },
		"x@a.example", "nosuch@a.example", "y@a.example", "later@a.example", "z@b.example"), "2.0.0", "5.1.1", "2.0.0", "4.2.0", "5.4.4")
	address := strings.Split(server.Addr(), ":")[0]
	for message, want := range map[string][]map[string]any{
		"delivered": {{"to": "x@a.example,y@a.example", "host": "mx1.a.example", "dsn": "2.0.0", "address": address, "tls_level": "authenticated", "mx_level": "mtasts"}},
		"deferred":  {{"to": "later@a.example", "host": "mx1.a.example", "dsn": "4.2.0", "address": address}},
		"refused":   {{"to": "nosuch@a.example", "host": "mx1.a.example", "dsn": "5.1.1", "address": address}, {"to": "z@b.example", "dsn": "5.4.4"}},
	} {
		lines := l.lines(message)
		if len(lines) != len(want) {
			t.Errorf("%s: %v", message, lines)
			continue
		}
		for _, w := range want {
			i := slices.IndexFunc(lines, func(line map[string]any) bool { return line["to"] == w["to"] })
			if i < 0 {
				t.Errorf("no line %s for %s", message, w["to"])
				continue
			}
			w["id"], w["queue_id"], w["transport"], w["from"], w["uid"], w["pid"] = "test", "4XyZ", "default", "a@client.example", 12.0, 34.0
			for key, value := range w {
				if lines[i][key] != value {
					t.Errorf("%s %s: %s is %v, want %v", message, w["to"], key, lines[i][key], value)
				}
			}
			for _, key := range []string{"text", "took", "size"} {
				if lines[i][key] == nil || lines[i][key] == "" {
					t.Errorf("%s %s: no %s", message, w["to"], key)
				}
			}
		}
	}
	// Every host's reason is there, of those that were skipped too.
	if tried := fmt.Sprint(l.lines("delivered")[0]["tried"]); !strings.Contains(tried, "4.4.1 mx0.a.example") {
		t.Errorf("tried: %s", tried)
	}
}

// A DANE match at a host that an unsigned MX set named is never logged as
// secure delivery to the domain (RFC 7672 §2.2.1).
func TestLogOfDANEForAnUnsignedMX(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	cert := l.cert(ca.For("mx1.b.example"))
	l.mx("mx1.b.example", func(h *mx.Behaviour) { h.TLS.Certificate = cert })
	l.zone("a.example. MX 10 mx1.b.example.")
	l.signed("b.example")
	l.tlsa("mx1.b.example", ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, cert.Leaf))
	l.start(everything)
	expect(t, l.send("x@a.example"), "2.0.0 dane for an unsigned MX")
	line := l.lines("delivered")[0]
	if line["tls_level"] != "authenticated" || line["mx_level"] != "none" || !strings.Contains(fmt.Sprint(line["via"]), "unsigned MX") {
		t.Errorf("%v", line)
	}
}

// TestDebug: the dialogue is in the log when it is asked for, the message
// never is, however it is sent.
func TestDebug(t *testing.T) {
	t.Parallel()
	for _, debug := range []bool{false, true} {
		for _, keywords := range []mx.Keyword{mx.AllKeywords, mx.AllKeywords &^ mx.Chunking, 0} {
			l := newLab(t)
			l.mx("mx1.a.example", func(h *mx.Behaviour) { h.Keywords = keywords })
			l.zone("a.example. MX 10 mx1.a.example.")
			l.start(func(c *Config) { c.Debug = debug })
			expect(t, l.sendText(t.Context(), text+"The secret is 0xC0FFEE.\n.\nRCPT TO:<0xC0FFEE>\n", "x@a.example"), "2.0.0")
			log := l.logged()
			if strings.Contains(log, "0xC0FFEE") || strings.Contains(log, "a test") {
				t.Errorf("the log holds the message: %s", log)
			}
			var client, server []string
			for _, line := range l.lines("smtp") {
				if line["host"] != "mx1.a.example" || line["id"] != "test" {
					t.Errorf("%v", line)
				}
				if said, ok := line["C"].(string); ok {
					client = append(client, strings.Fields(said)[0])
				}
				if said, ok := line["S"].(string); ok {
					server = append(server, said[:3])
				}
			}
			if !debug {
				if client != nil || server != nil {
					t.Errorf("the log holds a dialogue that was not asked for: %s", log)
				}
				continue
			}
			if len(client) < 6 || !slices.Equal(client[:5], []string{"EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT"}) || !slices.Equal(server[:4], []string{"220", "250", "220", "250"}) {
				t.Errorf("client %q, server %q", client, server)
			}
		}
	}
}

// What breaks a DKIM signature is told with the message; what does not is not
// told at all.
func TestLogOfChanges(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.mx("mx1.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.")
	l.start(nil)
	expect(t, l.send("x@a.example"), "2.0.0")
	expect(t, l.sendText(t.Context(), text+strings.Repeat("x", 3000)+"\na\rb\n", "x@a.example"), "2.0.0")
	lines := l.lines("delivered")
	if lines[0]["folded"] != nil || lines[0]["stray_cr"] != nil {
		t.Errorf("nothing was changed: %v", lines[0])
	}
	if lines[1]["folded"] != 3.0 || lines[1]["stray_cr"] != 1.0 {
		t.Errorf("three folds and a CR: %v", lines[1])
	}
}

// 8-bit text goes as it is to a server without 8BITMIME, and the log says so
// once for the host.
func TestLogOfEightBitText(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx1.a.example", func(h *mx.Behaviour) { h.Keywords &^= mx.EightBitMIME })
	l.mx("mx1.b.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.\nb.example. MX 10 mx1.b.example.")
	l.start(nil)
	expect(t, l.sendText(t.Context(), text+"gr\xfc\xdfe\n", "x@b.example"), "2.0.0")
	expect(t, l.send("x@a.example"), "2.0.0")
	for range 2 {
		expect(t, l.sendText(t.Context(), text+"gr\xfc\xdfe\n", "x@a.example"), "2.0.0")
	}
	told := l.lines("8-bit text goes as it is to a server that does not offer 8BITMIME")
	if len(told) != 1 || told[0]["host"] != "mx1.a.example" {
		t.Errorf("%v", told)
	}
	if m := server.Messages()[1]; !strings.HasSuffix(string(m.Body), "gr\xfc\xdfe\r\n") {
		t.Errorf("%q", m.Body)
	}
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }

// TestNothingForeignReachesLogAndText: whatever strangers write, in replies,
// certificates and names, texts and log lines are one printable line each, of
// bounded length, and the status line's first words are ours.
func TestNothingForeignReachesLogAndText(t *testing.T) {
	t.Parallel()
	const evil = "\r2.0.0 delivered\x1b[2J\x00\u202e\u2028\xff\a"
	check := func(name string, l *lab, results []Result) {
		t.Helper()
		for _, r := range results {
			if strings.ContainsFunc(r.Text, unprintable) {
				t.Errorf("%s: the text is %q", name, r.Text)
			}
			if len(r.Text) > 1000 {
				t.Errorf("%s: the text has %d bytes", name, len(r.Text))
			}
			if r.Code.Class == 2 || strings.HasPrefix(r.Text, "2.0.0") {
				t.Errorf("%s: %v %s", name, r.Code, r.Text)
			}
			if !strings.HasSuffix(r.Text, "id=test)") {
				t.Errorf("%s: the text does not end with our id: %s", name, r.Text)
			}
		}
		for line := range strings.Lines(l.logged()) {
			var entry map[string]any
			l.must(json.Unmarshal([]byte(line), &entry))
			for key, value := range entry {
				if text, ok := value.(string); ok && strings.ContainsFunc(text, unprintable) {
					t.Errorf("%s: the log has %s=%q", name, key, text)
				}
			}
		}
	}
	long := strings.Repeat("long ", 350)
	for _, stage := range []mx.Stage{mx.StageGreeting, mx.StageEHLO, mx.StageMAIL, mx.StageRCPT, mx.StageDATA, mx.StageFinal} {
		for _, reply := range []string{"550 5.7.1 no" + evil, "450-4.7.1 no" + evil + "\n450 4.7.1 2.0.0 Ok", "451 " + long + "\n451 x", "551 no\u0085\u0090", "nonsense" + evil, "\x1b[2J" + long} {
			l := newLab(t)
			l.mx("mx1.a.example", func(h *mx.Behaviour) {
				h.Keywords &^= mx.Chunking
				h.At = map[mx.Stage]mx.Action{stage: {Reply: reply}}
				if stage == mx.StageEHLO {
					h.At[mx.StageHELO] = mx.Action{Reply: reply}
				}
			})
			l.zone("a.example. MX 10 mx1.a.example.")
			l.start(func(c *Config) { c.Debug, c.CommandTimeout = true, time.Second })
			check(fmt.Sprintf("%v %.10q", stage, reply), l, l.send("x@a.example"))
		}
	}
	for _, names := range [][]string{{"evil\r\n2.0.0 ok.example"}, {"\x1b[2J"}, slices.Repeat([]string{"mail.a-very-long-name-that-fills-the-line.example"}, 500)} {
		for _, spec := range []ca.Spec{{Names: names}, {CommonName: names[0]}} {
			l := newLab(t)
			l.mx("mx1.a.example", func(h *mx.Behaviour) { h.TLS.Certificate = l.cert(spec) })
			l.mx("mx1.b.example", func(h *mx.Behaviour) {
				spec.Chain = ca.WithRoot
				h.TLS.Certificate = issue(t, l.strangers, spec)
			})
			l.zone("a.example. MX 10 mx1.a.example.\nb.example. MX 10 mx1.b.example.")
			l.policy("a.example", mtasts.ModeEnforce, "mx1.a.example")
			l.signed("b.example")
			l.tlsa("mx1.b.example", ca.TLSA(ca.DANETA, ca.Cert, ca.SHA256, l.strangers.Root()))
			l.start(everything)
			check(fmt.Sprintf("certificate for %.20q", names), l, l.send("x@a.example", "x@b.example"))
		}
	}
	// Names in the DNS that no host can have.
	l := newLab(t)
	l.zone(`a.example. MX 10 evil\013\0102.0.0\027.example.`)
	l.start(everything)
	check("MX name", l, l.send("x@a.example"))
	// What the mail server itself writes.
	check("addresses", l, append(l.send("x\r\n2.0.0@a.example", "x@a\x1b.example", "x@"+strings.Repeat("a", 2000)+".example"),
		l.sendAs(func(e *Envelope) { e.Nexthop = "[x\r\n]" + long }, "x@a.example")...))
	l.zone("c.example. MX 10 mx.c.example.")
	l.dead("mx.c.example")
	check("long address", l, l.send(strings.Repeat("x", 900)+"@c.example"))
}
