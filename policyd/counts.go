package policyd

import "github.com/mxpipe/mxpipe/policyd/metrics"

// counts is what the daemon tells metrics.
func (d *Daemon) counts() metrics.Counts {
	totals := d.runtime.Totals()
	c := metrics.Counts{
		Transports: totals.Transports, Servers: totals.Servers, DNS: totals.DNS, Policies: totals.Policies,
		MaxDeliveries: d.slots, TLSRPT: d.reports.Stats(), Socketmap: d.lookups.Stats(),
	}
	c.Warnings, c.Errors = d.options.Log.Counts()
	d.mu.Lock()
	c.Reloaded, c.Mistaken = d.state.read, !d.state.rejected.IsZero()
	d.mu.Unlock()
	if d.dispatcher != nil { // which comes last
		c.Messages, c.Uploads, c.Busy = d.dispatcher.UnderWay(), d.dispatcher.Uploading(), d.dispatcher.Busy()
	}
	return c
}
