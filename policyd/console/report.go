package console

import (
	"fmt"
	"time"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/tlsreport"
)

// Reports writes the TLS reports that are counted, with what became of them.
func Reports(s Screen, l *admin.ReportList) string {
	p := &page{Screen: s}
	if len(l.Reports) == 0 {
		p.b.WriteString("No session is counted.\n")
	}
	for i := range l.Reports {
		r := &l.Reports[i]
		c := none
		if r.Failure > 0 {
			c = yellow
		}
		p.hang(r.Day+" "+r.Domain+": ", bold, c, fmt.Sprintf("%d sessions succeeded, %d failed", r.Success, r.Failure))
		for _, place := range r.Places {
			c := none
			switch place.State {
			case tlsreport.Sent:
				c = green
			case tlsreport.Refused, tlsreport.Late:
				c = red
			}
			text := place.URI + " " + p.ago(place.At)
			if place.Error != "" {
				text += ": " + place.Error
			}
			p.coloured(string(place.State), c, text)
		}
		if len(r.Places) == 0 && r.Due.After(p.Now) {
			p.item("due", p.in(r.Due))
		}
	}
	return p.String()
}

// Report writes one report: each policy, its sums, and its failures.
func Report(s Screen, r *tlsreport.Report) string {
	p := &page{Screen: s}
	p.hang("report "+r.ID+": ", bold, none, fmt.Sprintf("of %s, %s", r.Organization, r.Range.Start.Format(time.DateOnly)))
	for i := range r.Policies {
		one := &r.Policies[i]
		c := none
		if one.Summary.Failure > 0 {
			c = yellow
		}
		p.coloured(string(one.Policy.Type), c, fmt.Sprintf("%s: %d sessions succeeded, %d failed", one.Policy.Domain, one.Summary.Success, one.Summary.Failure))
		for _, line := range one.Policy.Text {
			p.item("", line)
		}
		for _, f := range one.Failures {
			text := fmt.Sprintf("%d times %s", f.Count, f.Result)
			for _, of := range []string{f.Host, f.Receiver, f.Reason} {
				if of != "" {
					text += ", " + of
				}
			}
			p.coloured("failed", yellow, text)
		}
	}
	return p.String()
}
