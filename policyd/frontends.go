package policyd

import (
	"context"
	"net"
	"slices"

	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/lmtp"
	"github.com/mxpipe/mxpipe/policyd/pipe"
	"github.com/mxpipe/mxpipe/policyd/socketmap"
)

// frontEnd serves one socket.
type frontEnd interface {
	// Serve takes work from l until taking ends, closes l and returns nil; an
	// error means that l can not be served any more. What is under way then
	// goes on until deliveries ends.
	Serve(taking, deliveries context.Context, l net.Listener) error
	// Wait returns when nothing is under way any more. It is called after
	// Serve.
	Wait()
	// Alive reports, before ctx ends, whether Serve still goes round.
	Alive(ctx context.Context) error
}

// waitingFactor is how many connections there may be for each delivery at
// once: some are only just arriving, some wait for their turn.
const waitingFactor = 2

// doors says what makes the front end for a socket of each kind. A kind that is
// not here is not served, and the log says so.
func (d *Daemon) doors() map[kind]func(duty) frontEnd {
	loops := func() *accept.Loops { return accept.New(d.places*waitingFactor+1, d.log) }
	return map[kind]func(duty) frontEnd{
		kindMetrics: func(duty) frontEnd { return d.metrics.NewServer(d.log) },
		kindPipe:    func(duty) frontEnd { return pipe.New(d.desk, loops()) },
		kindLMTP:    func(to duty) frontEnd { return lmtp.New(d.desk, loops(), to.transport, d.options.Config.Hostname) },
		kindAdmin: func(duty) frontEnd {
			listen := &d.options.Config.Listen
			return admin.New(operator{d}, admin.Options{
				Traces: &d.ways.traces, PProf: listen.Admin != nil && listen.Admin.PProf, Logger: d.log,
			})
		},
		kindSocketmap: func(duty) frontEnd { return socketmap.New(d.socketmapConfig(), loops()) },
	}
}

func (d *Daemon) socketmapConfig() socketmap.Config {
	return socketmap.Config{Transport: d.ways.look, Default: config.DefaultTransport, Counts: &d.lookups, Logger: d.log}
}

// open makes the front end for a socket.
func (d *Daemon) open(to duty, make func(duty) frontEnd) frontEnd {
	end := make(to)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fronts = append(d.fronts, end)
	d.duties = append(d.duties, to)
	return end
}

// warnOfMissing tells of LMTP sockets whose transport the configuration does not
// have. They stay open: their mail is put off until a reload brings it.
func (d *Daemon) warnOfMissing(cfg *config.Config) {
	d.mu.Lock()
	duties := slices.Clone(d.duties)
	d.mu.Unlock()
	for _, to := range duties {
		if to.kind == kindLMTP && cfg.Transports[to.transport] == nil {
			d.log.Warn("the configuration has no transport of this name; mail over the socket is put off", "socket", to.String(), "transport", to.transport)
		}
	}
}

func (d *Daemon) frontEnds() []frontEnd {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.fronts)
}
