package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// leastEDNS is what a security-aware resolver must take (RFC 4035 §4.1).
const leastEDNS = 1220

// judgeResolvers judges what the DNS servers showed.
func (h Host) judgeResolvers(probes []resolver.Probe, cfg *config.Config) (all []finding.Finding) {
	answers := answering(probes)
	for i := range probes {
		p := &probes[i]
		found := h.judgeResolver(p, cfg, answers)
		if len(found) == 0 {
			found = []finding.Finding{ok("%s: %s", resolverName(p), praise(p))}
		}
		all = append(all, found...)
	}
	return all
}

func resolverName(p *resolver.Probe) string { return "resolver " + p.Server }

// praise says what is good about a resolver.
func praise(p *resolver.Probe) string {
	text := "answers"
	if p.Counts && p.AD {
		text = "validates"
	}
	return fmt.Sprintf("%s, in %s, with EDNS of %d bytes and by TCP", text, p.Took.Round(100*time.Microsecond), p.EDNS)
}

// judgeResolver finds what is wrong with one server. others tells that one of
// the servers answers.
func (h Host) judgeResolver(p *resolver.Probe, cfg *config.Config, others bool) []finding.Finding {
	who := resolverName(p)
	if !p.Used {
		return []finding.Finding{warn("take it off dns.servers, or off /etc/resolv.conf", "%s: not asked, since its answers cannot be trusted like those of the others (dns.trust_ad)", who)}
	}
	if p.Err != nil {
		return []finding.Finding{judgeFailure(p, others)}
	}
	var all []finding.Finding
	if !p.Recursive {
		all = append(all, fail("name a recursive resolver in dns.servers", "%s: it does not look names up for others", who))
	}
	if usesDNSSEC(cfg) {
		all = append(all, judgeTrust(p, cfg)...)
	}
	switch {
	case p.NoEDNS && usesDNSSEC(cfg):
		// judgeTrust says so.
	case p.EDNS == 0:
		all = append(all, warn("use another resolver, or remove the DNS proxy in front of it", "%s: it knows no EDNS, which DNSSEC needs, and every larger answer has to be asked for twice", who))
	case p.EDNS < leastEDNS:
		all = append(all, warn("have it take 1232 bytes (unbound: edns-buffer-size)", "%s: it takes only %d bytes by UDP", who, p.EDNS))
	}
	if p.TCP != nil {
		all = append(all, fail("have it listen at TCP port 53 too, and let that through", "%s: no answer by TCP, so large MX and TLSA sets cannot be read: %v", who, p.TCP))
	}
	if p.Took > h.Slow {
		all = append(all, warn("use a resolver on this host (apt install unbound)", "%s: it takes %s for an answer that it has", who, p.Took.Round(time.Millisecond)))
	}
	return all
}

// judgeFailure explains why there was no answer.
func judgeFailure(p *resolver.Probe, others bool) finding.Finding {
	what := fmt.Sprintf("%s: %v", resolverName(p), p.Err)
	switch {
	case p.Unchecked:
		return fail("set the clock right; if it is, renew the resolver's trust anchor (unbound-anchor) and restart it",
			"%s; it answers only when it is told not to validate", what)
	case p.Err.Kind == resolver.Refused:
		return fail("let this host use it (unbound: access-control; bind: allow-recursion)", "%s", what)
	case p.Err.Kind == resolver.ServFail:
		return fail("see the resolver's own log; it may have no way to the Internet", "%s", what)
	case p.Err.Kind != resolver.Timeout && p.Err.Kind != resolver.Unreachable:
		return fail("name another resolver in dns.servers", "%s", what)
	case others:
		return warn("start it, or take it off dns.servers", "%s; every look-up that begins there waits", what)
	}
	return fail("start it, or name one that answers in dns.servers", "%s; until one answers, all mail waits", what)
}

// judgeTrust finds out whether signed answers can be told from others.
func judgeTrust(p *resolver.Probe, cfg *config.Config) []finding.Finding {
	who := resolverName(p)
	const lost = "so there is no DNSSEC and no DANE, though mx_auth has them"
	switch {
	case cfg.DNS.TrustAD == config.TrustNone:
		return []finding.Finding{warn("dns: {trust_ad: loopback}, or mx_auth without dnssec and dane", "%s: dns.trust_ad is none, %s", who, lost)}
	case !p.Counts:
		return []finding.Finding{fail("run a validating resolver here (apt install unbound), and set dns: {servers: [127.0.0.1]}",
			"%s: it is not on this host, so its AD flag does not count, %s", who, lost)}
	case p.NoEDNS:
		return []finding.Finding{fail("run a validating resolver here (apt install unbound), and set dns: {servers: [127.0.0.1]}",
			"%s: it refuses EDNS and is asked without, %s", who, lost)}
	case !p.AD && strings.HasPrefix(p.Server, "127.0.0.53:"):
		return []finding.Finding{fail("set DNSSEC=yes in /etc/systemd/resolved.conf, or run unbound and set dns: {servers: [127.0.0.1]}",
			"%s: systemd-resolved answers without AD, %s", who, lost)}
	case !p.AD:
		return []finding.Finding{fail("turn validation on (unbound: auto-trust-anchor-file; bind: dnssec-validation auto)",
			"%s: it answers without AD, %s", who, lost)}
	case !p.Addr.IsLoopback():
		return []finding.Finding{warn("run a validating resolver on this host, unless nobody can meddle with the way to that one",
			"%s: its AD flag is believed, though it is not on this host (dns.trust_ad: all)", who)}
	}
	return nil
}
