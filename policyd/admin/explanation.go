package admin

import (
	"time"

	"github.com/mxpipe/mxpipe/transport"
)

// Explanation is what a message to a domain would meet, and why.
type Explanation struct {
	Domain     string     `json:"domain"`    // as A-labels
	Transport  string     `json:"transport"` // the transport's name
	Override   string     `json:"override,omitempty"`
	Nexthop    string     `json:"nexthop,omitempty"`  // that the override names
	Outcome    string     `json:"outcome"`            // deliverable, undeliverable or unknown
	Running    bool       `json:"running"`            // a running daemon answered, and knows dead hosts, limits and connections
	Warnings   []string   `json:"warnings,omitempty"` // what is wrong with the DNS, for any domain
	Connected  bool       `json:"connected"`          // real connections were made
	Mechanisms Mechanisms `json:"mechanisms"`
	Route      Route      `json:"route"`
	Error      *Problem   `json:"error,omitempty"` // what a message would be answered; absent: a host is eligible
	Held       *Problem   `json:"held,omitempty"`  // suspended, or a limit is reached
	MTASTS     *MTASTS    `json:"mtasts,omitempty"`
	Limit      *Limit     `json:"limit,omitempty"` // the destination's
	Hosts      []Host     `json:"hosts"`           // in the order of trying
}

// Mechanisms is what the transport, or the override, obeys (mx_auth).
type Mechanisms struct {
	DNSSEC bool   `json:"dnssec"`
	DANE   bool   `json:"dane"`
	MTASTS bool   `json:"mtasts"`
	MinTLS string `json:"min_tls_level"`
	MinMX  string `json:"min_mx_level"`
}

// Problem is a status code with the line for people.
type Problem struct {
	Status string `json:"status"` // D.S.N
	Text   string `json:"text"`
}

// Route is how the hosts were found.
type Route struct {
	Destination string    `json:"destination,omitempty"`
	Kind        string    `json:"kind,omitempty"`      // mx, implicit, explicit or literal
	Signed      bool      `json:"signed"`              // DNSSEC vouches for the hosts' names
	Canonical   string    `json:"canonical,omitempty"` // the domain after CNAME, where that is another
	Dropped     []Dropped `json:"dropped,omitempty"`
}

// Dropped is a host that is not tried.
type Dropped struct {
	Host       string `json:"host"`
	Preference uint16 `json:"preference"`
	Reason     string `json:"reason"`
}

// MTASTS is what is known of the domain's MTA-STS policy.
type MTASTS struct {
	State    string     `json:"state"` // policy, none or failed
	Mode     string     `json:"mode,omitempty"`
	ID       string     `json:"id,omitempty"`
	RecordID string     `json:"record_id,omitempty"` // in the TXT record now
	MX       []string   `json:"mx,omitempty"`
	MaxAge   float64    `json:"max_age_seconds,omitempty"`
	Fetched  *time.Time `json:"fetched,omitempty"`
	Expires  *time.Time `json:"expires,omitempty"`
	Source   string     `json:"source,omitempty"` // cache or fetched
	Failure  string     `json:"failure,omitempty"`
	Error    string     `json:"error,omitempty"` // what last went wrong
}

// Limit is what a limit has to do for one key.
type Limit struct {
	Rate        int     `json:"rate,omitempty"`
	Period      float64 `json:"period_seconds,omitempty"`
	Tokens      float64 `json:"tokens,omitempty"` // of the rate, left now
	Concurrency int     `json:"concurrency,omitempty"`
	Open        int     `json:"open"`
	Waiting     int     `json:"waiting"`
}

// Host is one MX host.
type Host struct {
	Name       string      `json:"name"`
	Preference uint16      `json:"preference"`
	Outcome    string      `json:"outcome"`
	Addresses  []string    `json:"addresses"`
	Signed     bool        `json:"addresses_signed"`
	Canonical  string      `json:"canonical,omitempty"` // the host after CNAME, where that is another
	Partial    string      `json:"partial,omitempty"`   // why one family is not known
	TLSA       *TLSA       `json:"tlsa,omitempty"`
	Listed     *bool       `json:"mtasts_match,omitempty"` // the policy lists the host
	Verdict    *Verdict    `json:"verdict,omitempty"`
	Held       *Problem    `json:"held,omitempty"` // its provider is suspended or paused
	Provider   string      `json:"provider,omitempty"`
	Dead       *Dead       `json:"dead,omitempty"`
	Idle       int         `json:"idle_connections,omitempty"`
	Hello      string      `json:"hello,omitempty"` // with which TLS begins, where that is not the full one
	Connection *Connection `json:"connection,omitempty"`
	Error      *Problem    `json:"error,omitempty"` // why its addresses are not known
}

// TLSA is what the DNS says about a host's certificate.
type TLSA struct {
	State   string       `json:"state"` // none, present, failed, or unsigned: not asked, since the addresses are not signed
	Base    string       `json:"base,omitempty"`
	Names   []string     `json:"names,omitempty"` // that a DANE-TA certificate may bear
	Records []TLSARecord `json:"records,omitempty"`
	Error   string       `json:"error,omitempty"`
}

// TLSARecord is one TLSA record.
type TLSARecord struct {
	Record string `json:"record"`           // "3 1 1 8cb0fc6c527506a0..."
	Usable bool   `json:"usable"`           // it counts
	Reason string `json:"reason,omitempty"` // why not
}

// Verdict is what the host must show.
type Verdict struct {
	MXLevel string   `json:"mx_level"`
	Need    string   `json:"need"`
	Rule    string   `json:"rule"` // that need, or the refusal, comes from: none, dane, mtasts, requiretls, local_policy, pin
	Reason  string   `json:"reason"`
	Refusal *Problem `json:"refusal,omitempty"` // why it is not even dialled
	Noted   string   `json:"noted,omitempty"`   // what testing mode lets pass
	Pins    []string `json:"pins,omitempty"`    // keys of which the server must show one besides
}

// Dead is why mail for a host fails fast.
type Dead struct {
	Host     string     `json:"host"`
	Since    time.Time  `json:"since"`
	Until    *time.Time `json:"until,omitempty"` // when it may be tried again
	Cause    string     `json:"cause,omitempty"`
	Failures int        `json:"failures"`
	Trying   bool       `json:"trying"`
	Text     string     `json:"text"`
}

// Connection is what a real connection showed. It ended before MAIL.
type Connection struct {
	Address      string        `json:"address,omitempty"`
	Via          string        `json:"via,omitempty"` // as in the line for the mail server's log
	TLSLevel     string        `json:"tls_level"`
	TLSVersion   string        `json:"tls_version,omitempty"`
	Cipher       string        `json:"cipher,omitempty"`
	Group        string        `json:"group,omitempty"` // of the key exchange
	Hello        string        `json:"hello,omitempty"` // by which TLS came about: full, classical, compatible or without-sni
	Chain        []Certificate `json:"chain,omitempty"` // as the server sent it
	DANEMatch    string        `json:"dane_match,omitempty"`
	DANEName     string        `json:"dane_name,omitempty"` // that the certificate bears, for DANE-TA
	DANEError    string        `json:"dane_error,omitempty"`
	WebPKI       bool          `json:"webpki"` // the certificate is valid for the host's name
	WebPKIError  string        `json:"webpki_error,omitempty"`
	Pin          string        `json:"pin,omitempty"` // by which the server is known
	PinError     string        `json:"pin_error,omitempty"`
	TLSError     string        `json:"tls_error,omitempty"` // why plaintext is used
	Extensions   []string      `json:"extensions,omitempty"`
	TestingError string        `json:"testing_error,omitempty"` // what an MTA-STS policy in testing mode has against it
	Error        *Problem      `json:"error,omitempty"`         // why a message would not go there
}

// Certificate is one certificate of a chain.
type Certificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Names     []string  `json:"names,omitempty"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Key       string    `json:"key"`
	SHA256    string    `json:"sha256"` // of the whole certificate
}

// Forecast gives what Outcome says.
func (e *Explanation) Forecast() transport.Forecast { return forecastNamed(e.Outcome) }

// Forecast gives what Outcome says.
func (h *Host) Forecast() transport.Forecast { return forecastNamed(h.Outcome) }

func forecastNamed(word string) transport.Forecast {
	for _, f := range []transport.Forecast{transport.Deliverable, transport.Undeliverable} {
		if f.String() == word {
			return f
		}
	}
	return transport.Unknown
}
