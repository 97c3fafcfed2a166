package session

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/cache"
)

const (
	// maxChains bounds the chains that are remembered.
	maxChains = 4000
	// chainCost is what one takes, in bytes: its key, two times, and a share
	// of the map.
	chainCost = 160
)

// verifiedChains remembers certificate chains that the roots of one TLS vouch
// for, each for one name. Whether they do depends on nothing but the chain, the
// name, and the time, which is looked at anew: so what was found out once
// holds as long as all certificates are valid, and a new connection to the same
// host need not check the same signatures, nearly a fifth of what it costs.
// That they do not vouch for a chain is never remembered. It is safe for
// concurrent use.
type verifiedChains struct {
	mu     sync.Mutex
	chains map[chainKey]validity
}

// chainKey stands for a name and the certificates that a server showed.
type chainKey [sha256.Size]byte

// validity is the time in which all certificates of a chain are valid.
type validity struct{ from, until time.Time }

func chainKeyOf(name string, chain []*x509.Certificate) (key chainKey) {
	h := sha256.New()
	part := func(b []byte) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(b)))
		h.Write(size[:])
		h.Write(b)
	}
	part([]byte(name))
	for _, cert := range chain {
		part(cert.Raw)
	}
	h.Sum(key[:0])
	return key
}

// has reports whether the chain was verified, and is valid now.
func (v *verifiedChains) has(key chainKey, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	valid, ok := v.chains[key]
	return ok && !now.Before(valid.from) && !now.After(valid.until)
}

// add remembers a chain up to its root, which [x509.Certificate.Verify] gave.
func (v *verifiedChains) add(key chainKey, upToRoot []*x509.Certificate) {
	valid := validity{upToRoot[0].NotBefore, upToRoot[0].NotAfter}
	for _, cert := range upToRoot[1:] {
		if cert.NotBefore.After(valid.from) {
			valid.from = cert.NotBefore
		}
		if cert.NotAfter.Before(valid.until) {
			valid.until = cert.NotAfter
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.chains == nil || len(v.chains) >= maxChains {
		v.chains = map[chainKey]validity{} // those in use are soon back
	}
	v.chains[key] = valid
}

// Chains tells how much is remembered of certificate chains.
func (d *Dialer) Chains() cache.Usage {
	v := &d.cfg.TLS.chains
	v.mu.Lock()
	defer v.mu.Unlock()
	return cache.Usage{Entries: len(v.chains), Bytes: int64(len(v.chains)) * chainCost, MaxBytes: maxChains * chainCost}
}
