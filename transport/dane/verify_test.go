package dane_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/transport/dane"
)

func TestVerify(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range serverCases(t) {
		t.Run(c.name, func(t *testing.T) {
			if seen[c.name] || !strings.HasPrefix(c.rfc, "RFC ") {
				t.Fatalf("the case needs a name of its own and the RFC it is from, has %q", c.rfc)
			}
			seen[c.name] = true
			now := newCA(t).now
			m, err := dane.NewSet(c.records).Verify(c.chain(), c.names, now)
			if !errors.Is(err, c.want) {
				t.Fatalf("%s: got error %v, want %v", c.rfc, err, c.want)
			}
			if err != nil {
				checkText(t, err)
				return
			}
			if c.by != "" && m.Record.String() != c.by {
				t.Errorf("matched by %v, want %s", m.Record, c.by)
			}
			if m.Depth != c.depth || m.Name != c.match {
				t.Errorf("%s: matched at depth %d for name %q, want %d and %q", c.rfc, m.Depth, m.Name, c.depth, c.match)
			}
			checkAnchor(t, m)
		})
	}
	if len(seen) < 80 {
		t.Errorf("only %d cases", len(seen))
	}
}

// checkAnchor asserts that the anchor is the certificate that the record
// describes, and absent only where the record describes none.
func checkAnchor(t *testing.T, m dane.Match) {
	t.Helper()
	r := m.Record
	switch {
	case m.Anchor == nil:
		if r.Usage == dane.DANETA && (r.Selector != dane.SPKI || r.Matching != dane.Full) {
			t.Errorf("%v matched without an anchor", r)
		}
	case r.Usage != dane.DANETA:
		t.Errorf("%v matched with an anchor", r)
	case rec(r.Usage, r.Selector, r.Matching, party{cert: m.Anchor}).String() != r.String():
		t.Errorf("%v matched, the anchor is another: %v", r, m.Anchor.Subject)
	}
}

// checkText asserts what a log and a bounce can carry.
func checkText(t *testing.T, err error) {
	t.Helper()
	text := err.Error()
	if len(text) > 800 {
		t.Errorf("text has %d bytes: %s", len(text), text)
	}
	for i := 0; i < len(text); i++ {
		if text[i] < ' ' || text[i] > '~' {
			t.Fatalf("text is not printable: %q", text)
		}
	}
}
