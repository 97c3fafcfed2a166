package smtp

import (
	"errors"
	"io"
	"net"
	"testing"
)

// The end of a stream acknowledges all that had come before it: what is still
// open then was never there.
func TestUnacknowledged(t *testing.T) {
	const size = 100 << 10
	for name, reads := range map[string]bool{"the server has read everything": true, "the server has read nothing": false} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			client, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			server, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			// the whole fits into the client's kernel, not into the server's
			if !reads {
				err = errors.Join(server.(*net.TCPConn).SetReadBuffer(4<<10), client.(*net.TCPConn).SetWriteBuffer(4*size))
			}
			if err != nil {
				t.Fatal(err)
			}
			s := &deadlineConn{Conn: client}
			if _, err := client.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			if reads {
				if _, err := io.ReadFull(server, make([]byte, size)); err != nil {
					t.Fatal(err)
				}
			}
			server.(*net.TCPConn).CloseWrite()
			if _, err := s.Read(make([]byte, 1)); err != io.EOF {
				t.Fatal(err)
			}
			if got := s.unacknowledged() > 0; got == reads {
				t.Errorf("unacknowledged: %v", got)
			}
		})
	}
}
