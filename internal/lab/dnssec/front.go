package dnssec

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// queryTimeout bounds one exchange with the Server, and lookupTimeout a whole
// question.
const (
	queryTimeout  = 2 * time.Second
	lookupTimeout = 10 * time.Second
)

// Front is a validating resolver for stub resolvers, on one port of 127.0.0.1
// over UDP and TCP. It answers to DO and AD with AD where everything is secure,
// to CD with what it finds, and with SERVFAIL and an extended error (RFC 8914)
// where validation fails. It keeps nothing between questions.
type Front struct {
	endpoint endpoint
	tally    tally
	walker   walker

	mu   sync.Mutex
	ctx  context.Context // ends the look-ups under way
	quit context.CancelFunc
}

// NewFront starts a Front that asks a Server and trusts its root; Stop must be
// called. An error means that no port could be had.
func NewFront(server *Server) (*Front, error) {
	anchor, err := dns.NewRR(server.TrustAnchor())
	if err != nil {
		return nil, err
	}
	f := &Front{walker: walker{server: server.Addr(), anchor: anchor.(*dns.DS), now: time.Now}}
	f.endpoint.handler = f
	if err := f.Restart(); err != nil {
		return nil, err
	}
	return f, nil
}

// Addr is where the front listens, as host:port.
func (f *Front) Addr() string { return f.endpoint.address() }

// Stop ends the front and waits until nothing of it is left: its port refuses
// datagrams and connections. It may be called more than once.
func (f *Front) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.quit != nil {
		f.quit()
	}
	f.endpoint.stop()
}

// Restart answers again, at the same address, after a Stop. An error means that
// the port is gone.
func (f *Front) Restart() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx == nil || f.ctx.Err() != nil {
		f.ctx, f.quit = context.WithCancel(context.Background())
	}
	if err := f.endpoint.start(); err != nil {
		f.quit()
		return err
	}
	return nil
}

// Queries tells how often a name and type was asked for, in any letter case.
// dns.TypeANY adds up all types, the empty name all names.
func (f *Front) Queries(name string, qtype uint16) int { return f.tally.count(name, qtype) }

// Reset forgets what was counted.
func (f *Front) Reset() { f.tally.reset() }

// ServeDNS answers one query; it is for the library that reads them.
func (f *Front) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	asked := query.Question[0]
	q := newQuestion(asked.Name, asked.Qtype)
	f.tally.note(q)
	reply := new(dns.Msg).SetReply(query)
	reply.RecursionAvailable = true
	opt := query.IsEdns0()
	wantsDNSSEC := opt != nil && opt.Do()
	if opt != nil {
		reply.SetEdns0(1232, wantsDNSSEC)
	}
	switch {
	case asked.Qclass != dns.ClassINET:
		reply.Rcode = dns.RcodeRefused
	case isMeta(q.qtype):
		reply.Rcode = dns.RcodeNotImplemented
	default:
		f.fill(reply, query, q)
	}
	if !wantsDNSSEC {
		reply.Answer = withoutDNSSEC(reply.Answer, q.qtype)
		reply.Ns = withoutDNSSEC(reply.Ns, q.qtype)
	}
	send(w, query, reply)
}

// fill looks a question up and puts the result into the reply.
func (f *Front) fill(reply, query *dns.Msg, q question) {
	// The handler runs between Restart and the end of Stop, so that no lock is
	// needed, nor could be had, for ctx.
	ctx, cancel := context.WithTimeout(f.ctx, lookupTimeout)
	defer cancel()
	found, err := f.walker.lookup(ctx, q, query.CheckingDisabled)
	if err != nil {
		reply.Rcode = dns.RcodeServerFailure
		var invalid *invalidError
		if opt := reply.IsEdns0(); opt != nil && errors.As(err, &invalid) {
			opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: invalid.code, ExtraText: invalid.Error()})
		}
		return
	}
	reply.Rcode, reply.Answer, reply.Ns = found.rcode, found.answer, found.authority
	opt := query.IsEdns0()
	reply.AuthenticatedData = found.secure && (query.AuthenticatedData || opt != nil && opt.Do())
}

// withoutDNSSEC drops what a client that does not set DO has not asked for (RFC
// 4035 §3.2.1).
func withoutDNSSEC(list []dns.RR, qtype uint16) []dns.RR {
	var kept []dns.RR
	for _, rr := range list {
		if t := rr.Header().Rrtype; t == qtype || t != dns.TypeRRSIG && t != dns.TypeNSEC {
			kept = append(kept, rr)
		}
	}
	return kept
}
