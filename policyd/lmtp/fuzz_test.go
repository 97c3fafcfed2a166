package lmtp

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// talk sends bytes to a server and gives what it says until it has closed the
// connection, or one side has nothing more to say.
func (b *bench) talk(raw []byte) string {
	b.T.Helper()
	c := b.dial()
	defer c.Close()
	go func() {
		c.Write(raw)
		c.Conn.(*net.UnixConn).CloseWrite()
	}()
	said, _ := io.ReadAll(c.r)
	return string(said)
}

// FuzzServe sends the front end anything. It must come to an end, say only
// whole and printable lines, deliver nothing that did not come by DATA or BDAT,
// answer for no recipient to whom nothing was delivered, and the library must
// find nothing to complain of.
func FuzzServe(f *testing.F) {
	one := strings.Join(append([]string{"LHLO x"}, envelope("a", "b")...), "\r\n") + "\r\n"
	for _, seed := range []string{
		one + "DATA\r\n" + text + ".\r\nQUIT\r\n",
		one + "BDAT 3\r\nabcBDAT 2 LAST\r\n\r\n" + one + "BDAT 0 LAST\r\n",
		one + "BDAT 0\r\nRSET\r\n" + one + "BDAT 1 LAST\r\nx",
		one + "BDAT 3\r\nabcLHLO x\r\n",
		one + strings.Join(envelope("c"), "\r\n") + "\r\nDATA\r\n" + text + ".\r\n",
		one + "BDAT -1 LAST\r\n" + strings.Join(envelope("c"), "\r\n") + "\r\nBDAT 1 LAST\r\nx",
		one + "BDAT 100 LAST\r\nabc",
		one + "BDAT 4294967296 LAST\r\nRSET\r\n" + one + "BDAT 0 LAST\r\n",
		"LHLO x\r\nBDAT 10 LAST\r\nMAIL FROM:\r\nBDAT 4294967295\r\nx",
		one + "DATA\r\na\r\r\n.\r\n\r.\r\n.\r\n",
		"LHLO x\r\nMAIL FROM:<\"a\\\" b\"@c> ENVID=+2B+ RET=FULL SIZE=1\r\nRCPT TO:<\"> ORCPT=x\"@d> ORCPT=utf-8;\\x{E9} NOTIFY=NEVER\r\nNOOP\nVRFY x\nAUTH PLAIN\nSTARTTLS\n",
		"EHLO x\nHELO y\nGET / HTTP/1.1\n\n\n\n\n",
		"LHLO \x00\xff\x1b[2J\r\nNOOP " + strings.Repeat("x", maxLine),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b := serve(t, nil)
		said := b.talk(raw)
		for line := range strings.Lines(said) {
			bare, whole := strings.CutSuffix(line, "\r\n")
			if !whole || strings.ContainsFunc(bare, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(bare) < 4 {
				t.Errorf("said %q", line)
			}
		}
		upper := strings.ToUpper(string(raw))
		calls := b.Calls()
		if n := len(calls); n > strings.Count(upper, "DATA")+strings.Count(upper, "BDAT") {
			t.Errorf("%d messages were delivered", n)
		}
		rcpts := 0
		for _, call := range calls {
			rcpts += len(call.Envelope.Recipients)
		}
		if n := strings.Count("\n"+said, "\n250 2.0.0 <"); n > rcpts {
			t.Errorf("%d recipients are said to have got what went to %d: %q", n, rcpts, said)
		}
	})
}

// FuzzBody sends a message of any bytes, by DATA or in chunks: it arrives as it
// is, nothing of it is a command, and the next command is understood.
func FuzzBody(f *testing.F) {
	for _, body := range []string{text, trap, ".\r\n", "a\n.\n\r\n", "a\r\r\n.\r\n\r.\r\n", "\r", "", "BDAT 5 LAST\r\n", "\x00\xff"} {
		f.Add([]byte(body), uint16(0))
		f.Add([]byte(body), uint16(3))
	}
	f.Fuzz(func(t *testing.T, body []byte, chunk uint16) {
		b := serve(t, nil)
		var raw bytes.Buffer
		fmt.Fprintf(&raw, "LHLO x\r\n%s\r\n", strings.Join(envelope("a"), "\r\n"))
		if chunk == 0 {
			if !bytes.HasSuffix(body, []byte("\r\n")) {
				body = append(bytes.Clone(body), "\r\n"...)
			}
			raw.WriteString("DATA\r\n" + strings.ReplaceAll("\r\n"+string(body), "\r\n.", "\r\n..")[2:] + ".\r\n")
		} else {
			for rest := body; len(rest) > 0; {
				n := min(len(rest), int(chunk))
				fmt.Fprintf(&raw, "BDAT %d\r\n%s", n, rest[:n])
				rest = rest[n:]
			}
			raw.WriteString("BDAT 0 LAST\r\n")
		}
		raw.WriteString("NOOP\r\nQUIT\r\n")
		c := b.dial()
		go c.Write(raw.Bytes())
		c.until("221 ")
		calls := b.Calls()
		if len(calls) != 1 || calls[0].Body != canonical(t, string(body)) {
			t.Fatalf("delivered %+v", calls)
		}
	})
}

// FuzzFraming cuts the same bytes at any place: framing sees the same.
func FuzzFraming(f *testing.F) {
	f.Add([]byte("NOOP\r\nBDAT 3\r\nabcRSET\r\n"), 5, false)
	f.Add([]byte("a\r\r\n.\r\n.\r\nMAIL FROM:<x>\r\n"), 2, true)
	f.Add([]byte("RCPT TO:<x> ORCPT=a;b\r\n"), 20, false)
	f.Fuzz(func(t *testing.T, raw []byte, cut int, data bool) {
		if cut < 0 || cut > len(raw) {
			return
		}
		one, err := frames(bytes.Clone(raw), len(raw), data)
		two, err2 := frames(bytes.Clone(raw), cut, data)
		if (err == nil) != (err2 == nil) || err == nil && one != two {
			t.Errorf("%q, %v\n%q, %v", one, err, two, err2)
		}
	})
}

// frames gives the commands and messages that bytes are taken for, of which the
// first few come first.
func frames(raw []byte, first int, data bool) (string, error) {
	var f framing
	f.data = data
	var out strings.Builder
	seen := first
	for at := 0; ; {
		before := f.data
		command, err := f.look(raw[at:seen])
		if err != nil {
			return "", err
		}
		n := int(min(f.free, int64(len(raw)-at)))
		if n == 0 && seen < len(raw) {
			seen = len(raw)
			continue
		}
		if n == 0 {
			return out.String(), nil
		}
		if command {
			out.WriteString("|")
		}
		out.Write(raw[at : at+n])
		if before && !f.data {
			out.WriteString("|")
		}
		at += n
		seen = max(seen, at)
		f.free = 0
	}
}
