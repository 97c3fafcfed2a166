package web

import (
	"net"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/memnet"
)

// No more connections are open at once than may be: the next waits until one is
// closed, and the end does not wait for it.
func TestConnectionsAreBounded(t *testing.T) {
	under := memnet.Listen()
	l := newLimited(under, maxRequests)
	var open []net.Conn
	for range maxRequests {
		go under.Dial()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	next := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		next <- err
	}()
	if len(l.slots) != 64 {
		t.Errorf("%d slots are taken", len(l.slots))
	}
	open[0].Close()
	go under.Dial()
	if err := <-next; err != nil { // it had to wait for the slot
		t.Fatal(err)
	}
	go func() {
		_, err := l.Accept()
		next <- err
	}()
	l.Close()
	if err := <-next; err == nil {
		t.Error("accepted at the end")
	}
}
