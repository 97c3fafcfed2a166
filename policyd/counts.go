package policyd

import (
	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/metrics"
	"github.com/mxpipe/mxpipe/policyd/runtime"
	"github.com/mxpipe/mxpipe/transport"
)

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
	c.Messages, c.Uploads, c.Busy = d.dispatcher.UnderWay(), d.dispatcher.Uploading(), d.dispatcher.Busy()
	if d.tlsReports != nil {
		c.Reports = d.tlsReports.Stats()
	}
	c.Memory = map[string]cache.Usage{}
	for _, m := range d.memory(&totals) {
		c.Memory[m.Name] = cache.Usage{Entries: m.Entries, Bytes: m.Bytes, MaxBytes: m.MaxBytes}
	}
	return c
}

// memory is everything that the daemon remembers or holds, each with its bound
// in bytes, over all transports.
func (d *Daemon) memory(totals *runtime.Totals) (all []admin.Memory) {
	add := func(name string, u cache.Usage) {
		all = append(all, admin.Memory{Name: name, Entries: u.Entries, Bytes: u.Bytes, MaxBytes: u.MaxBytes})
	}
	add("dns", totals.DNS.Usage())
	add("mtasts", cache.Usage{Entries: totals.Policies.Domains, Bytes: totals.Policies.Memory, MaxBytes: totals.Policies.MaxMemory})
	for m := range transport.Memories {
		var sum cache.Usage
		for _, t := range totals.Transports {
			sum.Add(t.Memory[m])
		}
		add(m.Word(), sum)
	}
	add("slowed", d.runtime.Load().Usage())
	add("pauses", d.runtime.Pauses().Usage())
	add("suspended", d.suspended.Usage())
	add("failing", d.failing.Usage())
	add("sources", d.daily.Usage())
	past := d.history.Stats()
	if d.tlsReports != nil {
		add("tls_reports", d.tlsReports.Usage())
	}
	add("history", cache.Usage{Entries: past.Entries, Bytes: int64(past.Bytes), MaxBytes: int64(past.MaxBytes)})
	add("messages", d.spool.Usage())
	add("envelopes", d.dispatcher.EnvelopeUsage())
	add("served", d.served.Usage())
	return all
}
