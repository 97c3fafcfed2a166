package delay

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// A server that greets, and answers each line.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "hello\n")
			for r := bufio.NewReader(conn); ; {
				line, err := r.ReadString('\n')
				if err != nil {
					break
				}
				io.WriteString(conn, line)
			}
			conn.Close()
		}
	}()
	return listener.Addr().String()
}

// The greeting is a trip and each exchange is one, however much is said in it.
func TestTrips(t *testing.T) {
	for _, oneWay := range []time.Duration{0, 2 * time.Millisecond} {
		p, err := Start("127.0.0.1:0", echo(t), oneWay)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		want := 0
		hear := func(lines int) {
			for range lines {
				if _, err := r.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			if want++; p.Trips() != want {
				t.Errorf("%v: %d trips, want %d", oneWay, p.Trips(), want)
			}
		}
		hear(1)
		for range 3 {
			fmt.Fprint(conn, "a\n")
			hear(1)
		}
		fmt.Fprint(conn, "a\nb\nc\n")
		hear(3)
		conn.Close()
		p.Stop()
		if p.connections() != 1 {
			t.Errorf("%d connections", p.connections())
		}
	}
}

// Nothing arrives before its time, at either end.
func TestDistance(t *testing.T) {
	const oneWay = 20 * time.Millisecond
	p, err := Start("127.0.0.1:0", echo(t), oneWay)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	begin := time.Now()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for trip := 1; trip <= 3; trip++ {
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < time.Duration(2*trip)*oneWay {
			t.Errorf("trip %d was over after %v", trip, took)
		}
		fmt.Fprint(conn, "again\n")
	}
}
