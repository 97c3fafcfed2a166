package policyd

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/console"
	"github.com/mxpipe/mxpipe/transport"
)

// to sends a message to a domain.
func (o *operated) to(domain string) string {
	return o.send(func(e *wire.Envelope) {
		e.Recipients, e.QueueID = []wire.Recipient{{Address: "b@" + domain}}, domain
	})
}

// text is what a console would show.
func plain[T any](write func(console.Screen, *T) string, value *T) string {
	return write(console.Screen{Width: 100, Now: time.Now()}, value)
}

// The status tells of deliveries under way, idle connections, dead hosts and
// caches, and of a configuration with mistakes.
func TestStatus(t *testing.T) {
	o := operate(t, "    limits: {destination: {concurrency: 3}}")
	want(t, o.to("dane-ee.example"), "2.0.0 ")
	want(t, o.to("sts.example"), "2.0.0 ")
	want(t, o.to("all-down.example"), "4.4.1 ")
	server := o.world.Server("mx.none.example")
	gate := make(chan struct{})
	h := server.Behaviour()
	h.At = map[mx.Stage]mx.Action{mx.StageMAIL: {Hold: gate, Times: 1}}
	server.SetBehaviour(h)
	conn := o.call(func(e *wire.Envelope) {
		e.Recipients, e.QueueID = []wire.Recipient{{Address: "b@none.example"}}, "held"
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := server.WaitUntil(ctx, func(c mx.Counters) bool { return c.Verbs["MAIL"] > 0 }); err != nil {
		t.Fatal(err)
	}
	s, err := o.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.PID != os.Getpid() || s.Messages != 1 || s.MaxDeliveries != 1000 || s.Overdue != 0 || s.Rejected != nil {
		t.Errorf("%+v", s)
	}
	held := map[string]admin.Memory{}
	for _, m := range s.Memory {
		if held[m.Name] = m; m.Bytes > m.MaxBytes || m.MaxBytes == 0 {
			t.Errorf("%+v", m)
		}
	}
	for _, name := range []string{"dns", "mtasts", "plans", "chains", "tls_sessions", "dead_hosts", "limits", "slowed", "history", "messages", "envelopes"} {
		if m := held[name]; m.Bytes == 0 {
			t.Errorf("of %s: %+v", name, m)
		}
	}
	documented, err := os.ReadFile("../docs/admin.md")
	if err != nil {
		t.Fatal(err)
	}
	_, row, _ := strings.Cut(string(documented), "## Memory")
	_, row, _ = strings.Cut(row, "| `name` |")
	row, _, _ = strings.Cut(row, "\n")
	for name := range held {
		if !strings.Contains(row, "`"+name+"`") {
			t.Errorf("docs/admin.md does not say what the memory %s is", name)
		}
	}
	if s.Resolver.Entries == 0 || len(s.Resolver.Servers) != 1 || len(s.Policies) != 1 || s.Policies[0].Fetches != 1 {
		t.Errorf("%+v, %+v", s.Resolver, s.Policies)
	}
	if len(s.Transports) != 1 {
		t.Fatalf("%+v", s.Transports)
	}
	tr := s.Transports[0]
	if tr.Name != "default" || tr.Idle != 2 || len(tr.Hosts) != 2 || len(tr.Dead) != 1 || len(tr.Limits) != 1 || tr.Limits[0].Open != 1 {
		t.Errorf("%+v", tr)
	}
	if len(tr.Deliveries) != 1 || tr.Deliveries[0].QueueID != "held" || tr.Deliveries[0].Host != "mx.none.example" {
		t.Errorf("%+v", tr.Deliveries)
	}
	want(t, plain(console.Status, &s), "mxpolicyd ", "1 of 1000 in progress", "held ", "to none.example at mx.none.example, 1 recipient, for ",
		"mx.all-down.example:", "could not be reached", "destination: ", "2 idle connections", "1 fetch, 0 failures")

	// A dead host is seen where the domain is explained.
	e, err := o.client.Explain(t.Context(), "default", &transport.Question{Domain: "all-down.example"})
	if err != nil || e.Hosts[0].Dead == nil || e.Forecast() != transport.Undeliverable {
		t.Errorf("%+v, %v", e, err)
	}
	want(t, plain(console.Explanation, e), "all-down.example: would be deferred: 4.4.1 mx.all-down.example: ", "connection refused (not tried since ", "next attempt in ", "could not be reached")
	close(gate)
	want(t, answer(conn), "2.0.0 ")

	o.reload("nosuch: 1\n", "configuration not reloaded")
	if s, err = o.client.Status(t.Context()); err != nil || s.Rejected == nil {
		t.Errorf("%+v, %v", s, err)
	}
	want(t, plain(console.Status, &s), "mxpolicyd ", "has mistakes and is not in use")
}

// What is cached can be listed, shown and forgotten by domain.
func TestCache(t *testing.T) {
	o := operate(t, "")
	for _, domain := range []string{"sts.example", "sts-testing.example", "dane-ee.example"} {
		want(t, o.to(domain), "2.0.0 ")
	}
	o.stored("sts.example")
	o.stored("sts-testing.example")
	l, err := o.client.CacheList(t.Context())
	if err != nil || len(l.Policies) != 2 || l.Policies[0].Domain != "sts-testing.example" || l.Policies[1].Mode != "enforce" || len(l.Names) < 6 {
		t.Errorf("%+v, %v", l, err)
	}
	want(t, plain(console.CacheList, &l), "MTA-STS: 2 policies\n", "sts.example ", "enforce, id 1, expires in ", "_mta-sts.sts.example ", "TXT")
	one, err := o.client.Cached(t.Context(), "STS.example.")
	if err != nil || len(one.Policies) != 1 || len(one.Policies[0].MX) != 1 {
		t.Errorf("%+v, %v", one, err)
	}
	want(t, plain(console.Cached, &one), "MTA-STS: enforce", "sts.example MX: 1 record", "10 mx.sts.example.", "mx.sts.example A: 1 record", "_mta-sts.sts.example TXT: ")
	f, err := o.client.Flush(t.Context(), "sts.example")
	if err != nil || f.Policies != 1 || f.Answers < 4 {
		t.Errorf("%+v, %v", f, err)
	}
	if one, err = o.client.Cached(t.Context(), "sts.example"); err != nil || len(one.Policies)+len(one.Answers) != 0 {
		t.Errorf("%+v, %v", one, err)
	}
	want(t, plain(console.Cached, &one), "nothing is cached for sts.example\n")
	files, _ := os.ReadDir(o.dir + "/state/mtasts_cache")
	if len(files) != 1 {
		t.Errorf("%v on disk", files)
	}
	want(t, o.to("sts.example"), "2.0.0 ") // by a policy that was fetched again
	o.stored("sts.example")
	if s, err := o.client.Status(t.Context()); err != nil || s.Policies[0].Fetches != 3 {
		t.Errorf("%+v, %v", s.Policies, err)
	}
	if f, err = o.client.Flush(t.Context(), ""); err != nil || f.Policies != 2 {
		t.Errorf("%+v, %v", f, err)
	}
	want(t, console.Flushed(console.Screen{}, &f), "flushed: 2 MTA-STS policies, ")
	if l, err = o.client.CacheList(t.Context()); err != nil || len(l.Policies)+len(l.Names) != 0 {
		t.Errorf("%+v, %v", l, err)
	}
}

// One domain's dialogue is in the log for a while, and no other's, and no body.
func TestTraceOverTheSocket(t *testing.T) {
	o := operate(t, "")
	l, err := o.client.Trace(t.Context(), "DANE-EE.example", time.Hour)
	if err != nil || len(l.Traces) != 1 || l.Traces[0].Domain != "dane-ee.example" || time.Until(l.Traces[0].Until) < 59*time.Minute {
		t.Errorf("%+v, %v", l, err)
	}
	want(t, plain(console.Traces, &l), "dane-ee.example: traced for ")
	want(t, o.to("dane-ee.example"), "2.0.0 ")
	want(t, o.to("none.example"), "2.0.0 ")
	for _, said := range []string{"msg=route", "msg=verdict", `C="EHLO client.example"`, "C=STARTTLS", `C="MAIL FROM:<s@example.org>`, `S="250 2.0.0 queued`} {
		want(t, o.logged.Wait(t, said), "", "queue_id=dane-ee.example")
	}
	for line := range strings.Lines(o.logged.String()) {
		if strings.Contains(line, "msg=smtp") && strings.Contains(line, "none.example") || strings.Contains(line, "a test") {
			t.Errorf("in the log: %s", line)
		}
	}
	if l, err = o.client.Untrace(t.Context(), "dane-ee.example"); err != nil || len(l.Traces) != 0 {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err = o.client.Untrace(t.Context(), "dane-ee.example"); err == nil || !strings.Contains(err.Error(), "is not traced") {
		t.Error(err)
	}
	if l, err = o.client.Traces(t.Context()); err != nil || plain(console.Traces, &l) != "no domain is being traced\n" {
		t.Errorf("%+v, %v", l, err)
	}
	o.logged.Forget()
	want(t, o.to("dane-ee.example"), "2.0.0 ")
	if n := o.logged.Count("msg=smtp"); n != 0 {
		t.Errorf("%d lines of a dialogue", n)
	}
}

// raw makes one request as a script would.
func (o *operated) raw(method, path string) (int, string) {
	o.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", o.dir+"/admin.sock")
	}}}
	request, err := http.NewRequestWithContext(o.t.Context(), method, "http://mxpolicyd"+path, nil)
	if err != nil {
		o.t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		o.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// Who asks the wrong thing is told so, in JSON.
func TestAdminRefusals(t *testing.T) {
	o := operate(t, "")
	for _, tt := range []struct {
		method, path string
		status       int
		says         string
	}{
		{"GET", "/v1/nosuch", 404, "there is no /v1/nosuch"},
		{"GET", "/", 404, "there is no /"},
		{"GET", "/v1/explain", 400, "domain is missing"},
		{"GET", "/v1/explain?domain=a.example&connect=perhaps", 400, "connect is true or false"},
		{"GET", "/v1/explain?domain=a.example&transport=nosuch", 404, `transport \"nosuch\": not found`},
		{"GET", "/v1/cache/a..b", 400, "not a domain name"},
		{"DELETE", "/v1/cache/a%20b", 400, "not a domain name"},
		{"PUT", "/v1/trace/a.example?for=25h", 400, "at most 24h"},
		{"PUT", "/v1/trace/a.example?for=-1s", 400, "at most 24h"},
		{"DELETE", "/v1/trace/a.example", 404, "a.example is not traced"},
	} {
		status, body := o.raw(tt.method, tt.path)
		var said admin.Failure
		if err := json.Unmarshal([]byte(body), &said); err != nil || status != tt.status || !strings.Contains(body, tt.says) {
			t.Errorf("%s %s: %d %s, %v", tt.method, tt.path, status, body, err)
		}
	}
	if status, _ := o.raw("POST", "/v1/status"); status != 404 && status != 405 {
		t.Errorf("POST: %d", status)
	}
	for _, path := range []string{"/v1/status", "/v1/explain?domain=null-mx.example", "/v1/explain?domain=sts.example&connect=true", "/v1/cache", "/v1/cache/a.example", "/v1/trace"} {
		if status, body := o.raw("GET", path); status != 200 || strings.Contains(body, "null,") || strings.Contains(body, "null\n") {
			t.Errorf("%s: %d\n%s", path, status, body)
		}
	}
	if status, body := o.raw("GET", "/debug/pprof/goroutine?debug=1"); status != 200 || !strings.Contains(body, "goroutine profile") {
		t.Errorf("pprof: %d %.100s", status, body)
	}
}

// No one but root and the daemon's user can open the socket, and the profiler
// is not there unless it is asked for.
func TestAdminSocketIsPrivate(t *testing.T) {
	l := newLab(t)
	r := l.daemon(strings.Replace(l.yaml("", "", ""), `"0600"}}`, `"0600"}, admin: {path: `+l.dir+`/admin.sock}}`, 1))
	info, err := os.Stat(l.dir + "/admin.sock")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	o := &operated{running: r}
	if status, _ := o.raw("GET", "/debug/pprof/"); status != 404 {
		t.Errorf("the profiler answers %d", status)
	}
	if _, err := admin.NewClient(l.dir + "/pipe.sock2").Status(t.Context()); !errors.Is(err, admin.ErrNotRunning) {
		t.Errorf("%v", err)
	}
}

// A daemon that stops does not wait for those who ask slowly, or for ever.
func TestAdminAtTheEnd(t *testing.T) {
	o := operate(t, "")
	conn, err := net.Dial("unix", o.dir+"/admin.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /v1/st")); err != nil {
		t.Fatal(err)
	}
	if _, err := o.client.Status(t.Context()); err != nil { // it was accepted
		t.Fatal(err)
	}
	o.end()
	conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
}
