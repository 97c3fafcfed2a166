// Package policyd is the daemon behind mxpipe: its sockets, its front ends,
// its start, reload and end. How mail is delivered is the matter of package
// transport.
//
// At start the configuration's transports are made, the sockets taken from
// systemd or opened, and readiness is told. While it runs, HUP replaces the
// transports by those of the newly read configuration, all of them or none.
// At the end no new work is taken, deliveries may go on for
// shutdown_timeout, and what is left is cancelled: its mail server keeps it.
package policyd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/pipe"
	"github.com/mxpipe/mxpipe/policyd/served"
	"github.com/mxpipe/mxpipe/policyd/spool"
	"github.com/mxpipe/mxpipe/transport"
)

// waitingFactor is how many connections there may be for each delivery at
// once: some are only just arriving, some wait for their turn.
const waitingFactor = 2

// Daemon is one mxpolicyd.
type Daemon struct {
	cfg    *config.Config
	log    *slog.Logger
	ways   generations
	places *semaphore.Weighted
	spool  *spool.Spool
	served *served.Memory
}

// New makes a daemon. An error is for the administrator: the state directory
// can not be used, or the configuration asks for what this host lacks.
func New(cfg *config.Config, log *slog.Logger) (*Daemon, error) {
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	memory, err := served.Open(filepath.Join(cfg.StateDir, "served"), time.Now)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	g, err := newGeneration(cfg, log)
	if err != nil {
		return nil, err
	}
	return &Daemon{
		cfg:    cfg,
		log:    log,
		ways:   generations{now: g},
		places: semaphore.NewWeighted(int64(cfg.MaxDeliveries)),
		spool:  spool.New(cfg.StateDir, cfg.MaxMessageSize),
		served: memory,
	}, nil
}

// Serve serves until ctx ends, and returns when all work is done or given up.
// It is called once.
func (d *Daemon) Serve(ctx context.Context) error {
	defer func() {
		d.ways.now.retire()
		<-d.ways.now.closed
	}()
	listeners, err := d.listen()
	if err != nil {
		return err
	}
	if len(listeners) == 0 {
		return errors.New("there is no socket to serve: systemd handed over none and listen names none")
	}
	deliveries, giveUp := context.WithCancelCause(context.Background())
	defer giveUp(nil)

	front, ctx := errgroup.WithContext(ctx)
	server := &pipe.Server{
		Transport:      d.ways.use,
		Spool:          d.spool,
		Served:         d.served,
		Places:         d.places,
		MaxConnections: d.cfg.MaxDeliveries*waitingFactor + 1,
		Logger:         d.log,
	}
	for name, l := range listeners {
		d.log.Info("serving", "socket", name, "address", l.Addr().String())
		front.Go(func() error { return server.Serve(ctx, deliveries, l) })
	}
	var chores sync.WaitGroup
	alive, end := context.WithCancel(context.Background())
	defer end()
	chores.Go(func() { d.watchdog(alive) })
	chores.Go(func() { d.shutdown(ctx, giveUp) })
	d.notify(daemon.SdNotifyReady + "\nSTATUS=delivering mail")
	err = front.Wait()
	end()
	chores.Wait()
	d.log.Info("stopped")
	return err
}

// listen takes systemd's sockets and opens the configured ones it has none for.
func (d *Daemon) listen() (sockets, error) {
	got, err := handedOver()
	if err != nil {
		return nil, err
	}
	for name, l := range got {
		if name != "pipe" {
			l.Close()
			delete(got, name)
			d.log.Warn("systemd handed over a socket that is not served", "socket", name)
		}
	}
	want := d.cfg.Listen.Pipe
	if want == nil || got["pipe"] != nil {
		return got, nil
	}
	l, err := open(want)
	if err != nil {
		return nil, fmt.Errorf("pipe socket: %w", err)
	}
	got["pipe"] = l
	return got, nil
}

// shutdown waits for the end of ctx and then for shutdown_timeout, after
// which what is still under way is given up.
func (d *Daemon) shutdown(ctx context.Context, giveUp context.CancelCauseFunc) {
	<-ctx.Done()
	d.notify(daemon.SdNotifyStopping + "\nSTATUS=letting deliveries end")
	d.log.Info("stopping", "timeout", d.cfg.ShutdownTimeout)
	end, cancel := context.WithTimeout(context.Background(), d.cfg.ShutdownTimeout)
	defer cancel()
	// All places free: no delivery is under way.
	if d.places.Acquire(end, int64(d.cfg.MaxDeliveries)) == nil {
		d.places.Release(int64(d.cfg.MaxDeliveries))
		giveUp(transport.ErrStopping)
		return
	}
	d.log.Warn("giving up deliveries that did not end in time; their mail servers keep them")
	giveUp(transport.ErrStopping)
	d.ways.abort()
}

// Reload puts the transports of another configuration in place of the current
// ones. On error nothing has changed. Sockets, the state directory and the
// bounds stay as they were at start.
func (d *Daemon) Reload(cfg *config.Config) error {
	g, err := newGeneration(cfg, d.log)
	if err != nil {
		return err
	}
	d.ways.replace(g)
	d.log.Info("configuration reloaded")
	return nil
}

// watchdog tells systemd that the daemon lives, as often as it wants to hear.
func (d *Daemon) watchdog(ctx context.Context) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.notify(daemon.SdNotifyWatchdog)
		case <-ctx.Done():
			return
		}
	}
}

func (d *Daemon) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		d.log.Warn("systemd was not told", "error", err)
	}
}
