package browser

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"
)

// tab is one tab of a browser.
type tab struct {
	c       *chromium
	session string
	context string // whose cookies it has

	mu       sync.Mutex
	requests []string // URLs that were asked for
	errors   []string // of the console and of scripts
}

// newTab opens an empty tab without cookies: a browser of its own, for all that
// matters here.
func (c *chromium) newTab() *tab {
	c.t.Helper()
	var made struct{ BrowserContextID string }
	if err := c.call("", "Target.createBrowserContext", map[string]any{}, &made); err != nil {
		c.t.Fatal(err)
	}
	return c.tabIn(made.BrowserContextID)
}

// beside opens an empty tab that has the same cookies.
func (b *tab) beside() *tab {
	b.c.t.Helper()
	return b.c.tabIn(b.context)
}

func (c *chromium) tabIn(context string) *tab {
	c.t.Helper()
	var made struct{ TargetID, SessionID string }
	for _, step := range []struct {
		method string
		params func() any
	}{
		{"Target.createTarget", func() any {
			return map[string]any{"url": "about:blank", "browserContextId": context}
		}},
		{"Target.attachToTarget", func() any { return map[string]any{"targetId": made.TargetID, "flatten": true} }},
	} {
		if err := c.call("", step.method, step.params(), &made); err != nil {
			c.t.Fatal(err)
		}
	}
	b := &tab{c: c, session: made.SessionID, context: context}
	c.mu.Lock()
	c.tabs[b.session] = b
	c.mu.Unlock()
	for _, domain := range []string{"Page", "Network", "Runtime", "Log"} {
		b.do(domain+".enable", nil, nil)
	}
	return b
}

// do calls a method that must succeed.
func (b *tab) do(method string, params, result any) {
	b.c.t.Helper()
	if err := b.c.call(b.session, method, params, result); err != nil {
		b.c.t.Fatal(err)
	}
}

// note keeps what an event says.
func (b *tab) note(method string, params json.RawMessage) {
	var e struct {
		Request          struct{ URL string }
		Entry            struct{ Level, Text, URL string }
		Type             string
		ExceptionDetails struct {
			Text      string
			Exception struct{ Description string }
		}
		Args []struct{ Value any }
	}
	if json.Unmarshal(params, &e) != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch method {
	case "Network.requestWillBeSent":
		b.requests = append(b.requests, e.Request.URL)
	case "Log.entryAdded":
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			b.errors = append(b.errors, e.Entry.Text+" "+e.Entry.URL)
		}
	case "Runtime.exceptionThrown":
		b.errors = append(b.errors, e.ExceptionDetails.Text+" "+e.ExceptionDetails.Exception.Description)
	case "Runtime.consoleAPICalled":
		b.errors = append(b.errors, fmt.Sprintf("console.%s %v", e.Type, e.Args))
	}
}

// quiet says what went wrong in the tab, and which requests left loopback.
func (b *tab) quiet() (wrong []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	wrong = append(wrong, b.errors...)
	for _, address := range b.requests {
		u, err := url.Parse(address)
		if err != nil || u.Hostname() != "127.0.0.1" && u.Scheme != "about" && u.Scheme != "data" {
			wrong = append(wrong, "request to "+address)
		}
	}
	return wrong
}

// asked reports how many requests there were whose URL has this in it.
func (b *tab) asked(part string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, address := range b.requests {
		if strings.Contains(address, part) {
			n++
		}
	}
	return n
}

// open has the tab go to an address, and waits until it is there.
func (b *tab) open(address string) {
	b.c.t.Helper()
	var to struct{ ErrorText string }
	b.do("Page.navigate", map[string]any{"url": address}, &to)
	if to.ErrorText != "" {
		b.c.t.Fatalf("%s: %s", address, to.ErrorText)
	}
	b.until("the page is loaded", `document.readyState === "complete" && location.href !== "about:blank"`)
}

// eval gives what an expression is, a promise's value too.
func (b *tab) eval(expression string, value any) error {
	var got struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	params := map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true}
	if err := b.c.call(b.session, "Runtime.evaluate", params, &got); err != nil {
		return err
	}
	if e := got.ExceptionDetails; e != nil {
		return fmt.Errorf("%s %s", e.Text, e.Exception.Description)
	}
	if value == nil || len(got.Result.Value) == 0 {
		return nil
	}
	return json.Unmarshal(got.Result.Value, value)
}

// script runs a script that must succeed.
func (b *tab) script(script string) {
	b.c.t.Helper()
	if err := b.eval(script, nil); err != nil {
		b.c.t.Fatalf("%s: %v", script, err)
	}
}

// until waits until an expression is true. One that throws is not yet.
func (b *tab) until(what, expression string) {
	b.c.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		var is bool
		err := b.eval("Boolean("+expression+")", &is)
		if is {
			return
		}
		if time.Now().After(deadline) {
			b.c.t.Fatalf("waited %s in vain until %s: %v\n%s", patience, what, err, b.text("body"))
		}
	}
}

// text gives what a person reads in an element.
func (b *tab) text(selector string) (text string) {
	// An element that is not there has no text.
	_ = b.eval(fmt.Sprintf("document.querySelector(%q).innerText", selector), &text)
	return text
}

// shows waits until there is a text in an element.
func (b *tab) shows(selector, text string) {
	b.c.t.Helper()
	b.until(fmt.Sprintf("%s shows %q", selector, text), fmt.Sprintf("[...document.querySelectorAll(%q)].some((e) => e.innerText.includes(%q))", selector, text))
}

// named finds what a person would click on: what is seen, has that role, and
// that name or a part of it.
const named = `((role, name) => [...document.querySelectorAll({button: "button, summary", link: "a[href]", field: "input, select"}[role])].find((e) =>
  e.checkVisibility() && (!document.querySelector("dialog[open]") || e.closest("dialog[open]")) &&
  [e.getAttribute("aria-label"), e.innerText, ...[...(e.labels || [])].map((l) => l.innerText)].some((n) => (n || "").trim() === name)))`

// click clicks on what is named, as soon as it is there and nothing covers it.
// That is one step of the page's, so that no row that comes in moves it away.
func (b *tab) click(role, name string) {
	b.c.t.Helper()
	b.until(fmt.Sprintf("a %s %q can be clicked", role, name), fmt.Sprintf(`(() => {
		const e = %s(%q, %q);
		if (!e) return false;
		e.scrollIntoView({ block: "center", behavior: "instant" });
		const r = e.getClientRects()[0], top = document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2);
		if (!top || !e.contains(top)) return false;
		e.focus();
		e.click();
		return true;
	})()`, named, role, name))
}

// fill puts a text into the field with a label, in place of what is there.
func (b *tab) fill(label, text string) {
	b.c.t.Helper()
	find := fmt.Sprintf("%s(%q, %q)", named, "field", label)
	b.until(fmt.Sprintf("there is a field %q", label), find)
	b.script(fmt.Sprintf("(() => { const e = %s; e.focus(); e.select(); })()", find))
	if text == "" {
		b.press("Delete")
		return
	}
	b.do("Input.insertText", map[string]any{"text": text}, nil)
}

// keys are those that tests press: the key, its code and its character.
var keys = map[string]struct {
	code int
	text string
}{
	"Enter": {13, "\r"}, "Escape": {27, ""}, "Tab": {9, ""}, "Delete": {46, ""}, " ": {32, " "},
	"ArrowRight": {39, ""}, "ArrowLeft": {37, ""}, "Home": {36, ""}, "End": {35, ""},
}

// press presses a key.
func (b *tab) press(key string) {
	b.c.t.Helper()
	k := keys[key]
	for _, kind := range []string{"keyDown", "keyUp"} {
		params := map[string]any{"type": kind, "key": key, "windowsVirtualKeyCode": k.code}
		if k.text != "" && kind == "keyDown" {
			params["text"] = k.text
		}
		b.do("Input.dispatchKeyEvent", params, nil)
	}
}

// look is how the page is looked at.
type look struct {
	scheme        string // light or dark
	width, height int
	scale         float64
}

func (l look) String() string { return fmt.Sprintf("%s, %d px", l.scheme, l.width) }

// as changes how the page is looked at.
func (b *tab) as(l look) {
	b.c.t.Helper()
	b.do("Emulation.setDeviceMetricsOverride", map[string]any{"width": l.width, "height": l.height, "deviceScaleFactor": max(l.scale, 1), "mobile": l.width < 500}, nil)
	b.do("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{
		{"name": "prefers-color-scheme", "value": l.scheme}, {"name": "prefers-reduced-motion", "value": "reduce"},
	}}, nil)
	b.until("it is looked at so", fmt.Sprintf(`innerWidth === %d && matchMedia("(prefers-color-scheme: %s)").matches`, l.width, l.scheme))
}
