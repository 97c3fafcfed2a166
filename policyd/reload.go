package policyd

import (
	"context"
	"errors"
	"strings"

	"github.com/mxpipe/mxpipe/policyd/config"
)

// obey reads the configuration again whenever it is told to.
func (d *Daemon) obey(ctx context.Context) {
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
	cfg, err := d.options.Load()
	if err == nil {
		err = d.ways.replace(cfg)
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
		d.status("delivering mail; the changed configuration is wrong and not in use")
		return
	}
	d.spool.SetMax(cfg.MaxMessageSize)
	d.options.Level.Set(cfg.Log.Level)
	d.mu.Lock()
	d.cfg = cfg
	d.mu.Unlock()
	d.logChanges(config.Changes(d.options.Config, cfg))
	d.log.Info("configuration reloaded")
	d.status(delivering)
}

// maxChanges bounds how many changes one reload logs.
const maxChanges = 100

// logChanges tells what is different from the configuration that the daemon
// was started with.
func (d *Daemon) logChanges(changes []config.Change) {
	for i, c := range changes {
		switch {
		case i == maxChanges:
			d.log.Info("more changes", "number", len(changes)-i)
			return
		case fixed(c.Path):
			d.log.Warn("changed, but needs a restart", "change", c.String())
		default:
			d.log.Info("changed since the start", "change", c.String())
		}
	}
}

// fixed reports whether a setting stays as it was at start.
func fixed(path string) bool {
	switch path {
	case "state_dir", "max_deliveries", "log.format":
		return true
	}
	return strings.HasPrefix(path, "listen.")
}
