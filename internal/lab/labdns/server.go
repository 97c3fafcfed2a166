// Package labdns is a DNS server for tests and for the demo: the resolver that
// mxpipe asks, with the whole Internet's data in it and every fault that a
// resolver or the servers behind it can have.
//
// A Server listens on one port of 127.0.0.1 over UDP and TCP. It answers from
// the records that Add gave it, follows CNAME records within them, says
// NXDOMAIN with an SOA record for names that do not exist, and sets the AD flag
// when every name on the way to the answer lies under a suffix marked by
// Secure: it stands in for a validating resolver, as a stub resolver sees one.
// It signs nothing. Where real signatures and a real validator are wanted, the
// same zone files are signed and served to a real resolver, and that resolver's
// address takes the place of Addr.
//
// SetFault makes it misbehave, for one name and type or for many, while it
// runs, and Down has it not run for a while. Queries tells how often it was
// asked. It depends on no testing.T. All methods may be called from any
// goroutine.
package labdns

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ports"
)

// Count is how often something was asked.
type Count struct{ UDP, TCP int }

// key is a name and a type; dns.TypeANY stands for every type, and "" for every
// name.
type key struct {
	name  string
	qtype uint16
}

// Server is a DNS server on loopback.
type Server struct {
	zones zones
	addr  netip.AddrPort
	port  *ports.Reservation // nil where the caller chose the port
	stop  sync.Once
	done  chan struct{}

	socket sync.Mutex // held while the sockets are opened or closed
	open   []*dns.Server
	opened sync.WaitGroup

	mu     sync.Mutex
	faults map[key][]Fault
	holds  map[key]chan struct{}
	counts map[key]Count
	last   map[key]*dns.Msg
}

// Start begins to serve; Stop must be called. An error means that no port could
// be had.
func Start() (*Server, error) {
	port, err := ports.Reserve()
	if err != nil {
		return nil, fmt.Errorf("lab DNS: %w", err)
	}
	s, err := StartAt(fmt.Sprintf("127.0.0.1:%d", port.Port()))
	if err != nil {
		port.Release()
		return nil, err
	}
	s.port = port
	return s, nil
}

// StartAt is Start at an address and port that is not 127.0.0.1's, such as the
// port 53 that resolv.conf(5) means.
func StartAt(addr string) (*Server, error) {
	s := &Server{
		zones:  zones{records: map[string]map[uint16][]dns.RR{}, secure: map[string]bool{}},
		done:   make(chan struct{}),
		faults: map[key][]Fault{}, holds: map[key]chan struct{}{}, counts: map[key]Count{}, last: map[key]*dns.Msg{},
	}
	packets, listener, err := ports.ListenBoth(addr)
	if err != nil {
		return nil, fmt.Errorf("lab DNS: %w", err)
	}
	s.addr = packets.LocalAddr().(*net.UDPAddr).AddrPort()
	s.serve(packets, listener)
	return s, nil
}

// serve begins to answer at both ports.
func (s *Server) serve(packets net.PacketConn, listener net.Listener) {
	s.open = []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: listener, Handler: s}}
	for _, server := range s.open {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		// It returns when it is shut down; a failure before shows as a query
		// without an answer.
		s.opened.Go(func() { _ = server.ActivateAndServe() })
		<-started
	}
}

// shut closes both ports.
func (s *Server) shut() {
	for _, server := range s.open {
		// the error would say that it has ended by itself; either way it is
		// down
		_ = server.Shutdown()
	}
	s.opened.Wait()
	s.open = nil
}

// Addr is where the server listens, as host:port.
func (s *Server) Addr() string { return s.addr.String() }

// Stop ends the server and waits until nothing of it is left. It may be called
// more than once.
func (s *Server) Stop() {
	s.stop.Do(func() {
		close(s.done)
		s.socket.Lock()
		defer s.socket.Unlock()
		s.shut()
		if s.port != nil {
			s.port.Release()
		}
	})
}

// Down closes the server's ports, as if it had been stopped: a client is
// refused by the kernel. up, which is called once, opens them again; its error
// means that somebody else has taken one of them meanwhile.
func (s *Server) Down() (up func() error) {
	s.socket.Lock()
	defer s.socket.Unlock()
	s.shut()
	return s.up
}

func (s *Server) up() error {
	s.socket.Lock()
	defer s.socket.Unlock()
	select {
	case <-s.done:
		return nil
	default:
	}
	packets, listener, err := ports.ListenBoth(s.addr.String())
	if err != nil {
		return fmt.Errorf("lab DNS: %w", err)
	}
	s.serve(packets, listener)
	return nil
}

// Add adds records in the text form of a zone file. Names are absolute unless
// $ORIGIN says otherwise, and the default TTL is 300 seconds. Zones need not be
// declared: every name is answered for, and the closest SOA record at or above
// a name goes with its negative answers.
func (s *Server) Add(text string) error { return s.zones.add(text) }

// Remove takes the records of a name and type away; dns.TypeANY means all
// types.
func (s *Server) Remove(name string, qtype uint16) { s.zones.remove(name, qtype) }

// Secure marks a name and everything below it as signed, or as not signed. The
// longest suffix that was marked decides. Answers about signed names, negative
// ones too, carry the AD flag for clients that ask for it with AD or DO.
func (s *Server) Secure(suffix string, signed bool) { s.zones.setSecure(suffix, signed) }

// SetFault says how the server behaves towards queries for a name and type: as
// the first fault at the first query, and so on; the last one stays. No fault
// at all means Normal. dns.TypeANY stands for every type, the empty name for
// every name; the closest entry counts: name and type, name alone, type alone,
// anything.
func (s *Server) SetFault(name string, qtype uint16, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[newKey(name, qtype)] = faults
}

// Hold makes queries for a name and type wait until release is called, or until
// the server stops.
func (s *Server) Hold(name string, qtype uint16) (release func()) {
	k, gate := newKey(name, qtype), make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds[k] = gate
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.holds[k] == gate {
			delete(s.holds, k)
		}
		close(gate)
	})
}

// Queries tells how often a name and type was asked for, in any letter case.
// dns.TypeANY adds up all types, the empty name all names.
func (s *Server) Queries(name string, qtype uint16) Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum Count
	want := newKey(name, qtype)
	for k, n := range s.counts {
		if (want.name == "" || want.name == k.name) && (qtype == dns.TypeANY || qtype == k.qtype) {
			sum.UDP += n.UDP
			sum.TCP += n.TCP
		}
	}
	return sum
}

// Last gives the last query for a name and type, nil if there was none.
func (s *Server) Last(name string, qtype uint16) *dns.Msg {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[newKey(name, qtype)]
}

// Reset forgets what was counted.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.counts)
	clear(s.last)
}

func newKey(name string, qtype uint16) key {
	if name != "" {
		name = dns.CanonicalName(name)
	}
	return key{name, qtype}
}

// ServeDNS answers one query; it is for the library that reads them.
func (s *Server) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	if len(query.Question) != 1 {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(query, dns.RcodeFormatError))
		return
	}
	_, overTCP := w.RemoteAddr().(*net.TCPAddr)
	fault, gate := s.note(query, overTCP)
	if gate != nil {
		select {
		case <-gate:
		case <-s.done:
			return
		}
	}
	out := s.respond(query, fault, overTCP)
	if out == nil {
		if overTCP {
			w.Close()
		}
		return
	}
	// A client that went away is no concern of the server.
	_, _ = w.Write(out)
}

// note counts a query and finds how it is to be met.
func (s *Server) note(query *dns.Msg, overTCP bool) (Fault, chan struct{}) {
	q := query.Question[0]
	k := newKey(q.Name, q.Qtype)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.counts[k]
	if overTCP {
		n.TCP++
	} else {
		n.UDP++
	}
	s.counts[k] = n
	s.last[k] = query.Copy()

	var fault Fault
	var gate chan struct{}
	found := false
	for _, k := range []key{k, {k.name, dns.TypeANY}, {"", k.qtype}, {"", dns.TypeANY}} {
		if list := s.faults[k]; len(list) > 0 && !found {
			fault, found = list[0], true
			if len(list) > 1 {
				s.faults[k] = list[1:]
			}
		}
		if gate == nil {
			gate = s.holds[k]
		}
	}
	return fault, gate
}

// Timeout is a resolver time-out for tests that meet Silent: long enough for an
// answer over loopback on a busy machine, short enough to wait for.
const Timeout = 500 * time.Millisecond
