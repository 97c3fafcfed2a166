package metrics_test

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/policyd/metrics"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/dane"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/pin"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden list of metrics anew")

// usual are the counts of a daemon with one transport and one resolver.
func usual() metrics.Counts {
	return metrics.Counts{
		Transports: map[string]*transport.Stats{"default": {Deliveries: 3, Open: 7, Opened: 9}},
		Servers:    []resolver.ServerStats{{Server: "127.0.0.1:53", Queries: 4, Secure: 3, Insecure: 1, Took: 2 * time.Second}},
		Reloaded:   time.Unix(1000, 0), MaxDeliveries: 1000, Messages: 5, Warnings: 2,
		Memory: map[string]cache.Usage{"plans": {Entries: 3, Bytes: 3000, MaxBytes: 64 << 20}},
	}
}

// serve serves metrics and gives the address.
func serve(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := m.NewServer(slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx, ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		s.Wait()
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + l.Addr().String()
}

// Who asks for OpenMetrics gets it, as a whole; everybody else gets the text
// format, with the same series.
func TestOpenMetrics(t *testing.T) {
	m := metrics.New("1.2.3", usual)
	url := serve(t, m) + "/metrics"
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	// as Prometheus 2 asks
	request.Header.Set("Accept", "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if kind := answer.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text; version=1.0.0") || !strings.HasSuffix(string(text), "\n# EOF\n") {
		t.Errorf("%s, ending with %q", kind, text[max(0, len(text)-100):])
	}
	usually := get(t, url)
	if strings.Contains(usually, "# EOF") {
		t.Error("OpenMetrics for who did not ask for it")
	}
	for _, one := range metrics.All() {
		if line := "# HELP " + strings.TrimSuffix(one.Name, "_total") + " "; !strings.Contains(string(text), line) && strings.Contains(usually, "# HELP "+one.Name+" ") {
			t.Errorf("%s is not in OpenMetrics", one.Name)
		}
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v %s", url, err, answer.Status)
	}
	return string(text)
}

func scrape(t *testing.T, m *metrics.Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(get(t, serve(t, m)+"/metrics")))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// value gives a counter's or gauge's value, or a histogram's count, by its
// labels: "transport=default result=deferred".
func value(t *testing.T, families map[string]*dto.MetricFamily, name, labels string) float64 {
	t.Helper()
	want := strings.Fields(labels)
	slices.Sort(want)
	for _, m := range families[name].GetMetric() {
		var got []string
		for _, l := range m.GetLabel() {
			got = append(got, l.GetName()+"="+l.GetValue())
		}
		slices.Sort(got)
		if slices.Equal(got, want) {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount()+m.GetSummary().GetSampleCount())
		}
	}
	t.Errorf("%s has no %q", name, labels)
	return 0
}

// The list for the documentation is that of what is scraped, and does not
// change by accident: people have dashboards and alerts that use the names.
func TestAll(t *testing.T) {
	m := metrics.New("1.2.3", usual)
	m.Transport("default")
	families := scrape(t, m)
	var golden strings.Builder
	listed := map[string]bool{}
	for _, d := range metrics.All() {
		listed[d.Name] = true
		fmt.Fprintf(&golden, "%s %s %s\n", d.Name, d.Type, strings.Join(d.Labels, ","))
		f := families[d.Name]
		if f == nil {
			t.Errorf("%s is listed and not there", d.Name)
			continue
		}
		if strings.ToLower(f.GetType().String()) != string(d.Type) || f.GetHelp() != d.Help {
			t.Errorf("%s is listed as a %s, %q; it is a %s, %q", d.Name, d.Type, d.Help, f.GetType(), f.GetHelp())
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName())
			}
			want := slices.Clone(d.Labels)
			slices.Sort(labels)
			slices.Sort(want)
			if !slices.Equal(labels, want) {
				t.Errorf("%s has labels %q, listed are %q", d.Name, labels, want)
			}
		}
		if !strings.HasSuffix(d.Help, ".") || len(d.Help) < 40 {
			t.Errorf("%s: the help text says too little: %q", d.Name, d.Help)
		}
	}
	for name := range families {
		if !listed[name] && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is there and not listed", name)
		}
	}
	for _, name := range []string{"go_goroutines", "process_open_fds"} {
		if families[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	const file = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(file, []byte(golden.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != golden.String() {
		t.Errorf("the metrics are not those of %s (%v); if that is meant, go test ./policyd/metrics -update:\n%s", file, err, &golden)
	}
}

// Nothing that others can make up becomes a label.
func TestLabelsAreBounded(t *testing.T) {
	m := metrics.New("1", usual)
	for i := range 100 {
		e := event("default", status.New(status.Success, 0, 0))
		e.Destination.Domain = fmt.Sprintf("domain%d.example", i)
		e.Attempts[0].Verdict.Host = "mx." + e.Destination.Domain
		e.Attempts[0].Addr = netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
		m.Observe(e)
	}
	text := get(t, serve(t, m)+"/metrics")
	for _, word := range []string{"domain", ".example", "192.0.2"} {
		for line := range strings.Lines(text) {
			if strings.Contains(line, word) && !strings.HasPrefix(line, "# HELP") {
				t.Errorf("a stranger's %s in %s", word, line)
			}
		}
	}
	if n := strings.Count(text, "\n"); n > 900 {
		t.Errorf("%d lines for one transport", n)
	}
}

func event(name string, codes ...status.Code) *transport.Event {
	e := &transport.Event{Transport: name, Results: codes, Took: 20 * time.Millisecond}
	e.Phases[transport.PhaseDNS] = time.Millisecond
	e.Phases[transport.PhaseTransaction] = 10 * time.Millisecond
	e.Attempts = []transport.Attempt{{Facts: &verdict.Facts{}, Verdict: &verdict.Verdict{MX: verdict.MXDNSSEC}, Delivered: true}}
	e.Attempts[0].Proof = verdict.Proof{TLS: 0x304, DANE: &dane.Match{}}
	return e
}

func TestObserve(t *testing.T) {
	m := metrics.New("1", usual)
	ok, no, later := status.New(status.Success, 0, 0), status.New(status.Permanent, 1, 1), status.New(status.Temporary, 2, 0)
	m.Observe(event("default", ok))
	m.Observe(event("default", ok, no))
	m.Observe(event("other", ok, no, later))
	// an impossible address
	m.Observe(&transport.Event{Transport: "default", Results: []status.Code{no}})
	folded := event("third", ok)
	folded.Folds = 3
	m.Observe(folded)
	// Old TLS is no TLS to a policy, whatever its certificate; a connection
	// used again makes no handshake.
	old := event("old", ok)
	old.Attempts[0].Proof = verdict.Proof{TLS: 0x301, Hello: handshake.Compatible, DANE: &dane.Match{}, WebPKI: "mx"}
	m.Observe(old)
	old.Attempts[0].Reused = true
	m.Observe(old)
	pinned := event("old", ok)
	pinned.Attempts[0].Proof = verdict.Proof{TLS: 0x304, Group: tls.X25519, Pin: pin.Pin{1}}
	m.Observe(pinned)
	failed := event("default", later)
	failed.Attempts[0].Delivered = false
	failed.Resent = 2
	failed.Attempts[0].Failure = &verdict.Failure{Rule: verdict.DANE, Cause: verdict.TLSALookup}
	failed.Attempts[0].TestingFailure = &verdict.Failure{Rule: verdict.MTASTS, Cause: verdict.NotListed}
	m.Observe(failed)
	families := scrape(t, m)
	for _, want := range []struct {
		name, labels string
		value        float64
	}{
		{"mxpolicyd_delivery_security_total", "transport=old tls_level=none mx_level=dnssec proof=none", 2},
		{"mxpolicyd_delivery_security_total", "transport=old tls_level=authenticated mx_level=dnssec proof=pin", 1},
		{"mxpolicyd_tls_handshakes_total", "transport=old version=TLS1.0 group=RSA hello=compatible", 1},
		{"mxpolicyd_tls_handshakes_total", "transport=old version=TLS1.3 group=X25519 hello=full", 1},
		{"mxpolicyd_deliveries_total", "transport=default result=delivered", 1},
		{"mxpolicyd_deliveries_total", "transport=default result=refused", 2},
		{"mxpolicyd_deliveries_total", "transport=default result=deferred", 1},
		{"mxpolicyd_deliveries_total", "transport=other result=deferred", 1},
		{"mxpolicyd_recipients_total", "transport=default result=delivered", 2},
		{"mxpolicyd_recipients_total", "transport=other result=refused", 1},
		{"mxpolicyd_delivery_duration_seconds", "transport=default", 3},
		{"mxpolicyd_delivery_phase_duration_seconds", "transport=default phase=dns", 3},
		{"mxpolicyd_delivery_phase_duration_seconds", "transport=default phase=tls", 0},
		{"mxpolicyd_delivery_security_total", "transport=default tls_level=authenticated mx_level=dnssec proof=dane", 2},
		{"mxpolicyd_policy_failures_total", "policy=dane cause=dnssec-invalid mode=enforced", 1},
		{"mxpolicyd_policy_failures_total", "policy=mtasts cause=mx-not-listed mode=testing", 1},
		{"mxpolicyd_deliveries_changed_total", "transport=third change=folded", 1},
		{"mxpolicyd_deliveries_changed_total", "transport=third change=stray_cr", 0},
		{"mxpolicyd_resends_total", "transport=default", 2},
		{"mxpolicyd_resends_total", "transport=other", 0},
		{"mxpolicyd_deliveries_in_progress", "transport=default", 3},
		{"mxpolicyd_connections_opened_total", "transport=default", 9},
		{"mxpolicyd_dns_query_duration_seconds", "server=127.0.0.1:53", 4},
		{"mxpolicyd_dns_answers_total", "server=127.0.0.1:53 secure=true", 3},
		{"mxpolicyd_dns_server_up", "server=127.0.0.1:53", 1},
		{"mxpolicyd_config_last_reload_successful", "", 1},
		{"mxpolicyd_config_last_reload_success_timestamp_seconds", "", 1000},
		{"mxpolicyd_log_messages_total", "level=warn", 2},
	} {
		if got := value(t, families, want.name, want.labels); got != want.value {
			t.Errorf("%s %s is %v, want %v", want.name, want.labels, got, want.value)
		}
	}
}

// Who scrapes gets the metrics and nothing else.
func TestServer(t *testing.T) {
	url := serve(t, metrics.New("1.2.3", usual))
	if text := get(t, url+"/"); !strings.Contains(text, "/metrics") {
		t.Errorf("%q", text)
	}
	for _, request := range []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, "/debug/pprof/", http.StatusNotFound},
		{http.MethodPost, "/metrics", http.StatusMethodNotAllowed},
		{http.MethodHead, "/metrics", http.StatusOK},
	} {
		r, err := http.NewRequestWithContext(t.Context(), request.method, url+request.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != request.status {
			t.Errorf("%s %s: %s", request.method, request.path, answer.Status)
		}
	}
}

// Connections without a request, however many, are bounded, and keep no client
// from scraping.
func TestIdleConnections(t *testing.T) {
	url := serve(t, metrics.New("1.2.3", usual))
	address := strings.TrimPrefix(url, "http://")
	var idle []net.Conn
	for i := range 300 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 { // half of them begin one
			c.Write([]byte("GET /metrics HTTP/1.1\r\n"))
		}
		idle = append(idle, c)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	answer, err := client.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	// All but 64 were closed; one of these is the scrape's.
	for _, c := range idle[:300-64] {
		c.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("an idle connection is still open")
		}
	}
}

// What a delivery pays for being counted.
func BenchmarkObserve(b *testing.B) {
	m := metrics.New("1", usual)
	e := event("default", status.New(status.Success, 0, 0))
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(e)
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	m := metrics.New("1", usual)
	e := event("default", status.New(status.Success, 0, 0))
	m.Observe(e)
	if n := testing.AllocsPerRun(100, func() { m.Observe(e) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
