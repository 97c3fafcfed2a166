package admin

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/dane"
	"github.com/mxpipe/mxpipe/transport/deadhost"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// hostile is what a stranger may write wherever that is possible: terminal
// commands, a second line, no UTF-8, text that runs backwards, and far too
// much.
var hostile = "a\x1b]0;gotcha\a\x1b[31m\r\nok \xff\u202e" + strings.Repeat("long ", 2000)

// eachText calls see for every text in a value.
func eachText(v reflect.Value, see func(string)) {
	switch v.Kind() {
	case reflect.String:
		see(v.String())
	case reflect.Pointer:
		if !v.IsNil() {
			eachText(v.Elem(), see)
		}
	case reflect.Slice:
		for i := range v.Len() {
			eachText(v.Index(i), see)
		}
	case reflect.Struct:
		if v.Type().PkgPath() == "time" {
			return
		}
		for i := range v.NumField() {
			eachText(v.Field(i), see)
		}
	}
}

// harmless checks that nothing in a value can do harm on a terminal, or fill
// it.
func harmless(t *testing.T, value any) {
	t.Helper()
	texts := 0
	eachText(reflect.ValueOf(value), func(text string) {
		texts++
		if len(text) > maxText || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%T: %.80q, %d bytes", value, text, len(text))
		}
	})
	if texts == 0 {
		t.Errorf("%T: no text", value)
	}
}

// What strangers write is printable and bounded in every answer.
func TestStrangersWordsAreHarmless(t *testing.T) {
	bad := errors.New(hostile)
	reason := &status.Error{Code: status.New(status.Temporary, 4, 3), Host: hostile, Text: hostile, Err: bad}
	failure := &verdict.Failure{Code: reason.Code, Text: hostile}
	cert := &x509.Certificate{
		Subject: pkix.Name{CommonName: hostile}, Issuer: pkix.Name{CommonName: hostile}, DNSNames: []string{hostile, hostile}, SerialNumber: big.NewInt(1),
	}
	for range 1000 {
		cert.DNSNames = append(cert.DNSNames, "a.example")
	}
	entry := policycache.Entry{
		Domain: hostile, State: policycache.HasPolicy, ID: hostile, RecordID: hostile, Fetched: time.Now(), Expires: time.Now(),
		Policy: mtasts.Policy{Mode: mtasts.ModeEnforce, MX: []string{"mx.example.org"}}, Err: &mtasts.Error{Failure: mtasts.FailureFetch, Err: bad},
	}
	host := route.Host{Name: hostile}
	e := transport.Explanation{
		Domain: hostile, Transport: "default", Rules: verdict.Rules{DANE: true, MTASTS: true}, STS: &entry,
		Route: route.Route{Hosts: []route.Host{host}, Canonical: hostile, Dropped: []route.Dropped{{Host: host}}},
		Hosts: []transport.HostExplanation{{
			Host: host, Addresses: route.Addresses{Canonical: hostile, Partial: bad, Secure: true},
			Facts:   verdict.Facts{TLSA: verdict.TLSA{State: verdict.TLSAFailed, Base: hostile, Names: []string{hostile}, Err: bad}, STS: verdict.STS{State: verdict.STSFound, Policy: entry.Policy}},
			Verdict: verdict.Verdict{Reason: hostile, Refusal: failure, TestingRefusal: failure},
			Dead:    &deadhost.Dead{Host: hostile, Failures: 1},
			Probe: &transport.Probe{
				Extensions: smtp.Extensions{Keywords: []string{hostile}}, TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}},
				Proof:  verdict.Proof{TLS: tls.VersionTLS13, DANE: &dane.Match{Name: hostile}, DANEErr: bad, PKIErr: bad},
				TLSErr: bad, Note: hostile, Err: reason,
			},
		}, {Host: host, Err: reason}, {
			Host:  host,
			Facts: verdict.Facts{TLSA: verdict.TLSA{State: verdict.TLSAPresent, Base: hostile, Names: []string{hostile}}},
		}},
	}
	harmless(t, *NewExplanation(&e, &transport.Question{Depth: transport.Connect}))
	e.Err = reason
	harmless(t, *NewExplanation(&e, &transport.Question{Depth: transport.Connect}))
	harmless(t, NewCachedPolicy(&entry, "dir"))
	answer := resolver.Answer{
		Name: "a.example.", Canonical: "b.example.", Type: resolver.TypeTXT,
		Records: resolver.Texts{hostile},
	}
	harmless(t, NewAnswer(&answer))
	unanswered := &resolver.Error{Name: "b.example.", Type: resolver.TypeMX, Kind: resolver.Malformed, Err: errors.New(hostile)}
	harmless(t, NewFailure(unanswered))
	harmless(t, NewNames([]resolver.Answer{answer}, []*resolver.Error{unanswered}))
	harmless(t, NewTransport(transport.Snapshot{
		Name: "default", InProgress: []transport.InProgress{{QueueID: hostile, Destination: hostile, Host: hostile}},
		IdleHosts: []transport.IdleHost{{Host: hostile}}, Dead: []deadhost.Dead{{Host: hostile, Cause: "refused"}},
	}))
	harmless(t, NewTraces(map[string]time.Time{hostile: time.Now()}))
}
