package memnet

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := Pipe(4)
		done := make(chan error)
		go func() {
			_, err := client.Write([]byte("abcdefgh"))
			done <- errors.Join(err, client.Close())
		}()
		synctest.Wait()
		got, err := io.ReadAll(server)
		if err != nil || !bytes.Equal(got, []byte("abcdefgh")) {
			t.Errorf("%q, %v", got, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := server.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write to a closed end: %v", err)
		}
	})
}

func TestPipeDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := Pipe(4)
		defer client.Close()
		defer server.Close()
		begin := time.Now()
		client.SetDeadline(begin.Add(time.Minute))
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Minute {
			t.Errorf("read ended after %s with %v", time.Since(begin), err)
		}
		if n, err := client.Write(make([]byte, 5)); n != 4 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes written, %v", n, err)
		}
		server.SetReadDeadline(time.Unix(1, 0))
		if n, err := server.Read(make([]byte, 9)); n != 4 || err != nil {
			t.Errorf("what has arrived: %d bytes, %v", n, err)
		}
		// A wait under way ends with a deadline that is set later.
		go func() {
			time.Sleep(time.Second)
			server.SetReadDeadline(time.Unix(1, 0))
		}()
		server.SetReadDeadline(time.Time{})
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestPipeReset(t *testing.T) {
	client, server := Pipe(4)
	server.Write([]byte("ab"))
	server.Reset()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}
