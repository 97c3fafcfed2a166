package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

// full is an envelope in which every field is given.
func full() Envelope {
	return Envelope{
		Sender: "sender@example.org",
		Recipients: []Recipient{
			{Address: "one@example.net", Notify: "SUCCESS,DELAY", ORcpt: "rfc822;One@example.net"},
			{Address: "two@example.net"},
			{Address: "-drei@bücher.example", Notify: "NEVER", ORcpt: "utf-8;drei@bücher.example"},
		},
		Transport: "bulk", QueueID: "4XyZ12", Nexthop: "[192.0.2.1]:2525", Size: 12345,
		Body: "8bitmime", SMTPUTF8: true, RequireTLS: true, Quarantined: true,
		Ret: "hdrs", EnvID: "QQ 314+159=", Timeout: 899_500,
	}
}

func request(t testing.TB, e Envelope, message []byte) []byte {
	t.Helper()
	b, err := AppendEnvelope(nil, &e)
	if err != nil {
		t.Fatal(err)
	}
	return AppendCommit(AppendData(b, message))
}

func TestRoundTrip(t *testing.T) {
	// several data frames
	message := bytes.Repeat([]byte("Subject: x\n\nline\n"), 20000)
	minimal := Envelope{Recipients: []Recipient{{Address: "a@b"}}}
	minimalBack := minimal
	minimalBack.Transport = "default"
	for _, c := range []struct {
		name       string
		sent, back Envelope
		message    []byte
	}{
		{"every field", full(), full(), message},
		{"null sender, nothing else given", minimal, minimalBack, []byte("x")},
		{"no data", full(), full(), nil},
	} {
		raw := request(t, c.sent, c.message)
		for name, src := range map[string]io.Reader{
			"at once":      bytes.NewReader(raw),
			"in bytes":     iotest.OneByteReader(bytes.NewReader(raw)),
			"EOF with end": iotest.DataErrReader(bytes.NewReader(raw)),
		} {
			r := NewReader(src)
			e, err := r.Envelope()
			if err != nil {
				t.Fatalf("%s, %s: %v", c.name, name, err)
			}
			if !reflect.DeepEqual(e, c.back) {
				t.Errorf("%s, %s: got\n%+v, want\n%+v", c.name, name, e, c.back)
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, c.message) {
				t.Errorf("%s, %s: %d bytes, %v; want %d", c.name, name, len(got), err, len(c.message))
			}
			if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("%s, %s: after the commit: %d, %v", c.name, name, n, err)
			}
		}
	}
}

// A buffer larger than the reader's own goes past it, and gives the same bytes.
func TestReadLargeBuffers(t *testing.T) {
	message := bytes.Repeat([]byte("0123456789abcdef"), 30000)
	r := NewReader(bytes.NewReader(request(t, full(), message)))
	if _, err := r.Envelope(); err != nil {
		t.Fatal(err)
	}
	var got []byte
	p := make([]byte, 100_000)
	for {
		n, err := r.Read(p)
		got = append(got, p[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, message) {
		t.Errorf("%d bytes differ from the %d sent", len(got), len(message))
	}
}

// A writer that fails stops the message where it is, and the Reader goes on.
func TestWriteToFailingWriter(t *testing.T) {
	r := NewReader(bytes.NewReader(request(t, full(), []byte("a message of some bytes"))))
	if _, err := r.WriteTo(io.Discard); err != ErrSequence {
		t.Errorf("before the envelope: %v", err)
	}
	r = NewReader(bytes.NewReader(request(t, full(), []byte("a message of some bytes"))))
	if _, err := r.Envelope(); err != nil {
		t.Fatal(err)
	}
	full := errors.New("full")
	n, err := r.WriteTo(writer(func(p []byte) (int, error) { return 9, full }))
	if n != 9 || err != full {
		t.Fatalf("%d, %v", n, err)
	}
	rest, err := io.ReadAll(r)
	if string(rest) != " of some bytes" || err != nil {
		t.Errorf("then %q, %v", rest, err)
	}
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// Wherever a stream ends before its commit is complete, the message must not
// count as whole.
func TestEveryCutIsUncommitted(t *testing.T) {
	raw := request(t, full(), []byte("a message of some bytes"))
	for cut := range raw {
		r := NewReader(bytes.NewReader(raw[:cut]))
		_, err := r.Envelope()
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if err != ErrUncommitted {
			t.Fatalf("cut after %d of %d bytes: %v", cut, len(raw), err)
		}
		if _, again := r.Read(make([]byte, 1)); again != err {
			t.Fatalf("cut after %d: the error does not stay: %v", cut, again)
		}
	}
}

func TestReaderPassesConnectionErrors(t *testing.T) {
	raw := request(t, full(), []byte("message"))
	broken := errors.New("deadline exceeded")
	for _, cut := range []int{0, 3, 40, len(raw) - 8, len(raw) - 1} {
		r := NewReader(io.MultiReader(bytes.NewReader(raw[:cut]), iotest.ErrReader(broken)))
		_, err := r.Envelope()
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if err != broken {
			t.Errorf("cut after %d: %v", cut, err)
		}
	}
	if _, err := NewReader(idle{}).Envelope(); err != io.ErrNoProgress {
		t.Errorf("a source that gives nothing for ever: %v", err)
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestReaderOrder(t *testing.T) {
	raw := request(t, full(), []byte("message"))
	if _, err := NewReader(bytes.NewReader(raw)).Read(make([]byte, 1)); err != ErrSequence {
		t.Errorf("Read before Envelope: %v", err)
	}
	r := NewReader(bytes.NewReader(raw))
	_, _ = r.Envelope()
	if _, err := r.Envelope(); err != ErrSequence {
		t.Errorf("Envelope twice: %v", err)
	}
}

// envelopeOf wraps fields that the client would never send.
func envelopeOf(fields ...[]byte) []byte {
	content := bytes.Join(fields, nil)
	b := append([]byte(magic), Version)
	return append(appendHeader(b, kindEnvelope, len(content)), content...)
}

func field(t tag, value string) []byte { return appendField(nil, t, value) }

func TestReaderRefusesEnvelopes(t *testing.T) {
	sender, rcpt := field(tagSender, ""), field(tagRecipient, "a@b")
	many := bytes.Repeat(rcpt, 1001)
	for _, c := range []struct {
		name string
		raw  []byte
		want error
		in   string // the field that the error names
	}{
		{"another protocol", []byte("EHLO me\r\n"), ErrVersion, ""},
		{"a newer version", []byte("mxp\x02E\x00\x00\x00\x00"), ErrVersion, ""},
		{"an unknown frame first", []byte("mxp\x01Z\x00\x00\x00\x00"), ErrSequence, ""},
		{"data first", []byte("mxp\x01D\x00\x00\x00\x01x"), ErrSequence, ""},
		{"commit first", AppendCommit([]byte("mxp\x01")), ErrSequence, ""},
		{"an envelope of 4 GiB", []byte("mxp\x01E\xff\xff\xff\xff"), ErrTooLong, ""},
		{"an envelope of 1 MiB and a byte", []byte("mxp\x01E\x00\x10\x00\x01"), ErrTooLong, ""},
		{"an empty envelope", envelopeOf(), ErrSequence, "sender"},
		{"no sender", envelopeOf(rcpt), ErrSequence, "sender"},
		{"no recipient", envelopeOf(sender), ErrSequence, "recipient"},
		{"sender twice", envelopeOf(sender, sender, rcpt), ErrSequence, "sender"},
		{"an empty recipient", envelopeOf(sender, field(tagRecipient, "")), ErrValue, "recipient"},
		{"1,001 recipients", envelopeOf(sender, many), ErrTooMany, "recipient"},
		{"an address of 1,025 bytes", envelopeOf(sender, field(tagRecipient, strings.Repeat("a", 1025))), ErrTooLong, "recipient"},
		{"a line end in the sender", envelopeOf(field(tagSender, "a@b\r\nDATA"), rcpt), ErrControl, "sender"},
		{"a NUL in a recipient", envelopeOf(sender, field(tagRecipient, "a\x00@b")), ErrControl, "recipient"},
		{"DEL in the queue id", envelopeOf(sender, rcpt, field(tagQueueID, "\x7f")), ErrControl, "queue-id"},
		{"a tab in the envelope id", envelopeOf(sender, rcpt, field(tagEnvID, "a\tb")), ErrControl, "envid"},
		{"a control character in orcpt", envelopeOf(sender, rcpt, field(tagORcpt, "rfc822;\n")), ErrControl, "orcpt"},
		{"notify before a recipient", envelopeOf(sender, field(tagNotify, "NEVER"), rcpt), ErrSequence, "notify"},
		{"notify twice", envelopeOf(sender, rcpt, field(tagNotify, "NEVER"), field(tagNotify, "DELAY")), ErrSequence, "notify"},
		{"RFC 3461 §4.1: NEVER with others", envelopeOf(sender, rcpt, field(tagNotify, "NEVER,DELAY")), ErrValue, "notify"},
		{"RFC 3461 §4.1: unknown word", envelopeOf(sender, rcpt, field(tagNotify, "ALWAYS")), ErrValue, "notify"},
		{"notify with a repetition", envelopeOf(sender, rcpt, field(tagNotify, "DELAY,DELAY")), ErrValue, "notify"},
		{"notify ends with a comma", envelopeOf(sender, rcpt, field(tagNotify, "DELAY,")), ErrValue, "notify"},
		{"an empty notify", envelopeOf(sender, rcpt, field(tagNotify, "")), ErrValue, "notify"},
		{"RFC 3461 §4.2: orcpt without type", envelopeOf(sender, rcpt, field(tagORcpt, ";a@b")), ErrValue, "orcpt"},
		{"RFC 3461 §4.2: orcpt without semicolon", envelopeOf(sender, rcpt, field(tagORcpt, "a@b")), ErrValue, "orcpt"},
		{"unknown body", envelopeOf(sender, rcpt, field(tagBody, "binarymime")), ErrValue, "body"},
		{"RFC 3461 §4.3: unknown ret", envelopeOf(sender, rcpt, field(tagRet, "FULL")), ErrValue, "ret"},
		{"an empty transport", envelopeOf(sender, rcpt, field(tagTransport, "")), ErrValue, "transport"},
		{"a yes with a value", envelopeOf(sender, rcpt, field(tagRequireTLS, "no")), ErrValue, "requiretls"},
		{"a negative size", envelopeOf(sender, rcpt, field(tagSize, "-1")), ErrValue, "size"},
		{"a size of 0", envelopeOf(sender, rcpt, field(tagSize, "0")), ErrValue, "size"},
		{"a size beyond 63 bits", envelopeOf(sender, rcpt, field(tagSize, "9223372036854775808")), ErrValue, "size"},
		{"a timeout beyond a Duration", envelopeOf(sender, rcpt, field(tagTimeout, "9223372036855")), ErrValue, "timeout"},
		{"an unknown tag", envelopeOf(sender, rcpt, field('?', "x")), ErrField, ""},
		{"a field beyond its envelope", []byte("mxp\x01E\x00\x00\x00\x05s\x00\x05ab"), ErrSequence, "sender"},
		{"half a field", []byte("mxp\x01E\x00\x00\x00\x02s\x00"), ErrSequence, ""},
	} {
		_, err := NewReader(bytes.NewReader(c.raw)).Envelope()
		if !errors.Is(err, c.want) || !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		var named *FieldError
		if errors.As(err, &named) != (c.in != "") || (named != nil && named.Field != c.in) {
			t.Errorf("%s: %v does not name the field %q", c.name, err, c.in)
		}
	}
}

func TestReaderRefusesFrames(t *testing.T) {
	e := full()
	start, err := AppendEnvelope(nil, &e)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, raw string
		want      error
	}{
		{"an unknown kind", "Q\x00\x00\x00\x00", ErrFrame},
		{"an answer from the client", "A\x00\x00\x00\x00", ErrFrame},
		{"a second envelope", "E\x00\x00\x00\x00", ErrSequence},
		{"an empty data frame", "D\x00\x00\x00\x00", ErrSequence},
		{"a data frame of 64 KiB and a byte", "D\x00\x01\x00\x01", ErrTooLong},
		{"a data frame of 4 GiB", "D\xff\xff\xff\xff", ErrTooLong},
		{"a commit with content", "C\x00\x00\x00\x01x", ErrSequence},
	} {
		raw := append(AppendData(bytes.Clone(start), []byte("first")), c.raw...)
		r := NewReader(bytes.NewReader(raw))
		if _, err := r.Envelope(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if string(got) != "first" || !errors.Is(err, c.want) || !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %q, %v; want %v", c.name, got, err, c.want)
		}
	}
}

func TestAppendEnvelopeRefuses(t *testing.T) {
	long := strings.Repeat("a", 1025)
	recipients := func(n int, address string) []Recipient {
		list := make([]Recipient, n)
		for i := range list {
			list[i].Address = address
		}
		return list
	}
	setORcpt := func(list []Recipient, orcpt string) {
		for i := range list {
			list[i].ORcpt = orcpt
		}
	}
	for _, c := range []struct {
		name   string
		change func(*Envelope)
		want   error
	}{
		{"no recipients", func(e *Envelope) { e.Recipients = nil }, ErrSequence},
		{"1,001 recipients", func(e *Envelope) { e.Recipients = recipients(1001, "a@b") }, ErrTooMany},
		{"more than 1 MiB", func(e *Envelope) { e.Recipients = recipients(600, long[1:]); setORcpt(e.Recipients, "x;"+long[3:]) }, ErrTooLong},
		{"an empty recipient", func(e *Envelope) { e.Recipients[1].Address = "" }, ErrValue},
		{"long sender", func(e *Envelope) { e.Sender = long }, ErrTooLong},
		{"long recipient", func(e *Envelope) { e.Recipients[2].Address = long }, ErrTooLong},
		{"line end in the next hop", func(e *Envelope) { e.Nexthop = "a\n" }, ErrControl},
		{"control character in the transport", func(e *Envelope) { e.Transport = "\x1b[2J" }, ErrControl},
		{"lower-case notify", func(e *Envelope) { e.Recipients[0].Notify = "never" }, ErrValue},
		{"orcpt without address", func(e *Envelope) { e.Recipients[0].ORcpt = "rfc822;" }, ErrValue},
		{"body", func(e *Envelope) { e.Body = "8BITMIME" }, ErrValue},
		{"ret", func(e *Envelope) { e.Ret = "none" }, ErrValue},
		{"size", func(e *Envelope) { e.Size = -1 }, ErrValue},
		{"timeout", func(e *Envelope) { e.Timeout = -1 }, ErrValue},
	} {
		e := full()
		c.change(&e)
		b, err := AppendEnvelope([]byte("before"), &e)
		if !errors.Is(err, c.want) || string(b) != "before" {
			t.Errorf("%s: got %v and %d bytes, want %v", c.name, err, len(b), c.want)
		}
	}
}

// What is just within the bounds passes both ends.
func TestLargestEnvelope(t *testing.T) {
	e := full()
	e.Recipients = make([]Recipient, 1000)
	for i := range e.Recipients {
		e.Recipients[i] = Recipient{Address: strings.Repeat("r", 500), ORcpt: "x;" + strings.Repeat("o", 500)}
	}
	e.Recipients[0].Address = strings.Repeat("r", 1024)
	got, err := NewReader(bytes.NewReader(request(t, e, nil))).Envelope()
	if err != nil || !reflect.DeepEqual(got, e) {
		t.Errorf("got %d recipients, %v", len(got.Recipients), err)
	}
}

func TestAnswer(t *testing.T) {
	for _, c := range []struct {
		name       string
		sent, back Answer
	}{
		{"success", Answer{"2.0.0", "mx1.example.org: 250 2.0.0 Ok"}, Answer{"2.0.0", "mx1.example.org: 250 2.0.0 Ok"}},
		{"no text", Answer{"4.7.5", ""}, Answer{"4.7.5", ""}},
		{"long code", Answer{"5.999.999", "x"}, Answer{"5.999.999", "x"}},
		{"several lines", Answer{"5.1.1", "mx: 550-no\r\n550 user\n"}, Answer{"5.1.1", "mx: 550-no 550 user"}},
		{"escape sequence", Answer{"5.1.1", "a\x1b[31mb\x00\x7fc"}, Answer{"5.1.1", "a [31mb c"}},
		{"not UTF-8", Answer{"5.1.1", "a\xffb\xc2"}, Answer{"5.1.1", "a?b?"}},
		{"C1 and right-to-left override", Answer{"5.1.1", "a\u009bb\u202ec"}, Answer{"5.1.1", "a?b?c"}},
		{"UTF-8 stays", Answer{"5.1.1", "Bücher 書"}, Answer{"5.1.1", "Bücher 書"}},
		{"no code", Answer{"", "x"}, Answer{"4.3.0", "x"}},
		{"not a code", Answer{"250", "x"}, Answer{"4.3.0", "x"}},
		{"a code with a tail", Answer{"2.0.0 x", "y"}, Answer{"4.3.0", "y"}},
		{"a code with a blank", Answer{"2.0.0 ", "y"}, Answer{"4.3.0", "y"}},
		{"class 3", Answer{"3.0.0", "x"}, Answer{"4.3.0", "x"}},
	} {
		raw := AppendAnswer([]byte("before"), c.sent)[len("before"):]
		for name, src := range map[string]io.Reader{
			"at once":           bytes.NewReader(raw),
			"in bytes":          iotest.OneByteReader(bytes.NewReader(raw)),
			"with the end":      iotest.DataErrReader(bytes.NewReader(raw)),
			"with more after":   io.MultiReader(bytes.NewReader(raw), strings.NewReader("more")),
			"more, in one read": bytes.NewReader(append(bytes.Clone(raw), "more"...)),
		} {
			got, err := ReadAnswer(src)
			if err != nil || got != c.back {
				t.Errorf("%s, %s: got %+v, %v; want %+v", c.name, name, got, err, c.back)
			}
		}
	}
}

func TestAnswerIsCut(t *testing.T) {
	for _, c := range []struct {
		code, text string
		want       int
	}{
		{"4.7.5", strings.Repeat("x", 5000), 894},
		{"4.7.5", strings.Repeat("x", 894), 894},
		{"4.7.5", strings.Repeat("x", 893) + "é", 893}, // no half of a letter
		{"4.7.5", strings.Repeat("書", 1000), 894},
		{"5.999.999", strings.Repeat("x", 5000), 890},
	} {
		raw := AppendAnswer(nil, Answer{c.code, c.text})
		a, err := ReadAnswer(bytes.NewReader(raw))
		if err != nil || len(a.Text) != c.want || !utf8.ValidString(a.Text) || !strings.HasPrefix(c.text, a.Text) {
			t.Errorf("%d bytes after %s: %d bytes came, %v; want %d", len(c.text), c.code, len(a.Text), err, c.want)
		}
		if len(raw) > len("Annnn")+900 {
			t.Errorf("%d bytes after %s: a frame of %d", len(c.text), c.code, len(raw))
		}
	}
}

func TestReadAnswerRefuses(t *testing.T) {
	broken := errors.New("broken")
	frame := func(s string) io.Reader {
		return strings.NewReader(string(appendHeader(nil, kindAnswer, len(s))) + s)
	}
	for _, c := range []struct {
		name string
		src  io.Reader
		want error
	}{
		{"nothing", strings.NewReader(""), ErrNoAnswer},
		{"half a header", strings.NewReader("A\x00\x00"), ErrNoAnswer},
		{"half an answer", strings.NewReader("A\x00\x00\x00\x10" + "2.0.0 Ok"), ErrNoAnswer},
		{"an LMTP server", strings.NewReader("220 lmtp ready\r\n"), ErrFrame},
		{"901 bytes", frame(strings.Repeat("x", 901)), ErrTooLong},
		{"4 GiB", strings.NewReader("A\xff\xff\xff\xff"), ErrTooLong},
		{"empty", frame(""), ErrValue},
		{"no code", frame("Ok"), ErrValue},
		{"an SMTP code", frame("250 Ok"), ErrValue},
		{"a leading blank", frame(" 2.0.0 Ok"), ErrValue},
		{"a tab after the code", frame("2.0.0\tOk"), ErrValue},
		{"class 3", frame("3.0.0 Ok"), ErrValue},
		{"four digits", frame("2.0.1000 Ok"), ErrValue},
		{"a broken connection", iotest.ErrReader(broken), broken},
		{"one that gives nothing", idle{}, io.ErrNoProgress},
	} {
		if a, err := ReadAnswer(c.src); !errors.Is(err, c.want) || a != (Answer{}) {
			t.Errorf("%s: got %+v, %v; want %v", c.name, a, err, c.want)
		}
	}
}

// The frame of an answer never changes, so that a client of any version can
// read why a daemon refuses it.
func TestAnswerBytesAreFixed(t *testing.T) {
	got := AppendAnswer(nil, Answer{"4.3.5", "v"})
	want := append(binary.BigEndian.AppendUint32([]byte{'A'}, 7), "4.3.5 v"...)
	if !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The bytes of version 1, so that a change of them does not pass unnoticed.
func TestRequestBytesAreVersion1(t *testing.T) {
	e := full()
	e.Recipients = e.Recipients[:1]
	got := string(request(t, e, []byte("Hi\n")))
	want := "mxp\x01E\x00\x00\x00\xad" +
		"s\x00\x12sender@example.org" +
		"r\x00\x0fone@example.net" + "n\x00\x0dSUCCESS,DELAY" + "o\x00\x16rfc822;One@example.net" +
		"t\x00\x04bulk" + "q\x00\x064XyZ12" + "h\x00\x10[192.0.2.1]:2525" + "z\x00\x0512345" +
		"b\x00\x088bitmime" + "u\x00\x00" + "l\x00\x00" + "x\x00\x00" + "e\x00\x04hdrs" +
		"i\x00\x0bQQ 314+159=" + "w\x00\x06899500" +
		"D\x00\x00\x00\x03Hi\n" + "C\x00\x00\x00\x00"
	if got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

// An envelope of exactly 1 MiB passes both ends, one of a byte more not even
// ours.
func TestEnvelopeOf1MiB(t *testing.T) {
	e := Envelope{Recipients: make([]Recipient, 1000)}
	for i := range e.Recipients {
		e.Recipients[i].Address = strings.Repeat("r", 1024)
		if i < 21 {
			e.Recipients[i].ORcpt = "x;" + strings.Repeat("o", 1022)
		}
	}
	e.Recipients[21].ORcpt = "x;o"
	raw, err := AppendEnvelope(nil, &e)
	const start = len("mxp\x01Ennnn")
	if err != nil || len(raw) != start+1<<20 {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	if _, err := NewReader(bytes.NewReader(raw)).Envelope(); err != nil {
		t.Errorf("at the other end: %v", err)
	}
	e.Recipients[21].ORcpt = "x;oo"
	if _, err := AppendEnvelope(nil, &e); !errors.Is(err, ErrTooLong) {
		t.Errorf("a byte more: %v", err)
	}
}

// A data frame of exactly 64 KiB passes.
func TestDataFrameOf64KiB(t *testing.T) {
	e := full()
	raw, err := AppendEnvelope(nil, &e)
	if err != nil {
		t.Fatal(err)
	}
	piece := bytes.Repeat([]byte("x"), 64<<10)
	frame := append([]byte("D\x00\x01\x00\x00"), piece...)
	if got := AppendData(nil, piece); !bytes.Equal(got, frame) {
		t.Errorf("64 KiB are not one frame: %d bytes", len(got))
	}
	r := NewReader(bytes.NewReader(AppendCommit(append(raw, frame...))))
	if _, err := r.Envelope(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, piece) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
