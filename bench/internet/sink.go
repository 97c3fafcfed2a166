package internet

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
)

// SinkOptions say what a mail server offers.
type SinkOptions struct {
	Port         int        // 0: one of its own choice
	Plaintext    bool       // no STARTTLS
	Key          ca.KeyType // of its certificates
	NoResumption bool       // hand out no session tickets
	NoChunking   bool
	NoPipelining bool
}

// Sink is a mail server that forgets what it is given.
type Sink struct {
	options  SinkOptions
	config   *tls.Config
	listener net.Listener
	serving  sync.WaitGroup
	ctx      context.Context
	cancel   context.CancelFunc

	mu    sync.Mutex
	conns map[net.Conn]struct{}

	connections, open, handshakes, resumed, messages, size, flights atomic.Int64
}

// Counters are what a Sink has counted since it was started.
type Counters struct {
	Connections, Open   int64
	Handshakes, Resumed int64 // resumed ones are handshakes too
	Messages, Bytes     int64 // of messages that were accepted
	// answers that were waited for, those to EHLO and the like included
	Flights int64
}

// Sink starts a mail server. It ends with the Internet.
func (n *Internet) Sink(options SinkOptions) (*Sink, error) {
	listener, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", options.Port))
	if err != nil {
		return nil, err
	}
	s := &Sink{options: options, listener: listener, conns: map[net.Conn]struct{}{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.config = &tls.Config{
		SessionTicketsDisabled: options.NoResumption,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			host := strings.ToLower(hello.ServerName)
			if host == "" {
				host = "h0.shared.bench"
			}
			return n.certificate(host, options.Key)
		},
	}
	s.serving.Go(s.accept)
	n.mu.Lock()
	n.sinks = append(n.sinks, s)
	n.mu.Unlock()
	return s, nil
}

// Port is where the Sink listens, on every address of loopback.
func (s *Sink) Port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// Counters gives the counters as they are now.
func (s *Sink) Counters() Counters {
	return Counters{
		Connections: s.connections.Load(), Open: s.open.Load(),
		Handshakes: s.handshakes.Load(), Resumed: s.resumed.Load(),
		Messages: s.messages.Load(), Bytes: s.size.Load(), Flights: s.flights.Load(),
	}
}

// wait waits until so many messages were accepted since the start.
func (s *Sink) wait(ctx context.Context, messages int64) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s.messages.Load() < messages {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d messages arrived: %w", s.messages.Load(), messages, context.Cause(ctx))
		}
	}
	return nil
}

func (s *Sink) stop() {
	s.cancel()
	s.listener.Close()
	s.mu.Lock()
	for conn := range s.conns {
		conn.Close()
	}
	s.mu.Unlock()
	s.serving.Wait()
}

func (s *Sink) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			if s.ctx.Err() != nil {
				return
			}
			time.Sleep(time.Millisecond) // out of descriptors
			continue
		}
		s.mu.Lock()
		if s.ctx.Err() != nil {
			conn.Close()
		}
		s.conns[conn] = struct{}{}
		s.mu.Unlock()
		s.connections.Add(1)
		s.open.Add(1)
		s.serving.Go(func() {
			(&session{Sink: s, conn: conn}).run()
			conn.Close()
			s.open.Add(-1)
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
		})
	}
}
