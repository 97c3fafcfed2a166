// Package transport is a message's way out, and its face is here: what the rest
// of the program may ask of one transport. [Transport.Deliver] splits an
// envelope by destination, and says for each recipient what became of it;
// [Transport.Explain] says what a message to a domain would meet, and why;
// [Transport.Plan] what a mail server that dials by itself must ask of a
// domain's hosts.
//
// A transport has a [Config] of its own, and others for the domains that its
// overrides name; which one a recipient falls under is decided here and nowhere
// else. The work is done in the rooms below, each of which knows the next one
// and none above it:
//
//   - delivery: one message for one destination. Hosts in turn, transactions,
//     a result for each recipient.
//   - session: one host's connection. Pool, dial, greeting, TLS, and what the
//     server proved.
//   - plan: where mail for a destination goes, and how secure the connection to
//     each host must be. The one answer that a delivery, an explanation and the
//     policy map read.
//   - the subjects, one package each: route, resolver, verdict, dane, mtasts,
//     smtp, reply, outcome, status, pool, dial, deadhost, limit and others.
package transport

import (
	"context"
	"crypto/x509"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/mxpipe/mxpipe/transport/delivery"
	"github.com/mxpipe/mxpipe/transport/fallback"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/pin"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/relay"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/session"
	"github.com/mxpipe/mxpipe/transport/source"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Causes for which the context handed to Deliver is cancelled. Their code and
// text become those of the recipients that have no result by then.
var (
	// ErrGone says that the mail server no longer waits for the answer.
	ErrGone error = &status.Error{Code: status.New(status.Temporary, 3, 2), Text: "delivery cancelled: the local mail server disconnected"}
	// ErrStopping says that mxpolicyd is being stopped; the mail server keeps
	// the message.
	ErrStopping error = &status.Error{Code: status.New(status.Temporary, 3, 2), Text: "mxpolicyd is stopping"}
	// ErrTimeout says that the time is over which the mail server gave.
	ErrTimeout error = &status.Error{Code: status.New(status.Temporary, 4, 7), Text: "the delivery timed out"}
)

// maxDestinations bounds how many destinations of one message are worked on
// at once.
const maxDestinations = 20

// Deps is what transports share.
type Deps struct {
	Resolver route.Resolver
	Self     route.Self // Names and LocalIP get those of each Config
	// Policies gives the MTA-STS policies that are kept as cfg says and
	// fetched from web servers that roots vouch for. Equal calls share one.
	Policies func(cfg *MTASTS, roots *x509.CertPool) (plan.Policies, error)
	Idle     *Idle   // nil: no connection is used twice
	Traces   *Traces // nil: nothing is traced
	Logger   *slog.Logger
	// Traffic is what holds mail back or slows it down; its Transport is filled
	// in from each Config.
	Traffic Traffic
	// Daily counts the messages of sources that have a daily bound; nil: each
	// pool counts by itself, and forgets it at its end.
	Daily *source.Daily
	// Failing remembers since when destinations fail, for fallback_relay; nil:
	// it is not used.
	Failing *fallback.Memory
	// Observe is called at the end of each delivery, before its result is
	// given, by many goroutines at once: it must not wait for anything. nil:
	// nothing is told.
	Observe func(*Event)
	// ReadFile gives the contents of the files that a Config names; nil:
	// os.ReadFile.
	ReadFile func(name string) ([]byte, error)
}

// Idle keeps the idle connections of transports.
type Idle = session.Idle

// NewIdle makes a pool of at most total idle connections.
func NewIdle(total int) *Idle { return session.NewIdle(total) }

// Transport delivers messages in the way that one Config says. It is safe for
// concurrent use.
type Transport struct {
	base      *profile
	overrides []override
	log       *slog.Logger
	traces    *Traces
	failing   *fallback.Memory
	observe   func(*Event)

	plans *plan.Cache
	conns *session.Conns
	// by relay; not changed after New
	logins map[*relay.Relay]*session.Login
	// those that are configured, the transport's first; not changed after New
	relays     []*relayed
	hosts      *delivery.Hosts
	load       *limit.Providers // at each provider
	inProgress inProgress
	elsewhere  elsewhere

	ctx  context.Context // ends with Close
	stop context.CancelCauseFunc
}

// profile is a Config with what was made from it.
type profile struct {
	cfg      *Config
	planner  *plan.Planner
	dialer   *session.Dialer
	limits   *limit.Limits
	sources  *source.Pool // nil: there is no pool
	delivery delivery.Config
	relay    *relayed // where all mail goes instead; nil: nowhere else
	// that this profile leads to; nil: it leads to the domains' own hosts
	via *relay.Relay
	// where mail goes that its own hosts could not be given; nil: nowhere
	fallback *relayed
}

type override struct {
	match   string
	nexthop route.Destination // zero: by MX
	*profile
}

// New makes a transport. An error means that the Config is impossible; it is
// for the administrator.
func New(cfg *Config, deps Deps) (*Transport, error) {
	t := &Transport{log: deps.Logger, traces: deps.Traces, observe: deps.Observe, failing: deps.Failing, plans: plan.NewCache(), hosts: delivery.NewHosts()}
	t.ctx, t.stop = context.WithCancelCause(context.Background())
	t.conns = session.NewConns(t.ctx, deps.Idle)
	if deps.ReadFile == nil {
		deps.ReadFile = os.ReadFile
	}
	if err := t.configure(cfg, deps); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// configure makes the profiles.
func (t *Transport) configure(cfg *Config, deps Deps) (err error) {
	if deps.Traffic.Load == nil {
		deps.Traffic.Load = limit.NewProviders(limit.Pacing{})
	}
	t.load = deps.Traffic.Load
	if t.base, err = t.newProfile(cfg, plan.Config{}, newLimits(cfg, &deps.Traffic), deps); err != nil {
		return err
	}
	for _, o := range cfg.Overrides {
		limits := t.base.limits // one count for both
		if o.Config.Limits != cfg.Limits {
			limits = newLimits(o.Config, &deps.Traffic)
		}
		over := override{match: o.Match}
		own := plan.Config{Override: o.Match, Rules: verdict.Rules{Pins: pin.NewSet(o.Pins...)}, OwnPolicies: !reflect.DeepEqual(o.Config.MXAuth, cfg.MXAuth)}
		if over.profile, err = t.newProfile(o.Config, own, limits, deps); err != nil {
			return err
		}
		if o.Nexthop != "" {
			if over.nexthop, err = route.ParseNexthop(o.Nexthop); err != nil {
				return err
			}
		}
		t.overrides = append(t.overrides, over)
	}
	return nil
}

// newLimits makes the limits that a Config asks for.
func newLimits(cfg *Config, traffic *Traffic) *limit.Limits {
	return limit.New(limit.Config{Limits: cfg.Limits, Providers: traffic.Load, ByProvider: traffic.ProviderLimits})
}

// newProfile makes a profile. planning says which override it is for, and the
// override's pins.
func (t *Transport) newProfile(cfg *Config, planning plan.Config, limits *limit.Limits, deps Deps) (*profile, error) {
	client, err := session.NewTLS(session.TLSConfig(cfg.TLSClient), deps.ReadFile)
	if err != nil {
		return nil, err
	}
	planning.Resolver, planning.Self, planning.ForceIPv4, planning.Port = deps.Resolver, deps.Self, cfg.ForceIPv4, cfg.Port
	planning.Self.Names = slices.Concat([]string{cfg.Hostname}, cfg.Sources.Hostnames(), deps.Self.Names)
	planning.Self.LocalIP = slices.Concat(cfg.LocalIP, cfg.Sources.Addrs())
	planning.HostTimeout, planning.Cache = cfg.ConnectTimeout, t.plans
	planning.Rules.DNSSEC, planning.Rules.DANE, planning.Rules.MTASTS = cfg.MXAuth.DNSSEC, cfg.MXAuth.DANE, cfg.MXAuth.MTASTS != nil
	if local := cfg.MXAuth.Local; local != nil {
		planning.Rules.MinTLS, planning.Rules.MinMX = local.MinTLS, local.MinMX
	}
	if sts := cfg.MXAuth.MTASTS; sts != nil && deps.Policies != nil {
		if planning.Policies, err = deps.Policies(sts, client.Roots()); err != nil {
			return nil, err
		}
	}
	connect := session.Config{
		Name:           strings.TrimSpace(cfg.Name + " " + planning.Override),
		Hostname:       cfg.Hostname,
		OwnNames:       slices.DeleteFunc(slices.Clone(planning.Self.Names), route.SharedName),
		LocalIPs:       cfg.LocalIP,
		Prefer:         cfg.Prefer,
		ConnectTimeout: cfg.ConnectTimeout, CommandTimeout: cfg.CommandTimeout, SubmissionTimeout: cfg.SubmissionTimeout,
		ReuseLimit: cfg.ConnReuseLimit, IdleCount: cfg.ConnMaxIdleCount, IdleTime: cfg.ConnMaxIdleTime,
		Debug: cfg.Debug, TLS: client, Limits: limits,
	}
	if cfg.Proxy != nil {
		if connect.Proxy, err = newProxy(cfg.Proxy, planning, deps.ReadFile); err != nil {
			return nil, err
		}
	}
	deps.Traffic.Transport = cfg.Name
	p := t.assemble(cfg, planning, connect, deps.Traffic, t.sourcesOf(cfg, deps))
	if cfg.Relay != nil {
		if p.relay, err = t.newRelayed(p, cfg.Relay, planning, connect, deps); err != nil {
			return nil, err
		}
		t.addRelay(p.relay)
	}
	if f := cfg.FallbackRelay; f != nil {
		connect.Relay.Fallback = true
		if p.fallback, err = t.newRelayed(p, &f.Relay, planning, connect, deps); err != nil {
			return nil, err
		}
		if p.relay != nil {
			p.relay.fallback = p.fallback
		}
	}
	return p, nil
}

// assemble makes a profile of what its rooms need.
func (t *Transport) assemble(cfg *Config, planning plan.Config, connect session.Config, traffic Traffic, sources *source.Pool) *profile {
	p := &profile{cfg: cfg, sources: sources, planner: plan.New(planning), dialer: session.New(connect, t.conns), limits: connect.Limits}
	p.delivery = delivery.Config{
		Planner: p.planner, Dialer: p.dialer, Limits: p.limits, Conns: t.conns, Hosts: t.hosts,
		Traffic: traffic, Sources: sources,
		Chunking: cfg.Chunking.use(), ConnectTimeout: cfg.ConnectTimeout, End: t.ctx,
	}
	return p
}

// sourcesOf makes the pool of sources, or gives that of the transport where an
// override has the same; nil: there is none.
func (t *Transport) sourcesOf(cfg *Config, deps Deps) *source.Pool {
	switch {
	case cfg.Sources == nil:
		return nil
	case t.base != nil && t.base.sources != nil && reflect.DeepEqual(cfg.Sources, t.base.cfg.Sources):
		return t.base.sources
	}
	return source.New(cfg.Sources, source.Options{Daily: deps.Daily, Logger: deps.Logger.With("transport", cfg.Name)})
}

// demands reads what the message itself asks for: the envelope's REQUIRETLS,
// or the header field by which Postfix carries it over a local hop; and
// "TLS-Required: No" (RFC 8689 §3). A bounce goes even to hosts that do not
// offer the extension, as it would be lost otherwise (RFC 8689 §5).
// To a relay, whose TLS protects a login, "TLS-Required: No" says nothing; it
// goes on with the message.
func (p *profile) demands(env *Envelope, msg *Message) verdict.Demands {
	require := env.RequireTLS || msg.Header.RequireTLS()
	return verdict.Demands{
		RequireTLS:    require,
		Relaxed:       p.cfg.RelaxedRequireTLS || env.Sender == "" || env.Sender == "<>",
		TLSRequiredNo: !require && p.via == nil && p.cfg.RequireTLSOverride && msg.Header.TLSRequiredNo(),
	}
}

// refusal says why a message goes nowhere; nil: it may go.
func refusal(cfg *Config, env *Envelope, msg *Message) *status.Error {
	quarantined, known := env.Quarantined, true
	if mark, ok := cfg.quarantineField(); ok && !quarantined {
		quarantined, known = msg.Header.Has(mark)
	}
	switch {
	case !known:
		return &status.Error{Code: status.New(status.Temporary, 3, 0), Text: "quarantine_header was changed while the message came in"}
	case quarantined:
		return &status.Error{Code: status.New(status.Permanent, 7, 0), Text: "the message is quarantined"}
	}
	return nil
}

// Abort gives up the wait for servers that may have a message already: no one
// can know then, so the message is temporary. What has not come as far ends
// with the context of its Deliver. It does not wait for anything.
func (t *Transport) Abort() { t.stop(ErrStopping) }

// Close gives up what is still under way, waits for it, and closes every
// connection. No Deliver may be running any more, nor be called again.
func (t *Transport) Close() {
	t.Abort()
	t.plans.Close()
	t.conns.Wait()
}

// Plan gives a domain's plan as of now, for a mail server that finds the hosts
// by itself and dials them by itself, at a port or, if that is 0, at the
// transport's, and for a message that makes no demands of its own
// ([plan.Planner.Plan]). An override's next hop, of which that mail server
// knows nothing, is left out of account; its policies hold. Names come as
// A-labels or U-labels; an address literal has no plan.
//
// The error is the cause of ctx, or says that the transport is closed, or that
// there is no such domain.
func (t *Transport) Plan(ctx context.Context, domain string, port uint16) (*plan.Plan, error) {
	p, dest, err := t.forDomain(domain, port)
	if err != nil {
		return nil, err
	}
	return p.planner.Plan(ctx, plan.Target{Destination: dest})
}

// Text gives what a Writer makes of the Plan for a domain. It is the way of
// those who need no more: a text that is known costs little time, and little
// memory ([plan.Planner.Text]).
func (t *Transport) Text(ctx context.Context, domain string, port uint16, w *plan.Writer) (string, error) {
	p, dest, err := t.forDomain(domain, port)
	if err != nil {
		return "", err
	}
	return p.planner.Text(ctx, dest.Domain, dest.Port, w)
}

// forDomain finds the profile for a domain whose hosts are dialled at a port,
// and the destination.
func (t *Transport) forDomain(domain string, port uint16) (*profile, route.Destination, error) {
	dest, err := route.ForDomain(domain)
	if err != nil || dest.Domain == "" {
		return nil, dest, route.ErrDomain
	}
	p := t.base
	if o := t.overrideOf(dest.Domain); o != nil {
		p = o.profile
	}
	if port != p.cfg.Port { // the same plan else
		dest.Port = port
	}
	return p, dest, nil
}
