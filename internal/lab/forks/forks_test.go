package forks

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// forking starts one process after the other while do runs.
func forking(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	var children sync.WaitGroup
	for range 4 {
		children.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := exec.Command("true").Run(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer children.Wait()
	defer close(done)
	do()
}

// own is an address that no client has for its own, at any free port.
const own = "127.84.0.1:0"

// often is how often something is done beside forks that fails within some
// hundred times where it is done by package net or os.
const often = 500

// endpoint is a listener or a packet connection.
type endpoint interface {
	Close() error
	// File gives a copy of the descriptor, as a child has one.
	File() (*os.File, error)
}

var endpoints = map[string]func(address string) (endpoint, net.Addr, error){
	"tcp": func(address string) (endpoint, net.Addr, error) {
		l, err := Listen("tcp", address)
		if err != nil {
			return nil, nil, err
		}
		return l.(*listener), l.Addr(), nil
	},
	"udp": func(address string) (endpoint, net.Addr, error) {
		c, err := ListenPacket("udp4", address)
		if err != nil {
			return nil, nil, err
		}
		return both{c, c.(packetConn).PacketConn.(*net.UDPConn)}, c.LocalAddr(), nil
	},
}

// both closes as one and has the descriptor of the other.
type both struct {
	net.PacketConn
	udp *net.UDPConn
}

func (b both) File() (*os.File, error) { return b.udp.File() }

// An address is free when what listened at it is closed, while somebody has a
// copy of its descriptor; it is not while it listens.
func TestListenAgain(t *testing.T) {
	for network, listen := range endpoints {
		t.Run(network, func(t *testing.T) {
			l, at, err := listen(own)
			if err != nil {
				t.Fatal(err)
			}
			var copies []*os.File
			for range 3 {
				if _, _, err := listen(at.String()); !errors.Is(err, syscall.EADDRINUSE) {
					t.Errorf("two at once: %v", err)
				}
				f, err := l.File()
				if err != nil {
					t.Fatal(err)
				}
				copies = append(copies, f)
				if err := l.Close(); err != nil {
					t.Error(err)
				}
				conn, err := net.Dial(network, at.String())
				if err == nil {
					// by UDP it is the first datagram that is refused
					conn.Write([]byte{0})
					conn.SetReadDeadline(time.Now().Add(time.Minute))
					_, err = conn.Read(make([]byte, 1))
					conn.Close()
				}
				if !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("a client of what was closed: %v", err)
				}
				if l, _, err = listen(at.String()); err != nil {
					t.Fatal(err)
				}
			}
			for _, f := range copies {
				f.Close()
			}
			l.Close()
		})
	}
}

// The same with real children.
func TestListenAgainBesideForks(t *testing.T) {
	for network, listen := range endpoints {
		t.Run(network, func(t *testing.T) {
			l, at, err := listen(own)
			if err != nil {
				t.Fatal(err)
			}
			forking(t, func() {
				for range often {
					if err := l.Close(); err != nil {
						t.Error(err)
						return
					}
					if l, _, err = listen(at.String()); err != nil {
						t.Error(err)
						return
					}
				}
				l.Close()
			})
		})
	}
}

// Close ends an Accept that waits, which says what it says of a listener of
// package net.
func TestCloseDuringAccept(t *testing.T) {
	for range often {
		l, err := Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					ended <- err
					return
				}
				conn.Close()
			}
		}()
		if conn, err := net.Dial("tcp", l.Addr().String()); err != nil {
			t.Error(err)
		} else {
			conn.Close()
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v", err)
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a second Close: %v", err)
		}
	}
}

// What was written can be run, whatever this process starts meanwhile.
func TestRunWhatWasWritten(t *testing.T) {
	dir := t.TempDir()
	forking(t, func() {
		for i := range often / 2 {
			path := filepath.Join(dir, fmt.Sprint(i))
			if err := WriteFile(path, []byte("#!/bin/true\n"), 0o755); err != nil {
				t.Error(err)
				return
			}
			if err := exec.Command(path).Run(); err != nil {
				t.Error(err)
				return
			}
		}
	})
}
