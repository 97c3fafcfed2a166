package lmtp

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/policyd/intake/intaketest"
	"github.com/mxpipe/mxpipe/policyd/served"
	"github.com/mxpipe/mxpipe/policyd/spool"
	"github.com/mxpipe/mxpipe/transport"
)

// nowhere is a transport that delivers at once.
type nowhere struct{}

func (nowhere) Deliver(_ context.Context, env *transport.Envelope, _ *transport.Message) []transport.Result {
	return intaketest.All(env, "2.0.0 mx.example.net: 250 2.0.0 Ok")
}

// BenchmarkMessage is what the front end itself costs: messages one after the
// other over one connection, with a client that does as little as one can.
func BenchmarkMessage(b *testing.B) {
	for _, size := range []int{1 << 10, 10 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) { benchmark(b, size) })
	}
}

func benchmark(b *testing.B, size int) {
	dir := b.TempDir()
	memory, err := served.Open(dir+"/served", time.Now)
	if err != nil {
		b.Fatal(err)
	}
	dispatcher := intake.New(intake.Config{
		Transport: func(string) (intake.Transport, bool) {
			return intake.Transport{Deliverer: nowhere{}, Release: func() {}}, true
		},
		Spool: spool.New(dir, 1<<30), Served: memory, Slots: intake.NewSlots(10), Uploads: semaphore.NewWeighted(10), Logger: slog.New(slog.DiscardHandler),
	})
	s := New(dispatcher, accept.New(10, dispatcher.Logger), "default", "mx.example.org")
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, context.Background(), l) }()
	conn, err := net.Dial("unix", dir+"/s")
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	// read reads replies up to one that begins so.
	read := func(last string) {
		n := 0
		for {
			k, err := conn.Read(buf[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += k
			lines := strings.Split(string(buf[:n]), "\r\n")
			if len(lines) > 1 && strings.HasPrefix(lines[len(lines)-2], last) && lines[len(lines)-1] == "" {
				return
			}
		}
	}
	io.WriteString(conn, "LHLO x\r\n")
	read("250 ")
	envelope := []byte("MAIL FROM:<s@example.org> SIZE=1000 BODY=8BITMIME\r\nRCPT TO:<a@example.net> ORCPT=rfc822;a@example.net\r\nDATA\r\n")
	body := []byte(text + strings.Repeat(strings.Repeat("x", 70)+"\r\n", size/72) + ".\r\n")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		conn.Write(envelope)
		read("354 ")
		conn.Write(body)
		read("250 ")
	}
	conn.Close()
	stop()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	s.Wait()
}
