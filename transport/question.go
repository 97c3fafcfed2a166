package transport

import (
	"errors"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Depth is how far an explanation goes.
type Depth uint8

// The depths.
const (
	Lookups Depth = iota // DNS and MTA-STS; no host is dialled
	// and a real connection to each address of each host, up to MAIL
	Connect
)

// Question is what an explanation is about.
type Question struct {
	// as people write it, or what stands in its place in an address
	Domain string
	Depth  Depth

	// To has each host that is connected to asked for this recipient, by MAIL
	// and RCPT; no message follows. Empty: none is asked. Its domain is
	// Domain.
	To string
	// From is the sender that they are told: an address, or "<>" or nothing
	// for the null sender.
	From string
	Size int64 // bytes, that they are told
	// RequireTLS says that the message demands TLS on its whole way
	// (RFC 8689). It is judged as one that is no bounce unless From is "<>".
	RequireTLS bool
}

// Errors of a question, for the administrator who asked it.
var (
	ErrOtherDomain = errors.New("the recipient is not at the domain that is asked about")
	ErrNullTo      = errors.New("a recipient has an address")
)

// Check says what is wrong with a question; nil: nothing.
func (q *Question) Check() error {
	_, err := q.envelope()
	return err
}

// envelope is what hosts are asked; nil: nothing.
func (q *Question) envelope() (*smtp.Transaction, error) {
	from, err := address.Parse(q.From)
	if err != nil {
		return nil, err
	}
	if q.To == "" {
		return nil, nil
	}
	to, err := address.Parse(q.To)
	if err != nil {
		return nil, err
	}
	if to.IsNull() {
		return nil, ErrNullTo
	}
	domain, err := address.Parse("postmaster@" + q.Domain)
	if err == nil && domain.ASCII != to.ASCII {
		return nil, ErrOtherDomain
	}
	return &smtp.Transaction{
		From: from, Recipients: []smtp.Recipient{{Address: to}}, Size: q.Size, RequireTLS: q.RequireTLS,
		UTF8: from.NeedsUTF8() || to.NeedsUTF8(),
	}, nil
}

// demands are those of the message that the question is about.
func (q *Question) demands(cfg *Config) verdict.Demands {
	return verdict.Demands{RequireTLS: q.RequireTLS, Relaxed: cfg.RelaxedRequireTLS || q.From == "<>"}
}
