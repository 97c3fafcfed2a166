// Package policyd is the daemon behind mxpipe: its sockets, its front ends,
// its start, reload and end. How mail is delivered is the matter of package
// transport.
//
// This package only wires: what a configuration is made into is the matter of
// policyd/runtime, sockets that of policyd/listen, the log that of
// policyd/logging, and each front end is a package of its own.
//
// At start the state directory is locked, the sockets taken from systemd or
// opened, the configuration's transports made, and readiness is told. While it
// runs, HUP replaces the transports by those of the newly read configuration,
// all of them or none; what the new configuration does not change is kept, with
// its caches and idle connections. At the end no new work is taken, deliveries
// may go on for shutdown_timeout, and what is left is cancelled: its mail
// server keeps it.
//
// The state directory holds what must survive: the record of served
// recipients, MTA-STS policies, and for the time of a delivery a large message.
// A directory that cannot be made or read at start is a mistake to be mended,
// and the daemon does not start. One that cannot be written, then or later,
// holds up large messages, and is in the log; everything else goes on.
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

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/policyd/history"
	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/policyd/listen"
	"github.com/mxpipe/mxpipe/policyd/logging"
	"github.com/mxpipe/mxpipe/policyd/metrics"
	"github.com/mxpipe/mxpipe/policyd/runtime"
	"github.com/mxpipe/mxpipe/policyd/served"
	"github.com/mxpipe/mxpipe/policyd/socketmap"
	"github.com/mxpipe/mxpipe/policyd/spool"
	"github.com/mxpipe/mxpipe/policyd/tlsreport"
	"github.com/mxpipe/mxpipe/policyd/tlsrpt"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/fallback"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/source"
	"github.com/mxpipe/mxpipe/transport/suspension"
)

const (
	// sweepEvery is how often what was remembered too long is forgotten.
	sweepEvery = time.Hour
	// writeEvery is how often it is tried to write down who was served, where
	// that failed before; writeTime, how long it may take at the end.
	writeEvery = 5 * time.Second
	writeTime  = 5 * time.Second
)

// Options are what a Daemon is made of.
type Options struct {
	// Config is the configuration to begin with.
	Config *config.Config
	// Sockets are those that systemd handed over, by name.
	Sockets []*os.File
	// HangUp tells to read the configuration again, with Load. Nil: never.
	HangUp <-chan os.Signal
	Load   func() (*config.Config, error)
	// CheckDNS looks whether the resolvers of a configuration are fit; nil:
	// nothing looks. It takes seconds at most, or as long as ctx lasts.
	CheckDNS func(ctx context.Context, cfg *config.Config) []finding.Finding
	// Now is the clock that TLS reports go by; nil: time.Now. Tests move it.
	Now func() time.Time
	// Version is for the administrator.
	Version string
	// Log is where it logs; the daemon calls FlushLoop.
	Log *logging.Log
}

// Daemon is one mxpolicyd.
type Daemon struct {
	options    Options
	log        *slog.Logger
	stateDir   stateDir
	sockets    listen.Sockets
	served     *served.Store
	spool      *spool.Spool
	runtime    *runtime.Runtime
	dispatcher *intake.Dispatcher
	metrics    *metrics.Metrics
	reports    *tlsrpt.Reporter
	tlsReports *tlsreport.Reporter // nil: no daily reports are sent
	history    *history.History
	suspended  *suspension.List
	failing    *fallback.Memory
	daily      *source.Daily
	lookups    socketmap.Counts
	// slots are for all front ends together; max_deliveries is as it was at
	// start.
	slots int

	mu        sync.Mutex
	cfg       *config.Config // in force
	state     configState
	warnings  []string          // of the last look at the DNS
	frontends []frontEnd        // one for each socket
	endpoints []listen.Endpoint // theirs
}

// New makes a daemon, which must be served. An error is for the administrator:
// a socket or the state directory cannot be used, or the configuration asks for
// what this host lacks.
//
// The sockets come before the disk: a daemon that must not be, because there is
// another one, ends before it has touched anything.
func New(ctx context.Context, o Options) (*Daemon, error) {
	d := &Daemon{
		options:  o,
		log:      o.Log.Logger,
		stateDir: stateDir{path: o.Config.StateDir},
		spool:    spool.New(o.Config.StateDir, o.Config.MaxMessageSize),
		reports:  tlsrpt.New(o.Config.TLSRPT.Socket, o.Log.Logger),
		slots:    o.Config.MaxDeliveries,
		cfg:      o.Config,
	}
	if d.options.Now == nil {
		d.options.Now = time.Now
	}
	d.spool.Watch(watched(o.Config))
	d.state.started = time.Now()
	d.state.read = d.state.started
	d.metrics = metrics.New(o.Version, d.counts)
	err := d.claim(ctx)
	if err == nil {
		err = d.load()
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// claim makes sure that there is no other daemon, and takes what there can be
// one of only: the sockets and the state directory.
func (d *Daemon) claim(ctx context.Context) error {
	err := d.stateDir.claim()
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	makers := d.frontEndMakers()
	served := func(k listen.EndpointKind) bool { return makers[k] != nil }
	if d.sockets, err = listen.Open(ctx, d.options.Sockets, &d.options.Config.Listen, served, d.log); err != nil {
		return err
	}
	err = d.stateDir.make()
	if errors.Is(err, errors.ErrUnsupported) {
		d.log.Warn("cannot lock the state directory: a second mxpolicyd could use it too", "error", err)
		err = nil
	}
	return err
}

// load reads what is in the state directory, and makes what the configuration
// says.
func (d *Daemon) load() error {
	cfg := d.options.Config
	var err error
	if d.served, err = served.Open(filepath.Join(cfg.StateDir, "served"), time.Now); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	d.loadSuspended()
	d.loadFailing()
	d.loadDaily()
	d.runtime = runtime.New(runtime.Options{Logger: d.log, Observer: d.observer, Suspended: d.suspended, Failing: d.failing, Daily: d.daily})
	d.loadHistory()
	d.loadTLSReports()
	if err := d.spool.Check(); err != nil {
		d.log.Error("the state directory cannot be written; large messages are deferred, and served recipients are not recorded", "error", err)
	}
	if err := d.runtime.Apply(cfg); err != nil {
		return err
	}
	d.dispatcher = intake.New(intake.Config{
		Transport: d.forDelivery,
		Spool:     d.spool,
		Served:    d.served,
		Slots:     intake.NewSlots(d.slots),
		Uploads:   semaphore.NewWeighted(int64(d.slots) * intake.UploadsPerSlot),
		Logger:    d.log,
	})
	return nil
}

// close lets go of everything. Nothing is under way any more.
func (d *Daemon) close() {
	if d.runtime != nil {
		d.runtime.Close()
	}
	if d.failing != nil {
		d.saveFailing()
	}
	if d.daily != nil {
		d.saveDaily()
	}
	if d.tlsReports != nil {
		if err := d.tlsReports.Close(); err != nil {
			d.log.Warn("TLS report counts are not kept", "error", err)
		}
	}
	if d.history != nil {
		if err := d.history.Close(); err != nil {
			d.log.Warn("the history of deliveries is not kept", "error", err)
		}
	}
	d.sockets.Close()
	d.stateDir.release()
}

// Serve serves until ctx ends or a socket failed, and
// returns when all work is done or given up. It is called once.
func (d *Daemon) Serve(ctx context.Context) error {
	defer d.close()
	if err := d.reports.Start(); err != nil {
		return fmt.Errorf("tlsrpt: %w", err)
	}
	defer d.reports.Close() // while records can still be looked up
	makers := d.frontEndMakers()
	deliveries, giveUp := context.WithCancelCause(context.Background())
	defer giveUp(nil)

	front, taking := errgroup.WithContext(ctx)
	for _, l := range d.sockets {
		d.log.Info("serving", "socket", l.Endpoint.String(), "address", l.Addr().String())
		end := d.addFrontEnd(l.Endpoint, makers[l.Kind])
		front.Go(func() error { return end.Serve(taking, deliveries, l.Listener) })
	}
	d.warn(d.options.Config)
	var chores sync.WaitGroup
	alive, end := context.WithCancel(context.Background())
	chores.Go(func() { d.watchdog(alive) })
	chores.Go(func() { d.reloadLoop(alive) })
	chores.Go(func() { d.checkLoop(alive) })
	chores.Go(func() { d.maintainServed(alive) })
	chores.Go(func() { d.options.Log.FlushLoop(alive) })
	d.ready()

	err := front.Wait()
	if err != nil {
		d.log.Error("a socket failed", "error", err)
	}
	d.drain(giveUp)
	end()
	chores.Wait()
	last, cancel := context.WithTimeout(context.Background(), writeTime)
	defer cancel()
	d.served.WritePending(last)
	d.log.Info("stopped")
	return err
}

// observer gives who is told of the deliveries of a transport, which asks that
// resolver.
func (d *Daemon) observer(name string, r *resolver.Resolver) func(*transport.Event) {
	d.metrics.Transport(name)
	report := d.reports.Observer(r)
	return func(e *transport.Event) {
		d.metrics.Observe(e)
		report(e)
		d.countProviders(e)
		d.addToHistory(e)
		d.countSessions(e)
	}
}

// drain lets deliveries end for shutdown_timeout, and then gives up what is
// still under way.
func (d *Daemon) drain(giveUp context.CancelCauseFunc) {
	timeout := d.current().ShutdownTimeout
	d.stopping(timeout)
	d.log.Info("stopping", "timeout", timeout)
	var waiting sync.WaitGroup
	done := make(chan struct{})
	waiting.Go(func() {
		for _, end := range d.allFrontEnds() {
			end.Wait()
		}
		close(done)
	})
	select {
	case <-done:
	case <-time.After(timeout):
		d.log.Info("giving up deliveries that did not end in time; their mail servers keep the messages")
		giveUp(transport.ErrStopping)
		d.runtime.Abort()
	}
	waiting.Wait()
}

// maintainServed keeps the memory of who was served in order: what is too old
// is forgotten, and what the disk did not take is written when it does.
func (d *Daemon) maintainServed(ctx context.Context) {
	sweep, pending := time.NewTicker(sweepEvery), time.NewTicker(writeEvery)
	defer sweep.Stop()
	defer pending.Stop()
	for {
		select {
		case <-sweep.C:
			d.served.Sweep()
		case <-pending.C:
			d.served.WritePending(ctx)
			d.saveFailing()
			d.saveDaily()
		case <-ctx.Done():
			return
		}
	}
}

// current gives the configuration in force.
func (d *Daemon) current() *config.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cfg
}

// errWedged says that nothing will be delivered any more.
var errWedged = errors.New("max_deliveries are all in use by deliveries that are past every time limit")

// healthy reports, before ctx ends, whether the daemon still does its work:
// connections are accepted, a message would find its transport and what is
// remembered of it, the locks of what deliveries go through are given back, and
// deliveries come to an end. An error means that only a new start helps.
//
// Places that are all taken are no such error, whatever servers do: a delivery
// ends at its time or, at the latest, submission_timeout after its last byte.
// One that goes on for minutes after that waits for something in the daemon
// that will not come.
func (d *Daemon) healthy(ctx context.Context) error {
	for _, end := range d.allFrontEnds() {
		if err := end.Alive(ctx); err != nil {
			return err
		}
	}
	// None of these waits for anything but a lock.
	if h, ok := d.runtime.Acquire(config.DefaultTransport); ok {
		h.Release()
	}
	d.runtime.Totals()
	d.served.Known("health")
	if d.readingTooLong() {
		return errReading
	}
	if d.dispatcher.Overdue() >= d.slots {
		return errWedged
	}
	return nil
}
