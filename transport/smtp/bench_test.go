package smtp

import (
	"bufio"
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/transport/address"
)

// BenchmarkSend is one warm message of 10 KB in one flight, the server's work
// included.
func BenchmarkSend(b *testing.B) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r := bufio.NewReaderSize(conn, 32<<10)
		io.WriteString(conn, "220 mx\r\n")
		r.ReadSlice('\n')
		io.WriteString(conn, bothWays)
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) > 5 && string(line[:5]) == "BDAT " {
				n, _ := strconv.Atoi(strings.TrimSuffix(string(line[5:]), " LAST\r\n"))
				r.Discard(n)
				io.WriteString(conn, "250 ok\r\n250 ok\r\n250 2.0.0 taken\r\n")
			}
		}
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(b.Context(), conn, config())
	if err == nil {
		err = s.Hello(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	body := strings.Repeat("0123456789abcdef\r\n", 10<<10/18)
	from, _ := address.Parse("a@client.example")
	to, _ := address.Parse("b@mx.example")
	rcpts := []Recipient{{Address: to}}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		report := s.Send(ctx, &Transaction{
			From: from, Recipients: rcpts, Content: strings.NewReader(body), Size: int64(len(body)), Chunking: ChunkingPipelined,
			BeforeFinal: func() context.Context { return context.Background() },
		})
		if report.Final.Code != 250 || report.Ending != Answered {
			b.Fatal(report.Ending, report.Err)
		}
	}
}
