package web

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/history"
	"github.com/mxpipe/mxpipe/transport"
)

// Daemon is what the page asks, and what it can change. *admin.Client is one.
type Daemon interface {
	Status(ctx context.Context) (admin.Status, error)
	Explain(ctx context.Context, name string, q *transport.Question) (*admin.Explanation, error)
	History(ctx context.Context, q admin.HistoryQuery) (admin.History, error)
	Suspend(ctx context.Context, target string, lasts time.Duration, reason string) (admin.SuspendedList, error)
	Resume(ctx context.Context, target string) (admin.SuspendedList, error)
	Flush(ctx context.Context, domain string) (admin.Flushed, error)
	Trace(ctx context.Context, domain string, lasts time.Duration) (admin.TraceList, error)
	Untrace(ctx context.Context, domain string) (admin.TraceList, error)
	CacheList(ctx context.Context) (admin.CacheList, error)
}

// overview is what the page shows at a glance.
type overview struct {
	Status       admin.Status      `json:"status"`
	Minutes      []history.Minute  `json:"minutes"`
	Total        *history.Summary  `json:"total"` // null: nothing
	Destinations []history.Summary `json:"destinations"`
	Providers    []history.Summary `json:"providers"`
	Levels       []admin.Level     `json:"levels"`
	Last         []history.Entry   `json:"last"`
	At           time.Time         `json:"at"`
}

const (
	rows  = 200 // of a table
	lasts = 100 // entries of the history
	feed  = 12  // entries at a glance
)

func (s *Server) overview(w http.ResponseWriter, r *http.Request) {
	status, err := s.daemon.Status(r.Context())
	if err != nil {
		answer(w, nil, err)
		return
	}
	past, err := s.daemon.History(r.Context(), admin.HistoryQuery{Since: time.Hour, Limit: feed, Summary: true})
	o := overview{Status: status, Total: past.Total, Minutes: past.Minutes, Levels: past.Levels, Last: past.Entries, At: time.Now().UTC()}
	o.Destinations, o.Providers = head(past.Destinations), head(past.Providers)
	answer(w, o, err)
}

func head(list []history.Summary) []history.Summary { return list[:min(len(list), rows)] }

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	domain := strings.TrimSpace(q.Get("domain"))
	question := transport.Question{Domain: domain}
	if at := strings.LastIndexByte(domain, '@'); at >= 0 { // a recipient
		question.Domain, question.To = domain[at+1:], domain
	}
	if question.Domain == "" || len(domain) > 300 {
		refuse(w, "which domain?")
		return
	}
	if connect, _ := strconv.ParseBool(q.Get("connect")); connect || question.To != "" {
		question.Depth = transport.Connect
	}
	if err := question.Check(); err != nil {
		refuse(w, err.Error())
		return
	}
	e, err := s.daemon.Explain(r.Context(), q.Get("transport"), &question)
	answer(w, e, err)
}

func (s *Server) history(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	query := admin.HistoryQuery{What: strings.TrimSpace(q.Get("what")), Limit: lasts}
	query.Failed, _ = strconv.ParseBool(q.Get("failed"))
	if seconds, _ := strconv.Atoi(q.Get("seconds")); seconds > 0 {
		query.Since = min(time.Duration(seconds), maxSeconds) * time.Second
	}
	past, err := s.daemon.History(r.Context(), query)
	answer(w, past, err)
}

// policies is the MTA-STS policies that are remembered.
type policies struct {
	Policies []admin.CachedPolicy `json:"policies"`
	Matching int                  `json:"matching"` // that match, shown or not
	All      int                  `json:"all"`
}

func (s *Server) policies(w http.ResponseWriter, r *http.Request) {
	list, err := s.daemon.CacheList(r.Context())
	what := strings.ToLower(strings.TrimSpace(r.URL.Query().Get("what")))
	p := policies{Policies: []admin.CachedPolicy{}, All: len(list.Policies)}
	for _, one := range list.Policies {
		if !strings.Contains(one.Domain, what) {
			continue
		}
		if p.Matching++; p.Matching <= rows {
			p.Policies = append(p.Policies, one)
		}
	}
	answer(w, p, err)
}

// maxSeconds is the longest time that is asked for, a year.
const maxSeconds = 366 * 24 * 3600

// change is the body of a POST.
type change struct {
	Target  string  `json:"target"`
	Seconds float64 `json:"seconds"` // 0: until it is resumed
	Reason  string  `json:"reason"`
}

// read reads a change; !ok means that it was refused.
func read(w http.ResponseWriter, r *http.Request) (c change, ok bool) {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if r.Header.Get("Content-Type") != "application/json" || d.Decode(&c) != nil || c.Target == "" ||
		len(c.Target) > 300 || len(c.Reason) > 200 || c.Seconds < 0 || c.Seconds > maxSeconds {
		refuse(w, "no such request")
		return c, false
	}
	return c, true
}

func (c *change) lasts() time.Duration { return time.Duration(c.Seconds * float64(time.Second)) }

func (s *Server) suspend(w http.ResponseWriter, r *http.Request) {
	if c, ok := read(w, r); ok {
		list, err := s.daemon.Suspend(r.Context(), c.Target, c.lasts(), c.Reason)
		answer(w, list, err)
	}
}

func (s *Server) resume(w http.ResponseWriter, r *http.Request) {
	if c, ok := read(w, r); ok {
		list, err := s.daemon.Resume(r.Context(), c.Target)
		answer(w, list, err)
	}
}

func (s *Server) flush(w http.ResponseWriter, r *http.Request) {
	if c, ok := read(w, r); ok {
		flushed, err := s.daemon.Flush(r.Context(), c.Target)
		answer(w, flushed, err)
	}
}

func (s *Server) trace(w http.ResponseWriter, r *http.Request) {
	if c, ok := read(w, r); ok {
		list, err := s.daemon.Trace(r.Context(), c.Target, c.lasts())
		answer(w, list, err)
	}
}

func (s *Server) untrace(w http.ResponseWriter, r *http.Request) {
	if c, ok := read(w, r); ok {
		list, err := s.daemon.Untrace(r.Context(), c.Target)
		answer(w, list, err)
	}
}
