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
	return fmt.Sprintf("%s in %s, EDNS of %d bytes and TCP work", text, p.Took.Round(100*time.Microsecond), p.EDNS)
}

// judgeResolver finds what is wrong with one server. others tells that one of
// the servers answers.
func (h Host) judgeResolver(p *resolver.Probe, cfg *config.Config, others bool) []finding.Finding {
	who := resolverName(p)
	if !p.Used {
		return []finding.Finding{warn("remove it from dns.servers or /etc/resolv.conf", "%s: not used, since its answers cannot be trusted like those of the others (dns.trust_ad)", who)}
	}
	if p.Err != nil {
		return []finding.Finding{judgeFailure(p, others)}
	}
	var all []finding.Finding
	if !p.Recursive {
		all = append(all, fail("set a recursive resolver in dns.servers", "%s: does not offer recursion", who))
	}
	if usesDNSSEC(cfg) {
		all = append(all, judgeTrust(p, cfg)...)
	}
	switch {
	case p.NoEDNS && usesDNSSEC(cfg):
		// judgeTrust says so.
	case p.EDNS == 0:
		all = append(all, warn("use another resolver, or remove the DNS proxy in front of it", "%s: does not support EDNS, so there is no DNSSEC, and larger answers take two queries", who))
	case p.EDNS < leastEDNS:
		all = append(all, warn("set its EDNS buffer size to 1232 (unbound: edns-buffer-size)", "%s: sends only %d bytes by UDP", who, p.EDNS))
	}
	if p.TCP != nil {
		all = append(all, fail("have it listen on TCP port 53 too, and allow that in the firewall", "%s: no answer by TCP, so large MX and TLSA record sets cannot be read: %v", who, p.TCP))
	}
	if p.Took > h.Slow {
		all = append(all, warn("use a resolver on this host (apt install unbound)", "%s: takes %s for a cached answer", who, p.Took.Round(time.Millisecond)))
	}
	return all
}

// judgeFailure explains why there was no answer.
func judgeFailure(p *resolver.Probe, others bool) finding.Finding {
	what := fmt.Sprintf("%s: %v", resolverName(p), p.Err)
	switch {
	case p.Unchecked:
		return fail("check the clock; if it is right, renew the resolver's trust anchor (unbound-anchor) and restart it",
			"%s; it answers only with validation off", what)
	case p.Err.Kind == resolver.Refused:
		return fail("allow this host to use it (unbound: access-control; bind: allow-recursion)", "%s", what)
	case p.Err.Kind == resolver.ServFail:
		return fail("see the resolver's own log; it may not reach the Internet", "%s", what)
	case p.Err.Kind != resolver.Timeout && p.Err.Kind != resolver.Unreachable:
		return fail("set another resolver in dns.servers", "%s", what)
	case others:
		return warn("start it, or remove it from dns.servers", "%s; look-ups that try it first are delayed", what)
	}
	return fail("start it, or set one that answers in dns.servers", "%s; all mail is deferred until a resolver answers", what)
}

// judgeTrust finds out whether signed answers can be told from others.
func judgeTrust(p *resolver.Probe, cfg *config.Config) []finding.Finding {
	who := resolverName(p)
	const lost = "so DNSSEC and DANE, which mx_auth enables, are not in effect"
	switch {
	case cfg.DNS.TrustAD == config.TrustNone:
		return []finding.Finding{warn("set dns: {trust_ad: loopback}, or remove dnssec and dane from mx_auth", "%s: dns.trust_ad is none, %s", who, lost)}
	case !p.Counts:
		return []finding.Finding{fail("run a validating resolver here (apt install unbound), and set dns: {servers: [127.0.0.1]}",
			"%s: not on this host, so its AD flag is not trusted, %s", who, lost)}
	case p.NoEDNS:
		return []finding.Finding{fail("run a validating resolver here (apt install unbound), and set dns: {servers: [127.0.0.1]}",
			"%s: refuses EDNS and is queried without it, %s", who, lost)}
	case !p.AD && strings.HasPrefix(p.Server, "127.0.0.53:"):
		return []finding.Finding{fail("set DNSSEC=yes in /etc/systemd/resolved.conf, or run unbound and set dns: {servers: [127.0.0.1]}",
			"%s: systemd-resolved answers without AD, %s", who, lost)}
	case !p.AD:
		return []finding.Finding{fail("turn validation on (unbound: auto-trust-anchor-file; bind: dnssec-validation auto)",
			"%s: answers without AD, %s", who, lost)}
	case p.Broken:
		return []finding.Finding{fail("turn validation on (unbound: module-config with validator), and no permissive mode",
			"%s: gives addresses for %s, whose signatures are broken, %s", who, resolver.BrokenName, lost)}
	case !p.Addr.IsLoopback():
		return []finding.Finding{warn("run a validating resolver on this host, unless the network path to this one is trusted",
			"%s: its AD flag is trusted although it is not on this host (dns.trust_ad: all)", who)}
	}
	return nil
}
