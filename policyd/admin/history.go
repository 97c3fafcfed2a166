package admin

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/mxpipe/mxpipe/policyd/history"
)

// HistoryQuery chooses deliveries. The zero value chooses all.
type HistoryQuery struct {
	// a domain, ".example" for those below it, a host, a provider, a queue id
	// or our id
	What    string
	Failed  bool          // only what was not delivered
	Since   time.Duration // before now; 0: as far as it goes
	Limit   int           // entries; 0: all
	Summary bool          // also by destination, provider, minute and level
}

// History is the last deliveries, the newest first.
type History struct {
	Entries []history.Entry `json:"entries"`
	// that the limit leaves out
	More         int               `json:"more,omitempty"`
	Destinations []history.Summary `json:"destinations,omitempty"`
	Providers    []history.Summary `json:"providers,omitempty"`
	Total        *history.Summary  `json:"total,omitempty"`   // absent: none
	Minutes      []history.Minute  `json:"minutes,omitempty"` // the last hour
	Levels       []Level           `json:"levels,omitempty"`
}

// HistorySize is how much is remembered of deliveries.
type HistorySize struct {
	Entries    int `json:"entries"`
	MaxEntries int `json:"max_entries"`
	Bytes      int `json:"bytes"`
	MaxBytes   int `json:"max_bytes"`
	// from when the oldest is
	Oldest *time.Time `json:"oldest,omitempty"`
}

// Level is how many delivered messages reached a level of TLS and MX.
type Level struct {
	Name     string `json:"name"` // "authenticated, MX dnssec"
	Messages int    `json:"messages"`
}

// maxHistory bounds the entries of one answer.
const maxHistory = 10_000

// NewHistory asks a history.
func NewHistory(h *history.History, q HistoryQuery, now time.Time) History {
	query := history.Query{What: q.What, Failed: q.Failed, Limit: q.Limit}
	if q.Since > 0 {
		query.Since = now.Add(-q.Since)
	}
	if query.Limit <= 0 || query.Limit > maxHistory {
		query.Limit = maxHistory
	}
	a := History{Entries: []history.Entry{}}
	entries, more := h.Find(query)
	a.Entries, a.More = append(a.Entries, entries...), more
	if q.Summary {
		a.Destinations, a.Providers = h.Summarise(query, history.ByDestination), h.Summarise(query, history.ByProvider)
		if all := h.Summarise(query, history.Together); len(all) > 0 {
			a.Total = &all[0]
		}
		a.Minutes, a.Levels = h.Minutes(now, 60), []Level{}
		for _, l := range h.Levels(query) {
			a.Levels = append(a.Levels, Level{l.Name, l.Messages})
		}
	}
	return a
}

// historyOf reads a request's query.
func (s *Server) history(r *http.Request) (any, error) {
	v := r.URL.Query()
	q := HistoryQuery{What: v.Get("what")}
	var err error
	for name, read := range map[string]func(string) error{
		"failed":  func(text string) (err error) { q.Failed, err = strconv.ParseBool(text); return err },
		"summary": func(text string) (err error) { q.Summary, err = strconv.ParseBool(text); return err },
		"limit":   func(text string) (err error) { q.Limit, err = strconv.Atoi(text); return err },
		"since":   func(text string) (err error) { q.Since, err = time.ParseDuration(text); return err },
	} {
		if text := v.Get(name); text != "" {
			if err = read(text); err != nil {
				return nil, refusal{http.StatusBadRequest, name + ": " + err.Error()}
			}
		}
	}
	return s.daemon.History(q), nil
}

// History asks for the last deliveries.
func (c *Client) History(ctx context.Context, q HistoryQuery) (h History, err error) {
	v := url.Values{"what": {q.What}, "failed": {strconv.FormatBool(q.Failed)}, "summary": {strconv.FormatBool(q.Summary)}, "limit": {strconv.Itoa(q.Limit)}}
	if q.Since > 0 {
		v.Set("since", q.Since.String())
	}
	return h, c.ask(ctx, http.MethodGet, "/v1/history?"+v.Encode(), &h)
}
