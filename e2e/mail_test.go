package e2e

import (
	"bufio"
	"bytes"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mail is a message for a mail server under test.
type mail struct {
	from   string
	to     []string
	params string // of MAIL
	notify string // parameters of RCPT
	text   []byte // with LF line ends
}

// note is a short message.
func note(from, to string) mail {
	return mail{from: from, to: []string{to}, text: []byte("Subject: a note\n\nThis is all.\n")}
}

// submit hands the message over by SMTP and gives the last reply.
func (m mail) submit(t *testing.T, address string) string {
	t.Helper()
	conn, err := textproto.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reply := func(code int) string {
		t.Helper()
		_, text, err := conn.ReadResponse(code)
		if err != nil {
			t.Fatalf("submission to %s: %v", address, err)
		}
		return text
	}
	say := func(code int, format string, args ...any) {
		t.Helper()
		if err := conn.PrintfLine(format, args...); err != nil {
			t.Fatal(err)
		}
		reply(code)
	}
	reply(220)
	say(250, "EHLO client.e2e.example")
	say(250, "MAIL FROM:<%s> %s", m.from, m.params)
	for _, to := range m.to {
		say(250, "RCPT TO:<%s> %s", to, m.notify)
	}
	say(354, "DATA")
	text := bytes.ReplaceAll(append([]byte("\n"), m.text...), []byte("\n."), []byte("\n.."))[1:]
	text = append(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), ".\r\n"...)
	conn.W.Write(text)
	if err := conn.W.Flush(); err != nil {
		t.Fatal(err)
	}
	return reply(250)
}

// keeper stores a message and its envelope under a name that is there only when
// all of it is.
const keeper = `#!/bin/sh
set -e
umask 022
name="$2.$$"
{ printf '%s\n' "$2" "$3" "$4"; cat; } >"$1/.$name"
mv "$1/.$name" "$1/$name"
`

// mailbox is where a mail server keeps messages by means of keeper.
type mailbox struct {
	kept string // the directory
	log  string // the mail server's, for what is shown of a failure
}

// arrival is what keeper stored.
type arrival struct {
	queueID, sender, recipient string
	text                       []byte
}

// arrivals lists what was kept for a recipient.
func (b mailbox) arrivals(t *testing.T, recipient string) []arrival {
	t.Helper()
	entries, err := os.ReadDir(b.kept)
	if err != nil {
		t.Fatal(err)
	}
	var list []arrival
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(b.kept, e.Name())
		// Only the envelope of others' messages is read, since they can be
		// large.
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(f)
		lines.Scan()
		lines.Scan()
		mine := lines.Scan() && lines.Text() == recipient
		f.Close()
		if !mine {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		parts := bytes.SplitN(text, []byte("\n"), 4)
		list = append(list, arrival{string(parts[0]), string(parts[1]), recipient, parts[3]})
	}
	return list
}

// arrived waits for the one message that a recipient gets.
func (b mailbox) arrived(t *testing.T, recipient string) arrival {
	t.Helper()
	list := await(t, "mail for "+recipient, func() ([]arrival, bool) {
		list := b.arrivals(t, recipient)
		return list, len(list) > 0
	}, b.log)
	if len(list) != 1 {
		t.Fatalf("%d messages for %s", len(list), recipient)
	}
	return list[0]
}

// original takes away the header fields that mail servers add on top, and gives
// what is left.
func (a arrival) original(t *testing.T, added ...string) []byte {
	t.Helper()
	text := a.text
	for {
		name, _, ok := bytes.Cut(text, []byte(":"))
		if !ok || !slices.Contains(added, string(name)) {
			return text
		}
		_, text, _ = bytes.Cut(text, []byte("\n"))
		for len(text) > 0 && (text[0] == ' ' || text[0] == '\t') {
			_, text, _ = bytes.Cut(text, []byte("\n"))
		}
	}
}
