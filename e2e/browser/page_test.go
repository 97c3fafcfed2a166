package browser

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/policyd/admin"
)

var update = flag.Bool("update", false, "write the pictures of docs/")

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// noCertificate stands where the lab puts one of its own.
var noCertificate tls.Certificate

var (
	light  = look{"light", 1440, 900, 1}
	dark   = look{"dark", 1440, 900, 1}
	narrow = look{"light", 360, 780, 1}
)

// historyOfAnHour is what the first view shows.
var historyOfAnHour = admin.HistoryQuery{Since: time.Hour, Limit: 1, Summary: true}

// session is an administrator before the page, while mail goes.
type session struct {
	*rig
	*tab
	t *testing.T
}

// TestPage is a day with the page: strangers at its door, mail that comes in
// while it is looked at, and all that it can change.
func TestPage(t *testing.T) {
	r := newRig(t, lastHour(time.Now()))
	c := startChromium(t)
	address, _ := r.startPage()
	b := c.newTab()
	strangersBefore(t, c, address)
	b.as(light)
	b.open(address)
	s := &session{r, b, t}
	s.shows("#live-text", "live")
	strangersAfter(s, address)
	for _, part := range []func(){
		s.live, s.markup, s.suspendAndResume, s.byKeyboard, s.suspendProvider, s.explain, s.flush, s.trace, s.pause, s.limit, s.deliveries, s.policies,
	} {
		part()
	}
	s.accessible()
	if *update {
		s.pictures()
	}
	if wrong := s.quiet(); len(wrong) > 0 {
		t.Errorf("the page is not quiet:\n%s", strings.Join(wrong, "\n"))
	}
	s.daemonEnds()
}

// visit shows a view, as a click in its navigation does.
func (s *session) visit(view string) {
	s.t.Helper()
	s.click("link", view)
	s.until(view+" is shown", fmt.Sprintf(`document.querySelector("nav [aria-current]").innerText === %q`, view))
}

// deliver sends a message that must get an answer of this code.
func (s *session) deliver(to, code string) {
	s.t.Helper()
	if got := s.send("default", to); got != code {
		s.t.Fatalf("%s: %s, want %s", to, got, code)
	}
}

// hurry has the page ask at once, as it does when it comes to the front: it
// would within two seconds.
func (s *session) hurry() {
	s.t.Helper()
	s.script(`document.dispatchEvent(new Event("visibilitychange"))`)
}

// said waits until the page says that something was done. It says so for some
// seconds only, so what counts is that it did.
func (s *session) said(text string) {
	s.t.Helper()
	s.until(fmt.Sprintf("the page says %q", text), fmt.Sprintf(`document.querySelector("#toast-text").textContent.includes(%q)`, text))
}

// row is the row of the table of destinations or providers with that name.
func row(name string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("#peers tr")].find((e) => e.querySelector("th a").innerText === %q)`, name)
}

// rowShows waits until a row has all of these texts.
func (s *session) rowShows(name string, texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		s.until(fmt.Sprintf("the row of %s shows %q", name, text), fmt.Sprintf("%s.innerText.includes(%q)", row(name), text))
	}
}

// live: what is delivered is there without a reload.
func (s *session) live() {
	s.shows("#tiles", "delivered")
	s.script("window.sameDocument = true")
	s.deliver("a@dane-ee.example", "2.0.0")
	s.deliver("a@dane-wrong.example", "4.7.5")
	s.deliver("nosuch@users.example", "5.1.1")
	s.deliver("a@all-down.example", "4.4.1")
	s.deliver("a@sts.example", "2.0.0")
	s.deliver("a@sts-wrong-name.example", "4.7.5")
	s.shows("#feed li", "dane-ee.example")
	s.shows("#feed li", "no TLSA record matches")
	s.rowShows("dane-wrong.example", "4.7.5", "no TLSA record matches")
	s.rowShows("users.example", "5.1.1", "no such user")
	s.rowShows("all-down.example", "unreachable", "connection refused")
	s.shows("#holds", "mx.all-down.example")
	s.shows("#levels", "authenticated, MX dnssec")
	for _, id := range []string{"chart-outcome", "chart-latency"} {
		s.until(id+" is drawn", fmt.Sprintf(`document.querySelectorAll("#%s svg *").length > 60`, id))
	}
	s.rig.until("the page says what the daemon says", func() error {
		var figures struct{ Delivered int }
		s.must(s.eval(`({ delivered: Number(document.querySelector("#tiles dd").firstChild.data.replaceAll(",", "")) })`, &figures))
		h, err := s.admin.History(s.t.Context(), historyOfAnHour)
		s.must(err)
		if figures.Delivered != h.Total.Delivered {
			return fmt.Errorf("the page says that %d were delivered, the daemon %d", figures.Delivered, h.Total.Delivered)
		}
		return nil
	})
	s.until("the same page is there", "window.sameDocument")
}

// markup: what a stranger writes is text.
func (s *session) markup() {
	const evil = `<img src=x onerror="document.title='pwned'"><b>bold</b>`
	h := s.world.Server("mx.users.example").Behaviour()
	h.Recipients = append([]mx.Rule{{Local: "evil", Reply: "550 5.1.1 " + evil}}, h.Recipients...)
	s.world.Server("mx.users.example").SetBehaviour(h)
	s.deliver("evil@users.example", "5.1.1")
	s.hurry()
	s.shows("#feed li", evil)
	s.rowShows("users.example", evil)
	s.until("it is no markup", `!document.querySelector("main img, main b") && document.title !== "pwned"`)
}

// suspendAndResume: with a question, and the daemon obeys.
func (s *session) suspendAndResume() {
	const domain = "users.example"
	s.click("button", "Suspend "+domain)
	s.shows("dialog[open]", "Suspend "+domain+"?")
	s.click("button", "Cancel")
	s.until("the dialog is closed", `!document.querySelector("dialog[open]")`)
	if list := s.status().Suspended; len(list) != 0 {
		s.t.Fatalf("suspended after Cancel: %v", list)
	}
	s.click("button", "Suspend "+domain)
	s.fill("Reason", "their disk is full")
	s.click("button", "Suspend")
	s.said(domain + " is suspended for 1 hour.")
	s.rowShows(domain, "suspended")
	s.shows("#holds", "their disk is full")
	list := s.status().Suspended
	if len(list) != 1 || list[0].Target != domain || list[0].Until == nil {
		s.t.Fatalf("suspended: %+v", list)
	}
	if status, text := s.says("explain " + domain); status != 1 || !strings.Contains(text, "their disk is full") {
		s.t.Errorf("explain: %d\n%s", status, text)
	}
	s.deliver("b@"+domain, "4.3.2")
	s.hurry()
	s.rowShows(domain, "4.3.2")
	s.click("button", "Resume "+domain)
	s.shows("dialog[open]", "Resume "+domain+"?")
	s.click("button", "Resume")
	s.said(domain + " is resumed.")
	s.until("it is not suspended", "!"+row(domain)+`.querySelector(".tag")`)
	s.deliver("b@"+domain, "2.0.0")
	s.hurry()
	s.rowShows(domain, "2.0.0")
}

// byKeyboard: without a mouse, and what has the focus keeps it while rows come.
func (s *session) byKeyboard() {
	const domain = "none.example"
	s.script(`document.activeElement.blur(); getSelection().removeAllRanges(); document.querySelector("#skip").focus()`)
	s.press("Enter")
	s.until("the content has the focus", `document.activeElement.id === "main"`)
	focused := fmt.Sprintf(`document.activeElement.getAttribute("aria-label") === %q`, "Suspend "+domain)
	for i := 0; ; i++ {
		var is bool
		s.must(s.eval(focused, &is))
		if is {
			break
		}
		if i == 200 {
			s.t.Fatal("Tab does not come to the row's button")
		}
		s.press("Tab")
	}
	s.deliver("b@"+domain, "2.0.0")
	s.hurry()
	s.rowShows(domain, "2.0.0 mx.none.example: 250 2.0.0 queued as")
	s.until("the button still has the focus", focused)
	s.press("Enter")
	s.shows("dialog[open]", "Suspend "+domain+"?")
	s.press("Escape")
	s.until("the dialog is closed, and the button has the focus again", `!document.querySelector("dialog[open]") && `+focused)
	s.press("Enter")
	s.shows("dialog[open]", "Suspend "+domain+"?")
	s.press("Enter") // in the field for the reason
	s.rowShows(domain, "suspended")
	s.click("button", "Resume "+domain)
	s.press("Enter")
	s.said(domain + " is resumed.")
	s.script(`document.querySelector("#chart-outcome svg").focus()`)
	s.press("Home")
	s.until("the chart says a minute's figures", `/^\d\d:\d\d: \d+ delivered, \d+ deferred, \d+ refused$/.test(document.querySelector("#read-outcome").innerText)`)
}

// suspendProvider: all domains of a provider at once.
func (s *session) suspendProvider() {
	s.click("button", "Providers")
	s.until("providers are shown", row("bulky"))
	s.click("button", "Suspend provider:bulky")
	s.click("button", "Suspend")
	s.said("provider bulky is suspended for 1 hour.")
	s.deliver("a@shop.example", "4.3.2")
	s.hurry()
	s.click("button", "Domains")
	s.rowShows("shop.example", "suspended", "4.3.2")
	s.rowShows("bulky.example", "suspended")
	s.shows("#holds", "bulky")
	s.click("button", "Resume provider:bulky")
	s.click("button", "Resume")
	s.until("nothing is suspended", `!document.querySelector("#holds").innerText.includes("bulky")`)
	s.deliver("a@shop.example", "2.0.0")
}

// explain: the way of a message, as the command explains it.
func (s *session) explain() {
	s.visit("Domain")
	s.fill("Domain or address", "dane-wrong.example")
	s.press("Enter")
	s.shows("#way", "dane-wrong.example would be delivered (by look-ups alone; no connection was tried)")
	s.shows("#way", "But the last message there was deferred")
	s.shows("#way", "a certificate that matches a TLSA record")
	s.click("field", "connect to its hosts")
	s.shows("#way", "dane-wrong.example would be deferred")
	s.shows("#way", "no TLSA record matches")
	s.shows("#domain-last", "4.7.5")
	s.fill("Domain or address", "nosuch@users.example")
	s.click("button", "Explain")
	s.shows("#way", "550 5.1.1 no such user")
	s.fill("Domain or address", "b@users.example")
	s.click("button", "Explain")
	s.shows("#way", "b@users.example is taken")
	s.click("field", "connect to its hosts")
	s.fill("Domain or address", "nowhere.example")
	s.click("button", "Explain")
	s.shows("#way", "nowhere.example would be refused")
	s.fill("Domain or address", "not a domain")
	s.click("button", "Explain")
	s.shows("#way", "is not a valid domain name")
}

// flush: what is remembered of a domain is forgotten.
func (s *session) flush() {
	remembered := func() bool {
		d, err := s.admin.Cached(s.t.Context(), "both.example")
		s.must(err)
		return len(d.Policies) > 0 || len(d.Answers) > 0
	}
	s.deliver("b@both.example", "2.0.0")
	if !remembered() {
		s.t.Fatal("nothing is remembered of both.example")
	}
	s.visit("Overview")
	s.click("link", "both.example")
	s.shows("#way", "both.example would be delivered")
	s.click("button", "Flush both.example")
	s.shows("dialog[open]", "Flush both.example?")
	before := s.asked("/api/explain")
	s.click("button", "Flush")
	s.said("both.example is flushed: ")
	s.said("1 MTA-STS policies")
	s.rig.until("it was explained again, after the flush", func() error {
		if s.asked("/api/explain") == before {
			return errors.New("not yet")
		}
		return nil
	})
	s.shows("#way", "both.example would be delivered")
}

// trace: the dialogue is logged until it is stopped.
func (s *session) trace() {
	s.click("button", "Trace both.example")
	s.shows("dialog[open]", "Trace both.example?")
	s.click("button", "Trace")
	s.shows("#domain-actions", "traced until")
	if list := s.status().Traces; len(list) != 1 || list[0].Domain != "both.example" {
		s.t.Fatalf("traced: %v", list)
	}
	s.visit("Overview")
	s.shows("#holds", "both.example")
	s.click("button", "Stop tracing both.example")
	s.click("button", "Stop")
	s.said("both.example is no longer traced.")
	if list := s.status().Traces; len(list) != 0 {
		s.t.Errorf("traced: %v", list)
	}
}

// pause: a provider that asks for a rest.
func (s *session) pause() {
	server := s.world.Server("mx1.bulky.example")
	h := server.Behaviour()
	h.At = map[mx.Stage]mx.Action{mx.StageMAIL: {Reply: "421 4.7.0 too many messages from your network, slow down"}}
	server.SetBehaviour(h)
	server.DropConnections()
	s.deliver("a@bulky.example", "4.7.0")
	s.deliver("a@shop.example", "4.4.5")
	s.hurry()
	s.shows("#holds", "too many messages from your network")
	s.rowShows("bulky.example", "paused", "4.7.0")
	s.rowShows("shop.example", "paused", "4.4.5")
	s.click("link", "shop.example")
	s.shows("#way", "shop.example would be deferred")
	s.shows("#way", "provider bulky is paused, because of: 421 4.7.0")
	s.visit("Overview")
}

// limit: what waits for a local limit is said while it waits.
func (s *session) limit() {
	for range 2 { // of two an hour
		if code := s.send("newsletter", "a@sts.example"); code != "2.0.0" {
			s.t.Fatal(code)
		}
	}
	if code := s.send("newsletter", "a@sts.example"); code != "4.4.5" {
		s.t.Fatal(code)
	}
	s.hurry()
	s.shows("#transports", "limit of destination: 0 open, 0 waiting, 1 deferred since the start")
	s.rowShows("sts.example", "4.4.5", "no slot within")
}

// deliveries: the history, chosen and in full.
func (s *session) deliveries() {
	s.visit("Deliveries")
	s.shows("#deliveries", "dane-wrong.example")
	s.fill("Domain, host, provider or id", "dane-wrong.example")
	s.until("only that domain is shown", `[...document.querySelectorAll("#deliveries td.to")].map((e) => e.innerText).join() === "dane-wrong.example"`)
	s.script(`document.querySelector("#deliveries .toggle").click()`)
	s.shows("#deliveries .details", "TLS authenticated")
	s.shows("#deliveries .details", "4cA@")
	s.fill("Domain, host, provider or id", "")
	s.click("field", "only what was not delivered")
	s.until("no success is shown", `document.querySelectorAll("#deliveries td.result").length > 5 && !document.querySelector("#deliveries td.result .ok")`)
	s.click("field", "only what was not delivered")
}

// policies: those that are remembered.
func (s *session) policies() {
	s.visit("Policies")
	s.shows("#policies tr", "sts.example")
	s.fill("Domain", "wrong-name")
	s.until("only that policy is shown", `[...document.querySelectorAll("#policies th")].map((e) => e.innerText).join() === "sts-wrong-name.example"`)
	s.shows("#policies tr", "enforce")
	s.fill("Domain", "")
	s.visit("Overview")
}

// daemonEnds: the page says that it is not live, and since when, and is again
// when there is a daemon.
func (s *session) daemonEnds() {
	s.rig.stop(s.daemon)
	s.shows("#live-text", "not live: this was at ")
	s.shows("#trouble", "daemon not running")
	s.startDaemon()
	s.until("it is live", `document.querySelector("#live-text").innerText === "live" && document.querySelector("#trouble").hidden`)
	if n := s.asked("http://rebound.example"); n > 0 {
		s.t.Error("requests to another name")
	}
}

func (s *session) shows(selector string, texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		s.tab.shows(selector, text)
	}
}

// until is the tab's.
func (s *session) until(what, expression string) {
	s.t.Helper()
	s.tab.until(what, expression)
}
