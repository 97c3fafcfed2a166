package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// canonicalizations are the forms in which every message is signed, header and
// body (RFC 6376 §3.4).
var canonicalizations = []string{"simple/simple", "relaxed/relaxed", "relaxed/simple", "simple/relaxed"}

// signed is a message to be sent, and what becomes of it.
type signed struct {
	name string
	text string // with CRLF line ends
	// what the log tells of a change that breaks signatures; empty: nothing is
	// changed
	lost string
}

func signedMessages() []signed {
	const header = "From: A <a@" + keepDomain + ">\r\nTo: b@example.org\r\nSubject: a test\r\nDate: Mon, 30 Nov 2026 12:00:00 +0000\r\n"
	line := func(n int) string { return strings.Repeat("0123456789", n/10+1)[:n] + "\r\n" }
	return []signed{
		{name: "a note", text: header + "\r\nThis is all.\r\n"},
		{name: "no body", text: header + "\r\n"},
		{name: "no empty line after the header", text: header},
		{name: "empty lines at the end", text: header + "\r\nOne.\r\n\r\n\r\n"},
		{name: "blanks at the ends of lines", text: header + "\r\nOne.  \r\n\tTwo.\t\r\n \r\n"},
		{name: "dots", text: header + "\r\n.\r\n..\r\n.one\r\nend.\r\n...\r\n"},
		{name: "a folded header with odd blanks", text: "Subject:  one\r\n\ttwo   three\r\n  four\r\nFROM:A <a@" + keepDomain + ">\r\nTo:b@example.org\r\n\r\nText.\r\n"},
		{name: "8-bit text", text: header + "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße, 你好.\r\n"},
		{name: "bytes that are no text", text: header + "\r\n\x80\xff\x00\x01\xfe\x1b[0m\r\n"},
		{name: "lines as long as may be", text: header + "\r\n" + line(998) + line(997)},
		{name: "commands", text: header + "\r\nMAIL FROM:<x@example.org>\r\nRCPT TO:<x@example.org>\r\nDATA\r\n.\r\nQUIT\r\n"},
		{name: "From at the beginning of a line", text: header + "\r\nFrom here on.\r\n>From there.\r\n"},
		{name: "more than one chunk", text: header + "\r\n" + strings.Repeat(line(76), 4000)},

		{name: "a line that is too long", text: header + "\r\n" + line(999), lost: "folded=1"},
		{name: "three lines that are too long", text: header + "\r\n" + line(1000) + line(2100), lost: "folded=3"},
		{name: "a header line that is too long", text: "From: A <a@" + keepDomain + ">\r\nSubject: " + line(1200) + "\r\nText.\r\n", lost: "folded=1"},
		{name: "a stray CR", text: header + "\r\nOne\rtwo.\r\n", lost: "stray_cr=1"},
	}
}

// What was signed is as it was signed when it arrives, by whatever way it comes
// and goes, but for what SMTP does not allow to be sent as it is; that is in
// the log. Debian's dkimpy signs and verifies.
func TestDKIM(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, settings{})
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	messages := signedMessages()
	var texts [][]byte
	for _, m := range messages {
		texts = append(texts, []byte(m.text))
	}
	var originals [][]byte
	dkimpy(t, key, signScript, texts, &originals)

	type arrival struct {
		way string
		signed
	}
	var arrivals []arrival
	var bodies [][]byte
	for _, server := range []struct {
		name     string
		keywords mx.Keyword
	}{{"BDAT", 0}, {"DATA", mx.Chunking}, {"DATA, one by one", mx.Chunking | mx.Pipelining}} {
		behaviour := modern(t)
		behaviour.Keywords &^= server.keywords
		s, domain := remote(t, "dkim", behaviour)
		for i, m := range messages {
			for _, way := range []string{"pipe", "LMTP"} {
				to := fmt.Sprintf("m%d.%s@%s", i, strings.ToLower(way), domain)
				if way == "pipe" {
					text := bytes.ReplaceAll(originals[i], []byte("\r\n"), []byte("\n"))
					if r := mxpipe(t, d, bytes.NewReader(text), "-f", "a@"+keepDomain, to).result(t); r.exit != 0 {
						t.Fatalf("%s: %s", m.name, r)
					}
				} else {
					sendByLMTP(t, d, to, originals[i])
				}
				got := received1(t, s, m.name)
				if bdat := got.Chunks > 0; bdat != (server.name == "BDAT" && m.name != "commands") {
					t.Errorf("%s went by BDAT: %v", m.name, bdat)
				}
				arrivals = append(arrivals, arrival{way + ", " + server.name, m})
				bodies = append(bodies, got.Body)
				if m.lost != "" {
					d.logged(t, `msg=delivered .* to=`+to+` .* `+m.lost+`( |\n)`)
				}
			}
		}
	}
	var verified [][]bool
	dkimpy(t, key, verifyScript, bodies, &verified)
	for i, a := range arrivals {
		for n, form := range canonicalizations {
			if verified[i][n] != (a.lost == "") {
				t.Errorf("%s, %s, by %s: verified: %v, the log tells %q", a.name, form, a.way, verified[i][n], a.lost)
			}
		}
	}
	// And nothing is told of the others.
	text, err := os.ReadFile(d.log)
	if err != nil {
		t.Fatal(err)
	}
	told, lost := 0, 0
	for _, key := range []string{" folded=", " stray_cr="} {
		told += strings.Count(string(text), key)
	}
	for _, a := range arrivals {
		if a.lost != "" {
			lost++
		}
	}
	if told != lost {
		t.Errorf("the log tells of %d changes, want %d", told, lost)
	}
}

// sendByLMTP hands a message over, and waits until it is delivered.
func sendByLMTP(t *testing.T, d *daemon, to string, text []byte) {
	t.Helper()
	socket, err := net.Dial("unix", d.lmtp)
	if err != nil {
		t.Fatal(err)
	}
	conn := textproto.NewConn(socket)
	defer conn.Close()
	reply := func(code int) {
		t.Helper()
		if _, _, err := conn.ReadResponse(code); err != nil {
			t.Fatalf("LMTP: %v", err)
		}
	}
	reply(220)
	for _, command := range []struct {
		line string
		code int
	}{{"LHLO client.example", 250}, {"MAIL FROM:<a@" + keepDomain + ">", 250}, {"RCPT TO:<" + to + ">", 250}, {"DATA", 354}} {
		if err := conn.PrintfLine("%s", command.line); err != nil {
			t.Fatal(err)
		}
		reply(command.code)
	}
	stuffed := bytes.ReplaceAll(append([]byte("\r\n"), text...), []byte("\r\n."), []byte("\r\n.."))[2:]
	if _, err := socket.Write(append(stuffed, ".\r\n"...)); err != nil {
		t.Fatal(err)
	}
	reply(250)
}

// The scripts read JSON and write it; bytes are in base64.
const (
	dkimCommon = `
import base64, json, sys, dkim
given = json.load(sys.stdin)
forms = [tuple(form.encode().split(b"/")) for form in given["forms"]]
texts = [base64.b64decode(text) for text in given["texts"]]
out = []
`
	signScript = dkimCommon + `
for text in texts:
    for number, form in reversed(list(enumerate(forms))):
        text = dkim.sign(text, b"s%d" % number, b"signer.example", given["private"].encode(), canonicalize=form,
            include_headers=[b"from", b"to", b"subject", b"date"]) + text
    out.append(base64.b64encode(text).decode())
print(json.dumps(out))
`
	verifyScript = dkimCommon + `
def key(name, timeout=5):
    return ("v=DKIM1; k=rsa; p=" + given["public"]).encode()
def verified(text, number):
    try:
        return dkim.DKIM(text).verify(number, dnsfunc=key)
    except dkim.ValidationError:
        return False
for text in texts:
    out.append([verified(text, number) for number in range(len(forms))])
print(json.dumps(out))
`
)

// dkimpy runs a script with messages, and reads what it writes.
func dkimpy(t *testing.T, key *rsa.PrivateKey, script string, texts [][]byte, out any) {
	t.Helper()
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	given, err := json.Marshal(map[string]any{
		"forms": canonicalizations, "texts": texts,
		"private": string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		"public":  base64.StdEncoding.EncodeToString(public),
	})
	if err != nil {
		t.Fatal(err)
	}
	// Debian's Python, whose package it is.
	cmd := exec.Command("/usr/bin/python3", "-c", script)
	cmd.Stdin = bytes.NewReader(given)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	answer, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(answer, out)
	}
	if err != nil {
		t.Fatalf("dkimpy: %v\n%s", err, &errs)
	}
}
