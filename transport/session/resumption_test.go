package session

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"testing"
)

// Sessions are bounded in bytes: 16 MiB together, and nothing is kept of a
// server that sent more than 16 KiB.
func TestSessionsAreBoundedInBytes(t *testing.T) {
	var c sessionCache
	keep := func(host string, handshake, ticket int) *tls.ClientSessionState {
		t.Helper()
		state, err := tls.NewResumptionState(make([]byte, ticket), &tls.SessionState{})
		if err != nil {
			t.Fatal(err)
		}
		s := scopedSessions{&c, host + " ", &handshake}
		s.Put("key", state)
		kept, _ := s.Get("key")
		return kept
	}
	for _, tt := range []struct {
		handshake, ticket int
		kept              bool
	}{
		{5 << 10, 200, true}, {16<<10 - 400, 200, true}, {16 << 10, 1000, false}, {5 << 10, 20 << 10, false}, {1 << 20, 200, false},
	} {
		if got := keep("mx.example", tt.handshake, tt.ticket) != nil; got != tt.kept {
			t.Errorf("%d and a ticket of %d bytes: kept %v", tt.handshake, tt.ticket, got)
		}
	}
	for i := range 10_000 {
		if keep(fmt.Sprintf("mx%d.example", i), 6<<10, 200) == nil {
			t.Fatal("the newest is not kept")
		}
		if c.bytes > 16<<20 {
			t.Fatalf("%d bytes are kept", c.bytes)
		}
	}
	if n := len(c.byKey); n < 1_000 || n != c.used.Len() {
		t.Errorf("%d sessions of %d are left", n, c.used.Len())
	}
	for el := c.used.Front(); el != nil; el = c.used.Front() {
		c.put(el.Value.(*keptSession).key, nil, 0)
	}
	if c.bytes != 0 || len(c.byKey) != 0 {
		t.Errorf("%d bytes of nothing", c.bytes)
	}
}

// A chain of five large certificates is ordinary, one of a hundred tiny ones is
// not, and stapled answers count.
func TestHandshakeBytes(t *testing.T) {
	chain := func(n, size int) *tls.ConnectionState {
		state := &tls.ConnectionState{}
		for range n {
			state.PeerCertificates = append(state.PeerCertificates, &x509.Certificate{Raw: make([]byte, size)})
		}
		return state
	}
	if n := handshakeBytes(chain(5, 2000)); n > maxHandshake {
		t.Errorf("%d bytes for five large certificates", n)
	}
	if n := handshakeBytes(chain(100, 180)); n <= maxHandshake {
		t.Errorf("%d bytes for a hundred tiny certificates", n)
	}
	stapled := chain(1, 1000)
	stapled.OCSPResponse = make([]byte, 60<<10)
	if n := handshakeBytes(stapled); n <= maxHandshake {
		t.Errorf("%d bytes with a stapled answer of 60 KiB", n)
	}
}
