package smtp

import (
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// An idle session holds neither a buffer nor the context of its last message.
func TestIdleSessionHoldsNothing(t *testing.T) {
	server, s := serve(t, func(*mx.Behaviour) {})
	for range 2 {
		tx := transaction(t, "x\r\n", "b@mx.example")
		tx.Chunking = ChunkingPipelined
		if report := send(t, t.Context(), s, tx); report.Final.Code != 250 {
			t.Fatal(codes(report), report.Err)
		}
		if s.r.Reader != nil || s.raw.unbind != nil || s.Stale() {
			t.Errorf("buffer %v, stale %v", s.r.Reader, s.Stale())
		}
	}
	if s.TLS() == nil {
		t.Error("the session forgot its TLS")
	}
	server.DropConnections()
	for !s.Stale() {
		continue
	}
}
