package mx

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Keyword is a set of service extensions, as EHLO offers them.
type Keyword uint

// The extensions. STARTTLS is not among them: see TLS.
const (
	Pipelining Keyword = 1 << iota // RFC 2920
	// RFC 1870; the number is Behaviour.Size
	Size
	EightBitMIME        // RFC 6152
	SMTPUTF8            // RFC 6531
	DSN                 // RFC 3461
	Chunking            // RFC 3030
	EnhancedStatusCodes // RFC 2034
	RequireTLS          // RFC 8689; offered under TLS only
)

// AllKeywords is every extension but REQUIRETLS, which few servers offer.
const AllKeywords = Pipelining | Size | EightBitMIME | SMTPUTF8 | DSN | Chunking | EnhancedStatusCodes

var keywordNames = []string{"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "ENHANCEDSTATUSCODES", "REQUIRETLS"}

// TLSMode says what the server makes of STARTTLS.
type TLSMode int

// The modes.
const (
	TLSNone    TLSMode = iota // not offered, and 502 to a client that asks
	TLSWorks                  // offered, and the handshake goes well
	TLSRefused                // offered, but answered with TLS.Refusal
	// offered, but the ClientHello is answered with a fatal alert
	TLSBroken
	TLSHidden // not offered, but it works
	// from the first byte, before the greeting (RFC 8314 §3.3)
	TLSFirst
)

// TLS is how the server does TLS.
type TLS struct {
	Mode TLSMode
	// sent to a client that asks for none of BySNI
	Certificate  tls.Certificate
	BySNI        map[string]tls.Certificate // by lower-case server name
	MinVersion   uint16                     // as in tls.Config; 0: TLS 1.2
	MaxVersion   uint16                     // as in tls.Config; 0: the latest
	NoResumption bool                       // hand out no session tickets
	// as in tls.Config; nil: Go's choice
	Ciphers []uint16
	// Answer is what becomes of one hello: it may change the configuration, or
	// refuse with an error, which is an alert; nil: nothing of that kind.
	Answer func(hello *tls.ClientHelloInfo, config *tls.Config) error
	// ask the client for a certificate, and take any or none
	AskForClient bool
	Refusal      string // the reply in TLSRefused; 454 4.7.0 when empty
	Keyword      string // how the keyword is written; "STARTTLS" when empty
	// plaintext sent in one write with the reply to STARTTLS
	Inject string
}

// Stage is a point in a session at which an action can strike.
type Stage int

// The stages.
const (
	StageGreeting  Stage = iota // the connection was opened
	StageEHLO                   // EHLO came
	StageHELO                   // HELO came
	StageSTARTTLS               // STARTTLS came
	StageHandshake              // the reply to STARTTLS is out
	StageAUTH                   // AUTH came; with a reply, the login ends there
	StageLogin                  // a login is about to be accepted
	StageMAIL                   // MAIL came
	StageRCPT                   // RCPT came; once for each
	StageDATA                   // DATA came
	StageBDAT                   // BDAT and its chunk came
	StageBody                   // Behaviour.HalfBody bytes of a body came
	StageFinal                  // the whole body came; not yet stored
	StageDone                   // the body is stored and the final reply is out
	StageRSET                   // RSET came
	StageNOOP                   // NOOP came
	StageQUIT                   // QUIT came
)

var stageNames = []string{"greeting", "EHLO", "HELO", "STARTTLS", "handshake", "AUTH", "login", "MAIL", "RCPT", "DATA", "BDAT", "body",
	"final", "done", "RSET", "NOOP", "QUIT"}

// String returns the stage's name for logs and test failures.
func (s Stage) String() string {
	if s < 0 || int(s) >= len(stageNames) {
		return fmt.Sprintf("stage %d", int(s))
	}
	return stageNames[s]
}

// Drop is a way to leave.
type Drop int

// The ways to leave.
const (
	Stay    Drop = iota
	Close        // close the TCP connection without a word
	Reset        // close it with a TCP reset
	Goodbye      // close TLS and TCP in good order
)

// Action is what the server does at a stage instead of its duty. The zero value
// does nothing.
type Action struct {
	// Hold is waited for, after all earlier replies were sent. A client that
	// leaves meanwhile ends the session, unless Alone is set: then the server
	// goes on with what it has, as one does that has a whole message.
	Hold  <-chan struct{}
	Alone bool
	// Reply is sent instead of a positive reply of the server's own: the lines
	// without CRLF, separated by \n. Its first digit decides whether the
	// command takes effect. 421 closes the connection. StageHandshake,
	// StageBody and StageDone send it in addition.
	Reply string
	// Drop leaves: instead of replying, or after Reply if there is one.
	Drop Drop
	// Skip is how many times the stage is passed without the action, over all
	// connections since the behaviour was set.
	Skip int
	// Times is how often the action strikes after that; 0: always.
	Times int
}

// Rule is a reply to recipients.
type Rule struct {
	// the local part, in any letter case; a * at the end stands for any rest
	Local string
	Reply string // the lines without CRLF, separated by \n
}

// UsualRecipients are rules for a server with some users of bad luck. Everyone
// else is welcome.
func UsualRecipients() []Rule {
	return []Rule{
		{"nosuch*", "550 5.1.1 no such user"},
		{"later*", "450 4.2.0 try again later"},
		{"full*", "452 4.2.2 mailbox full"},
	}
}

// Behaviour is how a server behaves. The zero value is a sound server of the
// year 1982: EHLO works and offers nothing. A server that gets a behaviour
// keeps its own copy.
type Behaviour struct {
	// in the greeting and the reply to EHLO; "mx.lab.example" when empty
	Hostname string
	Keywords Keyword  // what EHLO offers
	Extra    []string // further lines of EHLO, such as "SIZE many"
	TLS      TLS

	// the number that SIZE offers; 0: SIZE without a number
	Size int64
	// the largest body taken; 0: Size, or no limit but Options.MaxBody when
	// that is 0 too
	RealSize      int64
	MaxRecipients int // further ones get 452 4.5.3; 0: no limit
	MaxMessages   int // on one connection; then MAIL gets 421; 0: no limit
	// open at once; further ones are greeted with 421; 0: no limit
	MaxConns int
	// messages a second, of a bucket that starts full; further MAIL gets 451
	// 4.7.1; 0: no limit
	Rate       int
	NeedTLS    bool   // MAIL in plaintext gets 530 5.7.0
	Recipients []Rule // the first that matches decides
	Auth       *Auth  // nil: nobody can log in

	At       map[Stage]Action
	HalfBody int64 // bytes of a body after which StageBody comes; 0: one

	Delay time.Duration // before each reply
	Drip  time.Duration // between two bytes of a reply
	// silence to wait for before replies are sent, so that long flights are
	// counted exactly
	Settle time.Duration

	// SpillChunk makes the server forget the chunk of a BDAT command that it
	// refuses because it has no recipient: the chunk is run as commands, as
	// some servers do.
	SpillChunk bool
}

// Modern returns the behaviour of a well-kept server with this certificate.
func Modern(cert tls.Certificate) Behaviour {
	return Behaviour{
		Keywords:   AllKeywords,
		Size:       50 << 20,
		TLS:        TLS{Mode: TLSWorks, Certificate: cert},
		Recipients: UsualRecipients(),
	}
}

// offer returns the keyword lines of EHLO.
func (h *Behaviour) offer(secure bool) (lines []string) {
	for i, name := range keywordNames {
		if k := Keyword(1) << i; h.Keywords&k != 0 && (secure || k != RequireTLS) {
			if k == Size && h.Size > 0 {
				name = fmt.Sprintf("SIZE %d", h.Size)
			}
			lines = append(lines, name)
		}
	}
	if mode := h.TLS.Mode; !secure && (mode == TLSWorks || mode == TLSRefused || mode == TLSBroken) {
		name := h.TLS.Keyword
		if name == "" {
			name = "STARTTLS"
		}
		lines = append(lines, name)
	}
	lines = append(lines, h.Auth.offer(secure)...)
	return append(lines, h.Extra...)
}

// offered returns the extensions that a reply to EHLO names, no matter what
// wrote it.
func offered(reply string) (set Keyword) {
	for i, line := range strings.Split(reply, "\n") {
		if i == 0 || len(line) < 4 {
			continue
		}
		word, _, _ := strings.Cut(line[4:], " ")
		if n := slices.Index(keywordNames, strings.ToUpper(word)); n >= 0 {
			set |= Keyword(1) << n
		}
	}
	return set
}

// verdict returns the reply of the first rule that matches, or "".
func (h *Behaviour) verdict(recipient string) string {
	local := recipient
	if at := strings.LastIndexByte(recipient, '@'); at >= 0 {
		local = recipient[:at]
	}
	local = strings.ToLower(local)
	for _, rule := range h.Recipients {
		want := strings.ToLower(rule.Local)
		if start, open := strings.CutSuffix(want, "*"); local == want || open && strings.HasPrefix(local, start) {
			return rule.Reply
		}
	}
	return ""
}

// behaviourState is the behaviour in force, with what goes with it. Only
// passed changes, under the server's lock.
type behaviourState struct {
	Behaviour
	config *tls.Config
	passed map[Stage]int
}

func newBehaviourState(h Behaviour, ticketKey [32]byte) *behaviourState {
	h.At, h.TLS.BySNI = maps.Clone(h.At), maps.Clone(h.TLS.BySNI)
	h.Extra, h.Recipients = slices.Clone(h.Extra), slices.Clone(h.Recipients)
	if h.Hostname == "" {
		h.Hostname = "mx.lab.example"
	}
	if h.RealSize == 0 {
		h.RealSize = h.Size
	}
	h.HalfBody = max(h.HalfBody, 1)
	config := &tls.Config{
		MinVersion:             h.TLS.MinVersion,
		MaxVersion:             h.TLS.MaxVersion,
		SessionTicketsDisabled: h.TLS.NoResumption,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, ok := h.TLS.BySNI[strings.ToLower(hello.ServerName)]
			if !ok {
				cert = h.TLS.Certificate
			}
			return &cert, nil
		},
	}
	config.CipherSuites = h.TLS.Ciphers
	if h.TLS.Answer != nil {
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			answer := config.Clone()
			return answer, h.TLS.Answer(hello, answer)
		}
	}
	if h.TLS.AskForClient {
		config.ClientAuth = tls.RequestClientCert
	}
	// tickets outlive a change of behaviour
	config.SetSessionTicketKeys([][32]byte{ticketKey})
	return &behaviourState{Behaviour: h, config: config, passed: map[Stage]int{}}
}

// take counts that a stage is passed and returns the action that strikes now,
// or none.
func (r *behaviourState) take(stage Stage) Action {
	action, ok := r.At[stage]
	if !ok {
		return Action{}
	}
	n := r.passed[stage]
	r.passed[stage]++
	if n < action.Skip || action.Times > 0 && n >= action.Skip+action.Times {
		return Action{}
	}
	return action
}
