package transport

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// mixtures gives every text of CR, LF and dot of one byte to max bytes.
func mixtures(max int) (all []string) {
	last := []string{""}
	for range max {
		var longer []string
		for _, s := range last {
			longer = append(longer, s+"\r", s+"\n", s+".")
		}
		all = append(all, longer...)
		last = longer
	}
	return all
}

// TestSmuggling has every mixture of CR, LF and dot up to eight bytes stand
// in a message, and at its end, before a server that ends DATA at CRLF.CRLF and
// takes whatever comes after it for commands. What it gets is one message, and
// the canonical form of what was sent (package message), byte by byte, by
// DATA as by BDAT. Of texts with one canonical form one is sent: nothing after
// the canonical form knows what it was made of.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	all := mixtures(8)
	const commands = "MAIL FROM:<evil@a.example>\r\nRCPT TO:<victim@a.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"
	// Many at once: inside of a line, at its start, at its end, and alone.
	var texts []string
	for _, around := range []struct{ before, after string }{
		{"x", commands}, {"\r\n", commands}, {"x", "\r\n" + commands}, {"\r\n", "\r\n" + commands}, {"\n", "\n" + commands}, {"\r\n.", commands},
	} {
		var b bytes.Buffer
		for i, m := range all {
			if b.Len() == 0 {
				b.WriteString("Subject: a test\n\n")
			}
			b.WriteString(around.before + m + around.after)
			if b.Len() > 200<<10 || i == len(all)-1 {
				texts = append(texts, b.String())
				b.Reset()
			}
		}
	}
	for _, m := range all {
		texts = append(texts, "Subject: a test\n\nx"+m)
	}
	// A message of nothing but a mixture.
	texts = append(texts, mixtures(5)...)
	seen := map[string]bool{}
	texts = slices.DeleteFunc(texts, func(text string) bool {
		form, _ := io.ReadAll(reader(msg(t, text)))
		if lines := strings.ReplaceAll(string(form), "\r\n", ""); strings.ContainsAny(lines, "\r\n") {
			t.Errorf("%.100q has the canonical form %.100q", text, form)
		}
		again := seen[string(form)]
		seen[string(form)] = true
		return again
	})
	for name, keywords := range map[string]mx.Keyword{"DATA": mx.AllKeywords &^ mx.Chunking, "BDAT": mx.AllKeywords} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			smuggle(t, keywords, texts)
		})
	}
}

// smuggle delivers texts over some connections and compares what arrives.
func smuggle(t *testing.T, keywords mx.Keyword, texts []string) {
	l := newLab(t)
	type errand struct {
		server *mx.Server
		to     string
	}
	var errands []errand
	for i := range runtime.GOMAXPROCS(0) {
		domain := fmt.Sprintf("d%d.example", i)
		server := l.mx("mx."+domain, func(h *mx.Behaviour) { byData(h); h.Keywords = keywords })
		l.zone("%s. MX 10 mx.%s.", domain, domain)
		errands = append(errands, errand{server, "b@" + domain})
	}
	l.startPooled(func(c *Config) { c.ConnReuseLimit = 1_000_000 })
	next := make(chan string)
	var all sync.WaitGroup
	for _, e := range errands {
		all.Go(func() {
			for text := range next {
				m := msg(t, text)
				want, _ := io.ReadAll(reader(m))
				r := l.transport.Deliver(t.Context(), envelope(e.to), m)[0]
				got := e.server.Messages()
				e.server.Forget()
				switch {
				case r.Code.Class != 2:
					t.Errorf("%.100q: %v %s", text, r.Code, r.Text)
				case len(got) != 1:
					t.Errorf("%.100q: the server has %d messages of it", text, len(got))
				case !bytes.Equal(got[0].Body, want):
					t.Errorf("%.100q arrived as %.100q, want %.100q", text, got[0].Body, want)
				case len(got[0].Violations) > 0:
					t.Errorf("%.100q: %v", text, got[0].Violations)
				}
			}
		})
	}
	for _, text := range texts {
		next <- text
	}
	close(next)
	all.Wait()
	for _, e := range errands {
		c := e.server.Counters()
		if c.Violations > 0 || c.Verbs["MAIL"] != c.Messages || c.Verbs["RCPT"] != c.Messages || c.Refused > 0 {
			t.Errorf("%+v", c)
		}
	}
}
