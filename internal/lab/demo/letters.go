package main

import (
	"context"
	"fmt"
	"net"
	"net/textproto"
	"strings"
)

// letter is one recipient of the message that is handed over by LMTP, and the
// answer for that one.
type letter struct {
	to string
	// how the answer must begin; what follows comes after the recipient
	want string
	says string // a part of it
}

// letters are those of the demo. They are all recipients of one message.
func letters() []letter {
	return []letter{
		{"ben@dane-ee.example", "250 2.0.0", "dane, TLS1.3"},
		{"ann@users.example", "250 2.0.0", "queued as"},
		{"ben@dane-wrong.example", "451 4.7.5", "DANE"},
		{"nosuch@users.example", "550 5.1.1", "550 5.1.1"},
		{"ben@null-mx.example", "550 5.1.10", "null MX"},
		{"later@users.example", "451 4.2.0", "450 4.2.0"},
	}
}

// postAll hands one message over for all letters, as lmtp(8) of Postfix does.
// It gives how many answers were not as they should be.
func (d *demo) postAll(ctx context.Context) (bad int, err error) {
	if len(d.letters) == 0 {
		return 0, nil
	}
	d.table.heading("One message to several recipients by LMTP, without mxpipe: each has an answer of its own")
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", d.daemon.lmtp)
	if err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	conn := textproto.NewConn(c)
	defer conn.Close()
	m := message{domain: "several.example", to: []string{"ben"}, queueID: "DEMO-LMTP"}
	commands := []string{"LHLO mail.demo.example", "MAIL FROM:<" + sender + "> BODY=8BITMIME"}
	for _, l := range d.letters {
		commands = append(commands, "RCPT TO:<"+l.to+">")
	}
	codes := []int{220}
	for _, command := range append(commands, "DATA") {
		if err := conn.PrintfLine("%s", command); err != nil {
			return 0, fmt.Errorf("mxpolicyd by LMTP: %w", err)
		}
		codes = append(codes, 250)
	}
	codes[len(codes)-1] = 354
	for _, code := range codes {
		if _, _, err := conn.ReadResponse(code); err != nil {
			return 0, fmt.Errorf("mxpolicyd by LMTP: %w", err)
		}
	}
	body := conn.DotWriter()
	if _, err := body.Write(d.parts.message(&m)); err != nil {
		return 0, fmt.Errorf("mxpolicyd by LMTP: %w", err)
	}
	if err := body.Close(); err != nil {
		return 0, fmt.Errorf("mxpolicyd by LMTP: %w", err)
	}
	for _, l := range d.letters {
		d.table.progress(l.to)
		answer, err := conn.ReadLine()
		if err != nil {
			return bad, fmt.Errorf("mxpolicyd by LMTP: %w", err)
		}
		ok := l.check(answer)
		if !ok {
			bad++
		}
		d.table.letter(&l, answer, ok)
	}
	return bad, nil
}

func (l *letter) check(answer string) bool {
	return strings.HasPrefix(answer, l.want+" <"+l.to+"> ") && strings.Contains(answer, l.says)
}

// letter writes a row.
func (t *table) letter(l *letter, answer string, ok bool) {
	mark := t.paint(green, pad("ok", markWidth))
	if !ok {
		mark = t.paint(red, pad("!!", markWidth))
	}
	t.println(mark + l.to)
	indent := strings.Repeat(" ", markWidth)
	t.wrap(indent, dim, answer)
	if !ok {
		t.wrap(indent, red, fmt.Sprintf("NOT AS EXPECTED: the answer should begin with %q and say %q", l.want, l.says))
	}
}
