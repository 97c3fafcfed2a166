// Package certerror puts into words what package crypto/x509 has against a
// certificate: the same words for the same certificate at any time, so that
// reasons can be counted, and with what tells an administrator most. What
// errors.Is and errors.As find stays.
package certerror

import (
	"bytes"
	"crypto/x509"
	"errors"
	"strings"
	"time"
)

// worded is an error in other words.
type worded struct {
	error
	text string
}

// Error implements error.
func (w *worded) Error() string { return w.text }

// Unwrap gives the error of the standard library.
func (w *worded) Unwrap() error { return w.error }

// Words gives err in our words, where a part of it is an error of
// x509.Certificate.Verify that has better ones; nil for nil.
func Words(err error) error {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	var part error
	var text string
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		part, text = invalid, expired(&invalid)
	case errors.As(err, &unknown) && unknown.Cert != nil && bytes.Equal(unknown.Cert.RawIssuer, unknown.Cert.RawSubject):
		part, text = unknown, unknown.Error()+": it is self-signed"
	default:
		return err
	}
	return &worded{err, strings.Replace(err.Error(), part.Error(), text, 1)}
}

// expired says of which day a certificate is, and not which it is today.
func expired(e *x509.CertificateInvalidError) string {
	// Which of its two ends the time is beyond, only the text tells.
	if strings.Contains(e.Detail, " is before ") {
		return "x509: certificate is not yet valid: it begins on " + e.Cert.NotBefore.UTC().Format(time.DateOnly)
	}
	return "x509: certificate has expired: it ended on " + e.Cert.NotAfter.UTC().Format(time.DateOnly)
}
