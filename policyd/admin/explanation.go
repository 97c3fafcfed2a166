package admin

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/transport"
)

// Explanation is what a message to a domain would meet, and why.
type Explanation struct {
	Domain    string `json:"domain"`    // as A-labels
	Transport string `json:"transport"` // the transport's name
	Override  string `json:"override,omitempty"`
	Nexthop   string `json:"nexthop,omitempty"` // that the override names
	Relay     string `json:"relay,omitempty"`   // host:port
	// that connections go through, host:port
	Proxy string `json:"proxy,omitempty"`
	// the relay for what its own hosts could not be given, host:port
	FallbackRelay string `json:"fallback_relay,omitempty"`
	// since when they could not
	FailingSince *time.Time `json:"failing_since,omitempty"`
	// deliverable, undeliverable or unknown
	Outcome string `json:"outcome"`
	// a running daemon answered, and knows dead hosts, limits and connections
	Running bool `json:"running"`
	// what is wrong with the DNS, for any domain
	Warnings []string `json:"warnings,omitempty"`
	// real connections were made
	Connected bool `json:"connected"`
	// that hosts were asked for by MAIL and RCPT
	To         string     `json:"to,omitempty"`
	Mechanisms Mechanisms `json:"mechanisms"`
	Route      Route      `json:"route"`
	// what a message would be answered; absent: a host is eligible
	Error *Problem `json:"error,omitempty"`
	// suspended, or a limit is reached
	Held   *Problem `json:"held,omitempty"`
	MTASTS *MTASTS  `json:"mtasts,omitempty"`
	Limit  *Limit   `json:"limit,omitempty"` // the destination's
	Hosts  []Host   `json:"hosts"`           // in the order of trying
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
	// as in the log: dns, connect, tls, policy, limit, remote-4xx, remote-5xx
	// or own
	Cause string `json:"cause,omitempty"`
	// what is true of it only now, such as when the host is tried again
	Moment string `json:"moment,omitempty"`
}

// String writes it in one line.
func (p *Problem) String() string {
	if p.Moment == "" {
		return p.Status + " " + p.Text
	}
	return p.Status + " " + p.Text + " (" + p.Moment + ")"
}

// of leaves a host's name out of a problem's text, where it is named already.
func (p *Problem) of(host string) *Problem {
	short := *p
	short.Text = strings.TrimPrefix(p.Text, host+": ")
	return &short
}

// Route is how the hosts were found.
type Route struct {
	Destination string `json:"destination,omitempty"`
	// mx, implicit, explicit or literal
	Kind string `json:"kind,omitempty"`
	// DNSSEC vouches for the hosts' names
	Signed bool `json:"signed"`
	// the domain after CNAME, where that is another
	Canonical string    `json:"canonical,omitempty"`
	Dropped   []Dropped `json:"dropped,omitempty"`
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
	Name       string   `json:"name"`
	Preference uint16   `json:"preference"`
	Outcome    string   `json:"outcome"`
	Addresses  []string `json:"addresses"`
	Signed     bool     `json:"addresses_signed"`
	// the host after CNAME, where that is another
	Canonical string `json:"canonical,omitempty"`
	// why one family is not known
	Partial string `json:"partial,omitempty"`
	TLSA    *TLSA  `json:"tlsa,omitempty"`
	// the policy lists the host
	Listed  *bool    `json:"mtasts_match,omitempty"`
	Verdict *Verdict `json:"verdict,omitempty"`
	// its provider is suspended or paused
	Held     *Problem `json:"held,omitempty"`
	Provider string   `json:"provider,omitempty"`
	// that the mail would leave from
	Source string `json:"source,omitempty"`
	Dead   *Dead  `json:"dead,omitempty"`
	Idle   int    `json:"idle_connections,omitempty"`
	// with which TLS begins, where that is not the full one
	Hello      string      `json:"hello,omitempty"`
	Connection *Connection `json:"connection,omitempty"`
	// why its addresses are not known
	Error *Problem `json:"error,omitempty"`
}

// TLSA is what the DNS says about a host's certificate.
type TLSA struct {
	// none, present, failed, or unsigned: not asked, since the addresses are
	// not signed
	State string `json:"state"`
	Base  string `json:"base,omitempty"`
	// that a DANE-TA certificate may bear
	Names   []string     `json:"names,omitempty"`
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
	MXLevel string `json:"mx_level"`
	Need    string `json:"need"`
	// that need, or the refusal, comes from: none, dane, mtasts, requiretls,
	// local_policy, pin, relay
	Rule    string   `json:"rule"`
	Reason  string   `json:"reason"`
	Refusal *Problem `json:"refusal,omitempty"` // why it is not even dialled
	Noted   string   `json:"noted,omitempty"`   // what testing mode lets pass
	// keys of which the server must show one besides
	Pins []string `json:"pins,omitempty"`
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

// Tried is what became of one address that was connected to.
type Tried struct {
	Address string   `json:"address"`
	Error   *Problem `json:"error,omitempty"` // why no message would go there
}

// Connection is what a real connection showed: the first that will do, else the
// first. It ended before the message.
type Connection struct {
	Address string `json:"address,omitempty"`
	// as in the line for the mail server's log
	Via        string `json:"via,omitempty"`
	TLSLevel   string `json:"tls_level"`
	TLSVersion string `json:"tls_version,omitempty"`
	Cipher     string `json:"cipher,omitempty"`
	Group      string `json:"group,omitempty"` // of the key exchange
	// by which TLS came about: full, classical, compatible or without-sni
	Hello     string        `json:"hello,omitempty"`
	Chain     []Certificate `json:"chain,omitempty"` // as the server sent it
	DANEMatch string        `json:"dane_match,omitempty"`
	// that the certificate bears, for DANE-TA
	DANEName  string `json:"dane_name,omitempty"`
	DANEError string `json:"dane_error,omitempty"`
	// the certificate is valid for the host's name
	WebPKI      bool   `json:"webpki"`
	WebPKIError string `json:"webpki_error,omitempty"`
	// by which the server is known
	Pin      string `json:"pin,omitempty"`
	PinError string `json:"pin_error,omitempty"`
	// why plaintext is used
	TLSError   string   `json:"tls_error,omitempty"`
	Extensions []string `json:"extensions,omitempty"`
	// what an MTA-STS policy in testing mode has against it
	TestingError string `json:"testing_error,omitempty"`
	// the reply to RCPT, where the recipient that was asked for is accepted
	Accepted string `json:"accepted,omitempty"`
	// all that were connected to, in the order of trying
	Addresses []Tried `json:"addresses,omitempty"`
	// why a message would not go there
	Error *Problem `json:"error,omitempty"`
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

// Notes tells what is not as it should be although mail goes: what is wrong
// with the DNS for any domain, with the domain's policy, and with the hosts up
// to the one that would get a message.
func (e *Explanation) Notes() (notes []string) {
	if e.Forecast() != transport.Deliverable {
		return nil
	}
	notes = slices.Clone(e.Warnings)
	if m := e.MTASTS; m != nil && m.Error != "" {
		notes = append(notes, "MTA-STS: "+m.Failure+": "+m.Error)
	}
	for i := range e.Hosts {
		h := &e.Hosts[i]
		if h.Forecast() == transport.Deliverable {
			if e.Mechanisms.DANE && e.Route.Signed && !h.Signed && h.Canonical != "" {
				notes = append(notes, h.Name+": an alias of "+h.Canonical+", which is not DNSSEC-signed, so there is no DANE")
			}
			return append(notes, h.notes()...)
		}
		if p := h.problem(); p != nil {
			notes = append(notes, h.Name+" is skipped: "+p.of(h.Name).String())
		}
	}
	return notes
}

// problem is why a message would not go to the host; nil: not known.
func (h *Host) problem() *Problem {
	switch {
	case h.Error != nil:
		return h.Error
	case h.Verdict != nil && h.Verdict.Refusal != nil:
		return h.Verdict.Refusal
	case h.Held != nil:
		return h.Held
	case h.Dead != nil:
		return &Problem{Status: "4.4.1", Text: h.Dead.Text}
	case h.Connection != nil:
		return h.Connection.Error
	}
	return nil
}

// notes tells what is not as it should be of a host that takes mail.
func (h *Host) notes() (notes []string) {
	add := func(text string) { notes = append(notes, h.Name+": "+text) }
	if h.Verdict != nil && h.Verdict.Noted != "" {
		add(h.Verdict.Noted)
	}
	c := h.Connection
	if c == nil {
		return notes
	}
	if family := h.DeadFamily(); family != "" {
		add("no " + family + " address takes mail; mail goes by the other family")
	}
	if c.TLSError != "" {
		add("in plaintext, as STARTTLS failed: " + c.TLSError)
	}
	if c.TestingError != "" {
		add(c.TestingError)
	}
	if c.TLSError == "" && c.Hello != "" && c.Hello != "full" {
		add("a plainer TLS hello is needed: " + fmt.Sprintf("%s, %s", c.Hello, c.TLSVersion))
	}
	return notes
}

// DeadFamily is the family of addresses, IPv4 or IPv6, of which none takes
// mail, while one of the other family does; empty: there is none.
func (h *Host) DeadFamily() string {
	if h.Connection == nil {
		return ""
	}
	var good, bad [2]int // of IPv4, IPv6
	for _, a := range h.Connection.Addresses {
		six := 0
		if strings.Contains(a.Address, ":") {
			six = 1
		}
		if a.Error == nil {
			good[six]++
		} else {
			bad[six]++
		}
	}
	for six, family := range [...]string{"IPv4", "IPv6"} {
		if bad[six] > 0 && good[six] == 0 && good[1-six] > 0 {
			return family
		}
	}
	return ""
}
