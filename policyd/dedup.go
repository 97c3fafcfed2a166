package policyd

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// repeatFirst is how long a warning that comes again is only counted;
	// while it goes on, the time doubles up to repeatLongest.
	repeatFirst   = time.Minute
	repeatLongest = time.Hour
	// maxRepeats bounds the warnings that are remembered. More are written
	// each time.
	maxRepeats = 1000
	// flushEvery is how often the counts that are due are written.
	flushEvery = 10 * time.Second
)

// repeats writes a warning or an error once, and then tells from time to time
// how often it came again: "(same, 214 more)". What is the same has the same
// message and attributes, the numbers in its error left aside, among which are
// ports that differ each time. Lines about one message are never held back:
// somebody will look for it.
type repeats struct {
	now              func() time.Time
	warnings, errors atomic.Uint64 // all of them, written or not

	mu   sync.Mutex
	seen map[string]*repeat
}

// repeat is a line that was written.
type repeat struct {
	handler slog.Handler // with the attributes of its logger
	record  slog.Record  // the last that was held back
	more    int          // held back since
	until   time.Time
	pause   time.Duration
}

func newRepeats(now func() time.Time) *repeats {
	return &repeats{now: now, seen: map[string]*repeat{}}
}

// hold decides about a record, and reports whether it is held back.
func (r *repeats) hold(key string, h slog.Handler, record slog.Record) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if one := r.seen[key]; one != nil {
		one.record, one.more = record, one.more+1
		return true
	}
	if len(r.seen) < maxRepeats {
		r.seen[key] = &repeat{handler: h, until: r.now().Add(repeatFirst), pause: repeatFirst}
	}
	return false
}

// flush writes the counts that are due, or at the end all of them.
func (r *repeats) flush(all bool) {
	for _, one := range r.due(all) {
		record := slog.NewRecord(one.record.Time, one.record.Level, fmt.Sprintf("%s (same, %d more)", one.record.Message, one.more), one.record.PC)
		one.record.Attrs(func(a slog.Attr) bool {
			record.AddAttrs(a)
			return true
		})
		// A log that can not be written has nobody to tell.
		_ = one.handler.Handle(context.Background(), record)
	}
}

// due takes the counts that are due. What did not come again is forgotten.
func (r *repeats) due(all bool) []repeat {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	var due []repeat
	for key, one := range r.seen {
		switch {
		case !all && now.Before(one.until):
		case one.more == 0:
			delete(r.seen, key)
		default:
			due = append(due, *one)
			one.pause = min(2*one.pause, repeatLongest)
			one.more, one.until = 0, now.Add(one.pause)
		}
	}
	return due
}

// afresh tells what was only counted, and forgets what was written: it will be
// written again.
func (r *repeats) afresh() {
	r.flush(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.seen)
}

// quiet is a handler behind repeats. What its records have in common is looked
// at only when one of them may be held back: a delivery's lines never are.
type quiet struct {
	slog.Handler
	repeats *repeats
	attrs   []slog.Attr // that it adds
	from    *quiet      // to those of this one; nil: there are none
}

// Handle writes a record, or counts it.
func (q *quiet) Handle(ctx context.Context, record slog.Record) error {
	switch {
	case record.Level >= slog.LevelError:
		q.repeats.errors.Add(1)
	case record.Level >= slog.LevelWarn:
		q.repeats.warnings.Add(1)
	default:
		return q.Handler.Handle(ctx, record)
	}
	if key, same := q.key(record); same && q.repeats.hold(key, q.Handler, record) {
		return nil
	}
	return q.Handler.Handle(ctx, record)
}

// key says by what a record is the same as another; ok is false when it is about
// one message.
func (q *quiet) key(record slog.Record) (key string, ok bool) {
	var b strings.Builder
	b.WriteString(record.Level.String() + " " + record.Message)
	ok = true
	add := func(a slog.Attr) bool {
		text := a.Value.Resolve().String()
		switch a.Key {
		case "id", "queue_id":
			ok = ok && text == ""
		case "error":
			text = withoutNumbers(text)
		}
		b.WriteString("\x00" + a.Key + "=" + text)
		return true
	}
	for one := q; one != nil; one = one.from {
		for _, a := range one.attrs {
			add(a)
		}
	}
	record.Attrs(add)
	return b.String(), ok
}

// WithAttrs gives a handler whose records all have the attributes.
func (q *quiet) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &quiet{q.Handler.WithAttrs(attrs), q.repeats, attrs, q}
}

// WithGroup gives a handler that puts "name." before the keys to come.
func (q *quiet) WithGroup(name string) slog.Handler {
	return &quiet{q.Handler.WithGroup(name), q.repeats, nil, q}
}

// withoutNumbers writes "#" for each number.
func withoutNumbers(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch digit := s[i] >= '0' && s[i] <= '9'; {
		case !digit:
			b.WriteByte(s[i])
		case i == 0 || s[i-1] < '0' || s[i-1] > '9':
			b.WriteByte('#')
		}
	}
	return b.String()
}
