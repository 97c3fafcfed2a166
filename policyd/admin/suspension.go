package admin

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/mxpipe/mxpipe/transport/suspension"
)

// SuspendedList is what is suspended.
type SuspendedList struct {
	Suspended []Suspended `json:"suspended"`
}

// Suspended is a target that is suspended.
type Suspended struct {
	// a domain, provider:NAME or transport:NAME
	Target string     `json:"target"`
	Since  time.Time  `json:"since"`
	Until  *time.Time `json:"until,omitempty"` // absent: until it is resumed
	Reason string     `json:"reason,omitempty"`
}

// NewSuspended writes what is suspended.
func NewSuspended(from []suspension.Suspension) []Suspended {
	list := []Suspended{}
	for _, s := range from {
		one := Suspended{Target: s.Target.String(), Since: s.Since.UTC(), Reason: clean(s.Reason)}
		if !s.Until.IsZero() {
			until := s.Until.UTC()
			one.Until = &until
		}
		list = append(list, one)
	}
	return list
}

// longestSuspension is the most that "for" may say.
const longestSuspension = 366 * 24 * time.Hour

func (s *Server) suspended(*http.Request) (any, error) { return s.daemon.Suspended(), nil }

func (s *Server) suspend(r *http.Request) (any, error) {
	var lasts time.Duration
	if text := r.URL.Query().Get("for"); text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil || lasts <= 0 || lasts > longestSuspension {
			return nil, refusal{http.StatusBadRequest, "for is a duration such as 30m, at most a year"}
		}
	}
	reason := r.URL.Query().Get("reason")
	if len(reason) > suspension.MaxReason {
		return nil, refusal{http.StatusBadRequest, "the reason is longer than 200 bytes"}
	}
	if err := s.daemon.Suspend(r.PathValue("target"), lasts, clean(reason)); err != nil {
		return nil, err
	}
	return s.daemon.Suspended(), nil
}

func (s *Server) resume(r *http.Request) (any, error) {
	if err := s.daemon.Resume(r.PathValue("target")); err != nil {
		return nil, err
	}
	return s.daemon.Suspended(), nil
}

// Suspended asks what is suspended.
func (c *Client) Suspended(ctx context.Context) (l SuspendedList, err error) {
	return l, c.ask(ctx, http.MethodGet, "/v1/suspension", &l)
}

// Suspend stops mail for a target, for a while or, with 0, until Resume.
func (c *Client) Suspend(ctx context.Context, target string, lasts time.Duration, reason string) (l SuspendedList, err error) {
	v := url.Values{"reason": {reason}}
	if lasts > 0 {
		v.Set("for", lasts.String())
	}
	return l, c.ask(ctx, http.MethodPut, "/v1/suspension/"+url.PathEscape(target)+"?"+v.Encode(), &l)
}

// Resume lets mail for a target go again.
func (c *Client) Resume(ctx context.Context, target string) (l SuspendedList, err error) {
	return l, c.ask(ctx, http.MethodDelete, "/v1/suspension/"+url.PathEscape(target), &l)
}
