package policyd

import (
	"io"
	"log/slog"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/mxpipe/mxpipe/policyd/config"
)

// NewLogger makes the logger that the configuration asks for. Lines go to w,
// with format journal only those that the systemd journal does not take. The
// level can be changed while the logger is in use, as a reload does.
func NewLogger(cfg config.Log, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(cfg.Level)
	options := &slog.HandlerOptions{Level: level}
	switch cfg.Format {
	case config.LogJSON:
		return slog.New(slog.NewJSONHandler(w, options)), level
	case config.LogJournal:
		return slog.New(newJournal(journal.Send, w, level)), level
	}
	return slog.New(slog.NewTextHandler(w, options)), level
}
