package transport

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/pool"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// watched collects events.
type watched struct {
	mu     sync.Mutex
	events []*Event
}

func (w *watched) observe(e *Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// take gives what was seen since the last call.
func (w *watched) take() []*Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.events
	w.events = nil
	return events
}

// watch is to be called before start.
func (l *lab) watch() *watched {
	w := &watched{}
	l.observe = w.observe
	return w
}

// outline says in a line what an attempt shows.
func outline(a *Attempt) string {
	words := []string{a.Proof.Level().String()}
	if !a.Addr.IsValid() {
		words[0] = "not dialled"
	}
	for who, f := range map[string]*verdict.Failure{"fails": a.Failure, "tested": a.TestingFailure} {
		if f != nil {
			words = append(words, who, f.Rule.String(), f.Cause.String())
		}
	}
	for word, is := range map[string]bool{"despite STARTTLS": a.TLSErr != nil, "reused": a.Reused, "delivered": a.Delivered} {
		if is {
			words = append(words, word)
		}
	}
	slices.Sort(words[1:])
	return strings.Join(words, " ")
}

// An event says what a delivery found.
func TestEventOfAVerdict(t *testing.T) {
	t.Parallel()
	ee := tlsaOf(ca.DANEEE, ca.SPKI, ca.SHA256)
	for _, tt := range []struct {
		name string
		scene
		want string
	}{
		{"nothing", scene{}, "authenticated delivered"},
		{"plaintext", scene{world: []thing{noTLS}}, "none delivered"},
		{"broken TLS", scene{world: []thing{breaks}}, "none delivered despite STARTTLS"},
		{"refused TLS", scene{world: []thing{refuses}}, "none delivered despite STARTTLS"},
		{"DANE", scene{world: []thing{signedMX, signedHost, untrusted, ee}}, "authenticated delivered"},
		{"DANE fails", scene{world: []thing{signedHost, tlsaWrong(ca.DANEEE, ca.SPKI, ca.SHA256)}}, "authenticated certificate-not-trusted dane fails"},
		{"DANE without TLS", scene{world: []thing{signedHost, noTLS, ee}}, "none dane fails starttls-not-supported"},
		{"DANE with broken TLS", scene{world: []thing{signedHost, breaks, ee}}, "none dane fails handshake-failed"},
		{"TLSA unknown", scene{world: []thing{signedHost, tlsaBroken}}, "not dialled dane dnssec-invalid fails"},
		{"STS fails", scene{world: []thing{stsEnforce, wrongName}}, "encrypted certificate-host-mismatch fails mtasts"},
		{"STS, expired", scene{world: []thing{stsEnforce, expired}}, "encrypted certificate-expired fails mtasts"},
		{"STS, not listed", scene{world: []thing{stsEnforceElse}}, "not dialled fails mtasts mx-not-listed"},
		{"STS testing", scene{world: []thing{stsTesting, untrusted}}, "encrypted certificate-not-trusted delivered mtasts tested"},
		{"STS testing, not listed", scene{world: []thing{stsTestingElse}}, "authenticated delivered mtasts mx-not-listed tested"},
		{"REQUIRETLS", scene{world: []thing{signedMX, noTLS}, require: true}, "none fails requiretls starttls-not-supported"},
		{"local policy", scene{world: []thing{untrusted}, config: local(verdict.TLSAuthenticated, verdict.MXNone)}, "encrypted certificate-not-trusted fails local_policy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			w := l.watch()
			tt.set(l)
			l.sendAs(func(e *Envelope) { e.RequireTLS = tt.require }, "b@"+theDomain)
			events := w.take()
			if len(events) != 1 || len(events[0].Attempts) != 1 {
				t.Fatalf("%d events: %+v", len(events), events)
			}
			e := events[0]
			got := strings.Fields(outline(&e.Attempts[0]))
			want := strings.Fields(tt.want)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
			a := e.Attempts[0]
			if e.Transport != "default" || e.Destination.Domain != theDomain || a.Verdict.Host != theHost || a.Facts.Host != theHost || len(e.Results) != 1 || e.Took <= 0 {
				t.Errorf("%+v", e)
			}
			dialled := a.Addr.IsValid()
			if dialled != a.Local.IsValid() || dialled != (e.Phases[PhaseConnect] > 0) || dialled != (e.Phases[PhaseGreeting] > 0) ||
				dialled != (e.Phases[PhaseWait] > 0) || e.Phases[PhaseDNS] <= 0 || a.Delivered != (e.Phases[PhaseTransaction] > 0) {
				t.Errorf("phases %v, from %v to %v", e.Phases, a.Local, a.Addr)
			}
		})
	}
}

// One event for each destination; the phases that a warm connection spares are
// not in it.
func TestEvents(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	w := l.watch()
	l.mx("mx1.a.example", nil)
	l.mx("mx2.a.example", func(h *mx.Behaviour) { h.At = map[mx.Stage]mx.Action{mx.StageRCPT: {Reply: "450 4.2.1 later"}} })
	l.zone("a.example. MX 10 mx1.a.example.\nb.example. MX 5 mx2.a.example.\nb.example. MX 10 mx1.a.example.")
	l.startPooled(func(c *Config) { c.Limits[limit.Destination].Concurrency = 5 })

	l.send("x@a.example", "nosuch@a.example", "y@b.example", "nowhere")
	byDomain := map[string]*Event{}
	for _, e := range w.take() {
		byDomain[e.Destination.Domain] = e
	}
	if e := byDomain["a.example"]; e == nil || fmt.Sprint(e.Results) != "[2.0.0 5.1.1]" || len(e.Attempts) != 1 {
		t.Errorf("a.example: %+v", e)
	}
	if e := byDomain["b.example"]; e == nil || fmt.Sprint(e.Results) != "[2.0.0]" || len(e.Attempts) != 2 || e.Attempts[0].Delivered || !e.Attempts[1].Delivered {
		t.Errorf("b.example: %+v", e)
	}
	if e := byDomain[""]; e == nil || fmt.Sprint(e.Results) != "[5.1.3]" || e.Transport != "default" {
		t.Errorf("no domain: %+v", e)
	}
	if len(byDomain) != 3 {
		t.Errorf("%v", byDomain)
	}

	l.sendAs(func(e *Envelope) { e.Waited = 42 }, "x@a.example")
	warm := w.take()[0]
	if warm.Phases[PhaseConnect]+warm.Phases[PhaseGreeting]+warm.Phases[PhaseTLS] != 0 || !warm.Attempts[0].Reused || warm.Phases[PhaseWait] <= 42 {
		t.Errorf("warm: %+v", warm)
	}

	s := l.transport.Stats()
	if s.Deliveries != 0 || s.Open == 0 || s.Open != s.Pool.Idle || s.Opened < 2 || s.Pool.Reused == 0 || s.Limits[limit.Destination].Keys == 0 || s.Dead != 0 {
		t.Errorf("%+v", s)
	}
	l.idle.Stop()
	l.transport.Close()
	if s := l.transport.Stats(); s.Open != 0 || s.Pool.Retired[pool.Stopped] == 0 {
		t.Errorf("after Close: %+v", s)
	}
}
