package policyd

import (
	"time"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/history"
	"github.com/mxpipe/mxpipe/transport/suspension"
)

// loadSuspended reads what was suspended before a restart.
func (d *Daemon) loadSuspended() {
	var err error
	if d.suspended, err = suspension.Open(d.options.Config.StateDir, time.Now); err != nil {
		d.log.Error("what was suspended is not known; nothing is", "error", err)
	}
	for _, s := range d.suspended.All() {
		d.log.Warn("still suspended", "target", s.Target.String(), "text", s.Reason)
	}
}

// loadHistory reads the deliveries of before a restart, if they are kept.
func (d *Daemon) loadHistory() {
	cfg := d.options.Config
	if !cfg.History.Keep {
		d.history = history.New(historyOptions(cfg))
		return
	}
	var err error
	if d.history, err = history.Open(cfg.StateDir, historyOptions(cfg)); err != nil {
		d.log.Warn("the history of deliveries cannot be kept; it begins anew", "error", err)
	}
}

func historyOptions(cfg *config.Config) history.Options {
	return history.Options{Entries: cfg.History.Entries, Memory: int(cfg.History.Memory), Addresses: cfg.History.Addresses}
}
