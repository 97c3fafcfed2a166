package tlsreport

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// MaxReport bounds a report that is read, in bytes after decompression.
const MaxReport = 32 << 20

// Validate reads a report, compressed or not, and says everything that is
// wrong with it by RFC 8460 §4: nil when nothing is.
func Validate(r io.Reader) (*Report, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxReport+1))
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(text, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		if text, err = io.ReadAll(io.LimitReader(z, MaxReport+1)); err != nil {
			return nil, err
		}
	}
	if len(text) > MaxReport {
		return nil, fmt.Errorf("larger than %d bytes", MaxReport)
	}
	report := &Report{}
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(report); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return report, errors.New("something stands after the report")
	}
	return report, errors.Join(report.mistakes()...)
}

// mistakes checks what JSON alone does not.
func (r *Report) mistakes() (list []error) {
	wrong := func(format string, args ...any) { list = append(list, fmt.Errorf(format, args...)) }
	if r.Organization == "" {
		wrong("organization-name is missing")
	}
	if r.ID == "" {
		wrong("report-id is missing")
	}
	if r.Contact == "" {
		wrong("contact-info is missing")
	}
	switch start, end := r.Range.Start, r.Range.End; {
	case start.IsZero() || end.IsZero():
		wrong("date-range is not complete")
	case !start.Equal(startOf(start)):
		wrong("date-range starts at %s, not at the begin of a UTC day", start.Format(time.RFC3339))
	case end.Before(start) || end.Sub(start) > 24*time.Hour:
		wrong("date-range is not one day: %s to %s", start.Format(time.RFC3339), end.Format(time.RFC3339))
	}
	if len(r.Policies) == 0 {
		wrong("policies are missing")
	}
	for i, p := range r.Policies {
		for _, err := range p.mistakes() {
			wrong("policies[%d]: %w", i, err)
		}
	}
	return list
}

func (p *PolicyResult) mistakes() (list []error) {
	wrong := func(format string, args ...any) { list = append(list, fmt.Errorf(format, args...)) }
	switch p.Policy.Type {
	case TypeTLSA, TypeSTS:
	case TypeNone:
		if len(p.Policy.Text) > 0 {
			wrong("no-policy-found with a policy-string")
		}
	default:
		wrong("policy-type %q: use tlsa, sts or no-policy-found", p.Policy.Type)
	}
	if p.Policy.Domain == "" || strings.ContainsFunc(p.Policy.Domain, func(c rune) bool { return c > '~' || c <= ' ' }) {
		wrong("policy-domain %q: not a domain as A-labels", p.Policy.Domain)
	}
	var sum uint64
	seen := map[Failure]bool{}
	for i, f := range p.Failures {
		sum += f.Count
		if !slices.Contains(results, f.Result) {
			wrong("failure-details[%d]: result-type %q is none of RFC 8460 §4.3", i, f.Result)
		}
		if f.Count == 0 {
			wrong("failure-details[%d]: failed-session-count is 0", i)
		}
		for name, addr := range map[string]string{"sending-mta-ip": f.Sending, "receiving-ip": f.Receiver} {
			if _, err := netip.ParseAddr(addr); addr != "" && err != nil {
				wrong("failure-details[%d]: %s %q is no address", i, name, addr)
			}
		}
		if seen[f.Failure] {
			wrong("failure-details[%d]: the same as an earlier one", i)
		}
		seen[f.Failure] = true
	}
	if sum > p.Summary.Failure {
		wrong("failure-details count %d sessions, more than total-failure-session-count %d", sum, p.Summary.Failure)
	}
	return list
}
