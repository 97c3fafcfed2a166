package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// Real servers take BDAT with NOOP after it, over warm connections and after a
// restart: every message arrives at the first try, and once.
func TestRealReceivers(t *testing.T) {
	t.Parallel()
	w := lab(t)
	d := startDaemon(t, settings{})
	receive := func(name string, start func(t *testing.T, address string) (box *mailbox, restart func() error)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			domain := w.newDomain("receivers")
			address, err := w.host(domain)
			if err != nil {
				t.Fatal(err)
			}
			box, restart := start(t, address)
			reused := 0
			send := func(i int) {
				t.Helper()
				to := fmt.Sprintf("r%d@%s", i, domain)
				r := mxpipe(t, d, strings.NewReader("Subject: a note\n\nThis is all.\n"), "-f", "a@"+keepDomain, to).result(t)
				if r.exit != 0 || !strings.HasPrefix(r.line, "2.") {
					t.Fatalf("message %d: %s", i, r)
				}
				if strings.Contains(r.line, "reused") {
					reused++
				}
				box.arrived(t, to)
			}
			for i := range 25 {
				send(i)
			}
			if reused != 22 { // conn_reuse_limit is 10
				t.Errorf("%d of 25 messages went over a warm connection", reused)
			}
			if err := restart(); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				send(25 + i)
			}
			for i := range 28 {
				if n := len(box.arrivals(t, fmt.Sprintf("r%d@%s", i, domain))); n != 1 {
					t.Errorf("message %d arrived %d times", i, n)
				}
			}
		})
	}
	receive("Postfix", func(t *testing.T, address string) (*mailbox, func() error) {
		p, err := newPostfix(filepath.Join(folder(t), "receiver"), "receiver", address, "\ndefault_transport = keep\n", "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.close(); err != nil {
				t.Error(err)
			}
		})
		return &p.mailbox, func() error {
			if err := p.close(); err != nil {
				return err
			}
			return p.run()
		}
	})
	receive("Exim", func(t *testing.T, address string) (*mailbox, func() error) {
		x, err := newExim(filepath.Join(folder(t), "receiver"), "receiver", address, eximConfig{routers: "\nall:\n  driver = accept\n  transport = keep\n"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := x.close(); err != nil {
				t.Error(err)
			}
		})
		return &x.mailbox, func() error {
			if err := x.close(); err != nil {
				return err
			}
			return x.start("receiver")
		}
	})
}
