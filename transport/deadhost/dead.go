package deadhost

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/mxpipe/mxpipe/cache"
)

const (
	// maxCause bounds the text of a cause, in bytes.
	maxCause = 200
	// hostCost is what a host takes beside its name and cause, in bytes, and
	// maxName bounds the name, port included.
	hostCost = 320
	maxName  = 261
)

// Usage is how much the hosts take that are remembered, in bytes: dead ones,
// and those that answered lately.
func (h *Hosts) Usage() cache.Usage {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := cache.Usage{Entries: len(h.byName), MaxBytes: int64(h.o.Size) * (hostCost + maxName + maxCause)}
	for name, e := range h.byName {
		u.Bytes += hostCost + int64(len(name)+len(e.cause))
	}
	return u
}

// Dead is why a host is not tried. The caller defers the mail (4.4.1) when no
// other host takes it; the text is for the mail server's log and its bounces.
type Dead struct {
	Host  string
	Since time.Time // when it was found dead, or the attempt under way began
	// when it may be tried again; zero when it only has been silent so far
	Until time.Time
	// of the last failure; one printable line; empty when it only has been
	// silent so far
	Cause    string
	Failures int  // in a row; 0 when it only has been silent so far
	Trying   bool // an attempt is under way

	now time.Time
}

// Error gives the line for people. It is about the moment at which the error
// was made.
func (d *Dead) Error() string {
	ago := span(d.now.Sub(d.Since))
	if d.Failures == 0 {
		return fmt.Sprintf("%s: no answer to the current attempt for %s", d.Host, ago)
	}
	text := fmt.Sprintf("%s could not be reached %s ago", d.Host, ago)
	if d.Failures > 1 {
		text = fmt.Sprintf("%s cannot be reached for %s", d.Host, ago)
	}
	if d.Cause != "" {
		text += " (" + d.Cause + ")"
	}
	return text + ", " + d.next()
}

// Moment says since when, and until when, no mail is sent there: what differs
// from one message to the next.
func (d *Dead) Moment() string {
	since := span(d.now.Sub(d.Since))
	if d.Failures == 0 {
		return "for " + since
	}
	return "not tried since " + since + ", " + d.next()
}

// next says when it is tried again.
func (d *Dead) next() string {
	switch {
	case d.Trying:
		return "being tried again now"
	case d.Until.After(d.now):
		return "next attempt in " + span(d.Until.Sub(d.now))
	}
	return "to be tried again with the next message"
}

// span is a duration in whole seconds, rounded up.
func span(d time.Duration) string {
	return ((d + time.Second - 1) / time.Second * time.Second).String()
}

// dead describes a host at a moment.
func (e *host) dead(now time.Time) *Dead {
	d := &Dead{Host: e.name, Trying: e.pending > 0, now: now}
	if e.failures == 0 {
		d.Since = e.since
		return d
	}
	d.Since, d.Until, d.Cause, d.Failures = e.deadFrom, e.until, e.cause, e.failures
	return d
}

// clean makes one short printable line of an error, which may hold what a
// stranger sent.
func clean(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if len(text) > maxCause {
		text = text[:maxCause]
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, text)
}
