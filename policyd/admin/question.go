package admin

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/mxpipe/mxpipe/transport"
)

// queryOf writes a question as /v1/explain has it.
func queryOf(q *transport.Question) url.Values {
	v := url.Values{"domain": {q.Domain}, "connect": {strconv.FormatBool(q.Depth == transport.Connect)}}
	if q.To != "" {
		v.Set("to", q.To)
	}
	if q.From != "" {
		v.Set("from", q.From)
	}
	if q.Size != 0 {
		v.Set("size", strconv.FormatInt(q.Size, 10))
	}
	if q.RequireTLS {
		v.Set("requiretls", "true")
	}
	return v
}

// questionOf reads a question. A recipient to ask for implies a connection. The
// error is for the client.
func questionOf(v url.Values) (*transport.Question, error) {
	q := &transport.Question{Domain: v.Get("domain"), To: v.Get("to"), From: v.Get("from")}
	connect, err := isTrue(v, "connect")
	if err != nil {
		return nil, err
	}
	if q.RequireTLS, err = isTrue(v, "requiretls"); err != nil {
		return nil, err
	}
	if connect || q.To != "" {
		q.Depth = transport.Connect
	}
	if q.Domain == "" {
		return nil, errors.New("domain is missing")
	}
	if text := v.Get("size"); text != "" {
		if q.Size, err = strconv.ParseInt(text, 10, 64); err != nil || q.Size < 0 {
			return nil, errors.New("size is a number of bytes")
		}
	}
	return q, q.Check()
}

func isTrue(v url.Values, key string) (bool, error) {
	switch v.Get(key) {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	}
	return false, fmt.Errorf("%s is true or false", key)
}
