package logging

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"strconv"

	"github.com/coreos/go-systemd/v22/journal"
)

// Stderr is standard error, as a log's writer. Where systemd connects that to
// the journal, each line gets its priority in front (sd-daemon(3)), so that
// "journalctl -p warning" finds warnings.
func Stderr() io.Writer {
	if ok, err := journal.StderrIsJournalStream(); err == nil && ok {
		return &priorityWriter{os.Stderr}
	}
	return os.Stderr
}

// priorityWriter puts the priority of a record in front of its line. slog's
// handlers write each record by one call, with the level after the time.
type priorityWriter struct{ w io.Writer }

// Write implements io.Writer.
func (p *priorityWriter) Write(line []byte) (int, error) {
	head := strconv.AppendInt(append(make([]byte, 0, len(line)+3), '<'), int64(priorityOf(levelOf(line))), 10)
	_, err := p.w.Write(append(append(head, '>'), line...))
	if err != nil {
		return 0, err
	}
	return len(line), nil
}

// levelOf reads the level of a record as slog's text and JSON handlers write
// it; Info when it is not there.
func levelOf(line []byte) (level slog.Level) {
	before := "level="
	if len(line) > 0 && line[0] == '{' {
		before = `"level":"`
	}
	if i := bytes.Index(line[:min(len(line), 100)], []byte(before)); i >= 0 {
		rest := line[i+len(before):]
		if end := bytes.IndexAny(rest, " \",\n"); end > 0 && level.UnmarshalText(rest[:end]) == nil {
			return level
		}
	}
	return slog.LevelInfo
}

// withUnits writes durations in JSON as a number of seconds, with the unit in
// the key: "took_seconds".
func withUnits(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() != slog.KindDuration {
		return a
	}
	return slog.Float64(a.Key+"_seconds", a.Value.Duration().Seconds())
}
