package policyd

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/mxpipe/mxpipe/policyd/config"
)

// Log is mxpolicyd's log.
type Log struct {
	*slog.Logger
	level   *slog.LevelVar
	repeats *repeats
}

// NewLog makes the log that the configuration asks for. Lines go to w, with
// format journal only those that the systemd journal does not take. A daemon
// that gets the log tells in it, from time to time, what was only counted.
func NewLog(cfg config.Log, w io.Writer) *Log {
	level := new(slog.LevelVar)
	level.Set(cfg.Level)
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler
	switch cfg.Format {
	case config.LogJSON:
		handler = slog.NewJSONHandler(w, options)
	case config.LogJournal:
		handler = newJournal(journal.Send, w, level)
	default:
		handler = slog.NewTextHandler(w, options)
	}
	l := &Log{level: level, repeats: newRepeats(time.Now)}
	l.Logger = slog.New(&quiet{Handler: handler, repeats: l.repeats})
	return l
}

// SetLevel changes from which level on records are written.
func (l *Log) SetLevel(level slog.Level) { l.level.Set(level) }

// tell writes now and then what was only counted, until ctx ends, and then the
// rest.
func (l *Log) tell(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.repeats.flush(false)
		case <-ctx.Done():
			l.repeats.flush(true)
			return
		}
	}
}
