package smtp

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// The stall time bounds a write without progress, not the whole of it.
func TestWriteToSlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const stall = time.Minute
		for _, c := range []struct {
			name  string
			pause time.Duration // between two bytes that the peer reads
			err   error
		}{
			{"slow but steady", stall * 2 / 3, nil},
			{"stalled", stall * 2, os.ErrDeadlineExceeded},
		} {
			ours, peer := net.Pipe()
			s := &deadlineConn{Conn: ours, stall: stall}
			s.bind(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				for one := make([]byte, 1); ; {
					time.Sleep(c.pause)
					if _, err := peer.Read(one); err != nil {
						return
					}
				}
			}()
			n, err := s.Write(make([]byte, 10))
			if !errors.Is(err, c.err) || (err == nil) != (n == 10) {
				t.Errorf("%s: wrote %d bytes: %v", c.name, n, err)
			}
			s.Close()
			peer.Close()
			<-done
		}
	})
}

// A wait that the context's deadline ends finds the context ended, so that the
// failure is told by the context's cause and not blamed on the server.
func TestWaitEndsAfterItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, wait := range map[string]func(*deadlineConn) error{
			"read": func(s *deadlineConn) error {
				s.readUntil(time.Now().Add(time.Hour))
				_, err := s.Read(make([]byte, 1))
				return err
			},
			"write": func(s *deadlineConn) error {
				_, err := s.Write([]byte("x"))
				return err
			},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			ours, peer := net.Pipe()
			s := &deadlineConn{Conn: ours, stall: time.Hour}
			s.bind(ctx)
			begin := time.Now()
			err := wait(s)
			if !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() == nil || time.Since(begin) != time.Minute {
				t.Errorf("%s: ended after %s with %v, the context's error is %v", name, time.Since(begin), err, ctx.Err())
			}
			s.Close()
			peer.Close()
			cancel()
		}
	})
}
