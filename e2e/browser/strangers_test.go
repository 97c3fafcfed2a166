package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// strangersBefore: nobody gets in without the token, and nobody uses it up.
func strangersBefore(t *testing.T, c *chromium, address string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	b := c.newTab()
	for _, wrong := range []string{
		"http://" + u.Host + "/", "http://" + u.Host + "/?token=" + strings.Repeat("0", 32), "http://" + u.Host + "/api/overview", "http://" + u.Host + "/app.js",
		"http://rebound.example:" + u.Port() + "/?" + u.RawQuery, "http://rebound.example:" + u.Port() + "/api/overview",
	} {
		b.open(wrong)
		nothing(t, b, wrong)
	}
}

// nothing: there is a sentence, and nothing of the page.
func nothing(t *testing.T, b *tab, where string) {
	t.Helper()
	var got struct {
		Text string
		Main bool
	}
	if err := b.eval(`({ text: document.body.innerText, main: Boolean(document.querySelector("main, script")) })`, &got); err != nil {
		t.Fatal(err)
	}
	if got.Main || len(got.Text) > 120 || strings.Contains(got.Text, "{") {
		t.Errorf("%s: %q", where, got.Text)
	}
}

// strangersAfter: the token is good once, and other pages in the same browser
// get nothing and change nothing, though their requests have the cookie.
func strangersAfter(s *session, address string) {
	s.t.Helper()
	again := s.c.newTab()
	again.open(address)
	nothing(s.t, again, "the address a second time")

	origin := address[:strings.Index(address, "/?")]
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<!doctype html><title>evil</title><a id=go href=%q>see</a><iframe src=%q></iframe><img src=%q>", origin, origin, origin+"/icon.svg")
	}))
	defer evil.Close()
	b := s.beside()
	b.open(evil.URL)
	var got []string
	err := b.eval(fmt.Sprintf(`(async () => {
		const origin = %q, body = JSON.stringify({ target: "evil.example" }), all = { credentials: "include" };
		const tries = [
			() => fetch(origin + "/api/overview", all).then((r) => r.text()),
			() => fetch(origin + "/api/overview", { ...all, mode: "no-cors" }).then((r) => r.text()),
			() => import(origin + "/app.js").then(() => "script"),
			() => fetch(origin + "/api/suspend", { ...all, method: "POST", body, headers: { "Content-Type": "application/json" } }).then((r) => r.text()),
			() => fetch(origin + "/api/suspend", { ...all, method: "POST", body, mode: "no-cors" }).then((r) => r.text()),
		];
		return Promise.all(tries.map((f) => f().catch(() => "")));
	})()`, origin), &got)
	if err != nil {
		s.t.Fatal(err)
	}
	if text := strings.Join(got, ""); text != "" {
		s.t.Errorf("another page gets %q", text)
	}
	b.click("link", "see")
	b.until("it has followed the link", fmt.Sprintf("location.origin === %q", origin))
	nothing(s.t, b, "a link of another page")
	if list := s.status().Suspended; len(list) != 0 {
		s.t.Errorf("another page has suspended %v", list)
	}

	// The page's own policy: no script but its own, whatever is put into it.
	b.open(origin + "/")
	b.shows("#live-text", "live")
	b.script(`(() => { const e = document.createElement("script"); e.textContent = "window.inline = true"; document.body.append(e);
		const i = document.createElement("div"); i.innerHTML = "<img src=x onerror='window.handler = true'>"; document.body.append(i);
		setTimeout("window.fromText = true"); const f = document.createElement("script"); f.src = "data:text/javascript,window.data = true"; document.body.append(f); })()`)
	b.until("none of it ran", `new Promise((done) => setTimeout(() => done(!window.inline && !window.handler && !window.fromText && !window.data), 100))`)
	b.close()
}

// close closes a tab.
func (b *tab) close() {
	b.do("Page.close", nil, nil)
}
