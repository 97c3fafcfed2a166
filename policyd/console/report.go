package console

import (
	"fmt"

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
