package metrics

import "slices"

// Type is a metric's type.
type Type string

// The types.
const (
	Counter   Type = "counter"
	Gauge     Type = "gauge"
	Histogram Type = "histogram"
	// of which there are a sum and a count, and no quantiles
	Summary Type = "summary"
)

// Metric describes one metric. Its labels have few values, which are fixed or
// come from the configuration; no domain and no host name is among them but
// those of the largest providers.
type Metric struct {
	Name   string
	Type   Type
	Labels []string
	Help   string // what it means when it moves
}

// All lists the metrics of mxpolicyd, by subject. Beside them are those of the
// Go runtime (go_) and of the process (process_).
func All() []Metric {
	return slices.Concat(
		[]Metric{buildInfo, reloadSuccessful, reloadTime, logMessages},
		[]Metric{deliveries, recipients, causes, byProvider, deliveryDuration, phaseDuration, security, handshakes, policyFailures, relayed, changed, resent},
		[]Metric{inProgress, messages, uploads, maxDeliveries, messagesBusy},
		[]Metric{connectionsOpen, connectionsOpened, poolIdle, poolReused, poolMissed, poolRetired},
		[]Metric{limitWaiting, limitWaits, limitRefused, deadHosts, slowedHosts, sources},
		[]Metric{cacheHits, cacheMisses, cacheRefreshes, cacheFailures, cacheEvictions, cacheEntries, cacheBytes, cacheMaxBytes},
		[]Metric{dnsUp, dnsDuration, dnsAnswers, dnsFailures},
		[]Metric{stsFailures, stsStoreFailures},
		[]Metric{tlsrptSent, tlsrptLost, tlsrptReports, tlsrptUncounted},
		[]Metric{socketmapLookups},
	)
}

// The daemon.
var (
	buildInfo = Metric{"mxpolicyd_build_info", Gauge, []string{"version", "goversion"},
		"Always 1. A new version in the labels means that mxpolicyd was upgraded and restarted."}
	reloadSuccessful = Metric{"mxpolicyd_config_last_reload_successful", Gauge, nil,
		"1 while the configuration file is in force as it was last read. 0 means that it has a mistake: the previous one stays in force, and the log names the line."}
	reloadTime = Metric{"mxpolicyd_config_last_reload_success_timestamp_seconds", Gauge, nil,
		"When the configuration in force was read, in Unix time."}
	logMessages = Metric{"mxpolicyd_log_messages_total", Counter, []string{"level"},
		"Warnings and errors, including repeated ones that the log only counts. Each needs attention: when this rises, read the log."}
)

// Deliveries. A delivery is one message on its way to the recipients of one
// destination.
var (
	deliveries = Metric{"mxpolicyd_deliveries_total", Counter, []string{"transport", "result"},
		"Deliveries that ended, by their worst result: deferred before refused before delivered. A rising share of deferred ones means that mail is piling up in the mail server's queue."}
	recipients = Metric{"mxpolicyd_recipients_total", Counter, []string{"transport", "result"},
		"Recipients by result. A rising share of refused ones means bad addresses, or that others do not want our mail."}
	causes = Metric{"mxpolicyd_recipient_failures_total", Counter, []string{"transport", "result", "cause"},
		"Recipients that were deferred or refused, by cause: dns, connect, tls, policy, limit (our own limits, pauses and slow-downs), remote-4xx, remote-5xx, own (anything else on our side). When there is any own, look at the log."}
	byProvider = Metric{"mxpolicyd_provider_recipients_total", Counter, []string{"provider", "result"},
		"Recipients by the provider whose host decided, for the fifty largest providers; the rest are other. A rising share of deferred ones at one provider means that it throttles us: see its replies in mxpolicyd history PROVIDER, and limits.provider."}
	deliveryDuration = Metric{"mxpolicyd_delivery_duration_seconds", Histogram, []string{"transport"},
		"How long deliveries took from start to result, without the wait for a slot. When it rises, the phases show where the time goes."}
	phaseDuration = Metric{"mxpolicyd_delivery_phase_duration_seconds", Histogram, []string{"transport", "phase"},
		"Time spent in each phase by the deliveries that reached it. A delivery over an idle connection has no connect, greeting and tls. Rising wait: limits or max_deliveries are too low; dns: the resolver is slow; connect, greeting, tls: the network or other servers are; transaction: other servers are slow to accept messages."}
	security = Metric{"mxpolicyd_delivery_security_total", Counter, []string{"transport", "tls_level", "mx_level", "proof"},
		"Deliveries whose message a server accepted, by the levels that the connection reached and by what proved the server: dane, webpki, pin or none. A falling share of authenticated ones means that certificates, TLSA records or DNSSEC stopped working somewhere; when it falls for all, look at our own resolver."}
	handshakes = Metric{"mxpolicyd_tls_handshakes_total", Counter, []string{"transport", "version", "group", "hello"},
		"TLS handshakes with servers that succeeded and were judged, by version, key exchange (RSA has no forward secrecy) and the hello that it took: full, or a plainer one, classical, compatible, without-sni. TLS 1.0 and 1.1 are those that tls_client.legacy: false would turn into plaintext; mxpolicyd status lists the hosts that need a plainer hello. When many need one at once, something on our own network breaks TLS."}
	policyFailures = Metric{"mxpolicyd_policy_failures_total", Counter, []string{"policy", "cause", "mode"},
		"Hosts that failed a policy, enforced (skipped) or testing (used anyway). When it rises for many domains at once, our resolver, clock or CA bundle is wrong; for few, they are attacked or have made a mistake: the log names them."}
	relayed = Metric{"mxpolicyd_relayed_total", Counter, []string{"transport", "way", "result"},
		"Recipients whose mail went to a relay, by way: relay, or fallback_relay for what its own hosts could not be given. When fallback_relay rises, receivers cannot be reached from here or distrust this host: the log tells why (direct)."}
	changed = Metric{"mxpolicyd_deliveries_changed_total", Counter, []string{"transport", "change"},
		"Deliveries of messages that SMTP did not allow as they were: folded, a line of more than 998 bytes; stray_cr, a CR that no LF follows, which became a blank. Either breaks a DKIM signature: the log names the messages (folded, stray_cr), and what writes them should be fixed."}
	resent = Metric{"mxpolicyd_resends_total", Counter, []string{"transport"},
		"Times that a message was sent again, at once, after a connection that ended before any reply to it: most often an idle one that the other side had given up. Each may be a second copy at the receiver; the log names the messages (resent). When it rises, something between us and others drops connections: lower conn_max_idle_time."}
)

// What is under way.
var (
	inProgress = Metric{"mxpolicyd_deliveries_in_progress", Gauge, []string{"transport"},
		"Deliveries in progress. When it stays high while few end, servers are slow or do not answer."}
	messages = Metric{"mxpolicyd_messages_in_progress", Gauge, nil,
		"Messages that have a slot of max_deliveries. A message takes its slot when all of it has arrived."}
	uploads = Metric{"mxpolicyd_uploads_in_progress", Gauge, nil,
		"Messages that are coming in from a mail server, or wait for a slot. There are at most four for each of max_deliveries: when it comes near that, a client stalls in the middle of its messages."}
	maxDeliveries = Metric{"mxpolicyd_max_deliveries", Gauge, nil,
		"The setting max_deliveries. When the messages in progress come near it, mail waits here, and then at the mail server."}
	messagesBusy = Metric{"mxpolicyd_messages_busy_total", Counter, nil,
		"Messages deferred (4.3.2) because no slot of max_deliveries became free within five seconds, or too many were coming in. Any rise means that max_deliveries is too low, or the mail server's concurrency too high."}
)

// Connections.
var (
	connectionsOpen = Metric{"mxpolicyd_connections_open", Gauge, []string{"transport"},
		"SMTP connections that are open, idle ones included. Each is a file descriptor: compare with process_max_fds."}
	connectionsOpened = Metric{"mxpolicyd_connections_opened_total", Counter, []string{"transport"},
		"SMTP connections made. When it rises as fast as deliveries do, nothing is reused: see why connections are retired."}
	poolIdle = Metric{"mxpolicyd_pool_idle_connections", Gauge, []string{"transport"},
		"Idle connections that are kept for the next message."}
	poolReused = Metric{"mxpolicyd_pool_reused_total", Counter, []string{"transport"},
		"Times that an idle connection was used. With the misses it gives the pool's hit rate."}
	poolMissed = Metric{"mxpolicyd_pool_missed_total", Counter, []string{"transport"},
		"Times that no idle connection was suitable, so that a new one had to be made."}
	poolRetired = Metric{"mxpolicyd_pool_retired_total", Counter, []string{"transport", "reason"},
		"Idle connections closed: idle_time, no message used it for conn_max_idle_time; reuse_limit, it carried conn_reuse_limit messages; count, more than conn_max_idle_count for one domain; total, too many in all; policy, what it proved no longer counts; address, DNS no longer lists its address; closed, the other side closed it first; stopped, its transport was changed or the daemon ended. Much of count or total: raise the limit, it costs handshakes. Much of closed: conn_max_idle_time is longer than other servers wait."}
)

// Limits, and hosts that are spared.
var (
	limitWaiting = Metric{"mxpolicyd_limit_waiting", Gauge, []string{"transport", "scope"},
		"Deliveries that wait at a limit now. When it stays high, the limit is too low for the mail there is."}
	limitWaits = Metric{"mxpolicyd_limit_waits_total", Counter, []string{"transport", "scope"},
		"Waits at a limit. When it rises, the limit is at work: it slows mail down as configured."}
	limitRefused = Metric{"mxpolicyd_limit_refused_total", Counter, []string{"transport", "scope"},
		"Waits at a limit that brought no slot within five seconds, so that the mail was deferred (4.4.5). When it rises, the limit is too low for the mail there is."}
	deadHosts = Metric{"mxpolicyd_dead_hosts", Gauge, []string{"transport"},
		"Hosts that cannot be reached now; mail for them is deferred at once. When it jumps, our own network is the first suspect."}
	slowedHosts = Metric{"mxpolicyd_slowed_hosts", Gauge, []string{"transport"},
		"Hosts that complained of too many connections and get fewer for a while."}
	sources = Metric{"mxpolicyd_sources", Gauge, []string{"transport", "state"},
		"Addresses of the pools that mail leaves from: usable, spent (they sent what daily allows) or out (this host does not have them). With none usable mail is deferred; see mxpolicyd status."}
)

// Caches: dns holds DNS answers, mtasts the MTA-STS policies of domains. Sizes
// are told of all that is remembered or held: see Daemon.memory.
var (
	cacheHits = Metric{"mxpolicyd_cache_hits_total", Counter, []string{"cache"},
		"Look-ups that were answered from the cache."}
	cacheMisses = Metric{"mxpolicyd_cache_misses_total", Counter, []string{"cache"},
		"Look-ups that had to be made elsewhere while a delivery waited. A falling hit rate means mail to many new domains, short TTLs, or a cache that is too small: see the evictions."}
	cacheRefreshes = Metric{"mxpolicyd_cache_refreshes_total", Counter, []string{"cache"},
		"Entries looked up again before they expire, so that nothing has to wait."}
	cacheFailures = Metric{"mxpolicyd_cache_failures_total", Counter, []string{"cache"},
		"Look-ups that brought no answer. For dns, see which resolver fails and how; for mtasts, the failures by kind."}
	cacheEvictions = Metric{"mxpolicyd_cache_evictions_total", Counter, []string{"cache"},
		"Entries removed to make room for others before they expired. A steady rise means that the cache is too small for this host's mail."}
	cacheEntries = Metric{"mxpolicyd_cache_entries", Gauge, []string{"cache"},
		"Entries in the cache now. When it stops growing while evictions rise, the cache is full."}
	cacheBytes = Metric{"mxpolicyd_cache_bytes", Gauge, []string{"cache"},
		"Memory that the entries take, or what is held beside the caches: messages, envelopes, and served on disk. When it stays at its bound and evictions rise, the cache is full."}
	cacheMaxBytes = Metric{"mxpolicyd_cache_max_bytes", Gauge, []string{"cache"},
		"Memory that the entries may take; beyond it the least recently used are removed."}
)

// The resolvers of dns.servers.
var (
	dnsUp = Metric{"mxpolicyd_dns_server_up", Gauge, []string{"server"},
		"0 while a resolver has not answered lately and is asked last. With every resolver at 0 no mail to a new domain can be delivered."}
	dnsDuration = Metric{"mxpolicyd_dns_query_duration_seconds", Summary, []string{"server"},
		"Time that queries to a resolver took, unanswered ones included. A rise makes every first delivery to a domain slower."}
	dnsAnswers = Metric{"mxpolicyd_dns_answers_total", Counter, []string{"server", "secure"},
		"Answers of a resolver, by whether it validated them (AD) and is trusted in that. When none are secure, DANE and DNSSEC are not in force: the resolver does not validate, or is not trusted (dns.trust_ad)."}
	dnsFailures = Metric{"mxpolicyd_dns_failures_total", Counter, []string{"server", "kind"},
		"Queries that a resolver did not answer. timeout and unreachable are about the resolver; servfail is often about the queried domain, but for all domains at once the clock or a trust anchor is wrong."}
)

// MTA-STS, beside its cache.
var (
	stsFailures = Metric{"mxpolicyd_mtasts_failures_total", Counter, []string{"failure"},
		"Failures to get MTA-STS policies, by kind. Deliveries go on with the cached policy, or without one. When sts-webpki-invalid or sts-policy-fetch-error rises for all domains, this host cannot reach HTTPS servers, or its CA bundle is wrong."}
	stsStoreFailures = Metric{"mxpolicyd_mtasts_store_failures_total", Counter, nil,
		"Policies that could not be read from the cache directory, or written to it. Any rise means a full or read-only disk: after a restart the policies would have to be fetched anew."}
)

// TLS reports.
var (
	tlsrptSent = Metric{"mxpolicyd_tlsrpt_datagrams_total", Counter, nil,
		"Deliveries that the TLSRPT collector was told of."}
	tlsrptLost = Metric{"mxpolicyd_tlsrpt_lost_total", Counter, []string{"reason"},
		"Deliveries that it was not told of: no_collector, nothing listens at tlsrpt.socket; collector_busy, it does not keep up; queue_full, nor do we; lookup, the domain's TLSRPT record could not be looked up; too_large. The deliveries themselves are not affected."}
	tlsrptReports = Metric{"mxpolicyd_tlsrpt_reports_total", Counter, []string{"result"},
		"Daily reports that a place took (sent), and tries that failed. Each is tried for a day; when only failed rises, the mail server at tlsrpt.report.send does not take them."}
	tlsrptUncounted = Metric{"mxpolicyd_tlsrpt_sessions_lost_total", Counter, nil,
		"TLS sessions that are missing in the daily reports: too many at once, or with too many domains on one day."}
)

// The socketmap, for those whose Postfix delivers by itself.
var socketmapLookups = Metric{"mxpolicyd_socketmap_lookups_total", Counter, []string{"reply"},
	"Look-ups by Postfix's smtp(8), by reply: policy; none, where nothing is required of the domain's servers; temporary, after which Postfix defers the mail. A rise of temporary ones is usually caused by the resolver."}
