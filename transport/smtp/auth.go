package smtp

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/emersion/go-sasl"

	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/reply"
)

const (
	// maxChallenges bounds a login: no mechanism that we know has more than
	// two. A server could go on for ever otherwise.
	maxChallenges = 4
	// maxInitial is how long AUTH may be with its initial response (RFC 4954
	// §4); a longer one waits for the server's go-ahead.
	maxInitial = 512
	// masked stands in the dialogue for what proves who we are.
	masked = "(hidden)"
)

// What is wrong with a login, beside the server's saying no.
var (
	// ErrNotSecure is a defect of the caller: the connection is in the clear.
	ErrNotSecure   = errors.New("no login without TLS")
	errChallenges  = errors.New("the server asks for more than the mechanism has")
	errChallenge   = errors.New("the server's challenge is not base64")
	errNotProven   = errors.New("the server accepts the login without having proven that it knows the password")
	errNotAccepted = errors.New("the login was cancelled")
)

// Login is one try to log in.
type Login struct {
	sasl.Client
	// Proven is asked when the server has accepted; nil: there is nothing that
	// it would have to prove.
	Proven func() bool
	// Hide takes the password out of what the server says from now on.
	Hide reply.Hide
}

// Auth logs in (RFC 4954 §4), with the initial response in the command where it
// fits. An error whose stage is outcome.AUTH and that carries a reply is the
// server's refusal; after any error the caller closes the connection.
func (s *Session) Auth(ctx context.Context, login Login) error {
	s.begin(ctx)
	if s.tls == nil {
		return &Error{Stage: outcome.AUTH, Err: ErrNotSecure}
	}
	s.hide = login.Hide
	r, err := s.auth(login)
	if err == nil && r.Code == 235 && login.Proven != nil && !login.Proven() {
		err = errNotProven
	}
	if err != nil || r.Code != 235 {
		return s.failure(ctx, outcome.AUTH, r, err)
	}
	return nil
}

// auth runs the exchange, and gives the reply that ends it.
func (s *Session) auth(login Login) (reply.Reply, error) {
	mechanism, first, err := login.Start()
	if err != nil {
		return reply.Reply{}, s.without(err)
	}
	line, shown := "AUTH "+mechanism, "AUTH "+mechanism
	waiting := true // the initial response, for the server's go-ahead
	if encoded := encodeInitial(first); len(line)+1+len(encoded)+len("\r\n") <= maxInitial {
		line, shown, waiting = line+" "+encoded, shown+" "+masked, false
	}
	if err := s.unasked(); err != nil {
		return reply.Reply{}, err
	}
	r, err := s.exchange(line, shown)
	for n := 0; err == nil && r.Code == 334; n++ {
		var response []byte
		switch challenge, failed := decodeChallenge(r); {
		case n == maxChallenges:
			return s.cancel(errChallenges)
		case failed != nil:
			return s.cancel(failed)
		case waiting && len(challenge) == 0:
			response = first
		default:
			if response, failed = login.Next(challenge); failed != nil {
				return s.cancel(s.without(failed))
			}
		}
		waiting = false
		r, err = s.exchange(base64.StdEncoding.EncodeToString(response), masked)
	}
	return r, err
}

// encodeInitial writes an initial response; "=" is one that is empty.
func encodeInitial(response []byte) string {
	if len(response) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(response)
}

func decodeChallenge(r reply.Reply) ([]byte, error) {
	challenge, err := base64.StdEncoding.DecodeString(strings.TrimSpace(strings.Join(r.Lines, "")))
	if err != nil {
		return nil, errChallenge
	}
	return challenge, nil
}

// cancel ends an exchange that leads nowhere (RFC 4954 §4), and says why. What
// the server says to that changes nothing.
func (s *Session) cancel(why error) (reply.Reply, error) {
	if r, err := s.exchange("*", "*"); err == nil && r.Code == 235 {
		why = fmt.Errorf("%w, and yet the server accepts it", errNotAccepted)
	}
	return reply.Reply{}, why
}

// exchange sends a line that nobody may read, and reads the reply. A challenge
// is neither shown nor changed.
func (s *Session) exchange(line, shown string) (reply.Reply, error) {
	s.trace("C", shown)
	if err := writeRaw(s.conn, line); err != nil {
		return reply.Reply{}, err
	}
	s.raw.readUntil(time.Now().Add(s.cfg.CommandTimeout))
	ahead, err := s.r.Peek(len("334"))
	if err == nil && string(ahead) == "334" {
		r, err := reply.Read(s.r.Reader)
		if err == nil && r.Code == 334 {
			s.trace("S", "334 "+masked)
		}
		return r, s.without(err)
	}
	r, err := s.readBrief(s.r.Reader)
	if err == nil {
		s.trace("S", r.Text())
	}
	return r, err
}

// without gives an error without the password, which a server may have had it
// quote.
func (s *Session) without(err error) error {
	if err == nil || s.hide == nil {
		return err
	}
	if text := err.Error(); s.hide(text) != text {
		return errors.New(s.hide(text))
	}
	return err
}
