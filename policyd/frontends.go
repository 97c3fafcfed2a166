package policyd

import (
	"context"
	"net"
	"slices"

	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/policyd/listen"
	"github.com/mxpipe/mxpipe/policyd/lmtp"
	"github.com/mxpipe/mxpipe/policyd/pipe"
	"github.com/mxpipe/mxpipe/policyd/socketmap"
)

// frontEnd serves one socket.
type frontEnd interface {
	// Serve takes work from l until taking ends, closes l and returns nil; an
	// error means that l cannot be served any more. What is under way then
	// goes on until deliveries ends.
	Serve(taking, deliveries context.Context, l net.Listener) error
	// Wait returns when nothing is under way any more. It is called after
	// Serve.
	Wait()
	// Alive reports, before ctx ends, whether Serve still goes round.
	Alive(ctx context.Context) error
}

// connectionsPerSlot is how many connections there may be at one socket for
// each delivery at once: one whose message is delivered, those whose messages
// are coming in, and one more, which is told that there are too many.
const connectionsPerSlot = 1 + intake.UploadsPerSlot + 1

// frontEndMakers says what makes the front end for a socket of each kind. A
// kind that is not here is not served, and the log says so.
func (d *Daemon) frontEndMakers() map[listen.EndpointKind]func(listen.Endpoint) frontEnd {
	loops := func() *accept.Loops { return accept.New(d.slots*connectionsPerSlot+1, d.log) }
	return map[listen.EndpointKind]func(listen.Endpoint) frontEnd{
		listen.KindMetrics: func(listen.Endpoint) frontEnd { return d.metrics.NewServer(d.log) },
		listen.KindPipe:    func(listen.Endpoint) frontEnd { return pipe.New(d.dispatcher, loops()) },
		listen.KindLMTP: func(e listen.Endpoint) frontEnd {
			return lmtp.New(d.dispatcher, loops(), e.Transport, d.options.Config.Hostname)
		},
		listen.KindAdmin: func(listen.Endpoint) frontEnd {
			configured := d.options.Config.Listen.Admin
			return admin.New(adminAPI{d}, admin.Options{
				Traces: d.runtime.Traces(), PProf: configured != nil && configured.PProf, Logger: d.log,
			})
		},
		listen.KindSocketmap: func(listen.Endpoint) frontEnd {
			return socketmap.New(socketmap.Config{
				Transport: d.forLookup, Default: config.DefaultTransport, Counts: &d.lookups, Logger: d.log,
			}, loops())
		},
	}
}

// forDelivery finds a transport by name, for one delivery.
func (d *Daemon) forDelivery(name string) (intake.Transport, bool) {
	h, ok := d.runtime.Acquire(name)
	if !ok {
		return intake.Transport{}, false
	}
	return intake.Transport{Deliverer: h.Transport, Release: h.Release, Overtime: h.ReplyTimeout}, true
}

// forLookup finds a transport by name, for one look-up.
func (d *Daemon) forLookup(name string) (socketmap.Transport, bool) {
	h, ok := d.runtime.Acquire(name)
	if !ok {
		return socketmap.Transport{}, false
	}
	return socketmap.Transport{PlanSource: h.Transport, Release: h.Release}, true
}

// addFrontEnd makes the front end for a socket.
func (d *Daemon) addFrontEnd(e listen.Endpoint, make func(listen.Endpoint) frontEnd) frontEnd {
	end := make(e)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.frontends = append(d.frontends, end)
	d.endpoints = append(d.endpoints, e)
	return end
}

// warn tells what is hardly meant in a configuration: its own warnings, and
// LMTP sockets whose transport it does not have. These stay open: their mail is
// deferred until a reload brings it.
func (d *Daemon) warn(cfg *config.Config) {
	for _, w := range cfg.Warnings {
		d.log.Warn("configuration warning", "warning", w.String())
	}
	d.mu.Lock()
	endpoints := slices.Clone(d.endpoints)
	d.mu.Unlock()
	for _, e := range endpoints {
		if e.Kind == listen.KindLMTP && cfg.Transports[e.Transport] == nil {
			d.log.Warn("the configuration has no transport of this name; mail on this socket is deferred", "socket", e.String(), "transport", e.Transport)
		}
	}
}

// allFrontEnds gives those that were made so far.
func (d *Daemon) allFrontEnds() []frontEnd {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.frontends)
}
