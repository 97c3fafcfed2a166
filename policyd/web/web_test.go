package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/transport"
)

// daemon is one that remembers what it was told.
type daemon struct {
	told   []string
	cached admin.CacheList
}

func (d *daemon) Status(context.Context) (admin.Status, error) {
	return admin.Status{Version: "test", Transports: []admin.Transport{}}, nil
}
func (d *daemon) Explain(_ context.Context, _ string, q *transport.Question) (*admin.Explanation, error) {
	if q.Domain == "fails.example" {
		return nil, errors.New("<b>no</b>")
	}
	d.told = append(d.told, "explain "+q.Domain)
	return &admin.Explanation{Domain: q.Domain, Connected: q.Depth == transport.Connect}, nil
}
func (d *daemon) History(context.Context, admin.HistoryQuery) (admin.History, error) {
	return admin.History{}, nil
}
func (d *daemon) Suspend(_ context.Context, target string, lasts time.Duration, reason string) (admin.SuspendedList, error) {
	d.told = append(d.told, "suspend "+target+" "+lasts.String()+" "+reason)
	return admin.SuspendedList{}, nil
}
func (d *daemon) Resume(_ context.Context, target string) (admin.SuspendedList, error) {
	d.told = append(d.told, "resume "+target)
	return admin.SuspendedList{}, nil
}
func (d *daemon) Flush(_ context.Context, domain string) (admin.Flushed, error) {
	d.told = append(d.told, "flush "+domain)
	return admin.Flushed{}, nil
}
func (d *daemon) Untrace(_ context.Context, domain string) (admin.TraceList, error) {
	d.told = append(d.told, "untrace "+domain)
	return admin.TraceList{}, nil
}
func (d *daemon) CacheList(context.Context) (admin.CacheList, error) { return d.cached, nil }
func (d *daemon) Trace(_ context.Context, domain string, lasts time.Duration) (admin.TraceList, error) {
	d.told = append(d.told, "trace "+domain+" "+lasts.String())
	return admin.TraceList{}, nil
}

// start serves a page, and gives its address and the origin of it.
func start(t *testing.T, d Daemon) (address, origin string) {
	t.Helper()
	s, err := Listen("127.0.0.1:0", d, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	address = s.Address()
	origin, _, _ = strings.Cut(address, "/?")
	return address, origin
}

// browser has a jar, as browsers do.
func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar}
}

func get(t *testing.T, c *http.Client, address string, change func(*http.Request)) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, c, r, change)
}

func do(t *testing.T, c *http.Client, r *http.Request, change func(*http.Request)) (int, string, http.Header) {
	t.Helper()
	if change != nil {
		change(r)
	}
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text), answer.Header
}

func TestToken(t *testing.T) {
	address, origin := start(t, &daemon{})
	first, second := browser(t), browser(t)
	for _, path := range []string{"/", "/app.js", "/api/overview", "/nothing", "/?token=" + strings.Repeat("0", 32)} {
		if code, text, _ := get(t, first, origin+path, nil); code != http.StatusForbidden || strings.Contains(text, "<") {
			t.Errorf("%s without the token: %d %q", path, code, text)
		}
	}
	u, err := url.Parse(address)
	if err != nil || len(u.Query().Get("token")) != 32 {
		t.Fatal(address, err)
	}
	code, text, header := get(t, first, address, nil)
	if code != http.StatusOK || !strings.Contains(text, "<title>mxpolicyd</title>") {
		t.Fatal(code, text)
	}
	for name, want := range map[string]string{
		"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	csp := header.Get("Content-Security-Policy")
	if !strings.HasPrefix(csp, "default-src 'none'; script-src 'self'; style-src 'self'") || strings.Contains(csp, "unsafe") {
		t.Error(csp)
	}
	if code, _, _ := get(t, second, address, nil); code != http.StatusForbidden {
		t.Error("the address worked twice")
	}
	if code, _, _ := get(t, first, address, nil); code != http.StatusOK {
		t.Error("a reload by who has the cookie:", code)
	}
	for _, path := range []string{"/app.js", "/dom.js", "/confirm.js", "/holds.js", "/chart.js", "/overview.js", "/deliveries.js", "/domain.js", "/policies.js", "/style.css", "/icon.svg", "/api/overview", "/api/policies"} {
		if code, _, _ := get(t, first, origin+path, nil); code != http.StatusOK {
			t.Error(path, code)
		}
	}
	set := func() *http.Cookie {
		for _, c := range first.Jar.Cookies(u) {
			return c
		}
		return nil
	}()
	if set == nil || len(set.Value) != 32 {
		t.Fatal("no cookie")
	}
}

// TestSeveralPages: browsers keep one set of cookies for all ports of a host,
// and one page does not shut another out.
func TestSeveralPages(t *testing.T) {
	c := browser(t)
	first, firstOrigin := start(t, &daemon{})
	second, secondOrigin := start(t, &daemon{})
	get(t, c, first, nil)
	get(t, c, second, nil)
	for _, origin := range []string{firstOrigin, secondOrigin} {
		if code, text, _ := get(t, c, origin+"/api/overview", nil); code != http.StatusOK {
			t.Errorf("%s: %d %s", origin, code, text)
		}
	}
}

// TestPolicies: those are shown that the filter chooses, and not too many.
func TestPolicies(t *testing.T) {
	d := &daemon{}
	for i := range 1000 {
		d.cached.Policies = append(d.cached.Policies, admin.CachedPolicy{Domain: fmt.Sprintf("d%03d.example", i)})
	}
	address, origin := start(t, d)
	c := browser(t)
	get(t, c, address, nil)
	for what, want := range map[string][3]int{"": {200, 1000, 1000}, "D00": {10, 10, 1000}, "d123.example": {1, 1, 1000}, "none": {0, 0, 1000}} {
		_, text, _ := get(t, c, origin+"/api/policies?what="+what, nil)
		var p policies
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			t.Fatal(err)
		}
		if got := [3]int{len(p.Policies), p.Matching, p.All}; got != want {
			t.Errorf("%q: %v, want %v", what, got, want)
		}
	}
}

// TestCookie: it is kept from scripts and from other sites.
func TestCookie(t *testing.T) {
	address, _ := start(t, &daemon{})
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	_, _, header := get(t, c, address, nil)
	if got := header.Get("Set-Cookie"); !strings.Contains(got, "HttpOnly") || !strings.Contains(got, "SameSite=Strict") {
		t.Error(got)
	}
	if header.Get("Location") != "/" {
		t.Error("the token stays in the address bar")
	}
}

// TestStrangers: who is at another host name or origin gets nothing, with the
// cookie too.
func TestStrangers(t *testing.T) {
	d := &daemon{}
	address, origin := start(t, d)
	c := browser(t)
	get(t, c, address, nil)
	for name, change := range map[string]func(*http.Request){
		"another host":       func(r *http.Request) { r.Host = "evil.example" },
		"a rebound name":     func(r *http.Request) { r.Host = "evil.example:" + r.URL.Port() },
		"another port":       func(r *http.Request) { r.Host = "127.0.0.1:1" },
		"another origin":     func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") },
		"another local page": func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:1") },
		"no origin at all":   func(r *http.Request) { r.Header.Set("Origin", "null") },
		"cross-site":         func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"same-site":          func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
	} {
		if code, text, _ := get(t, c, origin+"/api/overview", change); code != http.StatusForbidden || strings.Contains(text, "test") {
			t.Errorf("%s: %d %q", name, code, text)
		}
	}
	post := func(path, body string, change func(*http.Request)) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, origin+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Origin", origin)
		code, _, _ := do(t, c, r, change)
		return code
	}
	const body = `{"target":"example.org","seconds":60,"reason":"because"}`
	for name, change := range map[string]func(*http.Request){
		"no origin":      func(r *http.Request) { r.Header.Del("Origin") },
		"another origin": func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
		"a form":         func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
		"another method": func(r *http.Request) { r.Method = http.MethodPut },
	} {
		if code := post("/api/suspend", body, change); code/100 == 2 {
			t.Errorf("%s: %d", name, code)
		}
	}
	for _, bad := range []string{"", "{}", "[]", `{"target":"x","seconds":-1}`, `{"target":"x","more":1}`,
		`{"target":"` + strings.Repeat("x", 301) + `"}`, `{"target":"x","reason":"` + strings.Repeat("x", 5000) + `"}`} {
		if code := post("/api/suspend", bad, nil); code/100 == 2 {
			t.Errorf("%.30s: %d", bad, code)
		}
	}
	if code, _, _ := get(t, c, origin+"/api/suspend", nil); code/100 == 2 {
		t.Error("a change by GET")
	}
	if len(d.told) != 0 {
		t.Fatal(d.told)
	}
	for path, want := range map[string]string{
		"/api/suspend": "suspend example.org 1m0s because", "/api/resume": "resume example.org",
		"/api/flush": "flush example.org", "/api/trace": "trace example.org 1m0s", "/api/untrace": "untrace example.org",
	} {
		d.told = nil
		if code := post(path, body, nil); code != http.StatusOK || len(d.told) != 1 || d.told[0] != want {
			t.Errorf("%s: %d %v", path, code, d.told)
		}
	}
}

func TestExplain(t *testing.T) {
	d := &daemon{}
	address, origin := start(t, d)
	client := browser(t)
	get(t, client, address, nil)
	if code, text, _ := get(t, client, origin+"/api/explain?domain=example.org&connect=true", nil); code != http.StatusOK || !strings.Contains(text, `"connected":true`) {
		t.Error(code, text)
	}
	code, text, header := get(t, client, origin+"/api/explain?domain=fails.example", nil)
	if code != http.StatusBadGateway || strings.Contains(text, "<b>") || header.Get("Content-Type") != "application/json" {
		t.Error(code, text)
	}
	for _, c := range []struct{ domain, want string }{{"b@example.org", "explain example.org"}, {"@", ""}, {"b@", ""}} {
		d.told = nil
		get(t, client, origin+"/api/explain?domain="+url.QueryEscape(c.domain), nil)
		if got := strings.Join(d.told, ", "); got != c.want {
			t.Errorf("%s: %q", c.domain, got)
		}
	}
	if code, _, _ := get(t, client, origin+"/api/explain", nil); code != http.StatusBadRequest {
		t.Error(code)
	}
}

func TestLoopbackAlone(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "[::]:0", "example.org:0"} {
		if _, err := Listen(address, &daemon{}, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrNotLoopback) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// TestPage: nothing of the page is from elsewhere, and nothing that is put
// into it is taken as markup.
func TestPage(t *testing.T) {
	entries, err := page.ReadDir("page")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := page.ReadFile("page/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "https://", "//cdn", " onclick=", " style=", "javascript:"} {
			if strings.Contains(string(text), bad) {
				t.Errorf("%s has %s", e.Name(), bad)
			}
		}
	}
}
