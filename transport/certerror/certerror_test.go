package certerror

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
)

// Verified an hour later, a certificate is refused in the same words, which
// tell what is wrong with it and hold no time of day.
func TestWords(t *testing.T) {
	a, err := ca.New(ca.Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	yesterday, tomorrow := now.Add(-24*time.Hour), now.Add(24*time.Hour)
	for want, spec := range map[string]ca.Spec{
		"x509: certificate has expired: it ended on " + yesterday.UTC().Format(time.DateOnly):      {NotBefore: yesterday.Add(-time.Hour), NotAfter: yesterday},
		"x509: certificate is not yet valid: it begins on " + tomorrow.UTC().Format(time.DateOnly): {NotBefore: tomorrow, NotAfter: tomorrow.Add(time.Hour)},
		"x509: certificate signed by unknown authority: it is self-signed":                         {SelfSigned: true},
		"x509: certificate is valid for other.example, not mx.example":                             {Names: []string{"other.example"}},
	} {
		if spec.Names == nil {
			spec.Names = []string{"mx.example"}
		}
		cert, err := a.Issue(spec)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []time.Time{now, now.Add(time.Second)} {
			_, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: "mx.example", CurrentTime: at})
			got := Words(err)
			if got == nil || got.Error() != want {
				t.Errorf("%v, want %s", got, want)
			}
			var invalid x509.CertificateInvalidError
			if errors.As(err, &invalid) && !errors.As(got, &invalid) {
				t.Errorf("%v is no CertificateInvalidError", got)
			}
			wrapped := Words(&tls.CertificateVerificationError{Err: err})
			if wrapped.Error() != "tls: failed to verify certificate: "+want {
				t.Error(wrapped)
			}
		}
	}
	if Words(nil) != nil {
		t.Error("no error has words")
	}
}
