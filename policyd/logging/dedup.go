package logging

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
	// firstPause is how long a warning that comes again is only counted;
	// while it goes on, the time doubles up to longestPause.
	firstPause   = time.Minute
	longestPause = time.Hour
	// maxEntries bounds the warnings that are remembered. More are written
	// each time.
	maxEntries = 1000
	// flushEvery is how often the counts that are due are written.
	flushEvery = 10 * time.Second
)

// dedup writes a warning or an error once, and then tells from time to time
// how often it came again: "(same, 214 more)". What is the same has the same
// message and attributes, the numbers in its error left aside, among which are
// ports that differ each time. Lines about one message are never held back:
// somebody will look for it.
type dedup struct {
	now              func() time.Time
	warnings, errors atomic.Uint64 // all of them, written or not

	mu      sync.Mutex
	entries map[string]*dedupEntry
}

// dedupEntry is a line that was written.
type dedupEntry struct {
	handler slog.Handler // with the attributes of its logger
	record  slog.Record  // the last that was held back
	more    int          // held back since
	until   time.Time
	pause   time.Duration
}

func newDedup(now func() time.Time) *dedup {
	return &dedup{now: now, entries: map[string]*dedupEntry{}}
}

// suppress decides about a record, and reports whether it is held back.
func (d *dedup) suppress(key string, to slog.Handler, record slog.Record) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if one := d.entries[key]; one != nil {
		one.record, one.more = record, one.more+1
		return true
	}
	if len(d.entries) < maxEntries {
		d.entries[key] = &dedupEntry{handler: to, until: d.now().Add(firstPause), pause: firstPause}
	}
	return false
}

// flush writes the counts that are due, or at the end all of them.
func (d *dedup) flush(all bool) {
	for _, one := range d.due(all) {
		record := slog.NewRecord(one.record.Time, one.record.Level, fmt.Sprintf("%s (same, %d more)", one.record.Message, one.more), one.record.PC)
		one.record.Attrs(func(a slog.Attr) bool {
			record.AddAttrs(a)
			return true
		})
		// A log that cannot be written has nothing to tell.
		_ = one.handler.Handle(context.Background(), record)
	}
}

// due takes the counts that are due. What did not come again is forgotten.
func (d *dedup) due(all bool) []dedupEntry {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	var due []dedupEntry
	for key, one := range d.entries {
		switch {
		case !all && now.Before(one.until):
		case one.more == 0:
			delete(d.entries, key)
		default:
			due = append(due, *one)
			one.pause = min(2*one.pause, longestPause)
			one.more, one.until = 0, now.Add(one.pause)
		}
	}
	return due
}

// reset tells what was only counted, and forgets what was written: it will be
// written again.
func (d *dedup) reset() {
	d.flush(true)
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.entries)
}

// dedupHandler hands on what is not held back. What its records have in common
// is looked at only when one of them may be held back: a delivery's lines never
// are.
type dedupHandler struct {
	slog.Handler
	dedup  *dedup
	attrs  []slog.Attr   // that it adds
	parent *dedupHandler // to those of this one; nil: there are none
}

// Handle writes a record, or counts it.
func (h *dedupHandler) Handle(ctx context.Context, record slog.Record) error {
	switch {
	case record.Level >= slog.LevelError:
		h.dedup.errors.Add(1)
	case record.Level >= slog.LevelWarn:
		h.dedup.warnings.Add(1)
	default:
		return h.Handler.Handle(ctx, record)
	}
	if key, same := h.key(record); same && h.dedup.suppress(key, h.Handler, record) {
		return nil
	}
	return h.Handler.Handle(ctx, record)
}

// key says by what a record is the same as another; ok is false when it is
// about one message.
func (h *dedupHandler) key(record slog.Record) (key string, ok bool) {
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
	for one := h; one != nil; one = one.parent {
		for _, a := range one.attrs {
			add(a)
		}
	}
	record.Attrs(add)
	return b.String(), ok
}

// WithAttrs gives a handler whose records all have the attributes.
func (h *dedupHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &dedupHandler{h.Handler.WithAttrs(attrs), h.dedup, attrs, h}
}

// WithGroup gives a handler that puts "name." before the keys to come.
func (h *dedupHandler) WithGroup(name string) slog.Handler {
	return &dedupHandler{h.Handler.WithGroup(name), h.dedup, nil, h}
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
