package console

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/transport/limit"
)

// Status writes what a daemon is doing. On a Screen with a Height it has at
// most so many lines.
func Status(s Screen, st *admin.Status) string {
	p := &page{Screen: s}
	p.hang("mxpolicyd "+st.Version+": ", bold, none, fmt.Sprintf("process %d, up %s, configuration loaded %s UTC",
		st.PID, span(p.Now.Sub(st.Started)), st.Configured.UTC().Format(time.DateTime)))
	if st.Rejected != nil {
		p.coloured("", red, "the configuration read "+p.ago(*st.Rejected)+" has mistakes and is not in use: see the log, or run mxpolicyd check-config")
	}
	for _, w := range st.Warnings {
		p.coloured("warning", red, w)
	}
	p.item("messages", fmt.Sprintf("%d of %d in progress", st.Messages, st.MaxDeliveries))
	if st.Overdue > 0 {
		p.coloured("", red, count(st.Overdue, "delivery", "deliveries")+" overdue: past every time limit")
	}
	p.item("DNS", fmt.Sprintf("%s; %s cached in %s of %s, %s from the cache, %s", strings.Join(st.Resolver.Servers, ", "),
		count(st.Resolver.Entries, "answer", "answers"), size(st.Resolver.Bytes), size(st.Resolver.MaxBytes), share(st.Resolver.Hits, st.Resolver.Misses), numbered(st.Resolver.Failures, "failure", "failures")))
	for _, c := range st.Policies {
		place := "in memory"
		if c.Dir != "" {
			place = c.Dir
		}
		text := fmt.Sprintf("%s known, %s from the cache, %s, %s (%s)", count(c.Domains, "domain", "domains"), share(c.Hits, c.Lookups-min(c.Hits, c.Lookups)),
			numbered(c.Fetches, "fetch", "fetches"), numbered(c.Failures, "failure", "failures"), place)
		if c.Store > 0 {
			p.coloured("MTA-STS", yellow, text+fmt.Sprintf(", %s", numbered(c.Store, "disk error", "disk errors")))
			continue
		}
		p.item("MTA-STS", text)
	}
	for i := range st.Suspended {
		p.suspended(&st.Suspended[i])
	}
	for i := range st.Pauses {
		p.paused(&st.Pauses[i])
	}
	p.item("history", fmt.Sprintf("%s remembered, %.1f of %.0f MiB", count(st.History.Entries, "result", "results"), float64(st.History.Bytes)/(1<<20), float64(st.History.MaxBytes)/(1<<20)))
	if r := st.TLSReports; r != nil {
		c := none
		if r.Waiting > 0 || r.Lost > 0 {
			c = yellow
		}
		p.coloured("TLS reports", c, fmt.Sprintf("%s counted today, %s sent, %s failed, %d waiting, %s not counted", count(r.Domains, "domain", "domains"),
			numbered(r.Sent, "report", "reports"), numbered(r.Failed, "try", "tries"), r.Waiting, numbered(r.Lost, "session", "sessions")))
	}
	if text := memory(st.Memory); text != "" {
		p.item("memory", text)
	}
	for _, t := range st.Traces {
		p.coloured("traced", yellow, t.Domain+", for "+span(t.Until.Sub(p.Now))+" more")
	}
	for i := range st.Transports {
		p.blank()
		p.transport(&st.Transports[i])
	}
	return p.cut()
}

// memory writes what is remembered or held beside what has a line of its own.
func memory(all []admin.Memory) string {
	var words []string
	for _, m := range all {
		if m.Bytes > 0 && m.Name != "dns" && m.Name != "history" {
			words = append(words, fmt.Sprintf("%s %s of %s", m.Name, size(m.Bytes), size(m.MaxBytes)))
		}
	}
	return strings.Join(words, ", ")
}

// InPlace has a text take the place of what a terminal shows. Elsewhere it
// stands as it is.
func InPlace(s Screen, text string) string {
	if s.Height == 0 {
		return text
	}
	// Each line is cleared as it is written, so that nothing flickers.
	return "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
}

// cut leaves out what does not fit on the screen.
func (p *page) cut() string {
	lines := strings.SplitAfter(p.String(), "\n")
	if p.Height < 2 || len(lines) <= p.Height {
		return p.String()
	}
	return strings.Join(lines[:p.Height-2], "") + p.paint(dim, "... more than fits on the screen") + "\n"
}

// Bounds on what is listed of each thing.
const (
	maxDeliveries = 10
	maxHosts      = 5
	maxSources    = 20
)

func (p *page) transport(t *admin.Transport) {
	name := "transport " + t.Name
	if t.Former {
		name += " (previous configuration)"
	}
	p.hang(name+": ", bold, none, fmt.Sprintf("%s in progress, %s; connection reused for %s",
		count(len(t.Deliveries), "delivery", "deliveries"), count(t.Idle, "idle connection", "idle connections"), share(t.Reused, t.Missed)))
	for i, d := range t.Deliveries {
		if i == maxDeliveries {
			p.item("", fmt.Sprintf("and %d more", len(t.Deliveries)-i))
			break
		}
		to := d.Destination
		if d.Host != "" {
			to += " at " + d.Host
		}
		id := d.QueueID
		if id == "" {
			id = d.ID
		}
		p.item(id, fmt.Sprintf("to %s, %s, for %s", to, count(d.Recipients, "recipient", "recipients"), span(p.Now.Sub(d.Since))))
	}
	var idle []string
	for _, h := range t.Hosts {
		idle = append(idle, fmt.Sprintf("%s:%d (%d)", h.Host, h.Port, h.Count))
	}
	if len(idle) > 0 {
		p.item("idle", some(idle, maxHosts))
	}
	for i, d := range t.Dead {
		if i == maxHosts {
			p.coloured("", red, fmt.Sprintf("and %d more", len(t.Dead)-i))
			break
		}
		p.coloured("dead", red, d.Text)
	}
	for _, h := range t.Slowed {
		p.coloured("slowed", yellow, fmt.Sprintf("%s: limited to %d connections, %d open, %d waiting", h.Host, h.Allowed, h.Open, h.Waiting))
	}
	for i, h := range t.Hellos {
		if i == maxHosts {
			p.item("", fmt.Sprintf("and %d more", len(t.Hellos)-i))
			break
		}
		p.item("TLS hello", fmt.Sprintf("%s: %s, TLS %s, for %s more", h.Host, h.Hello, h.Floor, span(h.Until.Sub(p.Now))))
	}
	for i := range t.Sources {
		if i == maxSources {
			p.item("", fmt.Sprintf("and %d more", len(t.Sources)-i))
			break
		}
		p.source(&t.Sources[i])
	}
	for _, l := range t.Limits {
		scope := l.Scope
		if l.Override != "" {
			scope += " of " + l.Override
		}
		p.item("limit", fmt.Sprintf("%s: %s%d in use, %d waiting, %d deferred by limit", scope, tracked(l), l.Open, l.Waiting, l.Late))
	}
}

// source writes an address that mail leaves from.
func (p *page) source(s *admin.Source) {
	text := strings.Join(s.Addresses, ", ")
	if s.Hostname != "" {
		text += " as " + s.Hostname
	}
	if s.Override != "" {
		text += ", of " + s.Override
	}
	text += ", weight " + strconv.Itoa(s.Weight)
	if s.Daily > 0 {
		text += fmt.Sprintf(", %d of %d messages sent today (UTC)", s.Sent, s.Daily)
	}
	switch {
	case s.Out != "":
		p.coloured("source", red, text+"; left out: "+s.Out)
	case s.Daily > 0 && s.Sent >= s.Daily:
		p.coloured("source", yellow, text)
	default:
		p.item("source", text)
	}
}

// tracked is how many keys of a scope the limit counts for.
func tracked(l admin.LimitState) string {
	for scope := range limit.Scopes {
		if scope != limit.All && scope.Word() == l.Scope {
			return count(l.Keys, scope.String(), plural(scope.String())) + ", "
		}
	}
	return ""
}

// plural is that of a regular noun.
func plural(noun string) string {
	if strings.HasSuffix(noun, "s") {
		return noun + "es"
	}
	return noun + "s"
}

// share is a number out of all.
func share(part, rest uint64) string { return fmt.Sprintf("%d of %d", part, part+rest) }

func numbered(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// size gives a number of bytes in few digits, as in "3.4 MiB".
func size(bytes int64) string {
	unit, amount := 0, float64(bytes)
	for ; amount >= 1000 && unit < 4; unit++ {
		amount /= 1024
	}
	digits := 0
	if unit > 0 && amount < 10 {
		digits = 1
	}
	return strconv.FormatFloat(amount, 'f', digits, 64) + " " + [...]string{"B", "KiB", "MiB", "GiB", "TiB"}[unit]
}
