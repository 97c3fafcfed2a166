package policyd

import (
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
)

// scraped is what Prometheus would get, by series.
type scraped map[string]float64

// scrape asks the daemon for its metrics.
func (r *running) scrape(at string) scraped {
	r.t.Helper()
	client := http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	answer, err := client.Get("http://" + at + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	s := scraped{}
	for line := range strings.Lines(string(text)) {
		if series, value, ok := strings.Cut(strings.TrimSpace(line), "} "); ok {
			s[series+"}"], _ = strconv.ParseFloat(value, 64)
		} else if series, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			s[series], _ = strconv.ParseFloat(value, 64)
		}
	}
	return s
}

// settled asks until the daemon is so far; a message is let go after its
// answer, and old transports end after a reload.
func (r *running) settled(at string, there func(scraped) bool) (s scraped) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if s = r.scrape(at); there(s) || time.Now().After(deadline) {
			return s
		}
	}
}

func (s scraped) want(t *testing.T, series string, value float64) {
	t.Helper()
	if got, ok := s[series]; !ok || got != value {
		t.Errorf("%s is %v (there: %v), want %v", series, got, ok, value)
	}
}

// What has been counted stays counted when a reload puts another transport,
// resolver and MTA-STS cache in the place of the ones that counted; what is
// there now is that of the new ones.
func TestMetricsOutliveAReload(t *testing.T) {
	l := newLab(t)
	const policies = "    mx_auth: {mtasts: {cache: ram}}\n"
	at := ports.AddressFor(l.t)
	before := strings.Replace(l.yaml("", policies, ""), "listen: {", "listen: {metrics: {address: "+at+"}, ", 1)
	r := l.daemon(before)
	s := r.scrape(at)
	s.want(t, `mxpolicyd_deliveries_total{result="delivered",transport="default"}`, 0)
	s.want(t, `mxpolicyd_config_last_reload_successful`, 1)
	s.want(t, `mxpolicyd_build_info{goversion="`+runtime.Version()+`",version="7.7.7"}`, 1)
	for range 3 {
		want(t, r.send(nil), "2.0.0 ")
	}
	s = r.settled(at, func(s scraped) bool { return s[`mxpolicyd_messages_in_progress`] == 0 })
	s.want(t, `mxpolicyd_deliveries_total{result="delivered",transport="default"}`, 3)
	s.want(t, `mxpolicyd_connections_opened_total{transport="default"}`, 1)
	s.want(t, `mxpolicyd_pool_reused_total{transport="default"}`, 2)
	s.want(t, `mxpolicyd_pool_idle_connections{transport="default"}`, 1)
	s.want(t, `mxpolicyd_connections_open{transport="default"}`, 1)
	s.want(t, `mxpolicyd_delivery_phase_duration_seconds_count{phase="greeting",transport="default"}`, 1)
	s.want(t, `mxpolicyd_delivery_phase_duration_seconds_count{phase="transaction",transport="default"}`, 3)
	s.want(t, `mxpolicyd_delivery_security_total{mx_level="none",proof="none",tls_level="none",transport="default"}`, 3)
	s.want(t, `mxpolicyd_messages_in_progress`, 0)
	s.want(t, `mxpolicyd_max_deliveries`, 1000)
	queries, hits := s[`mxpolicyd_dns_query_duration_seconds_count{server="`+l.dns.Addr()+`"}`], s[`mxpolicyd_cache_hits_total{cache="mtasts"}`]
	if queries == 0 || hits == 0 || s[`mxpolicyd_cache_entries{cache="dns"}`] == 0 {
		t.Errorf("%v questions, %v hits", queries, hits)
	}

	r.reload(strings.Replace(before, "timeout: 2s", "timeout: 3s", 1), reloaded)
	l.until("the end of the idle connection", func(c mx.Counters) bool { return c.Open == 0 })
	s = r.settled(at, func(s scraped) bool {
		return s[`mxpolicyd_pool_retired_total{reason="stopped",transport="default"}`] == 1 && s[`mxpolicyd_cache_entries{cache="dns"}`] == 0
	})
	s.want(t, `mxpolicyd_pool_retired_total{reason="stopped",transport="default"}`, 1)
	s.want(t, `mxpolicyd_deliveries_total{result="delivered",transport="default"}`, 3)
	s.want(t, `mxpolicyd_connections_opened_total{transport="default"}`, 1)
	s.want(t, `mxpolicyd_connections_open{transport="default"}`, 0)
	s.want(t, `mxpolicyd_pool_reused_total{transport="default"}`, 2)
	s.want(t, `mxpolicyd_pool_idle_connections{transport="default"}`, 0)
	s.want(t, `mxpolicyd_dns_query_duration_seconds_count{server="`+l.dns.Addr()+`"}`, queries)
	s.want(t, `mxpolicyd_cache_hits_total{cache="mtasts"}`, hits)
	s.want(t, `mxpolicyd_cache_entries{cache="dns"}`, 0)
	want(t, r.send(nil), "2.0.0 ")
	s = r.scrape(at)
	s.want(t, `mxpolicyd_deliveries_total{result="delivered",transport="default"}`, 4)
	s.want(t, `mxpolicyd_connections_opened_total{transport="default"}`, 2)

	read := s[`mxpolicyd_config_last_reload_success_timestamp_seconds`]
	r.reload(before+"nosuch: 1\n", "nosuch")
	s = r.scrape(at)
	s.want(t, `mxpolicyd_config_last_reload_successful`, 0)
	s.want(t, `mxpolicyd_config_last_reload_success_timestamp_seconds`, read)
}
