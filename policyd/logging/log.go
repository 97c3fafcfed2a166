// Package logging is mxpolicyd's log: log/slog behind two things of its own.
//
// What is written where. A line goes to a writer as key=value text or JSON, or
// to the systemd journal in its own protocol, where each key is a field too; a
// line that the journal does not take goes to the writer. The keys are stable,
// and listed by Keys: people filter by them.
//
// What is written how often. A warning or an error that comes again is counted
// and told from time to time, not written each time: a resolver that fails is
// one line with a number, not a thousand lines. Lines about one message are
// never held back.
//
// The package knows nothing of what is logged. What it does by the clock
// (telling the counts that are due) needs an owner, which calls FlushLoop.
package logging

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/mxpipe/mxpipe/policyd/config"
)

// Log is mxpolicyd's log. It may be used by several goroutines.
type Log struct {
	*slog.Logger
	level *slog.LevelVar
	dedup *dedup
}

// New makes the log that the configuration asks for. Lines go to w, with format
// journal only those that the systemd journal does not take. Call FlushLoop, or
// what was only counted is never told.
func New(cfg config.Log, w io.Writer) *Log {
	level := new(slog.LevelVar)
	level.Set(cfg.Level)
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler
	switch cfg.Format {
	case config.LogJSON:
		options.ReplaceAttr = withUnits
		handler = slog.NewJSONHandler(w, options)
	case config.LogJournal:
		handler = newJournal(journal.Send, w, level)
	default:
		handler = slog.NewTextHandler(w, options)
	}
	l := &Log{level: level, dedup: newDedup(time.Now)}
	l.Logger = slog.New(&dedupHandler{Handler: handler, dedup: l.dedup})
	return l
}

// SetLevel changes from which level on records are written.
func (l *Log) SetLevel(level slog.Level) { l.level.Set(level) }

// Counts gives how many warnings and errors there were, written or not.
func (l *Log) Counts() (warnings, errors uint64) {
	return l.dedup.warnings.Load(), l.dedup.errors.Load()
}

// Reset tells what was only counted, and has everything written again when it
// comes again: for somebody who has just asked for something, and wants to read
// what comes of it.
func (l *Log) Reset() { l.dedup.reset() }

// FlushLoop writes now and then what was only counted, until ctx ends, and then
// the rest.
func (l *Log) FlushLoop(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.dedup.flush(false)
		case <-ctx.Done():
			l.dedup.flush(true)
			return
		}
	}
}
