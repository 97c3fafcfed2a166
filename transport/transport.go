// Package transport is a message's way out. For one envelope it finds the
// mail servers of each recipient's domain, connects to the best of them that
// answers, speaks SMTP, and says for each recipient what became of it.
//
// The order of work, for the recipients of one destination at a time:
//
//  1. A place within the limits (package limit).
//  2. The route: MX hosts in the order to try them (package route); and the
//     domain's MTA-STS policy (package mtasts).
//  3. For each host its addresses and TLSA records, and from these the verdict:
//     what it must show before it may have the message (package verdict). A
//     host that fails it already is not dialled.
//  4. An idle connection that satisfies the verdict (package pool), or a new
//     one, unless the host was found dead lately (package deadhost): its
//     addresses are raced (package dial); greeting, EHLO, STARTTLS follow
//     (package smtp), and what the server proved is judged. Other addresses of
//     the host are tried when one does not come as far as that.
//  5. One transaction, or several when the recipients are many. What each
//     reply means is looked up in package outcome, which also says whether
//     another host may still do better.
//
// Recipients that no host took get the most temporary of the reasons: a
// message is refused for good only when nothing is left that could change.
//
// A delivery ends early when its context does, until the end of the data is
// on its way; from then on only the server's answer, the submission time-out
// or [Transport.Close] end it, because the server may have accepted the
// message and the answer is the only way to know.
package transport

import (
	"context"
	"crypto/x509"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/deadhost"
	"github.com/mxpipe/mxpipe/transport/dial"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Causes for which the context handed to Deliver is cancelled. Their code and
// text become those of the recipients that have no result by then.
var (
	// ErrGone says that the mail server no longer waits for the answer.
	ErrGone error = &status.Error{Code: status.New(status.Temporary, 3, 2), Text: "the mail server went away"}
	// ErrStopping says that mxpolicyd is being stopped; the mail server keeps
	// the message.
	ErrStopping error = &status.Error{Code: status.New(status.Temporary, 3, 2), Text: "mxpolicyd is stopping"}
	// ErrTimeout says that the time is over which the mail server gave.
	ErrTimeout error = &status.Error{Code: status.New(status.Temporary, 4, 7), Text: "the time for this delivery is over"}
)

// maxDestinations bounds how many destinations of one message are worked on
// at once.
const maxDestinations = 20

// Deps is what transports share.
type Deps struct {
	Resolver route.Resolver
	Self     route.Self // Hostname and LocalIP are filled in from each Config
	// Policies gives the MTA-STS policies that are kept as cfg says and
	// fetched from web servers that roots vouch for. Equal calls share one.
	Policies func(cfg *MTASTS, roots *x509.CertPool) (Policies, error)
	Idle     *Idle   // nil: no connection is used twice
	Traces   *Traces // nil: nothing is traced
	Logger   *slog.Logger
	// Observe is called at the end of each delivery, before its result is
	// given, by many goroutines at once: it must not wait for anything. nil:
	// nobody is told.
	Observe func(*Event)
}

// Transport delivers messages in the way that one Config says. It is safe for
// concurrent use.
type Transport struct {
	base      *profile
	overrides []override
	log       *slog.Logger
	idle      *Idle
	traces    *Traces
	underway  inProgress
	observe   func(*Event)

	connections atomic.Int64  // open now
	opened      atomic.Uint64 // connections made

	pacer      *limit.Pacer
	dead       *deadhost.Hosts
	noChunking noChunkingHosts
	outlooks   *cache.Cache[string, *cachedPlan]
	buffers    smtp.Buffers

	ctx     context.Context // ends with Close
	stop    context.CancelCauseFunc
	closing sync.WaitGroup // connections saying goodbye
}

// profile is a Config with what was made from it.
type profile struct {
	cfg      *Config
	id       string // the transport's name, and the override's match
	rules    verdict.Rules
	resolver route.Resolver
	finder   *route.Finder
	policies Policies // nil: no MTA-STS
	dialer   *dial.Dialer
	tls      *tlsClient
	limits   *limit.Limits
}

type override struct {
	match   string
	nexthop route.Destination // zero: by MX
	*profile
}

// New makes a transport. An error means that the Config is impossible; it is
// for whoever wrote the configuration.
func New(cfg *Config, deps Deps) (*Transport, error) {
	base, err := newProfile(cfg, "", deps)
	if err != nil {
		return nil, err
	}
	t := &Transport{
		base: base, log: deps.Logger, idle: deps.Idle, traces: deps.Traces, observe: deps.Observe,
		pacer: limit.NewPacer(limit.Pacing{}),
		dead:  deadhost.New(deadhost.Options{}),
	}
	for _, o := range cfg.Overrides {
		over := override{match: o.Match}
		if over.profile, err = newProfile(o.Config, o.Match, deps); err != nil {
			return nil, err
		}
		if o.Config.Limits == cfg.Limits {
			over.limits = base.limits // one count for both
		}
		if o.Nexthop != "" {
			if over.nexthop, err = route.ParseNexthop(o.Nexthop); err != nil {
				return nil, err
			}
		}
		t.overrides = append(t.overrides, over)
	}
	t.ctx, t.stop = context.WithCancelCause(context.Background())
	t.outlooks = t.newOutlooks()
	return t, nil
}

func newProfile(cfg *Config, match string, deps Deps) (*profile, error) {
	self := deps.Self
	self.Hostname, self.LocalIP = cfg.Hostname, cfg.LocalIP
	client, err := newTLSClient(&cfg.TLSClient)
	if err != nil {
		return nil, err
	}
	p := &profile{
		cfg:      cfg,
		id:       strings.TrimSpace(cfg.Name + " " + match),
		rules:    verdict.Rules{DNSSEC: cfg.MXAuth.DNSSEC, DANE: cfg.MXAuth.DANE, MTASTS: cfg.MXAuth.MTASTS != nil},
		resolver: deps.Resolver,
		finder: route.New(route.Config{
			Resolver: deps.Resolver, Self: self, ForceIPv4: cfg.ForceIPv4, Port: cfg.Port,
		}),
		dialer: &dial.Dialer{LocalIPs: cfg.LocalIP},
		tls:    client,
		limits: limit.New(limit.Config{
			All:         limit.Limit(cfg.Limits.All),
			IP:          limit.Limit(cfg.Limits.IP),
			Source:      limit.Limit(cfg.Limits.Source),
			Destination: limit.Limit(cfg.Limits.Destination),
		}),
	}
	if local := cfg.MXAuth.Local; local != nil {
		p.rules.MinTLS, p.rules.MinMX = local.MinTLS, local.MinMX
	}
	if sts := cfg.MXAuth.MTASTS; sts != nil && deps.Policies != nil {
		if p.policies, err = deps.Policies(sts, client.roots); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// port is where a destination's hosts listen.
func (p *profile) port(dest route.Destination) uint16 {
	if dest.Port != 0 {
		return dest.Port
	}
	return p.cfg.Port
}

// demands reads what the message itself asks for: the envelope's REQUIRETLS,
// or the header field by which Postfix carries it over a local hop; and
// "TLS-Required: No" (RFC 8689 §3). A bounce goes even to hosts that do not
// offer the extension, as it would be lost otherwise (RFC 8689 §5).
func demands(cfg *Config, env *Envelope, msg *Message) verdict.Demands {
	require := env.RequireTLS || msg.Header.Has("Require-TLS-ESMTP", "yes")
	return verdict.Demands{
		RequireTLS:    require,
		Relaxed:       cfg.RelaxedRequireTLS || env.Sender == "" || env.Sender == "<>",
		TLSRequiredNo: !require && cfg.RequireTLSOverride && msg.Header.Has("TLS-Required", "No"),
	}
}

// Abort gives up the wait for servers that may have a message already: nobody
// can know then, so the message is temporary. What has not come as far ends
// with the context of its Deliver. It does not wait for anything.
func (t *Transport) Abort() { t.stop(ErrStopping) }

// Close gives up what is still under way, waits for it, and closes every
// connection. No Deliver may be running any more, nor be called again.
func (t *Transport) Close() {
	t.Abort()
	// The error could only be that of the context, which has no end.
	_ = t.outlooks.Close(context.Background())
	t.closing.Wait()
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
	var all errgroup.Group
	all.SetLimit(maxDestinations)
	for _, d := range list {
		d.env, d.msg, d.sender = env, msg, sender
		d.demands = demands(d.cfg, env, msg)
		d.log = t.log.With("id", env.ID, "queue_id", env.QueueID, "transport", d.cfg.Name)
		d.traced = t.traces.cover(d)
		if len(list) == 1 { // as nearly always
			d.deliver(ctx, results)
			return results
		}
		all.Go(func() error {
			d.deliver(ctx, results)
			return nil
		})
	}
	all.Wait()
	return results
}

// deliver does the work of one destination, and tells of it.
func (d *delivery) deliver(ctx context.Context, results []Result) {
	start := time.Now()
	d.underway.begin(d, start)
	defer d.underway.end(d)
	d.run(ctx)
	d.report(time.Since(start))
	d.tell(start)
	for _, r := range d.rcpts {
		results[r.index].set(r.result, d.env.ID)
	}
}

// split sorts the recipients by destination, in the order of their first
// recipients. Recipients that have none get their result here.
func (t *Transport) split(env *Envelope, results []Result) []*delivery {
	var list []*delivery
	// Named or not: what leads nowhere is the fault of one address, and not of
	// another that a next hop sent there.
	type key struct {
		*profile
		destination
	}
	byKey := map[key]*delivery{}
	for i, r := range env.Recipients {
		addr, err := address.Parse(r.Address)
		if err == nil && addr.IsNull() {
			err = address.ErrEmpty
		}
		if err != nil {
			t.reject(env, &results[i], &status.Error{Code: status.New(status.Permanent, 1, 3), Text: "recipient " + quote(r.Address), Err: err})
			continue
		}
		p, dest, failed := t.destination(addr, env.Nexthop)
		if failed != nil {
			t.reject(env, &results[i], failed)
			continue
		}
		k := key{p, dest}
		d := byKey[k]
		if d == nil {
			d = &delivery{Transport: t, profile: p, dest: dest.Destination, named: dest.named}
			if t.observe != nil {
				d.event = newEvent()
			}
			byKey[k] = d
			list = append(list, d)
		}
		d.rcpts = append(d.rcpts, recipient{index: i, Recipient: smtp.Recipient{Address: addr, Notify: r.Notify, ORcpt: r.ORcpt}})
	}
	return list
}

// destination says where mail for a recipient goes, and in which way. What
// the mail server names as its next hop comes before the recipient's domain,
// unless it is that; overrides are looked for under the name that was chosen.
// named tells that the administrator chose it, so that it is no fault of the
// address if there is nothing there.
func (t *Transport) destination(rcpt address.Address, nexthop string) (p *profile, dest destination, failed *status.Error) {
	own, err := route.ForDomain(rcpt.ASCII)
	switch {
	case nexthop != "" && !isOwn(nexthop, own, err):
		dest.named = true
		if dest.Destination, err = route.ParseNexthop(nexthop); err != nil {
			return nil, dest, &status.Error{Code: status.New(status.Temporary, 3, 5), Text: "next hop " + quote(nexthop), Err: err}
		}
	case rcpt.ASCII == "":
		return nil, dest, &status.Error{Code: status.New(status.Permanent, 1, 3), Text: "recipient " + quote(rcpt.String()) + " has no domain"}
	case err != nil:
		return nil, dest, &status.Error{Code: status.New(status.Permanent, 1, 2), Text: "domain " + quote(rcpt.Domain), Err: err}
	default:
		dest.Destination = own
	}
	for i := range t.overrides {
		o := &t.overrides[i]
		if !matches(o.match, dest.Domain) {
			continue
		}
		if o.nexthop != (route.Destination{}) {
			dest = destination{o.nexthop, true}
		}
		return o.profile, dest, nil
	}
	return t.base, dest, nil
}

// destination is where mail goes, and whether the administrator named it.
type destination struct {
	route.Destination
	named bool
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

// later says goodbye over a session, without anybody waiting for it.
func (t *Transport) later(s *smtp.Session) { t.afterwards(s.Quit) }

// afterwards runs what no delivery has to wait for.
func (t *Transport) afterwards(f func(ctx context.Context)) {
	t.closing.Go(func() {
		ctx, cancel := context.WithTimeout(t.ctx, goodbyeTimeout)
		defer cancel()
		f(ctx)
	})
}

// goodbyeTimeout is how long the replies to RSET and QUIT may take.
const goodbyeTimeout = 10 * time.Second
