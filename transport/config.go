package transport

import (
	"net/netip"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/transport/delivery"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/message"
	"github.com/mxpipe/mxpipe/transport/pin"
	"github.com/mxpipe/mxpipe/transport/proxy"
	"github.com/mxpipe/mxpipe/transport/relay"
	"github.com/mxpipe/mxpipe/transport/session"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/source"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Config is one transport as the administrator wrote it, defaults filled in
// and checked. Its fields are the keys below transports.NAME in
// mxpolicyd.yaml, in the same order. A Config is never changed after it was
// handed over; overrides are complete Configs of their own.
type Config struct {
	// Name is the transport's name, "default" or another key of transports.
	Name string
	// MXAuth holds the policies that mail of this transport obeys (mx_auth):
	// the name of a policy set, a block in place, or none. Default: no
	// mechanism at all; the built-in transport "default", of a file that does
	// not configure it, has dnssec, dane and mtasts.
	MXAuth PolicySet
	// Hostname is what EHLO says (hostname): a domain name as lower-case
	// A-labels, or an address literal. Default: the top level's hostname.
	Hostname string
	// LocalIP holds the source addresses, one or a list with at most one of
	// each family (local_ip). Default: empty, which leaves the choice to the
	// kernel.
	LocalIP []netip.Addr
	// Sources is a pool of addresses to leave from, each with its own name in
	// EHLO (sources), in the place of LocalIP. Default: nil, none.
	Sources *source.Config
	// ForceIPv4 leaves IPv6 addresses out (force_ipv4). Default: false.
	ForceIPv4 bool
	// Prefer is the family that is dialled first (prefer): any, ipv4 or ipv6.
	// Default: any, which begins with IPv6 as RFC 8305 does.
	Prefer Family
	// Proxy is what connections go through (proxy). Default: nil, nothing.
	Proxy *proxy.Config
	// Port is where remote mail servers listen (port): 1 to 65535. Default: 25.
	Port uint16
	// ConnectTimeout bounds the look-up of one host's addresses and TCP to
	// all of them together (connect_timeout): 1ms to 24h. Default: 5m.
	ConnectTimeout time.Duration
	// CommandTimeout bounds the greeting, each reply, the TLS handshake, and
	// each write that makes no progress (command_timeout): 1ms to 24h. Default:
	// 5m.
	CommandTimeout time.Duration
	// SubmissionTimeout bounds the reply to the final dot or to the last
	// chunk (submission_timeout): 1ms to 24h. Default: 12m.
	SubmissionTimeout time.Duration
	// Debug logs the SMTP dialogue, never message bodies (debug). Default:
	// false.
	Debug bool
	// RequireTLSOverride honours the header field "TLS-Required: No"
	// (requiretls_override). Default: true.
	RequireTLSOverride bool
	// RelaxedRequireTLS lets a REQUIRETLS message go to a host that does not
	// offer the extension (relaxed_requiretls). Default: true.
	RelaxedRequireTLS bool
	// ConnReuseLimit is how many messages one connection serves; 0 means no
	// reuse (conn_reuse_limit): up to 1000000. Default: 10.
	ConnReuseLimit int
	// ConnMaxIdleCount is how many idle connections are kept for one
	// recipient domain (conn_max_idle_count): 0 to 10000. Default: 10.
	ConnMaxIdleCount int
	// ConnMaxIdleTime is how long a connection stays idle, from its last use
	// (conn_max_idle_time): 1ms to 24h. Default: 150s.
	ConnMaxIdleTime time.Duration
	// Chunking says how CHUNKING is used (chunking): pipelined, waiting or off.
	// Default: pipelined.
	Chunking Chunking
	// QuarantineHeader is a header field, "Name: value", whose presence in a
	// message has it refused (quarantine_header). Default: empty, none.
	QuarantineHeader string
	// TLSClient restricts and equips TLS towards remote servers (tls_client).
	TLSClient TLSClient
	// Limits holds work back, by scope (limits). A zero Limit holds nothing
	// back; it is written as off or left out. An override with limits of its
	// own is counted by itself; one without shares the transport's. Default: no
	// limit.
	Limits limit.ByScope
	// Overrides are other Configs for some recipient domains; the first match
	// wins (overrides). An override starts from the transport's own settings:
	// mx_auth, lists and each single limit replace the transport's, the other
	// keys of tls_client and limits stay. An override has no overrides.
	Overrides []Override
	// Relay takes all mail, instead of the mail servers of the recipients'
	// domains (relay). An override without one has the transport's, unless it
	// says off or has a nexthop of its own. Default: nil, none.
	Relay *relay.Relay
	// FallbackRelay takes mail for destinations whose own hosts could not be
	// reached, or turned us away, for a while (fallback_relay). Default: nil,
	// none.
	FallbackRelay *relay.Fallback
}

// PolicySet is one mx_auth block. The zero PolicySet has no mechanism at all.
// A mechanism is used when its key has a block, "{}" for its defaults, or the
// word on; it is not when the key is absent or off.
type PolicySet struct {
	DNSSEC bool         // dnssec
	DANE   bool         // dane
	MTASTS *MTASTS      // mtasts; nil: not used
	Local  *LocalPolicy // local_policy; nil: off
}

// MTASTS says where MTA-STS policies are kept (mtasts).
type MTASTS struct {
	OnDisk bool // cache: fs, the default; otherwise ram
	// fs_dir, made absolute below the state directory; default mtasts_cache;
	// empty for ram
	Dir       string
	HTTPSPort uint16 // https_port, default 443; another one only in labs
}

// LocalPolicy is the least that a connection must reach (local_policy).
type LocalPolicy struct {
	// min_tls_level: none, encrypted (the default) or authenticated
	MinTLS verdict.TLSLevel
	// min_mx_level: none (the default), mtasts or dnssec
	MinMX verdict.MXLevel
}

// Chunking says how RFC 3030 CHUNKING is used towards servers that offer it.
type Chunking uint8

// The ways of chunking.
const (
	// BDAT in one flight with MAIL and RCPT where that is safe
	ChunkingPipelined Chunking = iota
	ChunkingWaiting            // BDAT after the recipients' replies
	ChunkingOff                // DATA
)

// use is the same in the words of package smtp.
func (c Chunking) use() smtp.Chunking {
	switch c {
	case ChunkingPipelined:
		return smtp.ChunkingPipelined
	case ChunkingWaiting:
		return smtp.ChunkingWaiting
	}
	return smtp.ChunkingOff
}

// TLSClient is the tls_client block.
type TLSClient struct {
	// protocols, of crypto/tls: lowest and highest, or one alone; default
	// tls1.2 tls1.3
	MinVersion, MaxVersion uint16
	// protocols is written out, so that no hello offers others; default false
	FixedVersions bool
	// legacy: where no TLS is required, take TLS 1.0, 1.1 and 3DES rather than
	// plaintext; default true
	Legacy bool
	// ciphers: TLS 1.2 cipher suites of crypto/tls; empty, the default: Go's
	// choice
	Ciphers []uint16
	// curves: of crypto/tls CurveID; empty, the default: Go's choice
	Curves []uint16
	// root_ca: absolute paths of PEM files of roots trusted beside the system's
	RootCA []string
	// cert, key: absolute paths of PEM files of a client certificate; both or
	// neither
	Cert, Key string
}

// quarantineField gives QuarantineHeader in its parts.
func (c *Config) quarantineField() (message.Field, bool) {
	name, value, ok := strings.Cut(c.QuarantineHeader, ":")
	return message.Field{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)}, ok
}

// Watched lists the header fields that messages have to be searched for (see
// [message.NewHeaderReader]) before this transport may deliver them.
func (c *Config) Watched() []message.Field {
	var fields []message.Field
	if f, ok := c.quarantineField(); ok {
		fields = append(fields, f)
	}
	for _, o := range c.Overrides {
		fields = append(fields, o.Config.Watched()...)
	}
	return fields
}

// Override is a Config for the recipient domains that Match names.
type Override struct {
	// "example.org" that domain alone; ".example.org" its subdomains; A-labels,
	// lower case
	Match string
	// where to deliver instead, in the form of mxpipe --nexthop; empty: by MX
	Nexthop string
	// Pins are keys, one of which a host must be known by, on top of every
	// policy (pin). Default: none.
	Pins   []pin.Pin
	Config *Config
}

// Family is a family of addresses.
type Family = session.Family

// The families.
const (
	AnyFamily = session.AnyFamily
	IPv4      = session.IPv4
	IPv6      = session.IPv6
)

// Traffic is what holds mail back or slows it down beside a transport's limits.
type Traffic = delivery.Traffic
