// Package history remembers the last deliveries, so that "why was mail to
// example.org late at noon?" has an answer without a search through logs.
//
// A delivery is one entry for each result that its recipients had: the code,
// what the host said, how secure the connection was, and how long each phase
// took. The memory is bounded in entries and in bytes; the oldest go first.
// It is the daemon's, so it stays over a reload; with a directory it also
// stays over a restart: entries are appended to a file, which is written anew
// when it has twice the bytes that are kept. A torn line costs that line.
//
// Sender and recipients are people: their local parts are kept only when the
// administrator says so, their domains always.
package history

import (
	"encoding/binary"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Entry is one result of one delivery. Strings are as in the log.
type Entry struct {
	At          time.Time `json:"at"` // when it ended
	Transport   string    `json:"transport"`
	ID          string    `json:"id"` // our delivery's
	QueueID     string    `json:"queue_id,omitempty"`
	Destination string    `json:"destination"` // the domain, or the next hop
	Provider    string    `json:"provider,omitempty"`
	Host        string    `json:"host,omitempty"`
	Address     string    `json:"address,omitempty"` // the host's
	Source      string    `json:"source,omitempty"`  // ours
	Sender      string    `json:"sender,omitempty"`
	Recipients  []string  `json:"recipients,omitempty"`
	Count       int       `json:"count"` // recipients with this result
	Code        string    `json:"code"`  // D.S.N
	Text        string    `json:"text"`
	TLS         string    `json:"tls,omitempty"` // "TLS1.3"
	TLSLevel    string    `json:"tls_level,omitempty"`
	MXLevel     string    `json:"mx_level,omitempty"`
	Reused      bool      `json:"reused,omitempty"`
	Via         string    `json:"via,omitempty"` // a relay
	Took        Seconds   `json:"took_seconds"`
	Phases      []Phase   `json:"phases,omitempty"`
}

// Phase is a part of a delivery's time.
type Phase struct {
	Name string  `json:"name"`
	Took Seconds `json:"took_seconds"`
}

// Seconds is a duration that JSON has as a number of seconds.
type Seconds time.Duration

// MarshalJSON implements json.Marshaler.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(s).Seconds(), 'f', -1, 64), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Seconds) UnmarshalJSON(text []byte) error {
	f, err := strconv.ParseFloat(string(text), 64)
	*s = Seconds(math.Round(f * float64(time.Second)))
	return err
}

// Failed reports whether the recipients do not have the message.
func (e *Entry) Failed() bool { return !strings.HasPrefix(e.Code, "2") }

// Options bound a History.
type Options struct {
	Entries   int  // at most; 0: 10,000
	Memory    int  // bytes at most; 0: 16 MiB
	Addresses bool // keep local parts
}

func (o Options) filled() Options {
	if o.Entries <= 0 {
		o.Entries = 10_000
	}
	if o.Memory <= 0 {
		o.Memory = 16 << 20
	}
	return o
}

// The bounds of an entry's parts.
const (
	maxText       = 500 // bytes
	maxRecipients = 20
	maxName       = 300 // bytes of an address
)

// History is the memory. It is safe for concurrent use.
type History struct {
	mu      sync.Mutex
	o       Options
	kept    records
	scratch []byte // of the record that is being made
	total   uint64 // since New
	file    *file  // nil: not kept
}

// New makes an empty one that is kept in memory alone.
func New(o Options) *History { return &History{o: o.filled()} }

// SetOptions changes the bounds, as at a reload: what is beyond them goes.
// With Addresses taken back the local parts that are remembered go, too.
func (h *History) SetOptions(o Options) {
	h.mu.Lock()
	defer h.mu.Unlock()
	forget := h.o.Addresses && !o.Addresses
	h.o = o.filled()
	if forget {
		before := h.kept
		h.kept = records{}
		for e := range before.all() {
			e.hide()
			h.add(e)
		}
	}
	h.trim(0)
	if forget && h.file != nil {
		h.file.rewrite(h)
	}
}

// Add remembers an entry, and writes it down if the history is kept.
func (h *History) Add(e Entry) {
	e.bound()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.o.Addresses {
		e.hide()
	}
	h.add(&e)
	h.total++
	if h.file != nil {
		h.file.append(h, &e)
	}
}

// bound cuts what a stranger or a mail server may have made long.
func (e *Entry) bound() {
	e.Text = cut(e.Text, maxText)
	e.Sender = cut(e.Sender, maxName)
	if len(e.Recipients) > maxRecipients {
		e.Recipients = e.Recipients[:maxRecipients]
	}
	for i := range e.Recipients {
		e.Recipients[i] = cut(e.Recipients[i], maxName)
	}
}

func cut(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// hide takes the local parts away, and those that the server's words repeat.
func (e *Entry) hide() {
	for _, address := range append([]string{e.Sender}, e.Recipients...) {
		if local, _, ok := cutLast(address, '@'); ok {
			e.Text = withoutWord(e.Text, local)
		}
	}
	if strings.Contains(e.Text, "@") { // others' addresses
		e.Text = localParts.ReplaceAllString(e.Text, "@")
	}
	e.Sender = domainOf(e.Sender)
	var domains []string
	for _, r := range e.Recipients {
		if d := domainOf(r); d != "" && (len(domains) == 0 || domains[len(domains)-1] != d) {
			domains = append(domains, d)
		}
	}
	e.Recipients = domains
}

// localParts are what stands before the @ of addresses in a text.
var localParts = regexp.MustCompile(`[^\s<>()\[\]",;:]+@`)

// withoutWord has "…" in the place of a word, however it is capitalised.
func withoutWord(text, word string) string {
	lower, word := strings.ToLower(text), strings.ToLower(word)
	if word == "" || len(lower) != len(text) || !strings.Contains(lower, word) {
		return text
	}
	var b strings.Builder
	done := 0
	for at := 0; ; {
		i := strings.Index(lower[at:], word)
		if i < 0 {
			return b.String() + text[done:]
		}
		i += at
		if at = i + len(word); !wordAt(lower, i-1) && !wordAt(lower, at) {
			b.WriteString(text[done:i] + "…")
			done = at
		}
	}
}

// wordAt says whether a letter or a digit is at a place in a text.
func wordAt(text string, i int) bool {
	return i >= 0 && i < len(text) && (text[i] >= 'a' && text[i] <= 'z' || text[i] >= '0' && text[i] <= '9' || text[i] >= 0x80)
}

// domainOf gives "@example.org" of an address.
func domainOf(address string) string {
	_, domain, ok := cutLast(address, '@')
	if !ok {
		return ""
	}
	return "@" + domain
}

func cutLast(s string, c byte) (before, after string, ok bool) {
	if i := strings.LastIndexByte(s, c); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// add remembers an entry. The caller holds h.mu.
func (h *History) add(e *Entry) {
	h.scratch = appendRecord(h.scratch[:0], e)
	h.trim(len(h.scratch))
	h.kept.put(h.scratch)
}

// trim lets the oldest go until there is room for one of size more.
func (h *History) trim(size int) {
	more := 0
	if size > 0 {
		more = 1
		size += binary.MaxVarintLen64
	}
	for h.kept.count > 0 && (h.kept.count+more > h.o.Entries || h.kept.bytes+size > h.o.Memory) {
		h.kept.drop()
	}
}

// now gives what is remembered at this moment, to be read without h.mu.
func (h *History) now() records {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kept.copy()
}

// Stats say how much is remembered.
type Stats struct {
	Entries, MaxEntries int
	Bytes, MaxBytes     int
	Total               uint64    // entries since New
	Oldest              time.Time // that is remembered; zero: nothing is
}

// Stats gives the bounds and what of them is used.
func (h *History) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Stats{h.kept.count, h.o.Entries, h.kept.bytes, h.o.Memory, h.total, time.Time{}}
	for e := range h.kept.all() {
		s.Oldest = e.At
		break
	}
	return s
}
