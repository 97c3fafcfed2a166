package tlsreport

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/cache"
)

// The rules of sending.
const (
	// Spread is the time after midnight over which the reports are sent.
	Spread = 4 * time.Hour
	// Window is how long a report is tried, from its turn.
	Window = 24 * time.Hour
	// MaxDaily is how many reports leave on one day.
	MaxDaily = 1000
	// queued is how many sessions wait to be counted.
	queued = 8192
	// firstRetry and maxRetry bound the time between two tries.
	firstRetry = 15 * time.Minute
	maxRetry   = 4 * time.Hour
	// every is how often it is looked whether a report is due.
	every = time.Minute
	// workers is how many reports are on their way at once, and batch how many
	// are taken on before it is looked again which are due: servers that hang
	// hold up no more than that.
	workers = 16
	batch   = 200
	// grace is how long the end waits for the answer to a report of which
	// everything was written.
	grace = 5 * time.Second
	// lookupTimeout bounds the look-up of a domain's record.
	lookupTimeout = 30 * time.Second
)

// Resolver gives the TXT records of a name, each with its strings joined; none
// when there are none. It follows CNAMEs.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
}

// Courier takes a report to a place. *Carrier is one. Before it writes what
// completes the report it calls last, and writes nothing more when that fails:
// until then the place cannot have the report, afterwards it may.
type Courier interface {
	Mail(ctx context.Context, to string, message []byte, last func() error) error
	Post(ctx context.Context, uri string, gz []byte, last func() error) error
}

// Config is what a Reporter is made of.
type Config struct {
	Sender
	From    string   // the address reports come from
	Exclude []string // domains that get none; ".example" is what is below
	MaxSize int      // of a compressed report, in bytes; 0: 10 MB
	Dir     string   // "": nothing is kept over a restart
	Record  Resolver
	Courier Courier
	Log     *slog.Logger
	Now     func() time.Time
}

// Session is one connection's outcome.
type Session struct {
	At      time.Time
	Domain  string // the policy domain, that the report goes to
	Policy  Policy
	Failure *Failure // nil: success
}

// Reporter counts sessions and sends the reports. Make one with Open, and end
// it with Close. It is safe for concurrent use.
type Reporter struct {
	cfg     Config
	queue   chan Session
	asked   chan chan struct{} // closed when all of the queue is counted
	dropped atomic.Uint64      // sessions that found the queue full
	sent    atomic.Uint64
	failed  atomic.Uint64

	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex // never held while something is sent or looked up
	journal *Journal
	ledger  *ledger
	today   string            // the day that leaving counts
	leaving int               // reports that left on it
	next    map[job]time.Time // when a report is next looked at; absent: now
	busy    map[busy]bool     // what is being sent
	// the disk did not take something, and that was logged
	warned bool
}

// Stats are what was counted since Open.
type Stats struct {
	Sent   uint64 // reports that a place took
	Failed uint64 // tries that failed
	// sessions that were not counted: too many at once, or too many domains
	Dropped uint64
	// Domains are counted today, and Waiting are places that failed to take a
	// report, and are tried again.
	Domains, Waiting int
}

// Open reads what is kept in cfg.Dir and begins to count. The error says what
// could not be read; the Reporter works all the same, unless it is nil.
func Open(cfg Config) (*Reporter, error) {
	cfg.MaxSize = cmp.Or(cfg.MaxSize, 10_000_000)
	r := &Reporter{cfg: cfg, queue: make(chan Session, queued), asked: make(chan chan struct{}), next: map[job]time.Time{}, busy: map[busy]bool{}}
	now := cfg.Now()
	var failed, failedToo error
	r.journal, failed = OpenJournal(cfg.Dir, now)
	r.ledger, failedToo = openLedger(cfg.Dir, now)
	for _, list := range r.ledger.places {
		for _, a := range list {
			if a.State == Sent && a.At.UTC().Format(time.DateOnly) == now.UTC().Format(time.DateOnly) {
				r.leaving++
			}
		}
	}
	r.today = now.UTC().Format(time.DateOnly)
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.done.Go(r.countAll)
	r.done.Go(r.sendAll)
	return r, errors.Join(failed, failedToo)
}

// Observe counts a session. It never waits.
func (r *Reporter) Observe(s Session) {
	select {
	case r.queue <- s:
	default:
		r.dropped.Add(1)
	}
}

// Stats gives the counters, and how things are.
func (r *Reporter) Stats() Stats {
	s := Stats{Sent: r.sent.Load(), Failed: r.failed.Load(), Dropped: r.dropped.Load()}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Domains = len(r.journal.Counts(r.cfg.Now()).domains)
	for _, list := range r.ledger.places {
		for _, a := range list {
			if a.State == Waiting {
				s.Waiting++
			}
		}
	}
	return s
}

// Usage is how much the counts of all days take that are kept, and what is
// known of the places, in bytes.
func (r *Reporter) Usage() cache.Usage {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.ledger.usage()
	for _, d := range r.journal.days {
		u.Entries += len(d.counts.domains)
		u.Bytes += int64(d.counts.bytes)
	}
	const days = 2*keepDays + 1 // some to come, where the clock was set back
	u.MaxBytes = days*MaxBytes + maxPlaces*(placeCost+maxURI+maxError+maxDomain)
	return u
}

// Close counts what is in the queue, gives up what is being sent, and writes
// down the rest. Nothing may be observed any more.
func (r *Reporter) Close() error {
	r.cancel()
	r.done.Wait()
	r.drain()
	r.ledger.close()
	return r.journal.Close()
}

// countAll counts what is in the queue.
func (r *Reporter) countAll() {
	for {
		select {
		case s := <-r.queue:
			r.count(s)
		case counted := <-r.asked:
			r.drain()
			close(counted)
		case <-r.ctx.Done():
			return
		}
	}
}

// settle waits until all is counted that was observed before. One goroutine
// counts: another that takes from the queue does not see what this one has in
// its hands.
func (r *Reporter) settle() {
	counted := make(chan struct{})
	select {
	case r.asked <- counted:
		<-counted
	case <-r.ctx.Done():
	}
}

// sendAll sends what is due, when it is.
func (r *Reporter) sendAll() {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for r.sendDue() {
			}
		case <-r.ctx.Done():
			return
		}
	}
}

// drain counts what is in the queue now.
func (r *Reporter) drain() {
	for {
		select {
		case s := <-r.queue:
			r.count(s)
		default:
			return
		}
	}
}

func (r *Reporter) count(s Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := r.journal.Counts(s.At)
	before := counts.Dropped
	r.note(r.journal.Add(s.At, s.Domain, s.Policy, s.Failure))
	r.dropped.Add(counts.Dropped - before)
}

// note logs that the disk does not take what it should, once until it does.
// The caller holds r.mu.
func (r *Reporter) note(err error) {
	if err != nil && !r.warned {
		r.cfg.Log.Warn("TLS report counts cannot be written; they are kept in memory", "error", err)
	}
	r.warned = err != nil
}

// due is when a domain's report of a day has its turn.
func due(domain string, day time.Time) time.Time {
	h := fnv.New64a()
	h.Write([]byte(domain))
	return startOf(day).Add(24*time.Hour + time.Duration(h.Sum64()%uint64(Spread)))
}

// job is a domain's report of a day.
type job struct {
	domain string
	day    time.Time
}

// busy is a place that a report is being sent to.
type busy struct {
	of
	uri string
}

// sendDue sends what is due, several reports at once, and tidies up. What was
// not tried yet comes first, so that nothing waits for those that fail again.
// It reports whether there may be more to do at once.
func (r *Reporter) sendDue() (more bool) {
	now := r.cfg.Now()
	r.mu.Lock()
	r.note(errors.Join(r.journal.Tidy(now), r.ledger.forget(now)))
	var jobs []job
	for _, day := range r.journal.Days() {
		if now.Before(day.Add(24 * time.Hour)) {
			continue // it is not over
		}
		for _, domain := range r.journal.Counts(day).Domains() {
			// An hour more than Window, so that who is late is written down.
			turn, j := due(domain, day), job{domain, day}
			if !now.Before(turn) && now.Before(turn.Add(Window+time.Hour)) && !now.Before(r.next[j]) {
				jobs = append(jobs, j)
			}
		}
	}
	maps.DeleteFunc(r.next, func(j job, _ time.Time) bool { return !kept(j.day, now) })
	slices.SortStableFunc(jobs, func(a, b job) int { return r.next[a].Compare(r.next[b]) })
	r.mu.Unlock()
	if more = len(jobs) > batch; more {
		jobs = jobs[:batch]
	}
	var all errgroup.Group
	all.SetLimit(workers)
	for _, j := range jobs {
		if r.ctx.Err() != nil {
			break
		}
		all.Go(func() error {
			_ = r.sendReport(j, false) // written down, and logged, by place
			r.mu.Lock()
			defer r.mu.Unlock()
			if _, decided := r.next[j]; !decided || !now.Before(r.next[j]) {
				r.next[j] = now.Add(firstRetry)
			}
			return nil
		})
	}
	_ = all.Wait()
	return more && r.ctx.Err() == nil
}

// excluded reports whether a domain gets no reports.
func (r *Reporter) excluded(domain string) bool {
	return slices.ContainsFunc(r.cfg.Exclude, func(e string) bool {
		return e == domain || strings.HasPrefix(e, ".") && strings.HasSuffix(domain, e)
	})
}

// settled reports whether nothing is left to be done, without asking the DNS.
func (r *Reporter) settled(domain, day string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.ledger.places[of{day, domain}]
	return len(list) > 0 && !slices.ContainsFunc(list, func(a attempt) bool { return !a.State.over() })
}

// sendReport sends a report to the places that do not have it; now: also to
// those that wait for their next try.
func (r *Reporter) sendReport(j job, now bool) (failed error) {
	if r.excluded(j.domain) || r.settled(j.domain, j.day.Format(time.DateOnly)) {
		r.finish(j)
		return nil
	}
	ctx, cancel := context.WithTimeout(r.ctx, lookupTimeout)
	records, err := r.cfg.Record.TXT(ctx, "_smtp._tls."+j.domain)
	cancel()
	if err != nil {
		return err // asked again at the next look
	}
	targets, _, ok := Targets(records)
	if !ok || len(targets) == 0 {
		r.finish(j)
		return nil
	}
	r.mu.Lock()
	report := NewReport(r.cfg.Sender, j.domain, j.day, r.journal.Counts(j.day))
	r.mu.Unlock()
	if report == nil {
		return nil
	}
	for _, t := range targets {
		failed = errors.Join(failed, r.sendTo(t, report, now))
	}
	return failed
}

// finish says that nothing is left to be done for a report.
func (r *Reporter) finish(j job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next[j] = j.day.Add(7 * 24 * time.Hour)
}

// sendTo sends a report to one place, if it is its time.
func (r *Reporter) sendTo(t Target, report *Report, now bool) error {
	a, err := r.begin(t, report, now)
	if err != nil || a.State != Trying {
		return err
	}
	written := false
	err = r.carry(t, report, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		// On disk before it is done: what cannot be written down cannot be
		// sent once.
		err := r.ledger.put(a)
		r.note(err)
		written = err == nil
		return err
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, busy{of{a.Day, a.Domain}, a.URI})
	a.At = r.cfg.Now()
	level := slog.LevelInfo
	switch {
	case err == nil:
		a.State = Sent
		r.sent.Add(1)
	case errors.Is(err, ErrRefused):
		a.State, a.Error = Refused, err.Error()
	case written && r.ctx.Err() != nil:
		a.State, a.Error = Refused, endedMeanwhile
	default:
		a.State, a.Error = Waiting, err.Error()
		r.leaving--
		if t.Mail != "" {
			level = slog.LevelWarn // it is our own mail server
		}
	}
	if err != nil {
		r.failed.Add(1)
	}
	r.cfg.Log.Log(r.ctx, level, "TLS report of "+a.Day+": "+string(a.State), "domain", a.Domain, "to", a.URI, "error", err)
	r.note(r.ledger.put(a))
	return err
}

// begin says whether a report is to be sent to a place now: the state of what
// it gives is Trying then.
func (r *Reporter) begin(t Target, report *Report, atOnce bool) (attempt, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.cfg.Now()
	day := report.Range.Start
	a, tried := r.ledger.get(day.Format(time.DateOnly), report.domain, t.URI)
	if !tried {
		a = attempt{Day: day.Format(time.DateOnly), Domain: report.domain, URI: t.URI}
	}
	at := busy{of{a.Day, a.Domain}, a.URI}
	switch {
	case a.State.over():
		return a, nil
	case now.After(due(report.domain, day).Add(Window)):
		a.State, a.At = Late, now
		if r.busy[at] || !tried && !r.ledger.room(a.Day, a.Domain) {
			return a, nil
		}
		err := r.ledger.put(a)
		r.note(err)
		return a, err
	case tried && !atOnce && now.Sub(a.At) < retryAfter(a.Tries) && !now.Before(a.At):
		return a, nil
	case r.busy[at], !tried && !r.ledger.room(a.Day, a.Domain), r.had(at) >= MaxTargets, !r.mayLeave(now):
		a.State = Waiting
		return a, nil
	}
	a.State, a.At, a.Tries, a.Error = Trying, now, a.Tries+1, ""
	r.busy[at] = true
	r.leaving++
	return a, nil
}

// had counts the other places that have a report, or get it just now: a
// record that names others at each look gets no more of them. The caller holds
// r.mu.
func (r *Reporter) had(at busy) (n int) {
	for _, a := range r.ledger.places[at.of] {
		if a.URI != at.uri && a.State == Sent {
			n++
		}
	}
	for b := range r.busy {
		if b.of == at.of && b.uri != at.uri {
			n++
		}
	}
	return n
}

// carry makes what a place gets, and takes it there. The end of the Reporter
// cuts that off, but waits a little for the answer to what was written.
func (r *Reporter) carry(t Target, report *Report, last func() error) error {
	limit := r.cfg.MaxSize
	if t.Max > 0 {
		limit = min(limit, t.Max)
	}
	gz, err := report.Gzip(limit)
	if err != nil {
		return errors.Join(ErrRefused, err)
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.ctx))
	defer cancel(nil)
	var written atomic.Bool
	stop := context.AfterFunc(r.ctx, func() {
		if written.Load() {
			wait := time.NewTimer(grace)
			defer wait.Stop()
			select {
			case <-wait.C:
			case <-ctx.Done():
			}
		}
		cancel(context.Cause(r.ctx))
	})
	defer stop()
	complete := func() error {
		err := last()
		written.Store(err == nil)
		return err
	}
	if t.Mail == "" {
		return r.cfg.Courier.Post(ctx, t.URI, gz, complete)
	}
	return r.cfg.Courier.Mail(ctx, t.Mail, report.Message(r.cfg.From, t.Mail, r.cfg.Sender, gz, r.cfg.Now()), complete)
}

// mayLeave holds the number of reports of one day. The caller holds r.mu.
func (r *Reporter) mayLeave(now time.Time) bool {
	today := now.UTC().Format(time.DateOnly)
	if today > r.today {
		r.leaving = 0
	}
	r.today = today // also back, with the clock: what left, left
	return r.leaving < MaxDaily
}

// retryAfter is the time from the last try to the next.
func retryAfter(tries int) time.Duration {
	return min(firstRetry<<min(max(tries-1, 0), 10), maxRetry)
}
