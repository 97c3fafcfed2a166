package lmtp

import (
	"bytes"
	"testing"

	"github.com/mxpipe/mxpipe/transport/message"
)

func newHeader(t *testing.T, section string) message.Header {
	t.Helper()
	var h message.HeaderReader
	h.Write([]byte(section))
	return h.Header()
}

// canonical gives what becomes of a body (package message).
func canonical(t *testing.T, body string) string {
	t.Helper()
	text, _ := canonicalize(t, body)
	return text
}

// factsOf gives what is to be seen of a body.
func factsOf(t *testing.T, body string) message.Facts {
	t.Helper()
	_, facts := canonicalize(t, body)
	return facts
}

func canonicalize(t *testing.T, body string) (string, message.Facts) {
	t.Helper()
	var b bytes.Buffer
	c := message.NewCanonicalizer(&b)
	c.Write([]byte(body))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String(), c.Facts()
}
