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
	"cmp"
	"context"
	"crypto/x509"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/delivery"
	"github.com/mxpipe/mxpipe/transport/fallback"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/pin"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/relay"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/session"
	"github.com/mxpipe/mxpipe/transport/smtp"
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

// Deliver delivers one message and says what became of each recipient, in
// their order. When ctx ends, what is not done yet is temporary, with the
// cause of ctx in the text.
func (t *Transport) Deliver(ctx context.Context, env *Envelope, msg *Message) []Result {
	results := make([]Result, len(env.Recipients))
	for i := range results {
		results[i].Recipient = env.Recipients[i].Address
	}
	sender, err := address.Parse(env.Sender)
	if err != nil {
		for i := range results {
			t.reject(env, &results[i], &status.Error{Code: status.New(status.Permanent, 1, 7), Text: "sender " + quote(env.Sender), Err: err})
		}
		return results
	}
	list := t.split(env, results)
	if len(list) == 1 { // as nearly always
		t.deliver(ctx, list[0], sender, env, msg, results)
		return results
	}
	var all errgroup.Group
	all.SetLimit(maxDestinations)
	for _, p := range list {
		all.Go(func() error {
			t.deliver(ctx, p, sender, env, msg, results)
			return nil
		})
	}
	_ = all.Wait() // none returns an error
	return results
}

// deliver does the work of one destination, and tells of it.
func (t *Transport) deliver(ctx context.Context, p *targetRcpts, sender address.Address, env *Envelope, msg *Message, results []Result) {
	m := p.message(env, msg)
	m.Sender = sender
	d := t.run(ctx, p, m, env)
	rest := t.fallBack(p, d, m)
	if rest == nil {
		t.end(p, d, m, env, results)
		return
	}
	if own := p.without(rest); len(own.rcpts) > 0 {
		t.end(own, d, m, env, results)
	}
	direct := d.Result(rest.from[0])
	rest.from = nil
	m = rest.message(env, msg)
	m.Sender, m.Direct = sender, direct.Code.String()+" "+reply.Line(direct.Error())
	t.end(rest, t.run(ctx, rest, m, env), m, env, results)
}

// run runs one delivery.
func (t *Transport) run(ctx context.Context, p *targetRcpts, m *delivery.Message, env *Envelope) *delivery.Delivery {
	m.Log = t.log.With("id", env.ID, "queue_id", env.QueueID, "transport", p.profile.cfg.Name)
	m.Traced = t.traces.Covers(p.target.Domain)
	for i := range m.Recipients {
		m.Traced = m.Traced || t.traces.Covers(m.Recipients[i].Address.ASCII)
	}
	d := delivery.New(&p.profile.delivery, m)
	defer t.inProgress.begin(d, InProgress{
		ID: env.ID, QueueID: env.QueueID, Destination: p.target.String(), Recipients: len(m.Recipients), Since: time.Now(),
	})()
	d.Run(ctx)
	return d
}

// end gives recipients of a delivery their results, and tells of them.
func (t *Transport) end(p *targetRcpts, d *delivery.Delivery, m *delivery.Message, env *Envelope, results []Result) {
	d.Log(p.from)
	for i, at := range p.indexes {
		results[at].set(d.Result(p.in(i)), env.ID)
	}
	if t.observe == nil {
		return
	}
	found := d.Found()
	e := &Event{
		Envelope: env, Transport: p.profile.cfg.Name, Destination: p.target.Destination, Named: p.target.Named,
		Relay: p.profile.relayName(), Fallback: m.Direct != "",
		TLSRequiredNo: m.Demands.TLSRequiredNo,
		Folds:         m.Facts.Folds, StrayCRs: m.Facts.StrayCRs,
		Resent: found.Resent, Took: found.Took, Phases: found.Phases, STS: found.STS, Attempts: found.Attempts,
	}
	e.Results, e.Outcomes = e.result[:0], e.outcome[:0]
	for i, at := range p.indexes {
		result := d.Result(p.in(i))
		e.Results = append(e.Results, result.Code)
		e.Outcomes = append(e.Outcomes, Outcome{env.Recipients[at].Address, result})
	}
	e.Phases[PhaseWait] += max(env.Waited, 0)
	t.observe(e)
}

// targetRcpts are the recipients of an envelope that have one target.
type targetRcpts struct {
	profile *profile
	target  plan.Target
	rcpts   []smtp.Recipient
	indexes []int // in the envelope
	from    []int // in the delivery that had them; nil: all of its, in order
}

// in gives the place of a recipient in the delivery.
func (p *targetRcpts) in(i int) int {
	if p.from == nil {
		return i
	}
	return p.from[i]
}

// some gives those of the recipients that are chosen, as a part of the same
// delivery.
func (p *targetRcpts) some(chosen func(i int) bool) *targetRcpts {
	part := &targetRcpts{profile: p.profile, target: p.target}
	for i := range p.rcpts {
		if chosen(i) {
			part.rcpts, part.indexes, part.from = append(part.rcpts, p.rcpts[i]), append(part.indexes, p.indexes[i]), append(part.from, i)
		}
	}
	return part
}

// without gives those that are not in a part.
func (p *targetRcpts) without(part *targetRcpts) *targetRcpts {
	return p.some(func(i int) bool { return !slices.Contains(part.from, i) })
}

// message makes the message for them.
func (p *targetRcpts) message(env *Envelope, msg *Message) *delivery.Message {
	m := &delivery.Message{
		Target: p.target, Name: cmp.Or(env.QueueID, env.ID), Recipients: p.rcpts, Content: msg.Content, Facts: msg.Facts,
		Demands:  p.profile.demands(env, msg),
		EightBit: env.EightBit, SMTPUTF8: env.SMTPUTF8, Ret: env.Ret, EnvID: env.EnvID,
		Refused: refusal(p.profile.cfg, env, msg),
	}
	if env.Peer != (Peer{}) {
		m.LogTail = []slog.Attr{slog.Int("uid", env.Peer.UID), slog.Int("pid", env.Peer.PID)}
	}
	return m
}

// reject gives a recipient for whom there is nothing to try its result.
func (t *Transport) reject(env *Envelope, r *Result, why *status.Error) {
	r.set(why, env.ID)
	if t.observe != nil {
		t.observe(&Event{
			Envelope: env, Transport: t.base.cfg.Name,
			Results: []status.Code{why.Code}, Outcomes: []Outcome{{r.Recipient, why}},
		})
	}
	said := "refused"
	if why.Code.Class == status.Temporary {
		said = "deferred"
	}
	t.log.Info(said, "id", env.ID, "queue_id", env.QueueID, "transport", t.base.cfg.Name,
		"from", reply.Line(env.Sender), "to", reply.Line(r.Recipient), "dsn", why.Code.String(), "text", reply.Line(why.Error()))
}

// split sorts the recipients by destination, in the order of their first
// recipients. Recipients that have none get their result here.
func (t *Transport) split(env *Envelope, results []Result) []*targetRcpts {
	var list []*targetRcpts
	// Named or not: what leads nowhere is the fault of one address, and not of
	// another that a next hop sent there.
	type key struct {
		profile *profile
		target  plan.Target
	}
	byKey := map[key]*targetRcpts{}
	for i, r := range env.Recipients {
		addr, err := address.Parse(r.Address)
		if err == nil && addr.IsNull() {
			err = address.ErrEmpty
		}
		if err != nil {
			t.reject(env, &results[i], &status.Error{Code: status.New(status.Permanent, 1, 3), Text: "recipient " + quote(r.Address), Err: err})
			continue
		}
		profile, target, failed := t.destination(addr, env.Nexthop)
		if failed == nil {
			failed = profile.suspended(addr, &target)
		}
		if failed != nil {
			t.reject(env, &results[i], failed)
			continue
		}
		k := key{profile, target}
		p := byKey[k]
		if p == nil {
			p = &targetRcpts{profile: profile, target: target}
			byKey[k] = p
			list = append(list, p)
		}
		p.indexes = append(p.indexes, i)
		p.rcpts = append(p.rcpts, smtp.Recipient{Address: addr, Notify: r.Notify, ORcpt: r.ORcpt})
	}
	return list
}

// destination says where mail for a recipient goes, and in which way. What
// the mail server names as its next hop comes before the recipient's domain,
// unless it is that; overrides are looked for under the name that was chosen,
// and that of the domain keeps its demands.
// A relay comes before all of that.
func (t *Transport) destination(rcpt address.Address, nexthop string) (p *profile, dest plan.Target, failed *status.Error) {
	own, err := route.ForDomain(rcpt.ASCII)
	switch {
	case nexthop != "" && !isOwn(nexthop, own, err):
		dest.Named = true
		if dest.Destination, err = route.ParseNexthop(nexthop); err != nil && t.base.relay != nil {
			return t.base.relay.profile, t.base.relay.target, nil
		} else if err != nil {
			return nil, dest, &status.Error{Code: status.New(status.Temporary, 3, 5), Text: "next hop " + quote(nexthop), Err: err}
		}
	case rcpt.ASCII == "":
		return nil, dest, &status.Error{Code: status.New(status.Permanent, 1, 3), Text: "recipient " + quote(rcpt.String()) + " has no domain"}
	case err != nil:
		return nil, dest, &status.Error{Code: status.New(status.Permanent, 1, 2), Text: "domain " + quote(rcpt.Domain), Err: err}
	default:
		dest.Destination = own
	}
	o := t.overrideOf(dest.Domain)
	if r := t.relayFor(dest, own.Domain, o); r != nil {
		return r.profile, r.target, nil
	}
	p = t.base
	if o != nil {
		p = o.profile
	}
	if dest.Named {
		p = t.elsewhere.profile(p, t.overrideOf(own.Domain))
	}
	if o != nil && o.nexthop != (route.Destination{}) {
		dest = plan.Target{Destination: o.nexthop, Named: true}
	}
	return p, dest, nil
}

// elsewhere has the profiles for mail that the mail server's next hop takes to
// other hosts than those of the recipient's domain. What an override demands of
// the domain's hosts by pin and local_policy it demands of any.
type elsewhere struct {
	mu   sync.Mutex
	made map[elsewhereKey]*profile
}

// elsewhereKey is the profile that the next hop has, and that of the domain.
type elsewhereKey struct{ nexthop, own *profile }

// profile gives the one for a next hop that has p; own is the override of the
// recipient's domain, nil where there is none.
func (e *elsewhere) profile(p *profile, own *override) *profile {
	if own == nil || own.profile == p {
		return p
	}
	rules := p.planner.Rules().Keeping(own.planner.Rules())
	if rules == p.planner.Rules() {
		return p
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	key := elsewhereKey{p, own.profile}
	if known := e.made[key]; known != nil {
		return known
	}
	strict := *p
	strict.planner = p.planner.Under(rules, own.match)
	strict.delivery.Planner = strict.planner
	if e.made == nil {
		e.made = map[elsewhereKey]*profile{}
	}
	e.made[key] = &strict
	return &strict
}

// overrideOf finds the override for a domain; nil: there is none.
func (t *Transport) overrideOf(domain string) *override {
	for i := range t.overrides {
		if matches(t.overrides[i].match, domain) {
			return &t.overrides[i]
		}
	}
	return nil
}

// isOwn reports whether the mail server's next hop is nothing but the
// recipient's own domain, as Postfix writes it when there is no other.
func isOwn(nexthop string, own route.Destination, err error) bool {
	if err != nil {
		return false
	}
	d, err := route.ForDomain(nexthop)
	return err == nil && d == own
}

// matches reports whether an override's pattern names a domain.
func matches(pattern, domain string) bool {
	if strings.HasPrefix(pattern, ".") {
		return len(domain) > len(pattern) && strings.HasSuffix(domain, pattern)
	}
	return domain == pattern
}

func quote(s string) string {
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return strconv.QuoteToASCII(s)
}

// Stats gives the counters. It is safe for concurrent use, also after Close.
func (t *Transport) Stats() Stats {
	conns := t.conns.Stats()
	s := Stats{
		Deliveries: t.inProgress.len(), Open: conns.Open, Opened: conns.Opened,
		Dead: conns.Dead, Slowed: t.load.Slowed(), Pool: conns.Pool,
	}
	for _, source := range t.sources() {
		switch {
		case source.Gone:
			s.Sources.Out++
		case source.Spent():
			s.Sources.Spent++
		default:
			s.Sources.Usable++
		}
	}
	s.Memory[MemoryPlans], s.Memory[MemoryChunking] = t.plans.Stats().Usage(), t.hosts.Chunking()
	s.Memory[MemoryAnswers] = t.plans.TextStats().Usage()
	s.Memory[MemoryChains], s.Memory[MemorySessions] = t.base.dialer.Chains(), t.conns.Sessions()
	for _, o := range t.overrides {
		s.Memory[MemoryChains].Add(o.dialer.Chains())
	}
	s.Memory[MemoryHellos], s.Memory[MemoryDead] = t.conns.Hellos.Usage(), t.conns.Dead.Usage()
	s.Memory[MemoryAddresses], s.Memory[MemoryLimits] = t.conns.History.Usage(), t.base.limits.Usage()
	s.Memory[MemoryTold] = t.hosts.Told()
	for _, o := range t.overrides {
		if o.limits != t.base.limits {
			s.Memory[MemoryLimits].Add(o.limits.Usage())
		}
	}
	for scope := range limit.Scopes {
		s.Limits[scope].Add(t.base.limits.Stats(scope))
		for _, o := range t.overrides {
			if o.limits != t.base.limits {
				s.Limits[scope].Add(o.limits.Stats(scope))
			}
		}
	}
	return s
}

// Snapshot tells what the transport is doing, and what its pool holds: a pool
// is a transport's own.
func (t *Transport) Snapshot() Snapshot {
	s := Snapshot{
		Name: t.base.cfg.Name, InProgress: t.inProgress.list(), Dead: t.conns.DeadHosts(), Slowed: t.load.List(), Hellos: t.conns.Hellos.List(),
		Idle: t.conns.Stats().Pool, IdleHosts: t.conns.IdleHosts(), Limits: limitStates("", t.base.limits),
		Sources: t.sources(),
	}
	for _, o := range t.overrides {
		if o.limits != t.base.limits {
			s.Limits = append(s.Limits, limitStates(o.match, o.limits)...)
		}
	}
	return s
}

// sources gives what mail leaves from: the transport's pool, then those of
// overrides that have their own.
func (t *Transport) sources() (all []SourceState) {
	add := func(override string, p *source.Pool) {
		for _, s := range p.States() {
			all = append(all, SourceState{override, s})
		}
	}
	if t.base.sources != nil {
		add("", t.base.sources)
	}
	for _, o := range t.overrides {
		if o.sources != nil && o.sources != t.base.sources {
			add(o.match, o.sources)
		}
	}
	return all
}

// FlushHellos forgets what was found out about TLS hellos with the hosts that
// match, and gives their number.
func (t *Transport) FlushHellos(match func(host string) bool) int {
	return t.conns.Hellos.Forget(match)
}

// limitStates gives the scopes in which something is limited.
func limitStates(override string, l *limit.Limits) (all []LimitState) {
	for scope := range limit.Scopes {
		if l.Limited(scope) {
			all = append(all, LimitState{override, scope, l.Stats(scope)})
		}
	}
	return all
}

// inProgress are the deliveries that have not ended.
type inProgress struct {
	mu  sync.Mutex
	all map[*delivery.Delivery]InProgress
}

// begin notes a delivery, and gives what is to be called at its end.
func (p *inProgress) begin(d *delivery.Delivery, one InProgress) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[*delivery.Delivery]InProgress{}
	}
	p.all[d] = one
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.all, d)
	}
}

func (p *inProgress) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}

func (p *inProgress) list() []InProgress {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]InProgress, 0, len(p.all))
	for d, one := range p.all {
		one.Host = d.Host()
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b InProgress) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) })
	return list
}
