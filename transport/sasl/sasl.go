// Package sasl logs in at a mail server (RFC 4422, RFC 4954): it says who we
// are and proves it, by one of a few mechanisms. It is pure: challenges go in,
// responses come out; package smtp carries them.
//
// [New] makes [Credentials] of a user's name and password. [Credentials.Choose]
// takes the first mechanism in the administrator's order of preference that the
// server offers, and gives one exchange by it.
//
// What leaves over the connection is the password itself with PLAIN and LOGIN,
// a token with OAUTHBEARER (RFC 7628), a proof that nobody can make anything
// else of with SCRAM-SHA-256 (RFC 7677), and nothing with EXTERNAL, where the
// client certificate speaks. The caller of an exchange has made sure that the
// server is the right one.
//
// # The password
//
// It is kept where no formatted value shows it, and [Credentials.Hide] takes it
// out of whatever a server says, in each form in which it was sent: servers
// quote commands that they do not understand.
//
// # What a server can do
//
// A SCRAM server chooses how much work a proof is: fewer than 4096 iterations
// are refused, because they would make guessing cheap for anyone who sees the
// exchange, and more than a million, because they would keep us busy. A server
// that says yes without having proven that it knows the password, too, is not
// believed.
package sasl

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/emersion/go-sasl"
	"github.com/xdg-go/scram"
)

// Mechanism is a way to log in.
type Mechanism uint8

// The mechanisms.
const (
	SCRAMSHA256 Mechanism = iota // RFC 7677
	Plain                        // RFC 4616
	// never standardised; draft-murchison-sasl-login
	Login
	OAuthBearer // RFC 7628; the password is the token
	// RFC 4422 appendix A; the client certificate speaks
	External
)

// Mechanisms lists them.
var Mechanisms = [...]Mechanism{SCRAMSHA256, Plain, Login, OAuthBearer, External}

// Default is the order of preference unless the administrator has another.
func Default() []Mechanism { return []Mechanism{SCRAMSHA256, Plain, Login} }

// String gives the registered name, as EHLO has it.
func (m Mechanism) String() string {
	return [...]string{"SCRAM-SHA-256", "PLAIN", "LOGIN", "OAUTHBEARER", "EXTERNAL"}[m]
}

// Word gives the configuration's word.
func (m Mechanism) Word() string { return strings.ToLower(m.String()) }

// ErrNone says that a server offers none of the mechanisms that we may use.
var ErrNone = errors.New("no mechanism in common")

// Credentials are who we are at one server, and how that is proven. They are
// never changed, and safe for concurrent use.
type Credentials struct {
	User  string
	order []Mechanism
	// What knows the password stands behind functions: package fmt follows
	// pointers, but shows nothing of a function.
	secret       func() string
	hide         func(text string) string
	conversation func(user string) (*scram.ClientConversation, error)
}

// New makes credentials. With [External] the password may be empty, and the
// user, who may be empty too, is whom to act as.
func New(user, password string, order []Mechanism) *Credentials {
	keys := &scramKeys{password: password}
	return &Credentials{
		User: user, order: slices.Clone(order), secret: func() string { return password },
		hide: newMask(user, password).apply, conversation: keys.begin,
	}
}

// Hide takes the password out of a text, in each form in which it may have been
// sent, and parts of it of eight bytes and more.
func (c *Credentials) Hide(text string) string { return c.hide(text) }

// Server is the one that is logged in at, for OAUTHBEARER.
type Server struct {
	Host string
	Port uint16
}

// Choose starts an exchange by the first mechanism in the order of preference
// that the server offers. The error is ErrNone, or says why the password does
// not do for the mechanism; it does not quote it.
func (c *Credentials) Choose(offered []string, at Server) (Exchange, error) {
	for _, m := range c.order {
		if !slices.ContainsFunc(offered, func(o string) bool { return strings.EqualFold(o, m.String()) }) {
			continue
		}
		return c.exchange(m, at)
	}
	return Exchange{}, ErrNone
}

// Order lists the mechanisms that may be used, in words.
func (c *Credentials) Order() string {
	words := make([]string, len(c.order))
	for i, m := range c.order {
		words[i] = m.String()
	}
	return strings.Join(words, ", ")
}

func (c *Credentials) exchange(m Mechanism, at Server) (Exchange, error) {
	password := c.secret()
	e := Exchange{Mechanism: m}
	switch m {
	case SCRAMSHA256:
		conversation, err := c.conversation(c.User)
		if err != nil {
			return Exchange{}, err
		}
		proof := &scramClient{conversation: conversation}
		e.Client, e.Proven = proof, conversation.Valid
	case Plain:
		e.Client = sasl.NewPlainClient("", c.User, password)
	case Login:
		e.Client = &loginClient{user: c.User, password: password}
	case OAuthBearer:
		e.Client = sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{Username: c.User, Token: password, Host: at.Host, Port: int(at.Port)})
	case External:
		e.Client = sasl.NewExternalClient(c.User)
	}
	return e, nil
}

// Exchange is one try to log in. It belongs to one goroutine.
type Exchange struct {
	sasl.Client
	Mechanism Mechanism
	// Proven tells, when the server has said yes, whether it has proven that it
	// knows the password; nil: the mechanism has no such proof.
	Proven func() bool
}

// maxConversations bounds the SCRAM exchanges for which keys are remembered: a
// server that takes another salt each time would have them grow for ever.
const maxConversations = 100

// scramKeys remembers what the password comes to with a server's salt, which
// takes some milliseconds to find.
type scramKeys struct {
	password string

	mu     sync.Mutex
	client *scram.Client
	used   int
}

// begin begins an exchange.
func (k *scramKeys) begin(user string) (*scram.ClientConversation, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client == nil || k.used >= maxConversations {
		client, err := scram.SHA256.NewClient(user, k.password, "")
		if err != nil {
			// What is wrong with a password is told without a character of it.
			return nil, errors.New("user or password has characters that SCRAM does not allow (RFC 4013)")
		}
		k.client, k.used = client, 0
	}
	k.used++
	return k.client.NewConversation(), nil
}

// maxIterations is how much work a SCRAM server may ask for: half a second.
const maxIterations = 1_000_000

// scramClient is a SCRAM conversation in the form of a sasl.Client.
type scramClient struct{ conversation *scram.ClientConversation }

// Start implements sasl.Client.
func (s *scramClient) Start() (mech string, ir []byte, err error) {
	first, err := s.conversation.Step("")
	return SCRAMSHA256.String(), []byte(first), err
}

// Next implements sasl.Client.
func (s *scramClient) Next(challenge []byte) ([]byte, error) {
	if err := checkIterations(string(challenge)); err != nil {
		return nil, err
	}
	if s.conversation.Done() {
		return nil, errors.New("a challenge more than SCRAM has")
	}
	response, err := s.conversation.Step(string(challenge))
	return []byte(response), err
}

// checkIterations refuses a server's first message (RFC 5802 §5.1) that asks
// for too much work.
func checkIterations(challenge string) error {
	for field := range strings.SplitSeq(challenge, ",") {
		n, ok := strings.CutPrefix(field, "i=")
		if ok && (len(n) > len("1000000") || len(n) == len("1000000") && n > "1000000") {
			return fmt.Errorf("the server asks for more than %d iterations", maxIterations)
		}
	}
	return nil
}

// loginClient speaks LOGIN. go-sasl's own insists on one spelling of the
// question for the password, and on the user's being taken with the command;
// servers are not agreed on either.
type loginClient struct {
	user     string
	password string
	asked    int
}

// Start implements sasl.Client.
func (l *loginClient) Start() (mech string, ir []byte, err error) {
	return Login.String(), []byte(l.user), nil
}

// Next implements sasl.Client. The first question may be for the user whom the
// server has not taken with the command.
func (l *loginClient) Next(challenge []byte) ([]byte, error) {
	l.asked++
	switch {
	case l.asked > 2:
		return nil, sasl.ErrUnexpectedServerChallenge
	case l.asked == 1 && len(challenge) >= 4 && strings.EqualFold(string(challenge[:4]), "user"):
		return []byte(l.user), nil
	}
	l.asked = 2
	return []byte(l.password), nil
}
