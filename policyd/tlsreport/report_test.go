package tlsreport

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	someDay = time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	us      = Sender{Organization: "Example Org", Contact: "postmaster@us.example", Hostname: "mx.us.example"}
	sts     = Policy{Type: TypeSTS, Domain: "example.org", MXHosts: []string{"*.example.org"},
		Text: []string{"version: STSv1", "mode: enforce", "mx: *.example.org", "max_age: 86400"}}
	tlsa = Policy{Type: TypeTLSA, Domain: "mx1.example.org", Text: []string{"3 1 1 abcd"}}
	none = Policy{Type: TypeNone, Domain: "example.org"}
)

func failed(result Result, host string) *Failure {
	return &Failure{Result: result, Sending: "192.0.2.1", Host: host, Receiver: "198.51.100.7"}
}

// TestExample is the report of RFC 8460, appendix B, as it stands there.
func TestExample(t *testing.T) {
	example, err := os.ReadFile("testdata/rfc8460-example.json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Validate(bytes.NewReader(example))
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Policies[0]; p.Summary != (Summary{5326, 303}) || len(p.Failures) != 3 || p.Failures[2].Receiver != "203.0.113.58" {
		t.Errorf("%+v", p)
	}
}

func TestReport(t *testing.T) {
	var c Counts
	for range 7 {
		c.Add("example.org", sts, nil, 1)
	}
	c.Add("example.org", tlsa, nil, 3)
	c.Add("example.org", sts, failed(CertificateExpired, "mx2.example.org"), 1)
	c.Add("example.org", sts, failed(CertificateExpired, "mx2.example.org"), 1)
	c.Add("example.org", sts, failed(StartTLSNotSupported, "mx3.example.org"), 5)
	c.Add("example.net", none, nil, 1)
	r := NewReport(us, "example.org", someDay.Add(13*time.Hour), &c)
	gz, err := r.Gzip(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Validate(bytes.NewReader(gz))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(back)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"organization-name":"Example Org","date-range":{"start-datetime":"2026-11-29T00:00:00Z","end-datetime":"2026-11-29T23:59:59Z"},` +
		`"contact-info":"postmaster@us.example","report-id":"` + r.ID + `","policies":[` +
		`{"policy":{"policy-type":"tlsa","policy-string":["3 1 1 abcd"],"policy-domain":"mx1.example.org"},` +
		`"summary":{"total-successful-session-count":3,"total-failure-session-count":0}},` +
		`{"policy":{"policy-type":"sts","policy-string":["version: STSv1","mode: enforce","mx: *.example.org","max_age: 86400"],"policy-domain":"example.org","mx-host":["*.example.org"]},` +
		`"summary":{"total-successful-session-count":7,"total-failure-session-count":7},"failure-details":[` +
		`{"result-type":"starttls-not-supported","sending-mta-ip":"192.0.2.1","receiving-mx-hostname":"mx3.example.org","receiving-ip":"198.51.100.7","failed-session-count":5},` +
		`{"result-type":"certificate-expired","sending-mta-ip":"192.0.2.1","receiving-mx-hostname":"mx2.example.org","receiving-ip":"198.51.100.7","failed-session-count":2}]}]}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	if NewReport(us, "nobody.example", someDay, &c) != nil {
		t.Error("a report about nothing")
	}
}

// TestBounds: what a hostile domain can make us keep.
func TestBounds(t *testing.T) {
	var c Counts
	for i := range 1000 {
		c.Add("example.org", none, &Failure{Result: ValidationFailure, Reason: fmt.Sprint(i)}, 1)
		c.Add("example.org", none, &Failure{Result: StartTLSNotSupported, Host: fmt.Sprint(i)}, 1)
	}
	r := NewReport(us, "example.org", someDay, &c)
	p := r.Policies[0]
	if len(p.Failures) != 102 || p.Summary.Failure != 2000 {
		t.Errorf("%d entries, %d failures", len(p.Failures), p.Summary.Failure)
	}
	if f := p.Failures[0]; f.Reason != "and more" || f.Count != 950 || f.Host != "" {
		t.Errorf("%+v", f)
	}
	for i := range 100 {
		c.Add("changes.example", Policy{Type: TypeSTS, Domain: "changes.example", Text: []string{fmt.Sprint(i)}}, nil, 1)
	}
	if n := len(NewReport(us, "changes.example", someDay, &c).Policies); n != 50 {
		t.Errorf("%d policies", n)
	}
	for i := range 10_100 {
		c.Add(fmt.Sprint(i, ".example"), none, nil, 1)
	}
	if len(c.Domains()) != 10_000 || c.Dropped != 102 {
		t.Errorf("%d domains, %d dropped", len(c.Domains()), c.Dropped)
	}
}

// TestBytes: what hostile domains can make us keep is bounded by bytes too, in
// memory and in the day's file, and what others have counted stays.
func TestBytes(t *testing.T) {
	lines := make([]string, 1000) // a policy of 64 KiB
	for i := range lines {
		lines[i] = fmt.Sprintf("mx: %056d.evil", i)
	}
	dir := t.TempDir()
	j, err := OpenJournal(dir, someDay)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := j.Add(someDay, "example.org", sts, nil); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 { // a policy of its own for each session
		p := Policy{Type: TypeSTS, Domain: "evil.example", Text: append([]string{fmt.Sprint(i)}, lines...), MXHosts: lines}
		if err := j.Add(someDay, "evil.example", p, failed(ValidationFailure, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	c := j.Counts(someDay)
	if one := c.domains["evil.example"].bytes; one > 2*MaxDomainBytes {
		t.Errorf("%d bytes of one domain", one)
	}
	if _, n := c.Sessions("evil.example"); n != 100 {
		t.Errorf("%d of 100 sessions counted", n)
	}
	for i := range 1200 {
		name := fmt.Sprint(i, ".evil.example")
		if err := j.Add(someDay, name, Policy{Type: TypeSTS, Domain: name, Text: lines, MXHosts: lines}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if c.bytes > MaxBytes || c.Dropped == 0 {
		t.Errorf("%d bytes, %d dropped", c.bytes, c.Dropped)
	}
	if err := j.Add(someDay, "example.org", sts, nil); err != nil {
		t.Fatal(err)
	}
	if n, _ := c.Sessions("example.org"); n != 11 {
		t.Errorf("%d sessions, want 11", n)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, someDay.Format(time.DateOnly)+journalSuffix))
	if err != nil || info.Size() > 2*MaxBytes+maxSlack+1<<20 {
		t.Error(info.Size(), err)
	}
	domains := len(c.Domains())
	if j, err = OpenJournal(dir, someDay); err != nil {
		t.Fatal(err)
	}
	if n := len(j.Counts(someDay).Domains()); n != domains {
		t.Errorf("%d domains after a restart, %d before", n, domains)
	}
}

// TestPlaces: a record that names other places at each look, and a place that
// answers at length, are remembered within bounds.
func TestPlaces(t *testing.T) {
	l, err := openLedger("", someDay)
	if err != nil {
		t.Fatal(err)
	}
	tried, long := 0, strings.Repeat("ü", 60_000)
	for i := range 30_000 {
		a := attempt{Day: "2026-11-29", Domain: fmt.Sprint(i/10, ".example"), URI: fmt.Sprint("https://", i), State: Late, Error: long}
		if !l.room(a.Day, a.Domain) {
			continue
		}
		if tried++; l.put(a) != nil {
			t.Fatal("in memory alone")
		}
	}
	if u := l.usage(); u.Entries != tried || tried != 3000*maxDomainPlaces || u.Bytes > int64(tried)*1000 {
		t.Errorf("%+v of %d", u, tried)
	}
	for i := range 30_000 {
		if domain := fmt.Sprint("b", i, ".example"); l.room("2026-11-29", domain) {
			l.set(attempt{Day: "2026-11-29", Domain: domain})
		}
	}
	if l.count != maxPlaces {
		t.Error(l.count)
	}
	if err := l.forget(someDay.Add(10 * 24 * time.Hour)); err != nil || l.count != 0 || len(l.places) != 0 {
		t.Error(l.count, err)
	}
}

// TestMaxSize: a report that is too large loses details, not its sums.
func TestMaxSize(t *testing.T) {
	var c Counts
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 100 {
		noise := make([]byte, 100)
		for j := range noise {
			noise[j] = byte('a' + random.IntN(26))
		}
		c.Add("example.org", none, &Failure{Result: ValidationFailure, Reason: string(noise)}, uint64(1+i))
	}
	r := NewReport(us, "example.org", someDay, &c)
	gz, err := r.Gzip(3000)
	if err != nil || len(gz) > 3000 {
		t.Fatal(len(gz), err)
	}
	back, err := Validate(bytes.NewReader(gz))
	if err != nil {
		t.Fatal(err)
	}
	p := back.Policies[0]
	if p.Summary.Failure != 5050 || len(p.Failures) == 0 || p.Failures[0].Count != 100 || len(p.Failures) >= 100 {
		t.Errorf("%+v, %d entries", p.Summary, len(p.Failures))
	}
	if len(r.Policies[0].Failures) != 100 {
		t.Error("the report itself was cut")
	}
	if _, err := r.Gzip(50); err == nil {
		t.Error("50 bytes are no report")
	}
}

// TestMessage reads the mail as a receiver does.
func TestMessage(t *testing.T) {
	var c Counts
	c.Add("example.org", sts, nil, 5)
	r := NewReport(us, "example.org", someDay, &c)
	gz, err := r.Gzip(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	text := r.Message("tlsrpt@us.example", "reports@example.org", us, gz, someDay.Add(26*time.Hour))
	for l := range bytes.SplitSeq(text, []byte("\n")) {
		if len(l) > 79 && !bytes.Contains(l, []byte("name=")) || len(l) > 0 && l[len(l)-1] != '\r' {
			t.Errorf("line %q", l)
		}
	}
	m, err := mail.ReadMessage(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"From": "tlsrpt@us.example", "To": "reports@example.org", "Date": "Mon, 30 Nov 2026 02:00:00 +0000",
		"TLS-Report-Domain": "example.org", "TLS-Report-Submitter": "mx.us.example", "TLS-Required": "No",
		"Subject": "Report Domain: example.org Submitter: mx.us.example Report-ID: <" + r.ID + ">",
	} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "tlsrpt" {
		t.Fatal(kind, params, err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	first, err := parts.NextPart()
	if err != nil || !strings.HasPrefix(first.Header.Get("Content-Type"), "text/plain") {
		t.Fatal(err)
	}
	second, err := parts.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	if got := second.FileName(); got != r.FileName("mx.us.example")+".json.gz" || !strings.HasPrefix(got, "mx.us.example!example.org!1795910400!1795996799!") {
		t.Error(got)
	}
	if kind, _, _ := mime.ParseMediaType(second.Header.Get("Content-Type")); kind != "application/tlsrpt+gzip" {
		t.Error(kind)
	}
	z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, second))
	if err != nil {
		t.Fatal(err)
	}
	json, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := Validate(bytes.NewReader(json)); err != nil || back.ID != r.ID {
		t.Error(back, err)
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:   "organization-name is missing",
		`[]`:   "cannot unmarshal",
		`{} x`: "something stands after",
		`{"date-range":{"start-datetime":"2026-11-29T01:00:00Z","end-datetime":"2026-11-29T23:59:59Z"}}`: "not at the begin of a UTC day",
		`{"date-range":{"start-datetime":"2026-11-29T00:00:00Z","end-datetime":"2026-12-01T23:59:59Z"}}`: "not one day",
		`{"policies":[{"policy":{"policy-type":"dane"}}]}`:                                               `policy-type "dane"`,
		`{"policies":[{"policy":{"policy-type":"sts","policy-domain":"a b"}}]}`:                          `policy-domain "a b"`,
		`{"policies":[{"failure-details":[{"result-type":"x"}]}]}`:                                       `result-type "x"`,
		`{"policies":[{"failure-details":[{"result-type":"dane-required","failed-session-count":2}]}]}`:  "more than total-failure-session-count 0",
		`{"policies":[{"failure-details":[{"sending-mta-ip":"x"}]}]}`:                                    `sending-mta-ip "x"`,
	} {
		if _, err := Validate(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func FuzzValidate(f *testing.F) {
	f.Add([]byte(`{"policies":[{"failure-details":[{}]}]}`))
	f.Fuzz(func(_ *testing.T, text []byte) { _, _ = Validate(bytes.NewReader(text)) })
}
