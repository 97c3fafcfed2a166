package logging

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"
)

// journalHandler sends records to the systemd journal in its own protocol. The
// message is the whole line, "delivered queue_id=4XyZ host=…", and each
// attribute is a field as well, so that journalctl MXPIPE_QUEUE_ID=4XyZ finds
// what became of one message. The journal has its own time.
type journalHandler struct {
	send     func(message string, priority journal.Priority, fields map[string]string) error
	level    slog.Leveler
	prefix   string            // of the group, ending in "."
	text     string            // of the attributes so far
	fields   map[string]string // the same
	fallback *fallback
}

// fallback takes the lines that the journal does not, with the priority in
// front that it reads from a service's standard error (sd-daemon(3)).
type fallback struct {
	mu sync.Mutex
	w  io.Writer
}

func newJournal(send func(string, journal.Priority, map[string]string) error, w io.Writer, level slog.Leveler) *journalHandler {
	return &journalHandler{
		send: send, level: level, fallback: &fallback{w: w},
		fields: map[string]string{"SYSLOG_IDENTIFIER": "mxpolicyd"},
	}
}

// Enabled says whether a record of this level is logged.
func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

// Handle writes one record.
func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	line := h.with(r.NumAttrs(), r.Attrs)
	message := r.Message + line.text
	priority := priorityOf(r.Level)
	if h.send(message, priority, line.fields) == nil {
		return nil
	}
	h.fallback.mu.Lock()
	defer h.fallback.mu.Unlock()
	_, err := io.WriteString(h.fallback.w, "<"+strconv.Itoa(int(priority))+">"+message+"\n")
	return err
}

// WithAttrs gives a handler whose records all have the attributes.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(len(attrs), func(add func(slog.Attr) bool) {
		for _, a := range attrs {
			add(a)
		}
	})
}

// WithGroup gives a handler that puts "name." before the keys to come.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	g := *h
	g.prefix += name + "."
	return &g
}

func (h *journalHandler) with(n int, attrs func(func(slog.Attr) bool)) *journalHandler {
	if n == 0 {
		return h
	}
	g := *h
	g.fields = maps.Clone(h.fields)
	attrs(func(a slog.Attr) bool {
		g.add(h.prefix, a)
		return true
	})
	return &g
}

func (h *journalHandler) add(prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	switch {
	case v.Kind() == slog.KindGroup:
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, inner := range v.Group() {
			h.add(prefix, inner)
		}
		return
	case a.Equal(slog.Attr{}):
		return
	}
	value := printable(v.String())
	h.fields["MXPIPE_"+fieldName(prefix+a.Key)] = value
	if value == "" || strings.ContainsAny(value, " \"=\\") {
		value = strconv.Quote(value)
	}
	h.text += " " + printable(prefix+a.Key) + "=" + value
}

// printable replaces what must not reach a log line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// fieldName gives a key in the letters of the journal's fields.
func fieldName(key string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
}

func priorityOf(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
