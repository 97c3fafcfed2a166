package smtp

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// send runs a transaction and holds its report to the table of Ending.
func send(t *testing.T, ctx context.Context, s *Session, tx *Transaction) *Report {
	t.Helper()
	report := s.Send(ctx, tx)
	if err := report.check(); err != nil {
		t.Errorf("no legal state: %v", err)
	}
	return report
}

// check finds what breaks the table of Ending.
func (r *Report) check() error {
	final := r.Final.Code != 0
	refused := r.Final.Temporary() || r.Final.Permanent()
	switch r.Ending {
	case Answered, Closing:
		if r.Err != nil {
			return fmt.Errorf("%v with %w", r.Ending, r.Err)
		}
		return nil
	case Early:
		if r.Err != nil || !refused {
			return fmt.Errorf("early with %q and %v", r.Final.Text(), r.Err)
		}
		return nil
	case CutOff, Spoiled, Lost, Ended, OutOfStep:
		if r.Err == nil || final {
			return fmt.Errorf("%v with %q and %v", r.Ending, r.Final.Text(), r.Err)
		}
	default:
		return errors.New(r.Ending.String())
	}
	if r.Ending == Ended || r.Ending == OutOfStep {
		said := r.Mail.Code + r.Data.Code
		for _, rcpt := range r.Rcpts {
			said += rcpt.Code
		}
		if said != 0 {
			return fmt.Errorf("%v with replies", r.Ending)
		}
	}
	return nil
}
