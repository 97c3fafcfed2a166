package tlsreport

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Report is one domain's report of one UTC day (RFC 8460 §4.4).
type Report struct {
	Organization string         `json:"organization-name"`
	Range        DateRange      `json:"date-range"`
	Contact      string         `json:"contact-info"`
	ID           string         `json:"report-id"`
	Policies     []PolicyResult `json:"policies"`

	domain string
}

// DateRange is a whole UTC day (RFC 8460 §4.1), both ends within it.
type DateRange struct {
	Start time.Time `json:"start-datetime"`
	End   time.Time `json:"end-datetime"`
}

// PolicyResult is a policy with its sessions.
type PolicyResult struct {
	Policy   Policy           `json:"policy"`
	Summary  Summary          `json:"summary"`
	Failures []FailureDetails `json:"failure-details,omitempty"`
}

// Summary counts sessions.
type Summary struct {
	Success uint64 `json:"total-successful-session-count"`
	Failure uint64 `json:"total-failure-session-count"`
}

// FailureDetails are equal failures.
type FailureDetails struct {
	Failure
	Count uint64 `json:"failed-session-count"`
}

// Sender is who reports.
type Sender struct {
	Organization string
	Contact      string // a mail address or a URL
	Hostname     string // names the report
}

// NewReport makes the report of a domain for a day, which any time of it
// names; nil when nothing was counted. Equal counts make an equal report, with
// the same ID.
func NewReport(from Sender, domain string, day time.Time, counts *Counts) *Report {
	results := counts.results(domain)
	if results == nil {
		return nil
	}
	start := startOf(day)
	r := &Report{
		Organization: from.Organization, Contact: from.Contact,
		Range:    DateRange{start, start.Add(24*time.Hour - time.Second)},
		Policies: results, domain: domain,
	}
	sum := sha256.Sum256(fmt.Append(nil, from.Hostname, "\x00", domain, "\x00", start.Unix()))
	r.ID = start.Format(time.DateOnly) + "." + hex.EncodeToString(sum[:8]) + "@" + from.Hostname
	return r
}

// startOf gives the begin of a time's UTC day.
func startOf(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// FileName is the report's name by RFC 8460 §5.1, without an extension.
func (r *Report) FileName(hostname string) string {
	return fmt.Sprintf("%s!%s!%d!%d!%s", hostname, r.domain, r.Range.Start.Unix(), r.Range.End.Unix(), r.ID[:len("2006-01-02.")+16][len("2006-01-02."):])
}

// Gzip gives the report as compressed JSON of at most limit bytes: from one
// that is larger the rarest failures are taken out, half of them at a time,
// while the sums stay.
func (r *Report) Gzip(limit int) ([]byte, error) {
	cut := *r
	for {
		text, err := json.Marshal(&cut)
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(text); err != nil {
			return nil, err
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
		if b.Len() <= limit {
			return b.Bytes(), nil
		}
		var left bool
		if cut.Policies, left = halved(cut.Policies); !left {
			return nil, fmt.Errorf("the report has %d bytes without any failure details; max_size allows %d", b.Len(), limit)
		}
	}
}

// halved leaves out half of each policy's failure details, the rarest, and
// reports whether there was one.
func halved(list []PolicyResult) (out []PolicyResult, left bool) {
	for _, p := range list {
		if n := len(p.Failures); n > 0 {
			p.Failures = p.Failures[:n/2]
			left = true
		}
		out = append(out, p)
	}
	return out, left
}
