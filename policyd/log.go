package policyd

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/mxpipe/mxpipe/policyd/config"
)

// NewLogger makes the logger that the configuration asks for, writing to w.
func NewLogger(cfg config.Log, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.Level}
	switch cfg.Format {
	case config.LogJSON:
		return slog.New(slog.NewJSONHandler(w, options))
	case config.LogJournal:
		return slog.New(newJournal(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// journal writes text lines that begin with the priority that the systemd
// journal reads from a service's standard error (sd-daemon(3)). The journal
// has its own time, so the line has none.
type journal struct {
	slog.Handler
	line *line
}

// line is one line in the making, shared by all handlers derived from one.
type line struct {
	mu   sync.Mutex
	text bytes.Buffer
	w    io.Writer
}

func (l *line) Write(p []byte) (int, error) { return l.text.Write(p) }

func newJournal(w io.Writer, options *slog.HandlerOptions) *journal {
	l := &line{w: w}
	o := *options
	o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}
	return &journal{slog.NewTextHandler(l, &o), l}
}

// Handle writes one line.
func (j *journal) Handle(ctx context.Context, r slog.Record) error {
	j.line.mu.Lock()
	defer j.line.mu.Unlock()
	j.line.text.Reset()
	j.line.text.WriteString(priority(r.Level))
	if err := j.Handler.Handle(ctx, r); err != nil {
		return err
	}
	_, err := j.line.w.Write(j.line.text.Bytes())
	return err
}

// WithAttrs keeps the line shared.
func (j *journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journal{j.Handler.WithAttrs(attrs), j.line}
}

// WithGroup keeps the line shared.
func (j *journal) WithGroup(name string) slog.Handler {
	return &journal{j.Handler.WithGroup(name), j.line}
}

func priority(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "<3>"
	case level >= slog.LevelWarn:
		return "<4>"
	case level >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}
