package logging

// Key is a key of the log's lines. In the systemd journal it is a field too,
// in upper case after MXPIPE_, as in MXPIPE_QUEUE_ID.
type Key struct {
	Key, Meaning string
}

// Keys lists the keys of all lines, by what they are about. They are stable:
// people filter by them. Three keys are the log's own: time, level and msg (in
// the journal: its own time, PRIORITY and MESSAGE).
//
// At level info there is one line for each delivery, which begins with
// delivered, deferred or refused: one message on its way to the recipients of
// one destination, or several lines where these had different results. A
// warning always needs attention; an error needs it sooner. Either is written
// once, and a repetition only counted: "(same, 214 more)" ends the
// message of the line that tells the count. Lines that have an id or a queue_id
// are never held back.
func Keys() []Key {
	return []Key{
		// A message, and what became of it.
		{"id", "our name for the delivery, which the mail server's log and bounces show too; of a policy, the id of the MTA-STS record"},
		{"queue_id", "the mail server's own name for the message"},
		{"uid", "the user that handed the message over"},
		{"pid", "the process that handed it over"},
		{"transport", "the transport's name"},
		{"from", "the sender's address; empty for the null sender"},
		{"to", "the recipients that the line is about, separated by commas"},
		{"size", "of the message, in bytes"},
		{"folded", "at how many places lines of more than 998 bytes were folded"},
		{"stray_cr", "how many CRs that no LF follows became blanks"},
		{"resent", "how many times the message was sent again, after a connection ended before any reply to it: it may have arrived twice"},
		{"dsn", "the status code that the mail server gets, such as 4.7.5"},
		{"text", "the text that the mail server gets"},
		{"moment", "what is true of the reason only now, such as when the host is tried again"},
		{"took", "how long the delivery took; with format json it is took_seconds, a number"},
		{"cause", "of what was not delivered: dns, connect, tls, policy, limit, remote-4xx, remote-5xx or own"},
		{"tried", "the hosts that did not take the message before, each with its reason"},

		{"target", "what was suspended, resumed or paused: a domain, a provider, a transport or our address at a provider"},

		// A host, and the connection to it.
		{"host", "the mail server's name"},
		{"address", "its address, or that of one of our own sockets"},
		{"source", "our own address that the message left from, or that cannot be used, where there is a pool of them"},
		{"via", "how the message travelled, as in \"192.0.2.1, dane, TLS1.3, reused\""},
		{"relay", "the relay that the message went to, host:port"},
		{"direct", "why the domain's own hosts could not be given what a fallback relay took"},
		{"tls_level", "the TLS level reached: none, encrypted or authenticated"},
		{"mx_level", "the MX level reached: none, mtasts or dnssec"},
		{"testing", "what an MTA-STS policy in testing mode objects to in the host"},
		{"tls_error", "why a server that offers STARTTLS got the message in the clear"},
		{"lines", "lines in a server's greeting and EHLO reply that are not replies, and were skipped"},
		{"first", "the first of them"},

		// What is traced, or logged because of debug: true.
		{"C", "what we said in the SMTP dialogue"},
		{"S", "what the server said"},
		{"destination", "where the message goes: a domain or a next hop"},
		{"kind", "what led to the hosts: MX records, the domain's own address, or a next hop"},
		{"secure", "whether DNSSEC vouches for that"},
		{"hosts", "the hosts in the order of trying, separated by commas"},
		{"need", "what a host must prove"},
		{"reason", "why it must, or why a request is refused"},
		{"refused", "why the host is not dialled, or gets nothing after its handshake"},
		{"tls", "the version of TLS in a handshake"},
		{"cipher", "its cipher suite"},
		{"group", "the group of its key exchange"},
		{"hello", "the hello that it came about by: full, classical, compatible or without-sni"},
		{"resumed", "whether a session was resumed"},
		{"chain", "the certificates that the server sent"},
		{"proof", "what they were found to prove, and what not"},

		// MTA-STS and DNS.
		{"domain", "the domain that a policy, a trace or a cache entry is about"},
		{"failure", "what is wrong, by the result types of RFC 8460 where there is one"},
		{"mode", "the policy's mode: enforce, testing or none"},
		{"max_age", "how long the policy may be kept"},
		{"until", "when the cached policy, or a trace, ends"},
		{"name", "the domain name that was asked for"},
		{"type", "the record type that was asked for"},
		{"server", "the resolver, host:port"},
		{"reply", "what a socketmap client was told"},

		// The daemon.
		{"error", "what went wrong"},
		{"version", "of mxpolicyd"},
		{"config", "the configuration file"},
		{"socket", "a socket by its name, or the path of the TLSRPT collector's"},
		{"client", "the client that sent a request"},
		{"said", "the answer that it got"},
		{"timeout", "how long deliveries may still take"},
		{"mistake", "in the configuration: file:line:column: what is wrong and what would be right"},
		{"warning", "of the configuration: what is valid but probably not intended, with file:line:column where it has one"},
		{"change", "of a setting: its key, the value before and the one now"},
		{"number", "of changes that are not listed"},
	}
}
