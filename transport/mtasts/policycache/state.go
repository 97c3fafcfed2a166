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

// knowledge is what is known of the domain; a flush takes it away.
type knowledge struct {
	used   time.Time     // by a look-up
	loaded bool          // the store answered, or what it holds is superseded
	unread *mtasts.Error // why it did not answer when it was last asked

	record   record
	recordID string        // of a present record
	problem  *mtasts.Error // with the record
	recheck  time.Time     // when the record may be asked for again

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

// cost is about what the state takes in memory, in bytes.
func (st *state) cost() int64 {
	cost := int64(500 + len(st.domain))
	if st.policy != nil {
		cost += st.policy.Cost()
	}
	return cost
}

// valid reports whether a cached policy is in force.
func (st *state) valid(now time.Time) bool { return st.policy != nil && now.Before(st.ends) }

// expire drops a policy whose time is over. One whose end was put forward,
// because the clock was behind when it was loaded, is loaded again: with the
// clock right again, the store may say otherwise.
func (st *state) expire(now time.Time) {
	if st.policy == nil || st.valid(now) {
		return
	}
	st.policy = nil
	if st.clamped {
		st.loaded, st.clamped = false, false
	}
}

// need decides what must be done before, or besides, an answer.
func (st *state) need(now time.Time) need {
	switch {
	case !st.loaded || !now.Before(st.recheck) || st.wantsFetch(now):
		return needCheck
	case st.valid(now) && !now.Before(st.refresh):
		return needRefresh
	}
	return needNothing
}

// mayWait reports whether a fetch for the record's id can do without look-ups
// that wait for it: there is a policy to go on with, and the id's first fetch,
// which they did wait for, failed.
func (st *state) mayWait(now time.Time) bool {
	return st.valid(now) && st.failedID == st.recordID
}

// wantsFetch decides whether the record that is there calls for a fetch now.
func (st *state) wantsFetch(now time.Time) bool {
	switch {
	case st.record != recordPresent:
		return false
	case st.valid(now) && st.policy.ID == st.recordID:
		return false
	case st.endedID == st.recordID && now.Before(st.ended):
		return false
	}
	return st.failedID != st.recordID || !now.Before(st.retry)
}

// keep takes a policy into the state: at a fetch, or from the store.
func (st *state) keep(p store.Policy, now time.Time, jitter float64) {
	from := p.Fetched
	st.clamped = from.After(now.Add(time.Second))
	if st.clamped {
		from = now
	}
	st.policy, st.ends = &p, from.Add(p.Policy.MaxAge)
	st.refresh = from.Add(time.Duration(float64(p.Policy.MaxAge) * (0.7 + 0.2*jitter)))
	if st.clamped {
		st.refresh = now
	}
	st.endedID = ""
	st.loaded, st.unread = true, nil
}

// end takes note that the domain's policy says that there is none. That holds
// for the policy's life, and at least for as long as after a failure.
func (st *state) end(id string, maxAge time.Duration, now time.Time) {
	st.policy, st.clamped = nil, false
	st.loaded, st.unread = true, nil
	st.endedID, st.ended = id, now.Add(max(maxAge, backOff))
}

// fail takes note of a failed fetch.
func (st *state) fail(id string, failure *mtasts.Error, now time.Time) {
	st.failure = failure
	if errors.Is(failure, errBusy) {
		return // not the domain's fault: no back-off
	}
	st.failedID, st.retry = id, now.Add(backOff)
	if st.valid(now) {
		pause := max(backOff, min(maxRefresh, st.ends.Sub(now)/10))
		if next := now.Add(pause); st.refresh.Before(next) {
			st.refresh = next
		}
	}
}

// until is when the state may be another by the mere passing of time, or asks
// for something to be done: the earliest of its times.
func (st *state) until(now time.Time) time.Time {
	if !st.loaded || st.need(now) != needNothing {
		return time.Time{}
	}
	end := st.recheck
	if st.policy != nil {
		end = earliest(end, earliest(st.ends, st.refresh))
	}
	if st.record == recordPresent && st.failedID == st.recordID && now.Before(st.retry) {
		end = earliest(end, st.retry)
	}
	if st.record == recordPresent && st.endedID == st.recordID && now.Before(st.ended) {
		end = earliest(end, st.ended)
	}
	return end
}

// entry tells what is known. It is called when nothing need be checked, and
// when no more can be waited for.
func (st *state) entry(now time.Time) Entry {
	e := Entry{Domain: st.domain, RecordID: st.recordID, Err: st.failure, Until: st.until(now)}
	if st.problem != nil {
		e.Err = st.problem
	}
	switch {
	case st.valid(now):
		e.State, e.Source = HasPolicy, SourceCache
		e.Policy, e.ID, e.Fetched, e.Expires = st.policy.Policy, st.policy.ID, st.policy.Fetched, st.ends
	case st.unread != nil:
		// A cached policy outlives a missing record, so that no record proves
		// nothing while the store may hold one.
		if e.Err == nil {
			e.Err = st.unread
		}
	case st.record == recordAbsent, st.record == recordPresent && st.endedID == st.recordID && now.Before(st.ended):
		e.State = NoPolicy
	}
	return e
}
