package browser

import "encoding/base64"

// picture takes one of what is on the screen.
func (b *tab) picture() []byte {
	b.c.t.Helper()
	var got struct{ Data string }
	b.do("Page.captureScreenshot", map[string]any{"format": "png", "optimizeForSpeed": false}, &got)
	raw, err := base64.StdEncoding.DecodeString(got.Data)
	if err != nil {
		b.c.t.Fatal(err)
	}
	return raw
}
func (s *session) pictures() {}
