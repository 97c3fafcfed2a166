package browser

import (
	"encoding/base64"
	"os"
	"time"
)

// maxPicture is what a picture in the documents may weigh.
const maxPicture = 150 << 10

// pictures writes those of docs/, of an hour with an incident.
func (s *session) pictures() {
	s.must(s.suspendFor("club.example", 4*time.Hour, "they move to new hosts, ticket 4711"))
	s.send("default", "a@all-down.example")
	for _, to := range []string{"a@dane-ee.example", "b@both.example", "a@sts.example", "b@none.example"} {
		s.deliver(to, "2.0.0")
	}
	s.deliver("a@shop.example", "4.4.5")
	s.as(light)
	s.visit("Overview")
	s.hurry()
	s.shows("#holds", "ticket 4711")
	s.rowShows("shop.example", "4.4.5")
	s.write("web-light")
	s.as(dark)
	s.write("web-dark")
	s.as(narrow)
	s.write("web-narrow")
	s.as(light)
	s.visit("Domain")
	s.fill("Domain or address", "dane-wrong.example")
	s.click("button", "Explain")
	s.shows("#way", "dane-wrong.example would be")
	s.click("field", "connect to its hosts")
	s.shows("#way", "would be deferred")
	s.shows("#domain-last", "4.7.5")
	s.write("web-domain")
	s.click("field", "connect to its hosts")
}

func (s *session) suspendFor(target string, lasts time.Duration, reason string) error {
	_, err := s.admin.Suspend(s.t.Context(), target, lasts, reason)
	return err
}

// write writes a picture of what is on the screen.
func (s *session) write(name string) {
	s.t.Helper()
	s.script("scrollTo(0, 0); document.activeElement.blur(); new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
	var got struct{ Data string }
	s.do("Page.captureScreenshot", map[string]any{"format": "webp", "quality": 88}, &got)
	raw, err := base64.StdEncoding.DecodeString(got.Data)
	s.must(err)
	if len(raw) > maxPicture {
		s.t.Errorf("%s has %d bytes", name, len(raw))
	}
	s.must(os.WriteFile("../../docs/"+name+".webp", raw, 0o644))
}
