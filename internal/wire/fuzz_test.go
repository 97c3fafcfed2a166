package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

// FuzzReader sends the daemon's end anything. Whatever it takes for an envelope
// must be one that the client's end could have sent, and it may take a message
// for whole only if a commit follows it.
func FuzzReader(f *testing.F) {
	whole := request(f, full(), []byte("Subject: x\n\nbody\n"))
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(append(bytes.Clone(whole), whole...))
	f.Add([]byte("mxp\x02"))
	f.Add([]byte("mxp\x01E\xff\xff\xff\xff"))
	f.Add(envelopeOf(field(tagSender, ""), field(tagRecipient, "a\r\n@b")))
	f.Add(envelopeOf(field(tagSender, ""), field('?', "")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := NewReader(bytes.NewReader(raw))
		e, err := r.Envelope()
		if err != nil {
			if err != ErrUncommitted && !errors.Is(err, ErrProtocol) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		again, err := AppendEnvelope(nil, &e)
		if err != nil {
			t.Fatalf("took what the other end refuses: %v", err)
		}
		back, err := NewReader(bytes.NewReader(again)).Envelope()
		if err != nil || !reflect.DeepEqual(back, e) {
			t.Fatalf("%+v came back as %+v, %v", e, back, err)
		}
		message, err := io.ReadAll(r)
		if len(message) > len(raw) {
			t.Fatalf("%d bytes from %d", len(message), len(raw))
		}
		if err == nil && !bytes.Contains(raw, AppendCommit(nil)) {
			t.Fatal("whole without a commit")
		}
		if err != nil && err != ErrUncommitted && !errors.Is(err, ErrProtocol) {
			t.Fatalf("an error of no kind: %v", err)
		}

		// A Reader that served another request before, by its other way out.
		direct := NewReader(bytes.NewReader(whole))
		_, _ = direct.Envelope()
		direct.Reset(bytes.NewReader(raw))
		if _, err := direct.Envelope(); err != nil {
			t.Fatalf("directly: %v", err)
		}
		var written bytes.Buffer
		n, directErr := direct.WriteTo(&written)
		if !bytes.Equal(written.Bytes(), message) || n != int64(len(message)) || directErr != err {
			t.Fatalf("directly %d bytes, %v; else %d, %v", n, directErr, len(message), err)
		}

		slow := NewReader(iotest.OneByteReader(bytes.NewReader(raw)))
		if _, err := slow.Envelope(); err != nil {
			t.Fatalf("byte by byte: %v", err)
		}
		slowly, slowErr := io.ReadAll(slow)
		if !bytes.Equal(slowly, message) || slowErr != err {
			t.Fatalf("byte by byte %d bytes, %v; at once %d, %v", len(slowly), slowErr, len(message), err)
		}
	})
}

// FuzzReadAnswer sends the client's end anything. What it returns must be safe
// to print, and must survive the daemon's end.
func FuzzReadAnswer(f *testing.F) {
	f.Add(AppendAnswer(nil, Answer{"2.0.0", "mx1.example.org: 250 Ok"}))
	f.Add(AppendAnswer(nil, Answer{"5.999.999", strings.Repeat("é", 500)}))
	f.Add([]byte("A\x00\x00\x00\x0a4.7.5 a\x1b\xffb"))
	f.Add([]byte("A\xff\xff\xff\xff"))
	f.Add([]byte("220 lmtp\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := ReadAnswer(bytes.NewReader(raw))
		if err != nil {
			if err != ErrNoAnswer && !errors.Is(err, ErrProtocol) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		line := a.Code + " " + a.Text
		if len(line) > 900 || !utf8.ValidString(line) || strings.ContainsFunc(line, func(c rune) bool { return c < 0x20 || c == 0x7f }) {
			t.Fatalf("not fit to print: %q", line)
		}
		back, err := ReadAnswer(bytes.NewReader(AppendAnswer(nil, a)))
		if err != nil || back.Code != a.Code || !strings.HasPrefix(a.Text, back.Text) {
			t.Fatalf("%+v came back as %+v, %v", a, back, err)
		}
	})
}

// FuzzRoundTrip sends any envelope through both ends: it arrives as it was, or
// is refused before a byte is sent.
func FuzzRoundTrip(f *testing.F) {
	f.Add("s@example.org", "r@example.net", "rfc822;r@example.net", "NEVER", "default", int64(1), true, []byte("x"))
	f.Add("", "r@example.net", "", "", "", int64(0), false, []byte(nil))
	f.Add("a\nb", "", ";", "never", "\x7f", int64(-1), false, []byte("\x00"))
	f.Fuzz(func(t *testing.T, sender, address, orcpt, notify, other string, number int64, yes bool, message []byte) {
		e := Envelope{
			Sender: sender, Recipients: []Recipient{{address, notify, orcpt}, {Address: address}},
			Transport: other, QueueID: other, Nexthop: other, EnvID: other, Size: number,
			SMTPUTF8: yes, RequireTLS: !yes, Quarantined: yes,
			Timeout: Milliseconds(number) % maxTimeout,
		}
		raw, err := AppendEnvelope(nil, &e)
		if err != nil {
			if !errors.Is(err, ErrProtocol) || len(raw) != 0 {
				t.Fatalf("%d bytes, %v", len(raw), err)
			}
			return
		}
		r := NewReader(bytes.NewReader(AppendCommit(AppendData(raw, message))))
		back, err := r.Envelope()
		if e.Transport == "" {
			e.Transport = "default"
		}
		if err != nil || !reflect.DeepEqual(back, e) {
			t.Fatalf("%+v came back as %+v, %v", e, back, err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, message) {
			t.Fatalf("message of %d bytes came back with %d, %v", len(message), len(got), err)
		}
	})
}
