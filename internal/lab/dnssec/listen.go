package dnssec

import (
	"fmt"
	"net"
	"sync"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ports"
)

// endpoint is where a server listens. It can be stopped and started again, at
// the same address.
type endpoint struct {
	handler dns.Handler

	mu      sync.Mutex
	port    *ports.Reservation // kept while there is an endpoint
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
	if e.port == nil {
		port, err := ports.Reserve()
		if err != nil {
			return fmt.Errorf("lab DNSSEC: %w", err)
		}
		e.port, e.addr = port, fmt.Sprintf("127.0.0.1:%d", port.Port())
	}
	packets, listener, err := ports.ListenBoth(e.addr)
	if err != nil {
		return fmt.Errorf("lab DNSSEC: %w", err)
	}
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
