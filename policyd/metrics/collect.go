package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mxpipe/mxpipe/policyd/tlsrpt"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/pool"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// collector asks for Counts at each scrape and brings them into Prometheus's
// form.
type collector struct {
	counts func() Counts
	descs  map[string]*prometheus.Desc // by name
}

func newCollector(counts func() Counts) *collector {
	c := &collector{counts: counts, descs: map[string]*prometheus.Desc{}}
	for _, d := range []Metric{
		reloadSuccessful, reloadTime, logMessages, inProgress, messages, uploads, maxDeliveries, messagesBusy,
		connectionsOpen, connectionsOpened, poolIdle, poolReused, poolMissed, poolRetired,
		limitWaiting, limitWaits, limitRefused, deadHosts, slowedHosts, sources,
		cacheHits, cacheMisses, cacheRefreshes, cacheFailures, cacheEvictions, cacheEntries, cacheBytes, cacheMaxBytes,
		dnsUp, dnsDuration, dnsAnswers, dnsFailures, stsFailures, stsStoreFailures, tlsrptSent, tlsrptLost, tlsrptReports, tlsrptUncounted, socketmapLookups,
	} {
		c.descs[d.Name] = prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	counts := c.counts()
	s := scrape{c, to}
	for name, t := range counts.Transports {
		s.transport(name, t)
	}
	s.daemon(&counts)
	s.caches(&counts)
	for i := range counts.Servers {
		s.server(&counts.Servers[i])
	}
	for f := mtasts.FailureNone + 1; int(f) < mtasts.Failures; f++ {
		s.put(stsFailures, counts.Policies.Failures[f], f.String())
	}
	s.put(stsStoreFailures, counts.Policies.StoreFailures)
	s.put(tlsrptSent, counts.TLSRPT.Sent)
	s.put(tlsrptReports, counts.Reports.Sent, "sent")
	s.put(tlsrptReports, counts.Reports.Failed, "failed")
	s.put(tlsrptUncounted, counts.Reports.Dropped)
	s.put(socketmapLookups, counts.Socketmap.Policies, "policy")
	s.put(socketmapLookups, counts.Socketmap.None, "none")
	s.put(socketmapLookups, counts.Socketmap.Temporary, "temporary")
	for l := range tlsrpt.DropReasons {
		s.put(tlsrptLost, counts.TLSRPT.Lost[l], l.String())
	}
}

// scrape is one Collect.
type scrape struct {
	*collector
	to chan<- prometheus.Metric
}

// put gives a counter's value.
func (s scrape) put(d Metric, value uint64, labels ...string) {
	s.to <- prometheus.MustNewConstMetric(s.descs[d.Name], prometheus.CounterValue, float64(value), labels...)
}

// show gives a gauge's value.
func (s scrape) show(d Metric, value float64, labels ...string) {
	s.to <- prometheus.MustNewConstMetric(s.descs[d.Name], prometheus.GaugeValue, value, labels...)
}

func (s scrape) daemon(c *Counts) {
	s.show(reloadSuccessful, zeroOrOne(!c.Mistaken))
	s.show(reloadTime, float64(c.Reloaded.UnixMilli())/1000)
	s.put(logMessages, c.Warnings, "warn")
	s.put(logMessages, c.Errors, "error")
	s.show(messages, float64(c.Messages))
	s.show(uploads, float64(c.Uploads))
	s.show(maxDeliveries, float64(c.MaxDeliveries))
	s.put(messagesBusy, c.Busy)
}

func (s scrape) transport(name string, t *transport.Stats) {
	s.show(inProgress, float64(t.Deliveries), name)
	s.show(connectionsOpen, float64(t.Open), name)
	s.put(connectionsOpened, t.Opened, name)
	s.show(poolIdle, float64(t.Pool.Idle), name)
	s.put(poolReused, t.Pool.Reused, name)
	s.put(poolMissed, t.Pool.Missed, name)
	for why := range pool.Reasons {
		s.put(poolRetired, t.Pool.Retired[why], name, why.String())
	}
	for scope := range limit.Scopes {
		l := t.Limits[scope]
		word := scope.Word()
		s.show(limitWaiting, float64(l.Waiting), name, word)
		s.put(limitWaits, l.Waited, name, word)
		s.put(limitRefused, l.Late, name, word)
	}
	s.show(deadHosts, float64(t.Dead), name)
	s.show(slowedHosts, float64(t.Slowed), name)
	s.show(sources, float64(t.Sources.Usable), name, "usable")
	s.show(sources, float64(t.Sources.Spent), name, "spent")
	s.show(sources, float64(t.Sources.Out), name, "out")
}

func (s scrape) caches(c *Counts) {
	s.put(cacheHits, c.DNS.Hits, "dns")
	s.put(cacheMisses, c.DNS.Misses, "dns")
	s.put(cacheRefreshes, c.DNS.Refreshes, "dns")
	s.put(cacheFailures, c.DNS.Failures, "dns")
	s.put(cacheEvictions, c.DNS.Evictions, "dns")
	sts := &c.Policies
	var failed uint64
	for _, n := range sts.Failures {
		failed += n
	}
	s.put(cacheHits, sts.Hits, "mtasts")
	s.put(cacheMisses, sts.Lookups-sts.Hits, "mtasts")
	s.put(cacheRefreshes, sts.Refreshes, "mtasts")
	s.put(cacheFailures, failed, "mtasts")
	for name, u := range c.Memory {
		s.show(cacheEntries, float64(u.Entries), name)
		s.show(cacheBytes, float64(u.Bytes), name)
		s.show(cacheMaxBytes, float64(u.MaxBytes), name)
	}
}

func (s scrape) server(one *resolver.ServerStats) {
	s.show(dnsUp, zeroOrOne(!one.Down), one.Server)
	s.to <- prometheus.MustNewConstSummary(s.descs[dnsDuration.Name], one.Queries, one.Took.Seconds(), nil, one.Server)
	s.put(dnsAnswers, one.Secure, one.Server, "true")
	s.put(dnsAnswers, one.Insecure, one.Server, "false")
	for kind := resolver.Kind(1); kind < resolver.Kinds; kind++ {
		// which no server has seen
		if kind != resolver.BadName && kind != resolver.Cancelled {
			s.put(dnsFailures, one.Failures[kind], one.Server, kindWord(kind))
		}
	}
}

// kindWord gives a label's value for a failure.
func kindWord(k resolver.Kind) string {
	switch k {
	case resolver.Timeout:
		return "timeout"
	case resolver.Unreachable:
		return "unreachable"
	case resolver.OtherCode:
		return "other_code"
	case resolver.Malformed:
		return "malformed"
	}
	return strings.ToLower(k.String())
}

func zeroOrOne(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
