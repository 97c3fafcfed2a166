// Package doctor finds out whether a host is fit for mxpolicyd, and says what
// mends it where it is not: the resolver, the clock, the certificates that are
// trusted, the name, the state directory, the sockets and who may use them, the
// TLSRPT collector, and the mail server's configuration.
//
// A good finding is said as well, so that the list shows what was looked at. A
// warning works, but not as well or as safely as it could; a failure means that
// mail is held up, bounced, or sent with less protection than was configured.
// Either has its mend, in one line. What cannot be seen from here is not
// guessed.
//
// Each check is made of two parts: one that looks at the machine, and one that
// judges what was seen, from values to findings.
package doctor

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/policyd/doctor/mailserver"
	"github.com/mxpipe/mxpipe/policyd/runtime"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// Host is the machine that is examined, as far as it is not asked by ordinary
// system calls. System gives the one that the program runs on.
type Host struct {
	Etc    string // the directory of accounts and of resolv.conf
	Signed string // a DNS name whose SOA record is signed
	// Slow is longer than a resolver on this host, or nearby, takes for an
	// answer that it has.
	Slow  time.Duration
	Now   time.Time // by this host's clock
	Built time.Time // when the program was; zero: not known
	// Synchronised tells whether the kernel's clock is kept right.
	Synchronised func() (bool, error)
	// Roots gives the certificates of the system's bundle.
	Roots func() (*x509.CertPool, error)
	// Interfaces gives this host's addresses.
	Interfaces func() ([]netip.Addr, error)
	// Listening gives the unix sockets at which somebody listens, by path.
	Listening func() (map[string]bool, error)
	// Units gives the sockets that systemd holds for the daemon; none where
	// there is no systemd.
	Units func(ctx context.Context) []Unit
	// Filesystem tells about the file system that a path is on.
	Filesystem func(path string) (Filesystem, error)
	// Postfix gives what "postconf" and "postconf -M" print. Its error matches
	// fs.ErrNotExist where there is no Postfix.
	Postfix func(ctx context.Context) (main, master string, err error)
	// Exim gives what Exim prints of its configuration, with an error as
	// Postfix has.
	Exim func(ctx context.Context) (mailserver.EximOutput, error)
	// Limits gives the limits of a mail server, by the file of its process id;
	// ok is false where it does not run.
	Limits func(pidFile string) (limits mailserver.Limits, ok bool)
	// Daemon gives the user that the daemon runs as, or would run as, and
	// whether it runs. The user is -1 when it is not known.
	Daemon func(ctx context.Context) (uid int, running bool)
	// UID is the user that examines.
	UID int
}

// Filesystem is what a directory is on.
type Filesystem struct {
	ReadOnly bool
	Free     int64 // bytes that an ordinary user can still write
}

// Options say what is looked at beside the usual.
type Options struct {
	// Connect is a mail server, "host" or "host:port", to which a connection
	// is tried; empty: none is.
	Connect string
}

// Examine looks at everything, in the order in which the findings are best
// mended. It takes as long as a dead resolver and a dead mail server have it
// wait, a minute or two at the most.
func (h Host) Examine(ctx context.Context, cfg *config.Config, o Options) []finding.Finding {
	all := configuration(cfg)
	probes, settings, found := h.resolvers(ctx, cfg)
	all = append(all, found...)
	all = append(all, h.clock(probes)...)
	all = append(all, h.certificates(cfg)...)
	all = append(all, h.hostnames(ctx, cfg, settings, answering(probes))...)
	uid, running := h.Daemon(ctx)
	for _, d := range directories(cfg) {
		all = append(all, h.directory(d, uid)...)
	}
	units := h.Units(ctx)
	all = append(all, h.sockets(cfg, units, running)...)
	all = append(all, h.collector(&cfg.TLSRPT, uid)...)
	all = append(all, tlsReports(ctx, cfg)...)
	all = append(all, h.mailServer(ctx, ourSide(cfg, units))...)
	all = append(all, proxies(ctx, cfg)...)
	all = append(all, relays(ctx, cfg)...)
	if o.Connect != "" {
		all = append(all, connect(ctx, cfg, o.Connect))
	}
	return all
}

// DNS looks at the DNS servers alone, as the daemon does now and then.
func (h Host) DNS(ctx context.Context, cfg *config.Config) []finding.Finding {
	_, _, found := h.resolvers(ctx, cfg)
	return found
}

// Mistakes makes findings of a configuration's mistakes. The error is that of
// config.Load.
func Mistakes(err error) []finding.Finding {
	mistakes, ok := err.(config.Mistakes)
	if !ok {
		return []finding.Finding{fail("name a readable file with -c, or leave -c out", "configuration: %v", err)}
	}
	var all []finding.Finding
	for _, m := range mistakes {
		all = append(all, fail("correct the line; see mxpolicyd.yaml(5)", "configuration: %s", m))
	}
	return all
}

// configuration tells what is right in it, and hardly meant.
func configuration(cfg *config.Config) (all []finding.Finding) {
	for _, w := range cfg.Warnings {
		all = append(all, warn("say in the file what is meant; the reference is in mxpolicyd.yaml(5)", "configuration: %s", w))
	}
	return all
}

func ok(what string, args ...any) finding.Finding {
	return finding.Finding{Level: finding.OK, What: fmt.Sprintf(what, args...)}
}

func warn(mend, what string, args ...any) finding.Finding {
	return finding.Finding{Level: finding.Warn, What: fmt.Sprintf(what, args...), Mend: mend}
}

func fail(mend, what string, args ...any) finding.Finding {
	return finding.Finding{Level: finding.Fail, What: fmt.Sprintf(what, args...), Mend: mend}
}

// resolvers looks at the DNS servers.
func (h Host) resolvers(ctx context.Context, cfg *config.Config) ([]resolver.Probe, resolver.Config, []finding.Finding) {
	settings, err := runtime.ResolverConfig(cfg, h.Etc+"/resolv.conf")
	if err != nil {
		return nil, settings, []finding.Finding{fail("set a validating resolver on this host: dns: {servers: [127.0.0.1]}", "resolver: %v", err)}
	}
	probes, err := resolver.ProbeServers(ctx, settings, h.Signed)
	if err != nil {
		return nil, settings, []finding.Finding{fail("correct dns.servers", "resolver: %v", err)}
	}
	return probes, settings, h.judgeResolvers(probes, cfg)
}

// answering tells whether there is anybody to ask.
func answering(probes []resolver.Probe) bool {
	return slices.ContainsFunc(probes, func(p resolver.Probe) bool { return p.Used && p.Err == nil })
}

// usesDNSSEC tells whether any transport relies on signed answers.
func usesDNSSEC(cfg *config.Config) bool {
	relies := func(c *transport.Config) bool { return c.MXAuth.DNSSEC || c.MXAuth.DANE }
	for _, t := range cfg.Transports {
		if relies(t) {
			return true
		}
		for _, o := range t.Overrides {
			if relies(o.Config) {
				return true
			}
		}
	}
	return false
}
