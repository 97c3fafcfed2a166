package history

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Query chooses entries. The zero Query chooses all.
type Query struct {
	// What is a domain, a host, or a provider, as the entry has it; a domain
	// that begins with a dot stands for all below it. Empty: any.
	What   string
	Failed bool      // only what was not delivered
	Since  time.Time // zero: as far as it goes
	Limit  int       // entries at most; 0: all
}

// Find gives the entries that match, the newest first, and how many more there
// are than the limit lets through.
func (h *History) Find(q Query) (list []Entry, more int) {
	kept := h.now()
	for e := range kept.since(q.Since) {
		if q.matches(e) {
			list = append(list, *e)
		}
	}
	slices.Reverse(list)
	if q.Limit > 0 && len(list) > q.Limit {
		list, more = slices.Clone(list[:q.Limit]), len(list)-q.Limit
	}
	return list, more
}

func (q *Query) matches(e *Entry) bool {
	switch {
	case q.Failed && !e.Failed():
		return false
	case q.What == "":
		return true
	case strings.HasPrefix(q.What, "."):
		return strings.HasSuffix(e.Destination, q.What) || strings.HasSuffix(e.Host, q.What)
	}
	if q.What == e.Destination || q.What == e.Host || q.What == e.Provider || q.What == e.QueueID || q.What == e.ID {
		return true
	}
	// A relay's mail is for many domains.
	return e.Via != "" && slices.ContainsFunc(e.Recipients, func(r string) bool { return strings.HasSuffix(r, "@"+q.What) })
}

// Summary is what was seen of one destination or provider.
type Summary struct {
	Name      string  `json:"name"`
	Messages  int     `json:"messages"` // entries
	Delivered int     `json:"delivered"`
	Deferred  int     `json:"deferred"`
	Refused   int     `json:"refused"`
	Median    Seconds `json:"median_seconds"` // of Took
	Slowest   Seconds `json:"slowest_seconds"`
	Reused    int     `json:"reused"` // over a connection that was there
	// the last host that it came to, and whose that is
	LastHost     string    `json:"last_host,omitempty"`
	LastProvider string    `json:"last_provider,omitempty"`
	LastCode     string    `json:"last_code"`
	LastText     string    `json:"last_text"`
	LastAt       time.Time `json:"last_at"`
}

// Group is what a summary is made by.
type Group uint8

// The groups.
const (
	ByDestination Group = iota
	ByProvider
	Together // all in one, without a name
)

// Summarise gives a summary for each destination, or provider, among the
// entries that match, the one with most failures first.
func (h *History) Summarise(q Query, by Group) []Summary {
	kept := h.now()
	index := map[string]int{}
	var list []Summary
	var took [][]Seconds
	for e := range kept.since(q.Since) {
		if !q.matches(e) {
			continue
		}
		name := ""
		switch by {
		case ByDestination:
			name = e.Destination
		case ByProvider:
			name = e.Provider
		}
		if name == "" && by != Together {
			continue // it came to no host
		}
		n, ok := index[name]
		if !ok {
			n = len(list)
			index[name] = n
			list, took = append(list, Summary{Name: name}), append(took, nil)
		}
		s := &list[n]
		s.Messages++
		switch e.Code[:min(1, len(e.Code))] {
		case "2":
			s.Delivered++
		case "5":
			s.Refused++
		default:
			s.Deferred++
		}
		if e.Reused {
			s.Reused++
		}
		if e.Host != "" {
			s.LastHost, s.LastProvider = e.Host, e.Provider
		}
		took[n] = append(took[n], e.Took)
		s.LastCode, s.LastText, s.LastAt = e.Code, e.Text, e.At
	}
	for n := range list {
		slices.Sort(took[n])
		list[n].Median, list[n].Slowest = took[n][len(took[n])/2], took[n][len(took[n])-1]
	}
	slices.SortFunc(list, func(a, b Summary) int {
		return cmp.Or(cmp.Compare(b.Deferred+b.Refused, a.Deferred+a.Refused), cmp.Compare(b.Messages, a.Messages), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// Minute is what was delivered in one minute, for a chart.
type Minute struct {
	At        time.Time `json:"at"`
	Delivered int       `json:"delivered"`
	Deferred  int       `json:"deferred"`
	Refused   int       `json:"refused"`
	Median    Seconds   `json:"median_seconds"`
	Slowest   Seconds   `json:"slowest_seconds"`
}

// Minutes gives the last n minutes before now, the oldest first.
func (h *History) Minutes(now time.Time, n int) []Minute {
	start := now.Truncate(time.Minute).Add(-time.Duration(n-1) * time.Minute)
	list, took := make([]Minute, n), make([][]Seconds, n)
	for i := range list {
		list[i].At = start.Add(time.Duration(i) * time.Minute)
	}
	kept := h.now()
	for e := range kept.since(start) {
		m := int(e.At.Sub(start) / time.Minute)
		if m >= n {
			continue
		}
		switch {
		case !e.Failed():
			list[m].Delivered++
		case strings.HasPrefix(e.Code, "5"):
			list[m].Refused++
		default:
			list[m].Deferred++
		}
		took[m] = append(took[m], e.Took)
	}
	for i, t := range took {
		if len(t) > 0 {
			slices.Sort(t)
			list[i].Median, list[i].Slowest = t[len(t)/2], t[len(t)-1]
		}
	}
	return list
}

// Level is how secure deliveries were.
type Level struct {
	Name     string // "authenticated, MX dnssec"
	Messages int
}

// Levels counts the delivered entries that match by the levels of TLS and MX
// that they reached, the most frequent first.
func (h *History) Levels(q Query) []Level {
	kept := h.now()
	counts := map[string]int{}
	for e := range kept.since(q.Since) {
		if q.matches(e) && !e.Failed() {
			counts[cmp.Or(e.TLSLevel, "none")+", MX "+cmp.Or(e.MXLevel, "none")]++
		}
	}
	list := make([]Level, 0, len(counts))
	for name, n := range counts {
		list = append(list, Level{name, n})
	}
	slices.SortFunc(list, func(a, b Level) int {
		return cmp.Or(cmp.Compare(b.Messages, a.Messages), cmp.Compare(a.Name, b.Name))
	})
	return list
}
