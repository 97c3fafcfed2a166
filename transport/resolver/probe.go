package resolver

import (
	"context"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// Probe is what one server shows when it is asked for a signed name in several
// ways. It is for finding out why a resolver is not fit for DANE.
type Probe struct {
	Server string     // host:port
	Addr   netip.Addr // where the answer came from; not valid without one
	// look-ups ask it: it is not left out for the sake of others (trust_ad)
	Used   bool
	Counts bool   // its AD flag counts (trust_ad)
	Err    *Error // why there was no answer by UDP; nil: there was one
	TCP    error  // why there was none by TCP; nil: there was one
	AD     bool   // the answer was validated
	// Recursive tells that the server looks names up for others (RA).
	Recursive bool
	// NoEDNS tells that the server refuses EDNS, and answers without it. Then
	// nothing that it says is validated.
	NoEDNS bool
	// EDNS is the size of the answers that the server takes by UDP itself, in
	// bytes (RFC 6891 §6.2.3); 0: it knows no EDNS.
	EDNS uint16
	// Took is how long the second answer took, which the cache had.
	Took time.Duration
	// Unchecked tells that the server answers when it is told not to validate
	// (CD), whether or not it did before.
	Unchecked bool
	// Broken tells that the server gives addresses for a name whose signatures
	// are broken: it does not validate, whatever its AD flag says.
	Broken bool
	// Begin and End are the times between which the answer's signatures are
	// valid; zero when there were none.
	Begin, End time.Time
}

// BrokenName is a name whose signatures are broken on purpose, so that who
// validates does not get it.
const BrokenName = "dnssec-failed.org."

// ProbeServers asks each of a Config's servers for the SOA record of a signed
// name, in presentation form; "." is one. The error is that of New. It takes at
// most six times the Timeout.
func ProbeServers(ctx context.Context, cfg Config, name string) ([]Probe, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5 * time.Second
	}
	all, err := parseServers(cfg.Servers)
	if err != nil {
		return nil, err
	}
	used, _ := choose(all, cfg.TrustAD)
	done := make(chan struct{})
	probes := make([]Probe, len(all))
	for i, s := range all {
		probes[i].Server = s.addr
		for _, u := range used {
			probes[i].Used = probes[i].Used || u == s
		}
		go func() {
			probes[i].ask(ctx, &cfg, dns.CanonicalName(name))
			done <- struct{}{}
		}()
	}
	for range all {
		<-done
	}
	return probes, nil
}

// ask fills in what the server shows.
func (p *Probe) ask(ctx context.Context, cfg *Config, name string) {
	q := question{name: name, qtype: Type(dns.TypeSOA)}
	got, err := exchange(ctx, udp, p.Server, newQuery(q), cfg.Timeout)
	if err == nil {
		start := time.Now()
		got, err = exchange(ctx, udp, p.Server, newQuery(q), cfg.Timeout)
		p.Took = time.Since(start)
	}
	if err != nil {
		p.Err = &Error{Name: name, Type: q.qtype, Kind: kindOf(err), Server: p.Server, Err: err}
	} else {
		p.Addr, p.Counts = got.from, cfg.TrustAD.trusts(got.from)
		p.AD, p.Recursive = got.msg.AuthenticatedData, got.msg.RecursionAvailable
		if opt := got.msg.IsEdns0(); opt != nil {
			p.EDNS = opt.UDPSize()
		}
		rcode := got.msg.Rcode
		if refusesEDNS(kindOfRcode(rcode)) {
			if plain, err := exchange(ctx, udp, p.Server, plainQuery(q), cfg.Timeout); err == nil && plain.msg.Rcode == dns.RcodeSuccess {
				p.NoEDNS, p.EDNS, p.Recursive, rcode = true, 0, plain.msg.RecursionAvailable, dns.RcodeSuccess
			}
		}
		if rcode != dns.RcodeSuccess {
			p.Err = &Error{Name: name, Type: q.qtype, Kind: kindOfRcode(rcode), Server: p.Server, Err: extendedError(got.msg)}
		}
		p.signatures(got.msg)
	}
	if p.Err != nil && p.Err.silent() {
		// It is not there, so TCP need not be waited for.
		p.TCP = p.Err
		return
	}
	if p.AD && p.Counts {
		broken := question{name: BrokenName, qtype: Type(dns.TypeA)}
		got, err := exchange(ctx, udp, p.Server, newQuery(broken), cfg.Timeout)
		p.Broken = err == nil && got.msg.Rcode == dns.RcodeSuccess && len(got.msg.Answer) > 0
	}
	_, p.TCP = exchange(ctx, tcp, p.Server, newQuery(q), cfg.Timeout)
	unchecked := newQuery(q)
	unchecked.CheckingDisabled = true
	if got, err := exchange(ctx, udp, p.Server, unchecked, cfg.Timeout); err == nil && got.msg.Rcode == dns.RcodeSuccess {
		p.Unchecked = true
		p.signatures(got.msg)
	}
}

// signatures notes when the answer's signatures are valid. Their times are 32
// bits wide and go round (RFC 4034 §3.1.5).
func (p *Probe) signatures(msg *dns.Msg) {
	for _, rr := range msg.Answer {
		sig, ok := rr.(*dns.RRSIG)
		if !ok {
			continue
		}
		p.Begin, p.End = time.Unix(int64(sig.Inception), 0), time.Unix(int64(sig.Expiration), 0)
		return
	}
}
