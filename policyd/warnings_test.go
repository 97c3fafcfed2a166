package policyd

import (
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/policyd/console"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/transport"
)

// DNSSEC that is silently off is told wherever an administrator looks, once in
// the log, and no more when it is back.
func TestWarnings(t *testing.T) {
	o := operate(t, "")
	off := finding.Finding{Level: finding.Fail, What: "resolver 127.0.0.1:53: it answers without AD, so there is no DANE", Mend: "turn validation on"}
	fine := finding.Finding{What: "resolver 127.0.0.2:53: validates"}
	for range 3 {
		if !o.setWarnings([]finding.Finding{fine, off}) {
			t.Error("nothing to warn of")
		}
	}
	if n := strings.Count(o.logged.String(), "answers without AD"); n != 1 || !strings.Contains(o.logged.String(), "level=WARN") {
		t.Errorf("logged %d times", n)
	}
	s, err := o.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e, err := o.client.Explain(t.Context(), "", &transport.Question{Domain: "none.example"})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{plain(console.Status, &s), plain(console.Explanation, e), o.statusLine()} {
		if !strings.Contains(text, "answers without AD") || strings.Contains(text, "validates") {
			t.Error(text)
		}
	}
	if o.systemd.Find(nil, "STATUS=delivering mail; resolver 127.0.0.1:53") == "" {
		t.Error("cannot notify systemd")
	}
	if o.setWarnings([]finding.Finding{fine}) || o.statusLine() != delivering || len(o.currentWarnings()) != 0 {
		t.Error("it does not end")
	}
}
