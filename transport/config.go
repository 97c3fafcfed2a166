package transport

import (
	"net/netip"
	"time"

	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Config is one transport as the administrator wrote it, defaults filled in
// and checked. Its fields are the keys below transports.NAME in
// mxpolicyd.yaml, in the same order. A Config is never changed after it was
// handed over; overrides are complete Configs of their own.
type Config struct {
	// Name is the transport's name, "default" or another key of transports.
	Name string
	// MXAuth holds the policies that mail of this transport obeys (mx_auth).
	MXAuth PolicySet
	// Hostname is what EHLO says (hostname).
	Hostname string
	// LocalIP holds the source addresses, at most one of each family; empty
	// leaves the choice to the kernel (local_ip).
	LocalIP []netip.Addr
	// ForceIPv4 leaves IPv6 addresses out (force_ipv4).
	ForceIPv4 bool
	// Port is where remote mail servers listen (port).
	Port uint16
	// ConnectTimeout bounds the look-up of one host's addresses and TCP to
	// all of them together (connect_timeout).
	ConnectTimeout time.Duration
	// CommandTimeout bounds the greeting, each reply, the TLS handshake, and
	// each write that makes no progress (command_timeout).
	CommandTimeout time.Duration
	// SubmissionTimeout bounds the reply to the final dot or to the last
	// chunk (submission_timeout).
	SubmissionTimeout time.Duration
	// Debug logs the SMTP dialogue, never message bodies (debug).
	Debug bool
	// RequireTLSOverride honours the header field "TLS-Required: No"
	// (requiretls_override).
	RequireTLSOverride bool
	// RelaxedRequireTLS lets a REQUIRETLS message go to a host that does not
	// offer the extension (relaxed_requiretls).
	RelaxedRequireTLS bool
	// ConnReuseLimit is how many messages one connection serves; 0 means no
	// reuse (conn_reuse_limit).
	ConnReuseLimit int
	// ConnMaxIdleCount is how many idle connections are kept for one
	// recipient domain (conn_max_idle_count).
	ConnMaxIdleCount int
	// ConnMaxIdleTime is how long a connection stays idle, from its last use
	// (conn_max_idle_time).
	ConnMaxIdleTime time.Duration
	// Chunking says how CHUNKING is used (chunking).
	Chunking Chunking
	// QuarantineHeader is a header field, "Name: value", whose presence in a
	// message has it refused; empty: none (quarantine_header).
	QuarantineHeader string
	// TLSClient restricts and equips TLS towards remote servers (tls_client).
	TLSClient TLSClient
	// Limits holds work back (limits).
	Limits Limits
	// Overrides are other Configs for some recipient domains; the first match
	// wins (overrides).
	Overrides []Override
}

// PolicySet is one mx_auth block. The zero PolicySet has no mechanism at all.
type PolicySet struct {
	DNSSEC bool
	DANE   bool
	MTASTS *MTASTS      // nil: not used
	Local  *LocalPolicy // nil: off
}

// MTASTS says where MTA-STS policies are kept (mtasts).
type MTASTS struct {
	OnDisk    bool   // cache: fs; otherwise ram
	Dir       string // fs_dir, made absolute below the state directory
	HTTPSPort uint16 // https_port; other than 443 only in labs
}

// LocalPolicy is the least that a connection must reach (local_policy).
type LocalPolicy struct {
	MinTLS verdict.TLSLevel // min_tls_level
	MinMX  verdict.MXLevel  // min_mx_level
}

// Chunking says how RFC 3030 CHUNKING is used towards servers that offer it.
type Chunking uint8

// The ways of chunking.
const (
	ChunkingPipelined Chunking = iota // BDAT in one flight with MAIL and RCPT where that is safe
	ChunkingWaiting                   // BDAT after the recipients' replies
	ChunkingOff                       // DATA
)

// TLSClient is the tls_client block.
type TLSClient struct {
	MinVersion, MaxVersion uint16   // of crypto/tls; from protocols
	Ciphers                []uint16 // TLS 1.2 cipher suites of crypto/tls; empty: Go's choice
	Curves                 []uint16 // of crypto/tls CurveID; empty: Go's choice
	RootCA                 []string // PEM files of roots trusted beside the system's
	Cert, Key              string   // PEM files of a client certificate; both or neither
}

// Limits is the limits block; a zero Limit holds nothing back.
type Limits struct {
	All, IP, Source, Destination Limit
}

// Limit is a token bucket and a bound on work at once.
type Limit struct {
	Rate        int           // tokens for each Period; 0: no bound
	Period      time.Duration // 0 when Rate is 0
	Concurrency int           // 0: no bound
}

// Override is a Config for the recipient domains that Match names.
type Override struct {
	Match   string // "example.org" that domain alone; ".example.org" its subdomains; A-labels, lower case
	Nexthop string // where to deliver instead, in the form of mxpipe --nexthop; empty: by MX
	Config  *Config
}
