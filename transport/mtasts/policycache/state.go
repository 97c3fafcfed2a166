package policycache

import (
	"errors"
	"time"

	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/store"
)

// State says what an Entry knows.
type State uint8

// The states. Failed is the zero State, since nothing is known without asking.
const (
	// Failed: a policy may exist, but none could be had, and none is cached.
	// The delivery goes on without (RFC 8461 §3.3). Entry.Err says why.
	Failed State = iota
	// NoPolicy: the DNS proves that there is no record that counts, or the
	// domain's policy has the mode none or no life.
	NoPolicy
	// HasPolicy: Entry.Policy, of mode enforce or testing, is in force.
	HasPolicy
)

// String gives a word for the state.
func (s State) String() string {
	switch s {
	case NoPolicy:
		return "no policy"
	case HasPolicy:
		return "policy"
	}
	return "failed"
}

// Source says where an Entry's policy came from.
type Source uint8

// The sources.
const (
	SourceNone    Source = iota // there is no policy
	SourceCache                 // memory or the store
	SourceFetched               // the web host, during this look-up
)

// String gives a word for the source.
func (s Source) String() string {
	switch s {
	case SourceCache:
		return "cache"
	case SourceFetched:
		return "fetched"
	}
	return "none"
}

// Entry is the answer about a domain at a moment.
type Entry struct {
	// Domain is the domain as mtasts.Domain gives it, or as it was asked for
	// when it is none.
	Domain string
	State  State
	// Policy, its ID, when it was fetched, and when it ends, are set in state
	// HasPolicy alone.
	Policy           mtasts.Policy
	ID               string
	Fetched, Expires time.Time
	Source           Source
	// RecordID is the id in the TXT record that is there now; empty when there
	// is none or it is not known.
	RecordID string
	// Err is what last went wrong and was not put right since; it may stand
	// beside a policy, and beside NoPolicy when a record is there that does
	// not count. nil when all is well.
	Err *mtasts.Error
	// Serial changes whenever what is known of the domain does; see
	// [Cache.Unchanged]. 0: nothing is.
	Serial uint64
	// Until is when a look-up may say something else by the mere passing of
	// time, or has something to do; before, it does not unless
	// [Cache.Generation] changes. The zero time: at once.
	Until time.Time
}

// Failure is the kind of Err.
func (e Entry) Failure() mtasts.Failure {
	if e.Err == nil {
		return mtasts.FailureNone
	}
	return e.Err.Failure
}

// need is what a domain's state asks for.
type need uint8

const (
	needNothing need = iota
	needRefresh      // a fetch in the background
	needCheck        // store, record or policy, before there is an answer
)

// record is what is known of the TXT record.
type record uint8

const (
	recordUnknown record = iota // never asked, or the look-up failed
	recordAbsent                // proven: none that counts
	recordPresent
)

// state is what is remembered of a domain. Its methods are the decisions, from
// values to values; Cache locks.
type state struct {
	domain string // never changes, and may be read without the lock
	knowledge
}

// knowledge is what is known of the domain; a flush takes it away. Of most
// domains nothing is known but that there is no record.
type knowledge struct {
	used    time.Time // by a look-up
	recheck time.Time // when the record may be asked for again
	serial  uint64    // of the last change: the Cache's generation then
	record  record
	loaded  bool     // the store answered, or what it holds is superseded
	more    *details // nil: nothing
}

// details is what is known of a domain that has, or had, a record or a policy,
// or of which something could not be known.
type details struct {
	// why the store did not answer when it was last asked
	unread *mtasts.Error

	recordID string        // of a present record
	problem  *mtasts.Error // with the record

	policy *store.Policy // the cached policy, never of mode none
	ends   time.Time     // when it does
	// ends was put forward since the fetch lies in the future
	clamped bool
	refresh time.Time // when to fetch it again

	endedID string    // the id whose policy said that there is none,
	ended   time.Time // and until when that holds

	failure  *mtasts.Error // of the last fetch
	failedID string        // the record's id when it failed
	retry    time.Time     // when that id may be fetched again
}

// details gives what is known besides, to be read.
func (k *knowledge) details() *details {
	if k.more == nil {
		return &details{}
	}
	return k.more
}

// change gives the same, to be changed.
func (k *knowledge) change() *details {
	if k.more == nil {
		k.more = &details{}
	}
	return k.more
}

// stateSize and detailsSize are what the structs take, with their places in
// memory's maps and lists.
const (
	stateSize   = 96 + 260
	detailsSize = 192
)

// cost is about what the state takes in memory, in bytes.
func (st *state) cost() int64 {
	cost := int64(stateSize + len(st.domain))
	if st.more != nil {
		cost += detailsSize
		if st.more.policy != nil {
			cost += st.more.policy.Cost()
		}
	}
	return cost
}

// valid reports whether a cached policy is in force.
func (st *state) valid(now time.Time) bool {
	return st.more != nil && st.more.policy != nil && now.Before(st.more.ends)
}

// expire drops a policy whose time is over. One whose end was put forward,
// because the clock was behind when it was loaded, is loaded again: with the
// clock right again, the store may say otherwise.
func (st *state) expire(now time.Time) {
	d := st.more
	if d == nil || d.policy == nil || st.valid(now) {
		return
	}
	d.policy = nil
	if d.clamped {
		st.loaded, d.clamped = false, false
	}
}

// need decides what must be done before, or besides, an answer.
func (st *state) need(now time.Time) need {
	switch {
	case !st.loaded || !now.Before(st.recheck) || st.wantsFetch(now):
		return needCheck
	case st.valid(now) && !now.Before(st.more.refresh):
		return needRefresh
	}
	return needNothing
}

// mayWait reports whether a fetch for the record's id can do without look-ups
// that wait for it: there is a policy to go on with, and the id's first fetch,
// which they did wait for, failed.
func (st *state) mayWait(now time.Time) bool {
	return st.valid(now) && st.more.failedID == st.more.recordID
}

// wantsFetch decides whether the record that is there calls for a fetch now.
func (st *state) wantsFetch(now time.Time) bool {
	d := st.details()
	switch {
	case st.record != recordPresent:
		return false
	case st.valid(now) && d.policy.ID == d.recordID:
		return false
	case d.endedID == d.recordID && now.Before(d.ended):
		return false
	}
	return d.failedID != d.recordID || !now.Before(d.retry)
}

// noteRecord takes note of what the DNS says of the record.
func (st *state) noteRecord(known record, id string, problem *mtasts.Error) {
	st.record = known
	if st.more != nil || id != "" || problem != nil {
		d := st.change()
		d.recordID, d.problem = id, problem
	}
}

// keep takes a policy into the state: at a fetch, or from the store.
func (st *state) keep(p store.Policy, now time.Time, jitter float64) {
	d, from := st.change(), p.Fetched
	d.clamped = from.After(now.Add(time.Second))
	if d.clamped {
		from = now
	}
	d.policy, d.ends = &p, from.Add(p.Policy.MaxAge)
	d.refresh = from.Add(time.Duration(float64(p.Policy.MaxAge) * (0.7 + 0.2*jitter)))
	if d.clamped {
		d.refresh = now
	}
	d.endedID = ""
	st.loaded, d.unread = true, nil
}

// end takes note that the domain's policy says that there is none. That holds
// for the policy's life, and at least for as long as after a failure.
func (st *state) end(id string, maxAge time.Duration, now time.Time) {
	d := st.change()
	d.policy, d.clamped = nil, false
	st.loaded, d.unread = true, nil
	d.endedID, d.ended = id, now.Add(max(maxAge, backOff))
}

// fail takes note of a failed fetch.
func (st *state) fail(id string, failure *mtasts.Error, now time.Time) {
	d := st.change()
	d.failure = failure
	if errors.Is(failure, errBusy) {
		return // not the domain's fault: no back-off
	}
	d.failedID, d.retry = id, now.Add(backOff)
	if st.valid(now) {
		pause := max(backOff, min(maxRefresh, d.ends.Sub(now)/10))
		if next := now.Add(pause); d.refresh.Before(next) {
			d.refresh = next
		}
	}
}

// until is when the state may be another by the mere passing of time, or asks
// for something to be done: the earliest of its times.
func (st *state) until(now time.Time) time.Time {
	if !st.loaded || st.need(now) != needNothing {
		return time.Time{}
	}
	end, d := st.recheck, st.details()
	if d.policy != nil {
		end = earliest(end, earliest(d.ends, d.refresh))
	}
	if st.record == recordPresent && d.failedID == d.recordID && now.Before(d.retry) {
		end = earliest(end, d.retry)
	}
	if st.record == recordPresent && d.endedID == d.recordID && now.Before(d.ended) {
		end = earliest(end, d.ended)
	}
	return end
}

// entry tells what is known. It is called when nothing need be checked, and
// when no more can be waited for.
func (st *state) entry(now time.Time) Entry {
	d := st.details()
	e := Entry{Domain: st.domain, RecordID: d.recordID, Err: d.failure, Serial: st.serial, Until: st.until(now)}
	if d.problem != nil {
		e.Err = d.problem
	}
	switch {
	case st.valid(now):
		e.State, e.Source = HasPolicy, SourceCache
		e.Policy, e.ID, e.Fetched, e.Expires = d.policy.Policy, d.policy.ID, d.policy.Fetched, d.ends
	case d.unread != nil:
		// A cached policy outlives a missing record, so that no record proves
		// nothing while the store may hold one.
		if e.Err == nil {
			e.Err = d.unread
		}
	case st.record == recordAbsent, st.record == recordPresent && d.endedID == d.recordID && now.Before(d.ended):
		e.State = NoPolicy
	}
	return e
}
