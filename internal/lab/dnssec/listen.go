package dnssec

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"

	"github.com/miekg/dns"
)

// Ports are taken from below the range out of which systems give ports to
// outgoing connections (from 32768 on Linux, from 49152 elsewhere), so that
// no other program gets the port of a server that is stopped for a while.
const (
	firstPort = 15000
	lastPort  = 31999
)

// listen binds one port of 127.0.0.1 for UDP and TCP: that of addr or, when
// addr is empty, any.
func listen(addr string) (packets net.PacketConn, listener net.Listener, err error) {
	tries := 1
	if addr == "" {
		tries = 50
	}
	for range tries {
		at := addr
		if at == "" {
			at = net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+rand.IntN(lastPort-firstPort)))
		}
		if packets, err = net.ListenPacket("udp4", at); err != nil {
			continue
		}
		if listener, err = net.Listen("tcp4", at); err == nil {
			return packets, listener, nil
		}
		packets.Close()
	}
	return nil, nil, fmt.Errorf("lab DNSSEC: %w", err)
}

// endpoint is where a server listens. It can be stopped and started again, at
// the same address.
type endpoint struct {
	handler dns.Handler

	mu      sync.Mutex
	addr    string
	running []*dns.Server
	serve   sync.WaitGroup
}

func (e *endpoint) start() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running != nil {
		return nil
	}
	packets, listener, err := listen(e.addr)
	if err != nil {
		return err
	}
	e.addr = packets.LocalAddr().String()
	e.running = []*dns.Server{{PacketConn: packets, Handler: e.handler}, {Listener: listener, Handler: e.handler}}
	for _, server := range e.running {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		// It returns when stop shuts it down; a failure before shows as a query
		// without an answer.
		e.serve.Go(func() { _ = server.ActivateAndServe() })
		<-started
	}
	return nil
}

func (e *endpoint) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, server := range e.running {
		// The error would say that it has ended by itself.
		_ = server.Shutdown()
	}
	e.running = nil
	e.serve.Wait()
}

func (e *endpoint) address() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.addr
}

// tally counts questions.
type tally struct {
	mu     sync.Mutex
	counts map[question]int
}

func (t *tally) note(q question) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[question]int{}
	}
	t.counts[q]++
}

// count adds up; dns.TypeANY stands for all types, the empty name for all
// names.
func (t *tally) count(name string, qtype uint16) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := 0
	for q, n := range t.counts {
		if (name == "" || q.name == dns.CanonicalName(name)) && (qtype == dns.TypeANY || q.qtype == qtype) {
			sum += n
		}
	}
	return sum
}

func (t *tally) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.counts)
}

// send fits a reply to the size that the query allows, and writes it. A client
// that went away is no concern of ours.
func send(w dns.ResponseWriter, query, reply *dns.Msg) {
	reply.Compress = true
	if _, overTCP := w.RemoteAddr().(*net.TCPAddr); !overTCP {
		size := dns.MinMsgSize
		if opt := query.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
		reply.Truncate(size)
	}
	_ = w.WriteMsg(reply)
}
