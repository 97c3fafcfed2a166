package internet

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
)

// ttl is longer than any benchmark, in seconds.
const ttl = 86400

// names is the DNS server.
type names struct {
	packets net.PacketConn
	server  *dns.Server
	serving sync.WaitGroup
	asked   atomic.Int64

	tlsaPrefix, tlsa string
}

// startNames answers from now on. tlsaPrefix is what stands before a host's
// name where its TLSA record is asked for; tlsa is the record's digest.
func startNames(tlsaPrefix, tlsa string) (*names, error) {
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &names{packets: packets, tlsaPrefix: tlsaPrefix, tlsa: tlsa}
	n.server = &dns.Server{PacketConn: packets, Handler: n}
	started := make(chan struct{})
	n.server.NotifyStartedFunc = func() { close(started) }
	// a failure shows as silence
	n.serving.Go(func() { _ = n.server.ActivateAndServe() })
	<-started
	return n, nil
}

func (n *names) stop() {
	_ = n.server.Shutdown()
	n.serving.Wait()
}

// ServeDNS implements dns.Handler.
func (n *names) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	n.asked.Add(1)
	answer := new(dns.Msg).SetReply(question)
	answer.RecursionAvailable = true
	if len(question.Question) == 1 {
		q := question.Question[0]
		name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
		answer.AuthenticatedData = strings.HasSuffix(name, ".dane.bench")
		answer.Answer = n.records(q, name)
	}
	if len(answer.Answer) == 0 {
		answer.Ns = []dns.RR{&dns.SOA{
			Hdr: dns.RR_Header{Name: "bench.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
			Ns:  "ns.bench.", Mbox: "root.bench.", Serial: 1, Refresh: 3600, Retry: 600, Expire: ttl, Minttl: ttl,
		}}
	}
	_ = w.WriteMsg(answer) // who does not hear it asks again
}

// records makes up the answer to a question.
func (n *names) records(q dns.Question, name string) []dns.RR {
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}
	label, domain, _ := strings.Cut(name, ".")
	switch q.Qtype {
	case dns.TypeMX:
		var list []dns.RR
		for _, host := range exchangers(label, domain) {
			list = append(list, &dns.MX{Hdr: header, Preference: 10, Mx: host})
		}
		return list
	case dns.TypeA:
		if ip := addressOf(label, domain); ip != nil {
			return []dns.RR{&dns.A{Hdr: header, A: ip}}
		}
	case dns.TypeTLSA:
		// A program that looks policies up for Postfix has the usual port
		// alone.
		host, ok := strings.CutPrefix(name, n.tlsaPrefix)
		if !ok {
			host, ok = strings.CutPrefix(name, "_25._tcp.")
		}
		if ok && strings.HasSuffix(host, ".dane.bench") {
			return []dns.RR{&dns.TLSA{Hdr: header, Usage: 3, Selector: 1, MatchingType: 1, Certificate: n.tlsa}}
		}
	}
	return nil
}

// exchangers lists a domain's mail servers.
func exchangers(label, domain string) []string {
	number, ok := strings.CutPrefix(label, "d")
	switch {
	case !ok:
		return nil
	case domain == "hosts.bench":
		return []string{"h" + number + ".hosts.bench."}
	case domain == "shared.bench", domain == "dane.bench":
		return []string{"h0." + domain + ".", "h1." + domain + ".", "h2." + domain + "."}
	}
	return nil
}

// networks are the first two bytes of the hosts' addresses.
var networks = map[string]byte{"hosts.bench": 32, "shared.bench": 16, "dane.bench": 17}

// addressOf gives a host's address.
func addressOf(label, domain string) net.IP {
	number, ok := strings.CutPrefix(label, "h")
	network, known := networks[domain]
	if !ok || !known {
		return nil
	}
	i, err := strconv.Atoi(number)
	if err != nil || i < 0 || i >= 200<<16 {
		return nil
	}
	i++ // no host at .0
	return net.IPv4(127, network+byte(i>>16), byte(i>>8), byte(i)).To4()
}

// Domain is the domain number i of a kind, "hosts", "shared" or "dane".
func Domain(kind string, i int) string { return fmt.Sprintf("d%d.%s.bench", i, kind) }
