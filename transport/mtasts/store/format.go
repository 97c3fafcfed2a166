package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/transport/mtasts"
)

// A policy on disk is a text that people can read: a first line with the
// format's version, the domain, the id and the time of the fetch, then the
// policy as RFC 8461 §3.2 writes it, and at last a SHA-256 over all that, which
// shows that the file is whole. There is exactly one text for each policy, and
// only that one is read back.
const (
	formatLine  = "mxpipe mta-sts policy 1\n"
	sumKey      = "sha256: "
	sumLength   = len(sumKey) + 2*sha256.Size + 1
	maxFileSize = mtasts.MaxPolicySize + 1024
)

// encode gives a policy's text.
func encode(p Policy) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%sdomain: %s\nid: %s\nfetched: %s\n%s",
		formatLine, p.Domain, p.ID, p.Fetched.UTC().Format(time.RFC3339), p.Policy)
	sum := sha256.Sum256(b.Bytes())
	b.WriteString(sumKey + hex.EncodeToString(sum[:]) + "\n")
	return b.Bytes()
}

// decode reads a policy's text. The error is ErrDamaged.
func decode(text []byte) (Policy, error) {
	if len(text) > maxFileSize || len(text) < sumLength {
		return Policy{}, ErrDamaged
	}
	body := text[:len(text)-sumLength]
	rest, ok := strings.CutPrefix(string(body), formatLine)
	if !ok {
		return Policy{}, ErrDamaged
	}
	var p Policy
	var fetched string
	for _, field := range []struct {
		key string
		to  *string
	}{{"domain: ", &p.Domain}, {"id: ", &p.ID}, {"fetched: ", &fetched}} {
		line, after, _ := strings.Cut(rest, "\n")
		value, ok := strings.CutPrefix(line, field.key)
		if !ok {
			return Policy{}, ErrDamaged
		}
		*field.to, rest = value, after
	}
	var err error
	if p.Fetched, err = time.Parse(time.RFC3339, fetched); err != nil {
		return Policy{}, ErrDamaged
	}
	if p.Policy, err = mtasts.ParsePolicy([]byte(rest)); err != nil {
		return Policy{}, ErrDamaged
	}
	if rec, err := mtasts.ParseRecord([]string{"v=STSv1; id=" + p.ID}); err != nil || rec.ID != p.ID {
		return Policy{}, ErrDamaged
	}
	// One text for each policy: this also compares the checksum.
	p.Fetched = p.Fetched.UTC()
	if !canonical(p.Domain) || !bytes.Equal(encode(p), text) {
		return Policy{}, ErrDamaged
	}
	return p, nil
}

// canonical reports whether a domain is as mtasts.Domain gives it. Such a
// domain has only letters, digits, hyphens, underscores and single dots, and
// begins with none, so that it is one file name and never a path.
func canonical(domain string) bool {
	d, err := mtasts.Domain(domain)
	return err == nil && d == domain
}
