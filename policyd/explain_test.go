package policyd

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/testlog"
	"github.com/mxpipe/mxpipe/internal/lab/world"
	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/console"
	"github.com/mxpipe/mxpipe/transport"
)

var update = flag.Bool("update", false, "write the golden files anew")

// operated is a daemon in the lab's world, and its administrator.
type operated struct {
	*running
	world  *world.World
	client *admin.Client
}

// operate starts a daemon in the world of the well-known domains; lines are
// those of the default transport.
func operate(t *testing.T, lines string) *operated {
	t.Helper()
	w, err := world.Start(world.Domains()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	l := &lab{t: t, dir: t.TempDir(), logged: testlog.New(), port: uint16(w.Port())}
	if err := w.Authority.WriteRoots(l.dir + "/roots.pem"); err != nil {
		t.Fatal(err)
	}
	l.systemd = listenNotices(t, filepath.Join(l.dir, "notify"))
	o := &operated{world: w, client: admin.NewClient(l.dir + "/admin.sock")}
	o.running = l.daemon(o.yaml(l, lines))
	return o
}

func (o *operated) yaml(l *lab, lines string) string {
	return fmt.Sprintf(`hostname: client.example
state_dir: %[1]s/state
dns: {servers: ["%[2]s"], timeout: 20s, attempts: 2}
listen: {pipe: {path: %[1]s/pipe.sock, mode: "0600"}, admin: {path: %[1]s/admin.sock, pprof: on}}
transports:
  default:
    port: %[3]d
    tls_client: {root_ca: [%[1]s/roots.pem]}
    mx_auth: {dnssec: {}, dane: {}, mtasts: {https_port: %[4]d}}
%[5]s
`, l.dir, o.world.Resolver(), o.world.Port(), o.world.HTTPSPort(), lines)
}

// names are the well-known domains, and those that are none.
func names() []string {
	all := []string{"nowhere.example", "[127.0.0.2]"}
	for _, d := range world.Domains() {
		all = append(all, d.Name)
	}
	return all
}

// Whatever explain says of a domain, with connections and without, by a daemon
// and by the configuration alone, is what then becomes of a message.
func TestExplanationsAgreeWithDeliveries(t *testing.T) {
	o := operate(t, "")
	for _, domain := range names() {
		t.Run(domain, func(t *testing.T) {
			kinds := map[string]*admin.Explanation{}
			var err error
			for _, depth := range []transport.Depth{transport.Lookups, transport.Connect} {
				name := [...]string{"look-ups", "connections"}[depth]
				if kinds[name], err = o.client.Explain(t.Context(), "", &transport.Question{Domain: domain, Depth: depth}); err != nil {
					t.Fatal(err)
				}
				if kinds[name+" alone"], err = Explain(t.Context(), o.current(), "", &transport.Question{Domain: domain, Depth: depth}); err != nil {
					t.Fatal(err)
				}
			}
			answer := o.send(func(e *wire.Envelope) {
				e.Recipients = []wire.Recipient{{Address: "b@" + domain}}
				e.QueueID = domain
			})
			for kind, e := range kinds {
				if e.Connected != strings.HasPrefix(kind, "connections") || e.Running == strings.HasSuffix(kind, " alone") {
					t.Errorf("%s: connected %v, running %v", kind, e.Connected, e.Running)
				}
				agree(t, kind, e, answer)
			}
			if again, err := o.client.Explain(t.Context(), "", &transport.Question{Domain: domain}); err != nil {
				t.Error(err)
			} else if dead := deadEnd(again); dead && again.Forecast() != transport.Undeliverable {
				t.Errorf("every host is dead, and yet %s", again.Outcome)
			}
		})
	}
}

// deadEnd tells whether every host is known to be dead.
func deadEnd(e *admin.Explanation) bool {
	for _, h := range e.Hosts {
		if h.Dead == nil {
			return false
		}
	}
	return len(e.Hosts) > 0
}

// timeless leaves the seconds out of which one follows the other.
func timeless(text string) string { return moment.ReplaceAllString(text, "2026-01-01T00:00:00Z") }

var moment = regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

// agree holds an explanation against the answer to a message.
func agree(t *testing.T, kind string, e *admin.Explanation, answer string) {
	t.Helper()
	delivered := strings.HasPrefix(answer, "2.")
	forecast := e.Forecast()
	switch {
	case delivered && forecast != transport.Deliverable,
		!delivered && forecast == transport.Deliverable && e.Connected,
		forecast == transport.Unknown && !strings.HasPrefix(answer, "4.4.3 "):
		t.Errorf("%s: %s, but the delivery said %s", kind, e.Outcome, answer)
	}
	if e.Error != nil && !strings.HasPrefix(timeless(answer), timeless(e.Error.Status+" "+e.Error.Text)) {
		t.Errorf("%s: %+v, but the delivery said %s", kind, *e.Error, answer)
	}
	if forecast != transport.Deliverable {
		return
	}
	// The first eligible host gets it, in the way that was said.
	for _, h := range e.Hosts {
		if h.Forecast() != transport.Deliverable {
			continue
		}
		if delivered && e.Connected && !strings.Contains(answer, h.Name+": 250 ") {
			t.Errorf("%s: %s would get it, but the delivery said %s", kind, h.Name, answer)
		}
		if c := h.Connection; c != nil && !strings.Contains(strings.Replace(answer, ", reused", "", 1), "("+c.Via+", id=") {
			t.Errorf("%s: by %s, but the delivery said %s", kind, c.Via, answer)
		}
		if h.Verdict.Rule == "dane" && h.Verdict.Need != "TLS with any certificate" && !strings.Contains(answer, ", dane") && delivered {
			t.Errorf("%s: %+v, but the delivery said %s", kind, *h.Verdict, answer)
		}
		return
	}
}

// An explanation without a daemon leaves the state directory as it is.
func TestExplainAloneWritesNothing(t *testing.T) {
	o := operate(t, "")
	cfg := *o.current()
	other := *cfg.Transports["default"]
	sts := *other.MXAuth.MTASTS
	sts.Dir = filepath.Join(o.dir, "other")
	other.MXAuth.MTASTS = &sts
	cfg.Transports = map[string]*transport.Config{"default": &other}
	e, err := Explain(t.Context(), &cfg, "", &transport.Question{Domain: "sts.example"})
	if err != nil || e.MTASTS == nil || e.MTASTS.State != "policy" || e.MTASTS.Source != "fetched" {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := os.Stat(sts.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
	// What a daemon has written is read.
	if _, err := o.client.Explain(t.Context(), "", &transport.Question{Domain: "sts.example"}); err != nil {
		t.Fatal(err)
	}
	o.stored("sts.example")
	e, err = Explain(t.Context(), o.current(), "", &transport.Question{Domain: "sts.example"})
	if err != nil || e.MTASTS.Source != "cache" {
		t.Errorf("%+v, %v", e.MTASTS, err)
	}
	if _, err := Explain(t.Context(), o.current(), "nosuch", &transport.Question{Domain: "sts.example"}); !errors.Is(err, admin.ErrUnknown) {
		t.Error(err)
	}
}

// stored waits until a domain's policy is on disk, which no answer waits for.
func (o *operated) stored(domain string) {
	o.t.Helper()
	file := filepath.Join(o.dir, "state", "mtasts_cache", domain+".mta-sts")
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return
		} else if time.Now().After(deadline) {
			o.t.Fatal(err)
		}
	}
}

// changing is what differs from one run to the next in a text.
var changing = []struct {
	pattern *regexp.Regexp
	put     string
}{
	{regexp.MustCompile(`\b[0-9a-f]{16}\.\.\.`), "0123456789abcdef..."},
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\d( |\n)`), "2026-01-01$1"},
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\d,`), "2026-01-01,"},
	{regexp.MustCompile(`\b127\.0\.(\d+)\.(\d+)\b`), "127.0.0.2"},
	{moment, "2026-01-01T00:00:00Z"},
}

// The text of an explanation, for six domains that stand for all: it fits 80
// columns and a screen.
func TestExplanationTexts(t *testing.T) {
	o := operate(t, "")
	for _, domain := range []string{"dane-ee.example", "dane-second.example", "sts.example", "sts-wrong-name.example", "none.example", "null-mx.example"} {
		t.Run(domain, func(t *testing.T) {
			e, err := o.client.Explain(t.Context(), "", &transport.Question{Domain: domain, Depth: transport.Connect})
			if err != nil {
				t.Fatal(err)
			}
			screen := console.Screen{Width: 80, Height: 24, Now: time.Now()}
			if e.MTASTS != nil && e.MTASTS.Fetched != nil {
				screen.Now = *e.MTASTS.Fetched
			}
			text := console.Explanation(screen, e)
			for _, c := range changing {
				text = c.pattern.ReplaceAllString(text, c.put)
			}
			file := filepath.Join("testdata", "explain", domain+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil || text != string(want) {
				t.Errorf("%v; it reads\n%s\nnot\n%s", err, text, want)
			}
			lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
			if len(lines) > 24 && len(e.Hosts) == 1 {
				t.Errorf("%d lines", len(lines))
			}
			for _, line := range lines {
				if len([]rune(line)) > 80 || strings.ContainsRune(line, '\x1b') {
					t.Errorf("%q", line)
				}
			}
		})
	}
}
