package lmtp

import (
	"testing"

	"github.com/mxpipe/mxpipe/transport/message"
)

func newHeader(t *testing.T, section string) message.Header {
	t.Helper()
	var h message.HeaderReader
	h.Write([]byte(section))
	return h.Header()
}
