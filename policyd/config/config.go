// Package config reads mxpolicyd.yaml, the one configuration file of
// mxpolicyd, and is its reference manual.
//
// The file is YAML in which every key is optional. Load goes through it in
// this order: the text must be UTF-8 of at most 1 MiB and well-formed YAML;
// then every key is looked up in the schema, every value checked by itself
// (spelling, unit, range), then against the others (a socket of a transport
// that does not exist, a policy that can never be met), and last the files it
// names. Nothing stops at the first mistake: all of them come back at once as
// [Mistakes], each with its line and column and with what would be right, and
// then there is no Config at all.
//
// What is refused on purpose: unknown and repeated keys, a key without a
// value where leaving it out means something else than an empty value, numbers
// without the unit they need, YAML anchors, aliases, merge keys and tags
// (policy sets are shared by name instead), and more than one document.
//
// Values are written as follows. A duration is a number with a unit, or
// several: "150s", "1h30m", "2d" (d, h, m, s, ms). A size is a number of bytes
// or a number with a unit: "100MiB" (KiB, MiB, GiB), "1MB" (kB, MB, GB). Truth
// is true or false; yes, no, on and off work too. A list of one may be written
// as a plain value, the lists of tls_client's protocols, ciphers and curves as
// one text with blanks between the words. A block of keys whose lines are all
// commented out counts as absent.
//
// The keys below transports and mx_auth are decoded straight into
// [transport.Config] and [transport.PolicySet], where each is described.
package config

import (
	"io/fs"
	"log/slog"
	"net/netip"
	"time"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/provider"
	"github.com/mxpipe/mxpipe/transport/replyrule"
)

// Paths of an installed mxpolicyd.
const (
	// DefaultPath is the configuration file that Load may find missing.
	DefaultPath = "/etc/mxpolicyd/mxpolicyd.yaml"
	// DefaultStateDir is state_dir where systemd gives none.
	DefaultStateDir = "/var/lib/mxpolicyd"
	// DefaultSocketDir holds the sockets whose path is not configured.
	DefaultSocketDir = "/run/mxpolicyd"
	// DefaultMetricsAddress is where metrics are served unless the block
	// names an address.
	DefaultMetricsAddress = "127.0.0.1:9461"
)

// DefaultTransport is the name of the transport that always exists.
const DefaultTransport = "default"

// Config is the whole configuration, defaults filled in and checked. It is
// never changed after Load returned it, so any goroutine may read it.
type Config struct {
	// Hostname is what EHLO says and what this host calls itself (hostname):
	// a domain name as lower-case A-labels, or an address literal such as
	// "[192.0.2.1]". Default: this host's fully qualified name.
	Hostname string

	// StateDir is the directory of everything that survives a restart
	// (state_dir): an absolute path. Default: the first directory in
	// $STATE_DIRECTORY, else /var/lib/mxpolicyd.
	StateDir string

	// ShutdownTimeout is how long deliveries may go on after SIGTERM before
	// they are cancelled (shutdown_timeout): 0s to 1h. Default: 30s.
	ShutdownTimeout time.Duration

	// Log says what is logged and how (log).
	Log Log

	// DNS says whom to ask and whom to believe (dns).
	DNS DNS

	// MaxMessageSize bounds one message, in bytes (max_message_size): 1KiB to
	// 2GiB. A larger one is refused with 5.3.4. Default: 100MiB.
	MaxMessageSize int64

	// MaxDeliveries bounds the deliveries at once (max_deliveries): 1 to
	// 100000. More wait, then are answered 4.3.2. Default: 1000.
	MaxDeliveries int

	// MXAuth holds the policy sets by name (mx_auth). A name has letters,
	// digits, ".", "-" and "_". Default, when the key is absent: one set
	// named "outbound" with dnssec, dane and mtasts (cache fs) and without
	// local_policy. A file that has the key has exactly the sets it lists.
	MXAuth map[string]transport.PolicySet

	// Transports holds the transports by name (transports). "default" always
	// exists: when the file does not configure it, it has every default
	// described at transport.Config and obeys dnssec, dane and mtasts, as
	// the built-in set "outbound" says. A configured transport without
	// mx_auth obeys no mechanism at all.
	Transports map[string]*transport.Config

	// Listen says which sockets the daemon opens itself (listen).
	Listen Listen

	// TLSRPT says whom to tell about TLS successes and failures (tlsrpt).
	TLSRPT TLSRPT

	// Providers are mail hosts that belong together (providers), before the
	// built-in ones. Default: none.
	Providers []provider.Provider

	// ProviderLimits are limits at providers, by name, over all transports
	// (providers.NAME.limits), in the place of each transport's
	// limits.provider. Default: none.
	ProviderLimits map[string]limit.Limit

	// Replies say what a remote reply does beyond its code (replies), before
	// the built-in rules. Default: none.
	Replies []replyrule.Rule

	// History says how much is remembered of the last deliveries (history).
	History History

	// Warnings are what is right and yet hardly meant, in the order of the
	// file: mail goes with less protection than one who wrote it may think.
	Warnings []Mistake

	// Files are the contents of the files that the configuration names, as
	// they were when they were checked. What needs one takes it from here,
	// and waits for no disk. Nil where Environment.ReadFile is nil.
	Files map[string][]byte
}

// History is the history block.
type History struct {
	// Entries is how many results are remembered at most (entries). Default:
	// 10,000.
	Entries int
	// Memory is how many bytes they take at most (memory). Default: 16 MiB.
	Memory int64
	// Keep has them outlive a restart, in state_dir (keep). Default: false.
	Keep bool
	// Addresses keeps the local parts of senders and recipients, not their
	// domains alone (addresses). Default: false.
	Addresses bool
}

// Log is the log block.
type Log struct {
	// Level is the least important level that is logged (level): debug,
	// info, warn or error. Default: info.
	Level slog.Level
	// Format is the form of the lines (format): text, json, or journal, the
	// systemd journal's own protocol. Default: text.
	Format LogFormat
}

// LogFormat is the form of log lines.
type LogFormat uint8

// The forms of log lines.
const (
	LogText    LogFormat = iota // key=value on standard error
	LogJSON                     // one JSON object a line on standard error
	LogJournal                  // fields sent to the systemd journal
)

// String gives the configuration's word.
func (f LogFormat) String() string {
	switch f {
	case LogJSON:
		return "json"
	case LogJournal:
		return "journal"
	}
	return "text"
}

// DNS is the dns block.
type DNS struct {
	// Servers are the recursive resolvers to ask, in this order (servers): at
	// most ten, each host, host:port, or [IPv6]:port. They are kept as
	// host:port with brackets around IPv6, port 53 filled in. Default: none,
	// which means those of /etc/resolv.conf.
	Servers []string
	// TrustAD says whose AD flag counts as DNSSEC validation (trust_ad):
	// loopback, all or none. Only a resolver on this host can be believed
	// without more, as the way to any other can be spoofed. Default:
	// loopback.
	TrustAD TrustAD
	// Timeout bounds one question to one server (timeout): 1ms to 1m.
	// Default: 5s.
	Timeout time.Duration
	// Attempts is how often the list of servers is gone through (attempts): 1
	// to 10. Default: 3.
	Attempts int
}

// TrustAD says which resolvers' AD flag counts (RFC 4035 §4.9.3).
type TrustAD uint8

// The choices of trust_ad.
const (
	TrustLoopback TrustAD = iota // servers at loopback addresses
	TrustAll                     // every server
	TrustNone                    // no server: nothing is ever secure
)

// String gives the configuration's word.
func (t TrustAD) String() string {
	switch t {
	case TrustAll:
		return "all"
	case TrustNone:
		return "none"
	}
	return "loopback"
}

// Listen is the listen block: the sockets that the daemon opens itself. A
// socket that systemd hands over under the same name takes the place of the
// configured one. When the file has a listen block, what it does not name is
// not served.
//
// When the file has no listen block, Builtin is true and Pipe and Admin are
// filled in: a daemon that systemd hands no socket at all opens these two, so
// that mxpipe works without any configuration.
type Listen struct {
	// Builtin tells that the file has no listen block. Then the sockets below
	// are opened only where systemd handed over none at all.
	Builtin bool
	// Pipe is where mxpipe comes in (pipe); nil: not served. Default path:
	// /run/mxpolicyd/pipe.sock, mode "0660".
	Pipe *Socket
	// LMTP are the LMTP sockets (lmtp), one for each transport that wants it.
	LMTP []LMTP
	// Socketmap is where Postfix asks for TLS policies (socketmap); nil: not
	// served.
	Socketmap *Socketmap
	// Admin is where status, explain and the like ask (admin); nil: not served.
	// Default path: /run/mxpolicyd/admin.sock, mode "0600".
	Admin *Admin
	// Metrics is the address, host:port, of the Prometheus metrics (metrics:
	// {address: ...}); empty: not served. An empty host means every address
	// of this host. Default in the block: 127.0.0.1:9461.
	Metrics string
}

// Socket is one unix socket.
type Socket struct {
	// Path is the socket's absolute path, at most 107 bytes (path).
	Path string
	// Mode is the socket's permission bits, in octal (mode), quoted or not:
	// who may write may connect. Default: "0660", for admin "0600".
	Mode fs.FileMode
	// Group is the name or number of the group that owns the socket (group),
	// which must be there. Default: empty, which leaves
	// the daemon's own group.
	Group string
}

// Admin is the administrator's socket.
type Admin struct {
	Socket
	// PProf serves the Go profiler there too, below /debug/pprof/ (pprof).
	// Default: false.
	PProf bool
}

// LMTP is one LMTP socket.
type LMTP struct {
	Socket
	// Transport is the transport that its messages take (transport); it must
	// exist. Default: default. The path's default is
	// /run/mxpolicyd/lmtp.sock for it and /run/mxpolicyd/lmtp-T.sock for
	// another transport T.
	Transport string
}

// Socketmap is the socketmap server's place: a unix socket or an address.
type Socketmap struct {
	// Socket is the unix socket; its Path is empty where Address is set.
	// Default path: /run/mxpolicyd/socketmap.sock, mode "0660".
	Socket
	// Address is a TCP address, host:port, instead (address). It must be a
	// loopback address: answers could be forged on their way otherwise.
	Address string
}

// TLSRPT is the tlsrpt block (RFC 8460).
type TLSRPT struct {
	// Socket is the absolute path of the datagram socket of a TLSRPT
	// collector (socket). Default: empty, which reports nothing.
	Socket string
	// Report has daily reports sent (report). Default: nil, none.
	Report *TLSReport
}

// TLSReport is the tlsrpt.report block: who reports, and how.
type TLSReport struct {
	// Organization is our name (organization). Default: hostname.
	Organization string
	// Contact is where we can be reached about a report (contact). Default:
	// From.
	Contact string
	// From is the mail address that reports come from, and that takes bounces
	// (from). It must be given.
	From string
	// Send is the host's own mail server, host:port (send). Default:
	// 127.0.0.1:25.
	Send string
	// Exclude are domains that get no reports (exclude); one with a dot before
	// it stands for all below it.
	Exclude []string
	// AllowPrivate are networks that https: places may be in beside what is
	// public (allow_private). Default: none.
	AllowPrivate []netip.Prefix
	// MaxSize is how large a compressed report may be (max_size). Default:
	// 10,000,000 bytes.
	MaxSize int64
}
