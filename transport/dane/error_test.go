package dane_test

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/transport/dane"
)

// TestErrorTexts asserts what an administrator reads in the log and the bounce.
func TestErrorTexts(t *testing.T) {
	a := newCA(t)
	root := a.root(a.ec(), "root")
	inter := a.issued(root, a.ec(), "inter")
	leaf := a.leaf(inter, a.ec())
	old := a.leaf(inter, a.ec(), expired)
	evil := a.leaf(inter, a.ec(), dnsID("evil\r\n250 OK.test", "b\x1b[2J", strings.Repeat("x", 500), "d.test", "e.test"))
	full := servers{leaf, inter, root}
	r311 := func(p party) dane.Record { return rec(dane.DANEEE, dane.SPKI, dane.SHA256, p) }
	r201 := func(p party) dane.Record { return rec(dane.DANETA, dane.Cert, dane.SHA256, p) }
	stale := a.root(a.ec(), "stale")
	var many records
	for n := range 20 {
		many = append(many, digest(3, 1, 1, n))
	}
	for _, c := range []struct {
		name    string
		server  servers
		records records
		kind    error
		parts   []string
	}{
		{"retired key", full, records{r311(stale)}, dane.ErrNoMatch,
			[]string{"no TLSA record matches: " + r311(stale).String(), "the server has " + r311(leaf).String()}},
		{"retired anchor", full, records{r201(stale)}, dane.ErrNoMatch,
			[]string{r201(stale).String(), "the server has " + r311(leaf).String(), "above it " + r201(inter).String() + ", " + r201(root).String()}},
		{"anchor not presented", servers{leaf}, records{r201(root)}, dane.ErrNoMatch,
			[]string{r201(root).String(), "presents no issuer"}},
		{"both retired", full, records{r311(stale), r201(stale)}, dane.ErrNoMatch,
			[]string{r311(stale).String() + ", " + r201(stale).String(), r311(leaf).String(), r201(inter).String()}},
		{"many records", full, many, dane.ErrNoMatch, []string{"and 17 more"}},
		{"expired", servers{old, inter}, records{r201(inter)}, dane.ErrPath,
			[]string{"no valid path to the TLSA trust anchor: " + r201(inter).String(), "expired"}},
		{"hostile names", servers{evil, inter}, records{r201(inter)}, dane.ErrName,
			[]string{"expected mx.example.test", `evil\r\n250 OK.test`, "and 2 more"}},
		{"no record usable", full, records{digest(1, 1, 1, 1)}, dane.ErrUnusable, []string{"no usable TLSA record"}},
		{"no certificate", servers{}, records{r311(leaf)}, dane.ErrNoCertificate, []string{"presents no certificate", r311(leaf).String()}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := dane.NewSet(c.records).Verify(chain(c.server...), []string{host}, a.now)
			if !errors.Is(err, c.kind) {
				t.Fatalf("got %v, want %v", err, c.kind)
			}
			var structured *dane.Error
			if !errors.As(err, &structured) || structured.Kind != c.kind {
				t.Fatalf("not an *Error of this kind: %#v", err)
			}
			checkText(t, err)
			for _, part := range c.parts {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q lacks %q", err, part)
				}
			}
		})
	}
}

// TestErrorCause asserts that what crypto/x509 said can be asked for.
func TestErrorCause(t *testing.T) {
	a := newCA(t)
	root := a.root(a.ec(), "root")
	_, err := dane.NewSet(records{rec(dane.DANETA, dane.Cert, dane.Full, root)}).
		Verify(chain(a.leaf(root, a.ec(), expired)), []string{host}, a.now)
	var invalid x509.CertificateInvalidError
	if !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Errorf("got %v, want the cause Expired", err)
	}
}

// TestErrorBound asserts the bound on the text for the worst that can be in it.
func TestErrorBound(t *testing.T) {
	long := strings.Repeat("\x00\xff", 4000)
	var all []dane.Record
	names := []string{long, long, long, long, long}
	for n := range 100 {
		all = append(all, dane.Record{Usage: 255, Selector: 255, Matching: 255, Data: digest(3, 1, 2, n).Data})
	}
	for _, kind := range []error{dane.ErrNoMatch, dane.ErrPath, dane.ErrName, dane.ErrUnusable, dane.ErrNoCertificate} {
		checkText(t, &dane.Error{Kind: kind, Records: all, Leaf: all, Issuers: all, Wanted: names, Names: names, Cause: errors.New(long)})
	}
}
