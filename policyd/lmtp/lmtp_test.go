package lmtp

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/policyd/intake/intaketest"
	"github.com/mxpipe/mxpipe/transport"
)

// What LHLO offers.
func TestExtensions(t *testing.T) {
	b := serve(t, nil)
	c := b.dial()
	c.want("220 mx.example.org LMTP ")
	c.say("LHLO client.example.org")
	got := map[string]bool{}
	for _, line := range c.until("250 ")[1:] {
		got[line[4:]] = true
	}
	for _, keyword := range []string{"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING", "SMTPUTF8", "DSN", "SIZE"} {
		if !got[keyword] {
			t.Errorf("no %s in %v", keyword, got)
		}
	}
	for _, keyword := range []string{"REQUIRETLS", "STARTTLS", "BINARYMIME", "AUTH"} {
		if got[keyword] {
			t.Errorf("%s is offered", keyword)
		}
	}
	c.say("EHLO client.example.org", "HELO client.example.org", "QUIT")
	c.want("500 5.5.1 ", "500 5.5.1 ", "221 2.0.0 ", "")
}

// Everything of the envelope reaches the transport, with the peer's
// credentials, in one call for all recipients; each has its own reply, in
// order, and the connection serves the next message.
func TestDelivery(t *testing.T) {
	b := serve(t, func(b *bench) {
		b.Do = func(_ context.Context, env *transport.Envelope) []transport.Result {
			return intaketest.By(env, func(rcpt string) string {
				return map[byte]string{'a': "2.0.0 mx: 250 queued", 'b': "4.2.2 mx: 452 full", 'c': "5.1.1 mx: 550 who?", 'd': ""}[rcpt[0]]
			})
		}
	})
	c := b.connect()
	for range 2 {
		c.say("MAIL FROM:<s@example.org> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=an+20id REQUIRETLS",
			"RCPT TO:<c@example.net> NOTIFY=NEVER ORCPT=rfc822;x+2By@example.net",
			"RCPT TO:<a@example.net> NOTIFY=SUCCESS,DELAY",
			"RCPT TO:<b@example.net>", "RCPT TO:<a@example.net>", "RCPT TO:<d@example.net>", "DATA")
		c.want("250 ", "250 ", "250 ", "250 ", "250 ", "250 ", "354 ")
		c.send(text + ".\r\n")
		c.want("550 5.1.1 <c@example.net> mx: 550 who?", "250 2.0.0 <a@example.net> mx: 250 queued",
			"452 4.2.2 <b@example.net> mx: 452 full", "250 2.0.0 <a@example.net> mx: 250 queued", "451 4.3.0 <d@example.net> ")
	}
	calls := b.Calls()
	if len(calls) != 2 {
		t.Fatalf("%d calls", len(calls))
	}
	for _, call := range calls {
		got := call.Envelope
		if len(got.ID) < 8 {
			t.Errorf("id %q", got.ID)
		}
		if got.Waited <= 0 {
			t.Errorf("it waited %v for its place", got.Waited)
		}
		got.ID, got.Waited = "", 0
		if expected := (transport.Envelope{
			QueueID: "4XyZ", Peer: transport.Peer{UID: os.Getuid(), PID: os.Getpid()},
			Sender: "s@example.org",
			Recipients: []transport.Recipient{
				{Address: "c@example.net", Notify: "NEVER", ORcpt: "rfc822;x+y@example.net"}, {Address: "a@example.net", Notify: "SUCCESS,DELAY"},
				{Address: "b@example.net"}, {Address: "a@example.net"}, {Address: "d@example.net"},
			},
			EightBit: true, SMTPUTF8: true, RequireTLS: true, Ret: "HDRS", EnvID: "an id",
		}); !reflect.DeepEqual(got, expected) {
			t.Errorf("envelope %+v\nwant     %+v", got, expected)
		}
		if call.Body != text {
			t.Errorf("message %q, want %q", call.Body, text)
		}
	}
}

// A plain envelope means no more than it says.
func TestPlainEnvelope(t *testing.T) {
	b := serve(t, nil)
	c := b.connect()
	c.say("MAIL FROM:<>", "RCPT TO:<a@example.net>", "DATA")
	c.want("250 ", "250 ", "354 ")
	c.send(text + ".\r\nQUIT\r\n")
	c.want("250 2.0.0 ", "221 ", "")
	got := b.Calls()[0].Envelope
	if got.Sender != "" || got.EightBit || got.Ret != "" || got.SMTPUTF8 || got.RequireTLS || got.Quarantined {
		t.Errorf("%+v", got)
	}
}

// Addresses come out as they went in; what is none is refused, and only that.
// The postmaster needs no domain (RFC 5321 §4.1.1.3): what becomes of one is
// for the transport to say, as by pipe.
func TestAddresses(t *testing.T) {
	b := serve(t, nil)
	c := b.connect()
	good := []string{`plain`, `"with blank"`, `"quote\"d"`, `"back\\slash"`, `"at@sign"`, `"\"x\""`, `"<>"`, `"a,b"`, `-f`, `a=b`, `{x}`, "jos\u00e9", strings.Repeat("l", 64)}
	c.say(`MAIL FROM:<"a b"@example.org>`)
	c.want("250 ")
	for _, l := range good {
		c.say("RCPT TO:<" + l + "@example.net>")
		c.want("250 ")
	}
	postmasters := []string{"postmaster", "Postmaster"}
	for _, l := range postmasters {
		c.say("RCPT TO:<" + l + ">")
		c.want("250 ")
	}
	for _, l := range []string{"", "postmasters", "a b@example.net", "@example.net", `"a@example.net`, "a@example.net> x<", "a@"} {
		c.say("RCPT TO:<" + l + ">")
		if got := c.line(); got[0] != '5' && got[0] != '4' {
			t.Errorf("%q: %s", l, got)
		}
	}
	c.say("DATA")
	c.want("354 ")
	c.send(text + ".\r\n")
	for range len(good) + len(postmasters) {
		c.want("250 ")
	}
	env := b.Calls()[0].Envelope
	if env.Sender != `"a b"@example.org` || len(env.Recipients) != len(good)+len(postmasters) {
		t.Fatalf("%+v", env)
	}
	for i, l := range good {
		if got := env.Recipients[i].Address; got != l+"@example.net" {
			t.Errorf("%s became %s", l, got)
		}
	}
	for i, l := range postmasters {
		if got := env.Recipients[len(good)+i].Address; got != l {
			t.Errorf("%s became %s", l, got)
		}
	}
}

// What the library does not know of MAIL's and RCPT's parameters must not
// bounce the message; an ENVID or ORCPT that is not understood is left out.
func TestStrangeParameters(t *testing.T) {
	b := serve(t, nil)
	c := b.connect()
	c.say("MAIL FROM:<s@example.org> HOLDFOR=1", "MAIL FROM:<s@example.org> BY=60;R", "MAIL FROM:<s@example.org> ENVID=+C3+A9x", "RCPT TO:<a@example.net> RRVS=0")
	c.want("451 4.5.4 ", "451 4.5.4 ", "250 ", "451 4.5.4 ")
	var want []string
	for _, o := range []struct{ given, want string }{
		{"x400;y", "x400;y"},
		{"RFC822;a+40b", "rfc822;a@b"},
		{"rfc822;jos+C3+A9@x", "rfc822;jos\u00e9@x"},
		{"utf-8;jos\\x{E9}@x", "utf-8;jos\u00e9@x"},
		{"utf-8;jos\u00e9@x", "utf-8;jos\u00e9@x"},
		{"utf-8;jos+C3+A9\\x{2B}@x", "utf-8;jos\u00e9+@x"},
		{"utf-8;\\x{110000}", ""},
		{"utf-8;\\x{41", ""},
		{"utf-8;\\x{}", ""},
		{"rfc822;+", ""},
		{"rfc822;+C3", ""},
		{"rfc822;+0A", ""},
		{"rfc822;+GG", ""},
		{"rfc822;", ""},
		{";x", ""},
		{"x", ""},
		{"", ""},
		{"rfc822;a>b=c", "rfc822;a>b=c"},
	} {
		c.say("RCPT TO:<\"> ORCPT=no\"@example.net> ORCPT=" + o.given + " NOTIFY=NEVER")
		c.want("250 ")
		want = append(want, o.want)
	}
	c.say("DATA")
	c.want("354 ")
	c.send(text + ".\r\n")
	c.until("250 ")
	env := b.Calls()[0].Envelope
	if env.EnvID != "\u00e9x" {
		t.Errorf("envelope id %q", env.EnvID)
	}
	for i, rcpt := range env.Recipients {
		if rcpt.ORcpt != want[i] || rcpt.Notify != "NEVER" || rcpt.Address != `"> ORCPT=no"@example.net` {
			t.Errorf("%+v, want %q", rcpt, want[i])
		}
	}
}

// Recipients beyond the limit are deferred until the next message.
func TestTooManyRecipients(t *testing.T) {
	b := serve(t, nil)
	c := b.connect()
	var rcpts []string
	for i := range MaxRecipients + 2 {
		rcpts = append(rcpts, fmt.Sprintf("r%d", i))
	}
	// as much as the socket takes
	go c.Write([]byte(strings.Join(append(envelope(rcpts...), "DATA"), "\r\n") + "\r\n" + ""))
	for range MaxRecipients + 1 {
		c.want("250 ")
	}
	c.want("452 4.5.3 ", "452 4.5.3 ", "354 ")
	c.send(text + ".\r\n")
	for i := range MaxRecipients {
		c.want(fmt.Sprintf("250 2.0.0 <r%d@", i))
	}
	c.say("NOOP")
	c.want("250 ")
	if n := len(b.Calls()[0].Envelope.Recipients); n != MaxRecipients {
		t.Errorf("%d recipients", n)
	}
}

// The queue id is that of the topmost Received field.
func TestQueueID(t *testing.T) {
	for field, want := range map[string]string{
		"from x (y [192.0.2.1])\r\n\tby mail.example.org (Postfix) with ESMTPS id 4XyZ-_.1\r\n\tfor <a@example.net>; Sun, 23 Nov 2025 12:00:00 +0000 (UTC)": "4XyZ-_.1",
		"by mail.example.org (Postfix, from userid 0)\r\n\tid ABC; Sun, 23 Nov 2025 12:00:00 +0000":                                                         "ABC",
		"from root by mail.example.org with local (Exim 4.98)\r\n\t(envelope-from <a@example.org>)\r\n\tid 1vN2Xk-000000001AB-0abc\r\n\tfor b@x; date":      "1vN2Xk-000000001AB-0abc",
		"from id (id FAKE) by mail (by x id NO) with SMTP id REAL; date":                                                                                    "REAL",
		"from x (a \\) id FAKE (nested) id FAKE) by y id REAL; date":                                                                                        "REAL",
		"from x by y with SMTP; Sun, 23 Nov 2025 12:00:00 +0000":                                                                                            "",
		"from x by y id <a@b>; date":                                     "",
		"from x by y id " + strings.Repeat("x", maxQueueID+1) + "; date": "",
		"from x by y id": "",
		"id X":           "",
		"":               "",
	} {
		b := newHeader(t, "Received: "+field+"\r\nReceived: by z id LOWER; date\r\n\r\n")
		if got := queueID(b); got != want {
			t.Errorf("%q: %q, want %q", field, got, want)
		}
	}
	if got := queueID(newHeader(t, "Subject: id X by y id Z\r\n\r\n")); got != "" {
		t.Errorf("no field: %q", got)
	}
}
