package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

func newResolver(t *testing.T, zone string) (*resolver.Resolver, *labdns.Server) {
	t.Helper()
	s, err := labdns.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	if err := s.Add(zone); err != nil {
		t.Fatal(err)
	}
	r, err := resolver.New(resolver.Config{Servers: []string{s.Addr()}, Timeout: time.Second, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r, s
}

// RFC 8461 §3.1: the strings of one record belong together, records do not. A
// name without a record is no failure, and a failure is no such name.
func TestTexts(t *testing.T) {
	r, s := newResolver(t, `_mta-sts.a.example. TXT "v=STSv1; " "id=1"
_mta-sts.a.example. TXT "other"
b.example. A 192.0.2.1`)
	s.SetFault("_mta-sts.c.example.", dns.TypeTXT, labdns.ServFail)
	a, err := texts{r}.TXT(t.Context(), "_mta-sts.a.example")
	slices.Sort(a.Texts)
	if err != nil || !a.Found || !slices.Equal(a.Texts, []string{"other", "v=STSv1; id=1"}) || !a.Expires.After(time.Now()) {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err = (texts{r}).TXT(t.Context(), "_mta-sts.b.example"); err != nil || a.Found || len(a.Texts) != 0 {
		t.Errorf("no such name: %+v, %v", a, err)
	}
	if a, err = (texts{r}).TXT(t.Context(), "_mta-sts.c.example"); err == nil || a.Found || !a.Expires.After(time.Now()) {
		t.Errorf("a failure: %+v", a)
	}
	s.Down()
	if a, err = (texts{r}).TXT(t.Context(), "_mta-sts.d.example"); err == nil || a.Expires.IsZero() || a.Expires.After(time.Now()) {
		t.Errorf("nothing answers, which may end at any moment: %+v", a)
	}
}

func TestAddresses(t *testing.T) {
	r, s := newResolver(t, `both.example. A 192.0.2.1
both.example. AAAA 2001:db8::1
four.example. A 192.0.2.4
six.example. AAAA 2001:db8::6
half.example. A 192.0.2.5
none.example. TXT "x"`)
	s.SetFault("half.example.", dns.TypeAAAA, labdns.ServFail)
	s.SetFault("broken.example.", dns.TypeA, labdns.ServFail)
	s.SetFault("broken.example.", dns.TypeAAAA, labdns.ServFail)
	for host, want := range map[string]string{
		"both.example": "[192.0.2.1 2001:db8::1] <nil>",
		"four.example": "[192.0.2.4] <nil>",
		"six.example":  "[2001:db8::6] <nil>",
		"half.example": "[192.0.2.5] <nil>", // one family is enough
	} {
		got, err := addresses{r}.Addresses(t.Context(), host)
		if s := fmt.Sprint(got, err); s != want {
			t.Errorf("%s: %s, want %s", host, s, want)
		}
	}
	if got, err := (addresses{r}).Addresses(t.Context(), "none.example"); !errors.Is(err, errNoAddress) {
		t.Errorf("none.example: %v, %v", got, err)
	}
	var failed *resolver.Error
	if got, err := (addresses{r}).Addresses(t.Context(), "broken.example"); !errors.As(err, &failed) {
		t.Errorf("broken.example: %v, %v", got, err)
	}
	// A family that says nothing is not waited for to its end.
	defer s.Hold("late.example", dns.TypeAAAA)()
	if err := s.Add("late.example. A 192.0.2.6"); err != nil {
		t.Fatal(err)
	}
	patient, err := resolver.New(resolver.Config{Servers: []string{s.Addr()}, Timeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer patient.Close()
	if got, err := (addresses{patient}).Addresses(t.Context(), "late.example"); err != nil || fmt.Sprint(got) != "[192.0.2.6]" {
		t.Errorf("late.example: %v, %v", got, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := (addresses{r}).Addresses(ended, "other.example"); err == nil {
		t.Errorf("after the end: %v", got)
	}
}
