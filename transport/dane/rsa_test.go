package dane

import (
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"testing"
)

// An RSA key is looked at up to 8,192 bits: to check a signature by a larger
// one takes as long as a stranger likes.
func TestHugeRSAKey(t *testing.T) {
	for bits, want := range map[uint]bool{2048: true, 8192: true, 8193: false, 1 << 20: false} {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		if got := affordable(&x509.Certificate{PublicKey: &rsa.PublicKey{N: n, E: 65537}}); got != want {
			t.Errorf("%d bits: %v", bits, got)
		}
	}
}
