package tlsreport

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// Listed is one domain's report of one day, for the administrator.
type Listed struct {
	Domain  string    `json:"domain"`
	Day     string    `json:"day"`
	Success uint64    `json:"success"`
	Failure uint64    `json:"failure"`
	Due     time.Time `json:"due"`
	// that it was, or will be, sent to, as far as that is known
	Places []Place `json:"places,omitempty"`
}

// Place is what became of a report at one place.
type Place struct {
	URI   string    `json:"uri"`
	State State     `json:"state"`
	At    time.Time `json:"at"`
	Error string    `json:"error,omitempty"`
}

// List gives what was counted, the newest day first.
func (r *Reporter) List() (list []Listed) {
	r.settle()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, day := range r.journal.Days() {
		counts := r.journal.Counts(day)
		for _, domain := range counts.Domains() {
			l := Listed{Domain: domain, Day: day.Format(time.DateOnly), Due: due(domain, day)}
			l.Success, l.Failure = counts.Sessions(domain)
			for _, a := range r.ledger.places[of{l.Day, domain}] {
				l.Places = append(l.Places, Place{a.URI, a.State, a.At, a.Error})
			}
			slices.SortFunc(l.Places, func(a, b Place) int { return cmp.Compare(a.URI, b.URI) })
			list = append(list, l)
		}
	}
	return list
}

// ErrNothing says that no session with the domain was counted on that day.
var ErrNothing = errors.New("no session was counted")

// Show gives a domain's report as it would be sent now.
func (r *Reporter) Show(domain string, day time.Time) (*Report, error) {
	r.settle()
	r.mu.Lock()
	defer r.mu.Unlock()
	if report := NewReport(r.cfg.Sender, domain, day, r.journal.Counts(day)); report != nil {
		return report, nil
	}
	return nil, ErrNothing
}

// SendNow sends the last whole day's report of a domain, or of all when it is
// empty, as far as it is unsent. It waits for that, at most until ctx ends;
// what is being sent goes on then.
func (r *Reporter) SendNow(ctx context.Context, domain string) (failed error) {
	r.settle()
	day := startOf(r.cfg.Now().Add(-24 * time.Hour))
	r.mu.Lock()
	domains := r.journal.Counts(day).Domains()
	r.mu.Unlock()
	found := false
	for _, d := range domains {
		if domain != "" && domain != d {
			continue
		}
		if ctx.Err() != nil {
			return errors.Join(failed, context.Cause(ctx))
		}
		found = true
		failed = errors.Join(failed, r.sendReport(job{d, day}, true))
	}
	if !found {
		return ErrNothing
	}
	return failed
}
