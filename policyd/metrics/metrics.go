// Package metrics is what mxpolicyd tells Prometheus, and the only place that
// knows its types.
//
// Two things feed it. Deliveries bring an event each ([Metrics.Observe]), which
// is counted at once. What the daemon's parts count by themselves (connections,
// caches, limits, resolvers) is asked for at each scrape ([Counts]), so that it
// costs deliveries nothing. Counters are the daemon's: they go on when a reload
// puts a transport in another's place.
//
// Labels hold few values, which are fixed or come from the configuration; no
// domain, host or address of others is ever one, but for the names of the fifty
// largest providers. [All] lists every metric with
// its labels and with what it means when it moves, for the documentation.
package metrics

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/policyd/socketmap"
	"github.com/mxpipe/mxpipe/policyd/tlsreport"
	"github.com/mxpipe/mxpipe/policyd/tlsrpt"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// Counts are what the daemon's parts count, since it was started, and have now.
type Counts struct {
	Transports    map[string]*transport.Stats // by name
	Servers       []resolver.ServerStats
	DNS           cache.Stats
	Policies      policycache.Stats
	TLSRPT        tlsrpt.Stats
	Reports       tlsreport.Stats
	Socketmap     socketmap.Stats
	Messages      int                    // that have a place
	Uploads       int                    // messages that are coming in
	Memory        map[string]cache.Usage // what is remembered or held, by name
	MaxDeliveries int                    // how many places there are
	Busy          uint64                 // messages that got no place
	Warnings      uint64                 // of the log
	Errors        uint64
	Reloaded      time.Time // when the configuration in force was read
	Mistaken      bool      // the file has been read since, and has mistakes
}

// Metrics are the daemon's. They are safe for concurrent use.
type Metrics struct {
	registry    *prometheus.Registry
	byTransport sync.Map // of *series by name
	providers   *providers

	deliveries, recipients, causes, security, policyFailures, relayed, changed, resent, handshakes *prometheus.CounterVec
	deliveryDuration, phaseDuration                                                                *prometheus.HistogramVec
}

// buckets of a delivery's times, in seconds: from a warm connection in the same
// building to a server that makes us wait on purpose.
var buckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

// New makes metrics. counts is called at each scrape, by several goroutines at
// once.
func New(version string, counts func() Counts) *Metrics {
	m := &Metrics{
		registry:         prometheus.NewRegistry(),
		providers:        newProviders(),
		deliveries:       counter(deliveries),
		recipients:       counter(recipients),
		causes:           counter(causes),
		security:         counter(security),
		policyFailures:   counter(policyFailures),
		changed:          counter(changed),
		resent:           counter(resent),
		relayed:          counter(relayed),
		handshakes:       counter(handshakes),
		deliveryDuration: histogram(deliveryDuration),
		phaseDuration:    histogram(phaseDuration),
	}
	m.failures()
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: buildInfo.Name, Help: buildInfo.Help}, buildInfo.Labels)
	build.WithLabelValues(version, runtime.Version()).Set(1)
	m.registry.MustRegister(
		m.deliveries, m.recipients, m.causes, m.security, m.policyFailures, m.relayed, m.changed, m.resent, m.handshakes, m.deliveryDuration, m.phaseDuration, build,
		newCollector(counts),
		m.providers,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

func counter(d Metric) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: d.Name, Help: d.Help}, d.Labels)
}

func histogram(d Metric) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: d.Name, Help: d.Help, Buckets: buckets}, d.Labels)
}

// errorLog brings what goes wrong with a scrape to the log. That somebody asks
// and goes away before the answer is no trouble of ours.
type errorLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (c errorLog) Println(v ...any) {
	for _, one := range v {
		if err, ok := one.(error); ok && !errors.Is(err, context.Canceled) {
			c.log.Error("metrics cannot be served", "error", err)
		}
	}
}
