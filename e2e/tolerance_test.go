package e2e

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/script"
)

// What Postfix's smtp(8) takes of a greeting and of the reply to EHLO, mxpipe
// takes as well, from the very same server.
func TestToleranceAsPostfix(t *testing.T) {
	t.Parallel()
	const (
		greeting = `RAW "220 mx\r\n"`
		hello    = `RAW "250-mx\r\n250 SIZE\r\n"`
		rest     = "\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 2.0.0 taken\nC? QUIT\nS: 221 bye"
	)
	cases := []struct{ name, greeting, hello string }{
		{"nothing of the kind", greeting, hello},
		{"an empty line first", `RAW "\r\n220 mx\r\n"`, hello},
		{"a stray line first", `RAW "welcome\r\n220 mx\r\n"`, hello},
		{"telnet on a line of its own", `RAW "\xff\xfb\x01\xff\xfd\x03\r\n220 mx\r\n"`, hello},
		{"two codes in the greeting", `RAW "250-mx\r\n220 mx\r\n"`, hello},
		{"two codes in the reply to EHLO", greeting, `RAW "220-mx\r\n250 SIZE\r\n"`},
		{"a bare line in the reply to EHLO", greeting, `RAW "250-mx\r\nX-HELP\r\n250 SIZE\r\n"`},
		{"a bare line after it", greeting, `RAW "250-mx\r\n250 SIZE\r\nX-HELP\r\n"`},
	}
	w := lab(t)
	d := startDaemon(t, settings{transport: "    conn_reuse_limit: 0\n"})
	var routes []string
	domains := make([]string, len(cases))
	for i, c := range cases {
		domains[i] = w.newDomain("tolerance")
		address, err := w.host(domains[i])
		if err != nil {
			t.Fatal(err)
		}
		dialogue, err := script.Parse(c.greeting + "\nC: EHLO *\n" + c.hello + rest)
		if err != nil {
			t.Fatal(err)
		}
		server, err := script.Start(script.Options{Addr: address, Scripts: []script.Script{dialogue}, Repeat: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := server.Close(); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		})
		ip, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, fmt.Sprintf("{%s=smtp:[%s]:%s}", domains[i], ip, port))
	}
	address, err := w.host(w.newDomain("sender"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPostfix(filepath.Join(folder(t), "sender"), "sender", address,
		"\nsmtp_dns_support_level = disabled\ntransport_maps = inline:{"+strings.Join(routes, ", ")+"}\n", "smtp unix - - n - - smtp\n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			to := "b@" + domains[i]
			id := p.submit(t, note("a@"+keepDomain, to))
			postfix := p.tries(t, id, 1)[0].status == "sent"
			r := mxpipe(t, d, strings.NewReader("Subject: a note\n\nThis is all.\n"), "-f", "a@"+keepDomain, to).result(t)
			t.Logf("Postfix: %v; mxpipe: %s", postfix, r)
			if !postfix || r.exit != 0 {
				t.Errorf("Postfix delivers: %v; mxpipe: %s", postfix, r)
			}
		})
	}
}
