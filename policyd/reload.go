package policyd

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/transport/message"
)

// reloadLoop reads the configuration again whenever it is told to.
func (d *Daemon) reloadLoop(ctx context.Context) {
	for {
		select {
		case <-d.options.HangUp:
			d.reload(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// reload puts a configuration that was read again in the place of the one in
// force: all of it, or with an error logged none of it.
func (d *Daemon) reload(ctx context.Context) {
	// the administrator who asks for it wants to read what comes of it
	d.options.Log.Reset()
	cfg, err := d.read(ctx)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		// What comes in meanwhile is delivered by the one or by the other.
		d.spool.Watch(watched(d.current(), cfg))
		if err = d.runtime.Apply(cfg); err == nil {
			d.spool.Watch(watched(cfg))
		}
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
		d.status(d.statusLine())
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
	d.status(d.statusLine())
}

// readTimeout is how long the configuration may take to be read before the
// daemon is not healthy any more.
const readTimeout = 2 * time.Minute

// errReading says that a reload does not come to an end.
var errReading = errors.New("reading the configuration takes minutes: its file system does not respond")

// read reads the configuration with all that it names, and gives up when ctx
// ends. A disk that does not answer, as of a file server that is gone, cannot
// be waited for at the end of the daemon: what reads from it is left behind
// then.
func (d *Daemon) read(ctx context.Context) (*config.Config, error) {
	d.setReading(time.Now())
	defer d.setReading(time.Time{})
	var cfg *config.Config
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		cfg, err = d.options.Load()
	}()
	select {
	case <-done:
		return cfg, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// setReading notes since when the configuration is being read; zero: it is not.
func (d *Daemon) setReading(since time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.reading = since
}

// readingTooLong reports whether the configuration is being read for too long.
func (d *Daemon) readingTooLong() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.state.reading.IsZero() && time.Since(d.state.reading) > readTimeout
}

// maxChanges bounds how many changes one reload logs.
const maxChanges = 100

// logChanges tells what is in force now, and what will be after a restart.
func (d *Daemon) logChanges(before, now *config.Config) {
	changes := slices.DeleteFunc(config.Changes(before, now), func(c config.Change) bool { return fixed(c.Path) })
	for i, c := range changes {
		if i == maxChanges {
			d.log.Info("more changes", "number", len(changes)-i)
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
	return strings.HasPrefix(path, "listen.") || strings.HasPrefix(path, "tlsrpt.report.")
}

// watched lists the header fields that the messages of these configurations
// have to be searched for.
func watched(cfgs ...*config.Config) []message.Field {
	var fields []message.Field
	for _, cfg := range cfgs {
		for _, t := range cfg.Transports {
			for _, f := range t.Watched() {
				if !slices.Contains(fields, f) {
					fields = append(fields, f)
				}
			}
		}
	}
	return fields
}
