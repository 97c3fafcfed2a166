package dane_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"io"
	"math/big"
	"testing"
)

// hugeRSA signs with an RSA key of some 8,700 bits. It is the product of many
// small primes, which makes it quick to generate and to sign with, and
// worthless for anything but tests of what happens to long keys.
type hugeRSA struct {
	n      *big.Int
	primes []*big.Int
}

const hugeExponent = 65537

func newHugeRSA(t testing.TB) *hugeRSA {
	t.Helper()
	key := &hugeRSA{n: big.NewInt(1)}
	one, e := big.NewInt(1), big.NewInt(hugeExponent)
	for key.n.BitLen() < 8700 {
		p, err := rand.Prime(rand.Reader, 256)
		if err != nil {
			t.Fatal(err)
		}
		if new(big.Int).GCD(nil, nil, e, new(big.Int).Sub(p, one)).Cmp(one) != 0 {
			continue
		}
		key.primes = append(key.primes, p)
		key.n.Mul(key.n, p)
	}
	return key
}

func (k *hugeRSA) Public() crypto.PublicKey { return &rsa.PublicKey{N: k.n, E: hugeExponent} }

// Sign makes a PKCS #1 v1.5 signature of a SHA-256 digest (RFC 8017 §8.2),
// prime by prime, put together by the Chinese remainder theorem.
func (k *hugeRSA) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	size := (k.n.BitLen() + 7) / 8
	info := append([]byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}, digest...)
	padded := make([]byte, size)
	padded[1] = 1
	for i := 2; i < size-len(info)-1; i++ {
		padded[i] = 0xff
	}
	copy(padded[size-len(info):], info)
	message, signature := new(big.Int).SetBytes(padded), new(big.Int)
	for _, p := range k.primes {
		order := new(big.Int).Sub(p, big.NewInt(1))
		d := new(big.Int).ModInverse(big.NewInt(hugeExponent), order)
		part := new(big.Int).Exp(new(big.Int).Mod(message, p), d, p)
		rest := new(big.Int).Div(k.n, p)
		part.Mul(part, rest).Mul(part, new(big.Int).ModInverse(new(big.Int).Mod(rest, p), p))
		signature.Add(signature, part)
	}
	return signature.Mod(signature, k.n).FillBytes(make([]byte, size)), nil
}
