package console

import (
	"fmt"
	"strings"

	"github.com/mxpipe/mxpipe/policyd/admin"
)

// CacheList writes what is cached, a line for each domain or name.
func CacheList(s Screen, l *admin.CacheList) string {
	p := &page{Screen: s}
	p.hang("MTA-STS: ", bold, none, count(len(l.Policies), "policy", "policies"))
	width := 0
	for _, c := range l.Policies {
		width = max(width, len(c.Domain)+1)
	}
	for _, c := range l.Policies {
		p.row(c.Domain, width, policyText(p, &c.MTASTS))
	}
	p.hang("DNS: ", bold, none, count(len(l.Names), "name", "names"))
	width = 0
	for _, n := range l.Names {
		width = max(width, len(n.Name)+1)
	}
	for _, n := range l.Names {
		p.row(n.Name, width, strings.Join(n.Types, " ")+", expires "+p.in(n.Expires))
	}
	return p.String()
}

// row writes a name in a column of its own.
func (p *page) row(name string, width int, text string) {
	p.hang("  "+pad(name, min(width, p.Width/2)), none, none, text)
}

func policyText(p *page, m *admin.MTASTS) string {
	if m.State != "policy" {
		return m.State
	}
	return m.Mode + ", id " + m.ID + ", expires " + p.in(*m.Expires)
}

// Cached writes what is cached for a domain.
func Cached(s Screen, c *admin.Cached) string {
	p := &page{Screen: s}
	if len(c.Policies)+len(c.Answers) == 0 {
		return "nothing is cached for " + c.Domain + "\n"
	}
	for i := range c.Policies {
		m := &c.Policies[i]
		p.hang("MTA-STS: ", bold, none, policyText(p, &m.MTASTS))
		if m.State == "policy" {
			p.item("mx", some(m.MX, 20))
			p.item("fetched", p.ago(*m.Fetched))
		}
		p.item("record id", m.RecordID)
		if m.Error != "" {
			p.coloured("error", yellow, m.Failure+": "+m.Error)
		}
		p.item("kept in", m.Dir)
	}
	for _, a := range c.Answers {
		state := a.State
		if len(a.Records) > 0 {
			state = count(len(a.Records), "record", "records")
		}
		if a.Signed {
			state += ", DNSSEC-signed"
		}
		if a.Omitted > 0 {
			state += fmt.Sprintf(" of %d", len(a.Records)+a.Omitted)
		}
		if a.Canonical != "" {
			state += ", at " + a.Canonical
		}
		if a.Error != "" {
			state += " (" + a.Error + ")"
		}
		p.hang(a.Name+" "+a.Type+": ", bold, none, state+", expires "+p.in(a.Expires))
		for _, r := range a.Records {
			p.hang("  ", none, none, r)
		}
	}
	return p.String()
}

// Flushed tells how much was removed.
func Flushed(_ Screen, f *admin.Flushed) string {
	text := fmt.Sprintf("flushed: %s, %s", count(f.Policies, "MTA-STS policy", "MTA-STS policies"), count(f.Answers, "DNS answer", "DNS answers"))
	if f.Hellos > 0 {
		text += ", " + count(f.Hellos, "host that needed a plainer TLS hello", "hosts that needed a plainer TLS hello")
	}
	return text + "\n"
}

// Traces writes what is traced.
func Traces(s Screen, l *admin.TraceList) string {
	if len(l.Traces) == 0 {
		return "no domain is being traced\n"
	}
	p := &page{Screen: s}
	for _, t := range l.Traces {
		p.hang(t.Domain+": ", bold, none, "traced for "+span(t.Until.Sub(p.Now))+" more, until "+t.Until.Local().Format("2006-01-02 15:04:05")+"; look for msg=smtp in the log")
	}
	return p.String()
}
