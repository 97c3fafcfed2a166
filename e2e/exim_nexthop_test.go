package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
)

// The ways that contrib/exim/README.md shows to name a next hop, and where a
// router or the transport changes the sender.
func TestEximNexthop(t *testing.T) {
	t.Parallel()
	w := lab(t)
	relay, relayDomain := remote(t, "mxpipe", modern(t))
	// The same kind of mail server, at a port that only a next hop can name.
	other, err := mx.Start(mx.Options{Addr: fmt.Sprintf("127.25.255.2:%d", ports.For(t)), Behaviour: modern(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Stop() })
	host, port, _ := strings.Cut(other.Addr(), ":")
	parts, err := w.eximParts(w.daemon)
	if err != nil {
		t.Fatal(err)
	}
	table := filepath.Join(folder(t), "nexthops")
	if err := write(table, fmt.Sprintf("table.e2e.example: %s\nbracket.e2e.example: [%s]:%s\n", relayDomain, host, port)); err != nil {
		t.Fatal(err)
	}
	parts.main += "strict_acl_vars = true\n"
	parts.routers = fmt.Sprintf(`
smarthost:
  driver = accept
  domains = smart.e2e.example
  set = r_nexthop = [%s]:%s
  transport = mxpipe

from_a_table:
  driver = accept
  domains = lsearch;%s
  set = r_nexthop = $domain_data
  transport = mxpipe

list:
  driver = redirect
  domains = list.e2e.example
  data = member@table.e2e.example
  errors_to = "\"owner:of the list\"@%s"
`, host, port, table, keepDomain) + parts.routers
	x := anotherExim(t, parts)
	for _, c := range []struct {
		at               *mx.Server
		to, want, sender string
	}{
		{other, "a@smart.e2e.example", "", ""},
		{relay, "a@table.e2e.example", "", ""},
		{other, "a@bracket.e2e.example", "", ""},
		{relay, "a@" + relayDomain, "", ""},
		{relay, "a@" + strings.ToUpper(relayDomain), "a@" + relayDomain, ""},
		{relay, "all@list.e2e.example", "member@table.e2e.example", `"owner:of the list"@` + keepDomain},
	} {
		m := note(unique(t, "way")+"@"+keepDomain, c.to)
		id := x.submit(t, m)
		x.done(t, id)
		got := received1(t, c.at, id)
		if c.want == "" {
			c.want = c.to
		}
		if c.sender == "" {
			c.sender = m.from
		}
		if got.Recipients[0].Address != c.want || got.Sender != c.sender {
			t.Errorf("%s arrived for %+v from %s", c.to, got.Recipients, got.Sender)
		}
	}

	// Recipients with different next hops are never put into one call.
	t.Run("several recipients a call", func(t *testing.T) {
		parts.transports = strings.Replace(parts.transports, "batch_max = 1\n", "batch_max = 10\n", 1)
		x := anotherExim(t, parts)
		m := note("a@"+keepDomain, "")
		m.to = []string{"a@smart.e2e.example", "b@table.e2e.example", "c@smart.e2e.example", "d@bracket.e2e.example"}
		id := x.submit(t, m)
		x.done(t, id)
		if got := received1(t, other, id); len(got.Recipients) != 3 {
			t.Errorf("one call for the one next hop, want 3 recipients: %+v", got.Recipients)
		}
		if got := received1(t, relay, id); len(got.Recipients) != 1 {
			t.Errorf("another for the other next hop, want 1 recipient: %+v", got.Recipients)
		}
	})
}
