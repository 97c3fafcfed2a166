// Package prometheus has a real Prometheus, of Debian's package, scrape
// mxpolicyd while it delivers to the lab's domains: promtool has nothing
// against the metrics, every query of the dashboard returns data, and every
// alert's rule is sound. Nothing here needs root.
package prometheus
