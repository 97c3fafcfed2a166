package mx

import (
	"encoding/base64"
	"errors"
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/xdg-go/scram"
)

// Auth is how the server has clients log in (RFC 4954).
type Auth struct {
	// offered, as in "PLAIN"; what is not named here is refused
	Mechanisms []string
	Users      map[string]string // passwords, or tokens, by user
	Clear      bool              // offered, and taken, in the clear as well
	Needed     bool              // MAIL without a login gets 530
}

// offer returns the keyword line.
func (a *Auth) offer(secure bool) []string {
	if a == nil || len(a.Mechanisms) == 0 || !secure && !a.Clear {
		return nil
	}
	return []string{"AUTH " + strings.Join(a.Mechanisms, " ")}
}

// offers reports whether a mechanism is among them.
func (a *Auth) offers(mechanism string) bool {
	for _, m := range a.Mechanisms {
		if strings.EqualFold(m, mechanism) {
			return true
		}
	}
	return false
}

// errWrong is a wrong user or password.
var errWrong = errors.New("wrong user or password")

func (a *Auth) check(user, password string) error {
	if want, known := a.Users[user]; !known || want != password {
		return errWrong
	}
	return nil
}

// server is the server's side of one exchange.
func (a *Auth) server(mechanism string, user *string) sasl.Server {
	switch strings.ToUpper(mechanism) {
	case "PLAIN":
		return sasl.NewPlainServer(func(_, name, password string) error {
			*user = name
			return a.check(name, password)
		})
	case "LOGIN":
		return &loginServer{done: func(name, password string) error {
			*user = name
			return a.check(name, password)
		}}
	case "OAUTHBEARER":
		return sasl.NewOAuthBearerServer(func(o sasl.OAuthBearerOptions) *sasl.OAuthBearerError {
			*user = o.Username
			if a.check(o.Username, o.Token) != nil {
				return &sasl.OAuthBearerError{Status: "invalid_token"}
			}
			return nil
		})
	case "SCRAM-SHA-256":
		s, err := scram.SHA256.NewServer(func(name string) (scram.StoredCredentials, error) {
			password, known := a.Users[name]
			if !known {
				return scram.StoredCredentials{}, errWrong
			}
			client, err := scram.SHA256.NewClient(name, password, "")
			if err != nil {
				return scram.StoredCredentials{}, err
			}
			return client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "lab salt", Iters: 4096})
		})
		if err != nil {
			return nil
		}
		return &scramServer{conversation: s.NewConversation(), user: user}
	case "EXTERNAL":
		return sasl.NewExternalServer(func(identity string) error {
			*user = "external:" + identity
			return nil
		})
	}
	return nil
}

// loginServer asks as Exim does.
type loginServer struct {
	user string
	step int
	done func(user, password string) error
}

func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil {
		return []byte("Username:"), false, nil
	}
	l.step++
	if l.step == 1 {
		l.user = string(response)
		return []byte("Password:"), false, nil
	}
	return nil, true, l.done(l.user, string(response))
}

type scramServer struct {
	conversation *scram.ServerConversation
	user         *string
	proven       bool
}

func (s *scramServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if s.proven {
		return nil, true, nil
	}
	if response == nil {
		return []byte{}, false, nil
	}
	text, err := s.conversation.Step(string(response))
	if err != nil {
		return nil, true, err
	}
	if s.conversation.Done() {
		*s.user, s.proven = s.conversation.Username(), true
		if !s.conversation.Valid() {
			return nil, true, errWrong
		}
	}
	return []byte(text), false, nil
}

// auth serves AUTH (RFC 4954 §4).
func (x *session) auth(arg string) error {
	h := x.s.behaviour()
	mechanism, initial, given := strings.Cut(arg, " ")
	switch {
	case h.Auth == nil || x.conn.State() == nil && !h.Auth.Clear:
		x.breach(Unoffered, "AUTH")
		x.say(x.coded(538, "5.7.11", "encryption needed, or no login at all"))
		return nil
	case x.hello == "" || x.user != "" || x.tx != nil:
		x.breach(BadSequence, "AUTH")
		x.say(x.coded(503, "5.5.1", "not now"))
		return nil
	case !h.Auth.offers(mechanism):
		x.breach(Unoffered, "AUTH %.20s", mechanism)
		x.say(x.coded(504, "5.5.4", "no such mechanism"))
		return nil
	}
	if action := x.s.take(StageAUTH); action.Reply != "" || action.Drop != Stay || action.Hold != nil {
		if err := x.strike(action); err != nil {
			return err
		}
		if action.Reply != "" {
			_, err := x.conclude(action, "235", nil)
			return err
		}
	}
	var user string
	server := h.Auth.server(mechanism, &user)
	var response []byte
	if given {
		response = []byte{}
		if initial != "=" {
			var err error
			if response, err = base64.StdEncoding.DecodeString(initial); err != nil {
				x.say(x.coded(501, "5.5.2", "not base64"))
				return nil
			}
		}
	}
	for {
		challenge, done, err := server.Next(response)
		if err != nil {
			x.s.update(func(st *store) { st.counters.BadLogins++ })
			x.say(x.coded(535, "5.7.8", "authentication failed"))
			return nil
		}
		if done {
			_, err := x.answer(StageLogin, x.coded(235, "2.7.0", "welcome"), func(string) {
				x.user = user
				x.s.update(func(st *store) { st.counters.Logins++ })
			})
			return err
		}
		x.say("334 " + base64.StdEncoding.EncodeToString(challenge))
		if err := x.flush(); err != nil {
			return err
		}
		raw, err := x.conn.ReadLine(maxCommand)
		if err != nil {
			return err
		}
		line := strings.TrimRight(string(raw), "\r\n")
		if line == "*" {
			x.s.update(func(st *store) { st.counters.BadLogins++ })
			x.say(x.coded(501, "5.7.0", "login cancelled"))
			return nil
		}
		if response, err = base64.StdEncoding.DecodeString(line); err != nil {
			x.s.update(func(st *store) { st.counters.BadLogins++ })
			x.say(x.coded(501, "5.5.2", "not base64"))
			return nil
		}
	}
}
