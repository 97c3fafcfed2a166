package prometheus

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/internal/lab/world"
	"github.com/mxpipe/mxpipe/policyd/metrics"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

const (
	dashboardFile = "../../contrib/grafana/mxpolicyd.json"
	rulesFile     = "../../contrib/prometheus/mxpolicyd.rules.yml"
	rulesTest     = "../../contrib/prometheus/mxpolicyd.test.yml"
)

// dashboard is what is read of the dashboard.
type dashboard struct {
	Panels []panel
}

type panel struct {
	ID          int
	Type        string
	Title       string
	Description string
	GridPos     struct{ H, W, X, Y int }
	Targets     []struct{ RefID, Expr, LegendFormat string }
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// plain writes a query without the dashboard's variables.
func plain(expr string) string {
	return strings.NewReplacer("$__rate_interval", "10s", "$job", ".*", "$instance", ".*", "$transport", ".*").Replace(expr)
}

// TestDashboard has Prometheus watch mxpolicyd under load. With -v it shows
// what each query of the dashboard returns.
func TestDashboard(t *testing.T) {
	r := newRig(t)
	stop := r.load()
	defer stop()
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			var got []sample
			r.until(fmt.Sprintf("%q has data for %s", p.Title, target.Expr), func() (err error) {
				got, err = r.query(plain(target.Expr))
				return err
			})
			t.Logf("%s (%s)", p.Title, target.LegendFormat)
			for _, s := range got {
				t.Logf("    %v", s)
			}
		}
	}
	r.checkMetrics()
	r.checkOpenMetrics()
	r.checkRules()
}

// load sends mail to all of the lab's domains until the function that it gives
// is called.
func (r *rig) load() func() {
	ctx, cancel := context.WithCancel(r.t.Context())
	var all sync.WaitGroup
	for _, d := range world.Domains() {
		all.Go(func() {
			for ctx.Err() == nil {
				for _, to := range []string{"b", "nosuch", "later"} {
					if err := r.send("default", to+"@"+d.Name); err != nil {
						r.t.Errorf("%s: %v", d.Name, err)
						return
					}
				}
			}
		})
	}
	for range 60 {
		all.Go(func() { // more than the limit lets through
			for ctx.Err() == nil {
				if err := r.send("narrow", "b@none.example"); err != nil {
					r.t.Error(err)
					return
				}
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// checkMetrics has promtool look at what is scraped.
func (r *rig) checkMetrics() {
	text, err := get("http://" + r.mxpolicyd + "/metrics")
	r.must(err)
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		r.t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// checkOpenMetrics asks as Prometheus does, which has scraped without an error.
func (r *rig) checkOpenMetrics() {
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "http://"+r.mxpolicyd+"/metrics", nil)
	r.must(err)
	request.Header.Set("Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
	client := http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	answer, err := client.Do(request)
	r.must(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	r.must(err)
	if kind := answer.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text") || !strings.HasSuffix(string(body), "\n# EOF\n") {
		r.t.Errorf("%s, ending with %q", kind, body[max(0, len(body)-100):])
	}
	// On a busy machine a scrape may take more than its second; the next does
	// not.
	r.until("Prometheus reads it without an error", func() error {
		text, err := get("http://" + r.prometheus + "/api/v1/targets")
		if err != nil {
			return err
		}
		var targets struct {
			Data struct {
				ActiveTargets []struct{ Health, LastError string }
			}
		}
		if err := json.Unmarshal([]byte(text), &targets); err != nil {
			return err
		}
		if all := targets.Data.ActiveTargets; len(all) != 1 || all[0].Health != "up" || all[0].LastError != "" {
			return fmt.Errorf("Prometheus has %+v", all)
		}
		return nil
	})
}

// checkRules has Prometheus say how the alerts' rules do.
func (r *rig) checkRules() {
	text, err := get("http://" + r.prometheus + "/api/v1/rules")
	r.must(err)
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, State, Health, LastError string }
			}
		}
	}
	r.must(json.Unmarshal([]byte(text), &answer))
	n := 0
	for _, g := range answer.Data.Groups {
		for _, rule := range g.Rules {
			if n++; rule.Health != "ok" {
				r.t.Errorf("%s: %s %s", rule.Name, rule.Health, rule.LastError)
			}
		}
	}
	if n == 0 {
		r.t.Error("Prometheus has no rules")
	}
}

// The alerts are well-formed, and their own tests pass.
func TestAlerts(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "--lint=all", "--lint-fatal", rulesFile}, {"test", "rules", rulesTest}} {
		if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// What the dashboard and the alerts ask for is there, and what is there is on
// the dashboard.
func TestNames(t *testing.T) {
	rules, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range metrics.All() {
		known[m.Name] = true
	}
	series := regexp.MustCompile(`\bmxpolicyd_\w+`)
	suffix := regexp.MustCompile(`_(bucket|sum|count)$`)
	shown := map[string]bool{}
	for where, text := range map[string]string{"dashboard": expressions(readDashboard(t)), "alerts": string(rules)} {
		for _, name := range series.FindAllString(text, -1) {
			if !known[name] {
				name = suffix.ReplaceAllString(name, "")
			}
			if !known[name] {
				t.Errorf("the %s ask for %s, which is not there", where, name)
			}
			shown[name] = true
		}
	}
	for name := range known {
		if !shown[name] {
			t.Errorf("%s is neither on the dashboard nor in an alert", name)
		}
	}
	for _, m := range metrics.All() {
		for _, label := range m.Labels {
			if !divides(readDashboard(t), m.Name, label) && label != "goversion" {
				t.Errorf("nothing on the dashboard tells %s apart by %s", m.Name, label)
			}
		}
	}
}

// divides reports whether an expression about a metric has a label.
func divides(d dashboard, name, label string) bool {
	has := regexp.MustCompile(`\b` + label + `\b`)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			if strings.Contains(target.Expr, name) && has.MatchString(target.Expr) {
				return true
			}
		}
	}
	return false
}

func expressions(d dashboard) string {
	var all []string
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, target.Expr)
		}
	}
	return strings.Join(all, "\n")
}

// Every panel has a name, says what it is about, asks for something, and stands
// in no one's place.
func TestPanels(t *testing.T) {
	d := readDashboard(t)
	ids := map[int]bool{}
	place := map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" {
			t.Errorf("panel %d %q: the id is taken, or the title missing", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type != "row" && (p.Description == "" || len(p.Targets) == 0) {
			t.Errorf("%s: no description, or nothing to show", p.Title)
		}
		if !slices.Contains([]string{"row", "stat", "timeseries"}, p.Type) || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s: a %s at %+v", p.Title, p.Type, p.GridPos)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := place[[2]int{x, y}]; other != "" {
					t.Fatalf("%s stands where %s does", p.Title, other)
				}
				place[[2]int{x, y}] = p.Title
			}
		}
		// A count and a rate have no axis in common.
		rates := 0
		for _, target := range p.Targets {
			if strings.Contains(target.Expr, "rate(") {
				rates++
			}
		}
		if rates != 0 && rates != len(p.Targets) {
			t.Errorf("%s: counts and rates", p.Title)
		}
		for _, target := range p.Targets {
			if !strings.Contains(target.Expr, "$job") || !strings.Contains(target.Expr, "$instance") {
				t.Errorf("%s: %s is of all daemons", p.Title, target.Expr)
			}
		}
	}
}
