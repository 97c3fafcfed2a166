package policyd

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/policyd/config"
)

// reloadLoop reads the configuration again whenever it is told to.
func (d *Daemon) reloadLoop(ctx context.Context) {
	for {
		select {
		case <-d.options.HangUp:
			d.reload()
		case <-ctx.Done():
			return
		}
	}
}

// reload puts a configuration that was read again in the place of the one in
// force: all of it, or with an error logged none of it.
func (d *Daemon) reload() {
	d.options.Log.Reset() // whoever asks for it wants to read what comes of it
	cfg, err := d.options.Load()
	if err == nil {
		err = d.runtime.Apply(cfg)
	}
	var mistakes config.Mistakes
	switch {
	case errors.As(err, &mistakes):
		for _, m := range mistakes {
			d.log.Error("configuration not reloaded", "mistake", m.String())
		}
	case err != nil:
		d.log.Error("configuration not reloaded", "error", err)
	}
	if err != nil {
		d.mu.Lock()
		d.state.rejected = time.Now()
		d.mu.Unlock()
		d.status("delivering mail; the changed configuration is wrong and not in use")
		return
	}
	d.spool.SetMax(cfg.MaxMessageSize)
	d.reports.SetSocket(cfg.TLSRPT.Socket)
	d.history.SetOptions(historyOptions(cfg))
	d.options.Log.SetLevel(cfg.Log.Level)
	before := d.current()
	d.mu.Lock()
	d.cfg = cfg
	d.state.read, d.state.rejected = time.Now(), time.Time{}
	d.mu.Unlock()
	d.logChanges(before, cfg)
	d.warn(cfg)
	d.log.Info("configuration reloaded")
	d.status(delivering)
}

// maxChanges bounds how many changes one reload logs.
const maxChanges = 100

// logChanges tells what is in force now, and what will be after a restart.
func (d *Daemon) logChanges(before, now *config.Config) {
	changes := slices.DeleteFunc(config.Changes(before, now), func(c config.Change) bool { return fixed(c.Path) })
	for i, c := range changes {
		if i == maxChanges {
			d.log.Info("more is changed", "number", len(changes)-i)
			break
		}
		d.log.Info("changed", "change", c.String())
	}
	for _, c := range config.Changes(d.options.Config, now) {
		if fixed(c.Path) {
			d.log.Warn("changed, but needs a restart", "change", c.String())
		}
	}
}

// fixed reports whether a setting stays as it was at start.
func fixed(path string) bool {
	switch path {
	case "state_dir", "max_deliveries", "log.format", "history.keep":
		return true
	}
	return strings.HasPrefix(path, "listen.")
}
