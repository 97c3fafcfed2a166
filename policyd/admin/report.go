package admin

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/mxpipe/mxpipe/policyd/tlsreport"
)

// ReportList is the TLS reports that are counted, with what became of them.
type ReportList struct {
	Reports []tlsreport.Listed `json:"reports"`
}

func (s *Server) reports(*http.Request) (any, error) {
	list, err := s.daemon.Reports()
	return ReportList{append([]tlsreport.Listed{}, list...)}, err
}

func (s *Server) report(r *http.Request) (any, error) {
	domain, err := domainOf(r)
	if err != nil {
		return nil, err
	}
	day := time.Now()
	if text := r.URL.Query().Get("day"); text != "" {
		if day, err = time.Parse(time.DateOnly, text); err != nil {
			return nil, refusal{http.StatusBadRequest, "day is a date such as 2026-11-30"}
		}
	}
	return s.daemon.Report(domain, day)
}

func (s *Server) sendReport(r *http.Request) (any, error) {
	domain := ""
	if r.PathValue("domain") != "" {
		var err error
		if domain, err = domainOf(r); err != nil {
			return nil, err
		}
	}
	if err := s.daemon.SendReport(r.Context(), domain); err != nil {
		return nil, err
	}
	return s.reports(r)
}

// Reports asks for the TLS reports that are counted.
func (c *Client) Reports(ctx context.Context) (l ReportList, err error) {
	return l, c.ask(ctx, http.MethodGet, "/v1/reports", &l)
}

// Report asks for a domain's report of a day, such as "2026-11-30"; empty:
// today's, as far as it goes.
func (c *Client) Report(ctx context.Context, domain, day string) (r tlsreport.Report, err error) {
	return r, c.ask(ctx, http.MethodGet, "/v1/reports/"+url.PathEscape(domain)+"?"+url.Values{"day": {day}}.Encode(), &r)
}

// SendReport has the last whole day's report of a domain sent, or all of them
// for an empty one, as far as they are unsent.
func (c *Client) SendReport(ctx context.Context, domain string) (l ReportList, err error) {
	path := "/v1/reports"
	if domain != "" {
		path += "/" + url.PathEscape(domain)
	}
	return l, c.ask(ctx, http.MethodPost, path, &l)
}
