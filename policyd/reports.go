package policyd

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"

	"github.com/mxpipe/mxpipe/policyd/tlsreport"
	"github.com/mxpipe/mxpipe/policyd/tlsrpt"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
)

// loadTLSReports opens the counts of the daily reports, if such are sent.
func (d *Daemon) loadTLSReports() {
	cfg := d.options.Config.TLSRPT.Report
	if cfg == nil {
		return
	}
	from := tlsreport.Sender{Organization: cfg.Organization, Contact: cfg.Contact, Hostname: d.options.Config.Hostname}
	var err error
	d.tlsReports, err = tlsreport.Open(tlsreport.Config{
		Sender: from, From: cfg.From, Exclude: cfg.Exclude, MaxSize: int(cfg.MaxSize),
		Dir:    filepath.Join(d.options.Config.StateDir, "tlsreport"),
		Record: textResolver{d},
		Courier: &tlsreport.Carrier{
			Server: cfg.Send, From: cfg.From, Hostname: d.options.Config.Hostname,
			Lookup: textResolver{d}.Addresses, Private: cfg.AllowPrivate,
		},
		Log: d.log, Now: d.options.Now,
	})
	if err != nil {
		d.log.Warn("TLS report counts of before cannot be read", "error", err)
	}
}

// countSessions counts a delivery's sessions. The reports' own mail is not
// reported on: it would never end.
func (d *Daemon) countSessions(e *transport.Event) {
	if d.tlsReports == nil || e.Envelope.Sender == d.options.Config.TLSRPT.Report.From {
		return
	}
	for _, s := range tlsrpt.Sessions(e, d.options.Now()) {
		d.tlsReports.Observe(s)
	}
}

// textResolver looks TXT records and addresses up with the resolver in force.
type textResolver struct{ daemon *Daemon }

// Addresses gives a host's.
func (t textResolver) Addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	inUse := t.daemon.runtime.InUse()
	defer inUse.Release()
	if inUse.Resolver == nil {
		return nil, errStopping
	}
	found, err := route.New(route.Config{Resolver: inUse.Resolver}).Addresses(ctx, route.Host{Name: host})
	if err != nil {
		return nil, err
	}
	return found.Addrs, nil
}

var errStopping = errors.New("mxpolicyd is stopping")

// TXT implements tlsreport.Resolver.
func (t textResolver) TXT(ctx context.Context, name string) ([]string, error) {
	inUse := t.daemon.runtime.InUse()
	defer inUse.Release()
	if inUse.Resolver == nil {
		return nil, errStopping
	}
	answer, err := inUse.Resolver.Lookup(ctx, name, resolver.TypeTXT)
	if err != nil {
		return nil, err
	}
	return answer.Texts(), nil
}
