package console

import (
	"fmt"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/history"
)

// History writes the last deliveries, the newest first; and where the answer
// has them, a line for each destination and provider before.
func History(s Screen, h *admin.History) string {
	p := &page{Screen: s}
	p.summary("destination", h.Destinations)
	p.summary("provider", h.Providers)
	if len(h.Entries) == 0 {
		p.b.WriteString("No delivery is remembered that matches.\n")
		return p.String()
	}
	for i := range h.Entries {
		p.entry(&h.Entries[i])
	}
	if h.More > 0 {
		p.b.WriteString(p.paint(dim, fmt.Sprintf("and %d more; --limit shows more of them", h.More)) + "\n")
	}
	return p.String()
}

// summary writes a line for each destination or provider.
func (p *page) summary(kind string, list []history.Summary) {
	if len(list) == 0 {
		return
	}
	for _, s := range list {
		c := none
		if s.Deferred+s.Refused > 0 {
			c = yellow
		}
		p.hang(kind+" "+s.Name+": ", bold, c, fmt.Sprintf("%d delivered, %d deferred, %d refused; median %s, slowest %s; last %s: %s %s",
			s.Delivered, s.Deferred, s.Refused, brief(s.Median), brief(s.Slowest), p.ago(s.LastAt), s.LastCode, s.LastText))
	}
	p.blank()
}

// entry writes one result: when, where, what, and how.
func (p *page) entry(e *history.Entry) {
	c := green
	switch {
	case strings.HasPrefix(e.Code, "5"):
		c = red
	case e.Failed():
		c = yellow
	}
	to := e.Destination
	if e.Host != "" && e.Host != e.Destination {
		to += " by " + e.Host
	}
	p.hang(e.At.UTC().Format("01-02 15:04:05")+" ", dim, none, to+" "+p.paint(c, e.Code))
	p.item("text", e.Text)
	var how []string
	if e.TLS != "" {
		how = append(how, e.TLS)
	}
	for _, level := range [][2]string{{"TLS ", e.TLSLevel}, {"MX ", e.MXLevel}, {"relay ", e.Via}, {"from ", e.Source}, {"provider ", e.Provider}} {
		if level[1] != "" {
			how = append(how, level[0]+level[1])
		}
	}
	if e.Reused {
		how = append(how, "reused connection")
	}
	p.item("how", strings.Join(how, ", "))
	took := []string{brief(e.Took) + " in all"}
	for _, phase := range e.Phases {
		took = append(took, phase.Name+" "+brief(phase.Took))
	}
	p.item("took", strings.Join(took, ", "))
	who := []string{"transport " + e.Transport}
	if e.QueueID != "" {
		who = append(who, "queue id "+e.QueueID)
	}
	if e.Sender != "" {
		who = append(who, "from "+e.Sender)
	}
	if len(e.Recipients) > 0 {
		who = append(who, "to "+strings.Join(e.Recipients, ", "))
	}
	if e.Count > 1 {
		who = append(who, count(e.Count, "recipient", "recipients"))
	}
	p.item("message", strings.Join(who, ", "))
}

// brief is a time that something took, in three digits or so.
func brief(s history.Seconds) string {
	d := time.Duration(s)
	switch {
	case d >= time.Minute:
		return span(d)
	case d >= time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return fmt.Sprintf("%dµs", d.Microseconds())
}

// Suspended writes what is stopped by hand.
func Suspended(s Screen, l *admin.SuspendedList) string {
	p := &page{Screen: s}
	if len(l.Suspended) == 0 {
		p.b.WriteString("Nothing is suspended.\n")
	}
	for _, one := range l.Suspended {
		p.suspended(&one)
	}
	return p.String()
}

func (p *page) suspended(one *admin.Suspended) {
	text := one.Target + ", since " + p.ago(one.Since)
	if one.Until != nil {
		text += ", ends " + p.in(*one.Until)
	}
	if one.Reason != "" {
		text += ": " + one.Reason
	}
	p.coloured("suspended", yellow, text)
}

// Providers writes the providers that are known.
func Providers(s Screen, l *admin.ProviderList) string {
	p := &page{Screen: s}
	for _, one := range l.Providers {
		text := one.Origin
		if len(one.MX) > 0 {
			text += ": " + strings.Join(one.MX, " ")
		}
		p.hang(pad(one.Name, 17), bold, none, text)
	}
	return p.String()
}

func (p *page) paused(one *admin.Paused) {
	text := one.Scope + " " + one.Name
	if one.Source != "" {
		text = one.Scope + " " + one.Source + " at " + one.Name
	}
	if one.Trying {
		text += ", one message tries whether it is over"
	} else {
		text += ", ends " + p.in(one.Until)
	}
	p.coloured("paused", yellow, text+": "+one.Reply)
}
