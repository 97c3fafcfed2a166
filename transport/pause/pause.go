// Package pause keeps mail from a receiver that asked for a rest. A reply that
// a rule (package replyrule) calls a pause stops what the rule's scope names
// (a provider, one domain, or one source address at a provider) for the
// rule's time. Mail that comes meanwhile is deferred at once, with the reply
// that caused it: nothing is dialled.
//
// It is a circuit breaker for each key: closed (mail goes), open (paused), and
// half-open when the time is over: the next message is the trial, alone; the
// others are deferred until it has an outcome. A trial that is answered
// without another pause closes the breaker; one that is paused again opens it
// for the rule's time; one that says nothing either way (a dead host, a lost
// connection) leaves the turn to the next message. A pause during a pause
// makes it last to the later of the two ends, never longer: messages that were
// under way when it began do not add up.
//
// What is remembered is bounded by number; the reply's text is kept without
// the addresses in it, which are people's or ours.
package pause

import (
	"cmp"
	"container/list"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/transport/replyrule"
	"github.com/mxpipe/mxpipe/transport/status"
)

// Key is what a pause holds for.
type Key struct {
	Scope replyrule.Scope
	// Name is the provider, the domain, or for SourceIP the provider.
	Name string
	// Source is the address of ours, for SourceIP; else empty.
	Source string
}

// String is the key for status and log: "provider google", "source_ip
// 192.0.2.1 at google".
func (k Key) String() string {
	if k.Scope == replyrule.SourceIP && k.Source != "" {
		return k.Scope.String() + " " + k.Source + " at " + k.Name
	}
	return k.Scope.String() + " " + k.Name
}

// Paused is a key that is paused. It is the error of Begin.
type Paused struct {
	Key    Key
	Since  time.Time
	Until  time.Time
	Reply  string // what the receiver said, without addresses
	Trying bool   // the time is over, and one message tries
}

// Error says how long, and why.
func (p *Paused) Error() string {
	return p.Key.String() + " is paused " + p.moment() + ", because of: " + p.Reply
}

func (p *Paused) moment() string {
	if p.Trying {
		return "while one message tries whether it is over"
	}
	return "until " + p.Until.UTC().Format("2006-01-02 15:04:05 UTC")
}

// Status is what a delivery is told: temporary, 4.4.5.
func (p *Paused) Status() *status.Error {
	return &status.Error{
		Code: status.New(status.Temporary, 4, 5), Text: p.Key.String() + " is paused, because of: " + p.Reply, Moment: p.moment(),
	}
}

// Max is how many keys are remembered; beyond it the longest unused goes.
const Max = 50_000

// MaxReply is how much of a reply is kept, in bytes.
const MaxReply = 300

// keyCost is what a key takes beside its texts, in bytes, and maxKey bounds
// its name and its source.
const (
	keyCost = 384
	maxKey  = 253 + 39
)

// Pauses is what is paused. It is safe for concurrent use; nothing waits.
type Pauses struct {
	now func() time.Time
	max int

	mu    sync.Mutex
	keys  map[Key]*entry
	order list.List // of *entry, the longest unused first
}

type entry struct {
	Paused
	element *list.Element
	trial   *Trial // under way; nil: none
}

// New makes an empty one.
func New(now func() time.Time) *Pauses {
	return &Pauses{now: now, max: Max, keys: map[Key]*entry{}}
}

// Trial is the leave to send one message to what was paused. A nil Trial is
// that of a message that nothing holds up. Exactly one of Over, Again (by
// Pauses.Pause for the key) and Abandoned ends it; all but the first do
// nothing.
type Trial struct {
	pauses  *Pauses
	entries []*entry
}

// Begin asks for leave to send mail to which all of keys apply. The error
// names the first that is paused. A Trial that is not nil must be ended.
func (p *Pauses) Begin(keys ...Key) (*Trial, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.keys) == 0 {
		return nil, nil
	}
	now := p.now()
	var due []*entry
	for _, k := range keys {
		e := p.keys[k]
		if e == nil {
			continue
		}
		p.order.MoveToBack(e.element)
		if now.Before(e.Until) || e.trial != nil {
			paused := e.Paused
			paused.Trying = !now.Before(e.Until)
			return nil, &paused
		}
		due = append(due, e)
	}
	if due == nil {
		return nil, nil
	}
	t := &Trial{pauses: p, entries: due}
	for _, e := range due {
		e.trial = t
	}
	return t, nil
}

// Over says that the trial was answered without another pause: mail goes
// again.
func (t *Trial) Over() { t.end((*Pauses).drop) }

// Abandoned says that the trial came to no answer: the next message tries.
func (t *Trial) Abandoned() { t.end(func(_ *Pauses, e *entry) { e.trial = nil }) }

// end does something with the entries that the trial still is for, once.
func (t *Trial) end(with func(*Pauses, *entry)) {
	if t == nil {
		return
	}
	t.pauses.mu.Lock()
	defer t.pauses.mu.Unlock()
	for _, e := range t.entries {
		if e.trial == t {
			with(t.pauses, e)
		}
	}
	t.entries = nil
}

// Pause stops a key for a time, because of a reply, and reports whether it
// was not paused before, so that it is told once.
func (p *Pauses) Pause(k Key, d time.Duration, reply string) (began bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	e := p.keys[k]
	if e == nil {
		for len(p.keys) >= p.max {
			p.drop(p.order.Front().Value.(*entry))
		}
		e = &entry{Paused: Paused{Key: k}}
		e.element = p.order.PushBack(e)
		p.keys[k] = e
	}
	began = !now.Before(e.Until)
	if began {
		e.Since, e.Reply = now, withoutAddresses(reply)
	}
	if until := now.Add(d); until.After(e.Until) {
		e.Until = until
	}
	e.trial = nil // its answer was this
	return began
}

// Resume ends a key's pause, and reports whether there was one.
func (p *Pauses) Resume(k Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.keys[k]
	if e == nil {
		return false
	}
	p.drop(e)
	return true
}

// State gives the pause of the first of keys that has one, for explain: it
// changes nothing. nil: mail would go, perhaps as the trial.
func (p *Pauses) State(keys ...Key) *Paused {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for _, k := range keys {
		if e := p.keys[k]; e != nil && (now.Before(e.Until) || e.trial != nil) {
			paused := e.Paused
			paused.Trying = !now.Before(e.Until)
			return &paused
		}
	}
	return nil
}

// Usage is how much the keys take that are remembered, in bytes.
func (p *Pauses) Usage() cache.Usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := cache.Usage{Entries: len(p.keys), MaxBytes: int64(p.max) * (keyCost + maxKey + MaxReply)}
	for k, e := range p.keys {
		u.Bytes += keyCost + int64(len(k.Name)+len(k.Source)+len(e.Reply))
	}
	return u
}

// List gives what is paused now, the longest first.
func (p *Pauses) List() []Paused {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	var all []Paused
	for _, e := range p.keys {
		if now.Before(e.Until) || e.trial != nil {
			paused := e.Paused
			paused.Trying = !now.Before(e.Until)
			all = append(all, paused)
		}
	}
	slices.SortFunc(all, func(a, b Paused) int {
		return cmp.Or(b.Until.Compare(a.Until), cmp.Compare(a.Key.String(), b.Key.String()))
	})
	return all
}

func (p *Pauses) drop(e *entry) {
	delete(p.keys, e.Key)
	p.order.Remove(e.element)
}

// addresses finds what a reply tells of people and machines: mail addresses,
// and IP addresses of either family.
var addresses = regexp.MustCompile(`[^\s<>()\[\]]+@[^\s<>()\[\],;]+|\b\d{1,3}(?:\.\d{1,3}){3}\b|\b[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}\b`)

func withoutAddresses(reply string) string {
	reply = addresses.ReplaceAllString(reply, "…")
	if len(reply) > MaxReply {
		reply = strings.ToValidUTF8(reply[:MaxReply], "")
	}
	return reply
}
