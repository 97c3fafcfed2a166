package e2e

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/message"
)

// mixtures lists every mixture of CR, LF and dot of one to longest bytes.
func mixtures(longest int) []string {
	list := []string{""}
	var all []string
	for range longest {
		var longer []string
		for _, m := range list {
			for _, c := range []string{"\r", "\n", "."} {
				longer = append(longer, m+c)
			}
		}
		list = longer
		all = append(all, list...)
	}
	return all
}

// canonical is what must arrive.
func canonical(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	c := message.NewCanonicalizer(&b)
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// SMTP smuggling: whatever stands around an end of data, the remote server
// sees one message, and no bare CR or LF ever travels (RFC 5321 §2.3.8). All
// mixtures of up to eight bytes go in the middle of messages, those of up to
// four also as the very end of one, through the real mxpipe and daemon, by
// DATA and by BDAT.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, settings{})
	var middle strings.Builder
	middle.WriteString("Subject: mixtures\n\n")
	for _, m := range mixtures(8) {
		middle.WriteString("x" + m + "MAIL FROM:<evil@example.org>")
	}
	texts := []string{middle.String()}
	for _, m := range mixtures(4) {
		texts = append(texts, "Subject: an end\n\ntext"+m, m+"Subject: a beginning\n\ntext\n")
	}
	for name, keywords := range map[string]mx.Keyword{"DATA": mx.AllKeywords &^ mx.Chunking, "BDAT": mx.AllKeywords, "sequence": mx.Size} {
		t.Run(name, func(t *testing.T) {
			behaviour := modern(t)
			behaviour.Keywords = keywords
			server, domain := remote(t, "smuggling-"+strings.ToLower(name), behaviour)
			sent := map[string]int{}
			var calls errgroup.Group
			calls.SetLimit(4)
			for _, text := range texts {
				sent[string(canonical(t, text))]++
				calls.Go(func() error {
					if r := mxpipe(t, d, strings.NewReader(text), "-f", "a@"+keepDomain, "b@"+domain).result(t); r.exit != 0 {
						t.Errorf("%.60q: %s", text, r)
					}
					return nil
				})
			}
			calls.Wait()
			for _, m := range server.Messages() {
				sent[string(m.Body)]--
				if m.Sender != "a@"+keepDomain || len(m.Recipients) != 1 {
					t.Errorf("a message from %q for %v", m.Sender, m.Recipients)
				}
			}
			for body, n := range sent {
				if n != 0 {
					t.Errorf("%d messages too few with the body %.60q", n, body)
				}
			}
			if v := server.Violations(); len(v) > 0 {
				t.Errorf("%d rules broken: %v", len(v), v[0])
			}
			if n := server.Counters().Messages; n != len(texts) {
				t.Errorf("%d messages arrived, %d were sent", n, len(texts))
			}
		})
	}
}
