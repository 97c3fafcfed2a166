package delivery

import (
	"errors"
	"fmt"
	"testing"

	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/status"
)

// Whatever a report says, also one that there should never be: a success is
// what the server accepted in all of its replies, a refusal for good is one
// that the server said, and everything else is temporary.
func TestDecide(t *testing.T) {
	codes := []int{0, 250, 421, 450, 550}
	endings := []smtp.Ending{smtp.Lost, smtp.Answered, smtp.Closing, smtp.Early, smtp.CutOff, smtp.Spoiled, smtp.Ended, smtp.OutOfStep}
	cells := 0
	for _, ending := range endings {
		for _, err := range []error{nil, errors.New("broken")} {
			for _, mail := range codes {
				for _, rcpt := range codes {
					for _, other := range []int{0, 250, 421, 550} {
						for _, data := range []int{0, 354, 550} {
							for _, final := range codes {
								cells++
								said := func(code int) reply.Reply {
									if code == 0 {
										return reply.Reply{}
									}
									return reply.Reply{Code: code, Lines: []string{"text"}}
								}
								report := &smtp.Report{
									Ending: ending, Err: err, Stage: outcome.Final,
									Mail: said(mail), Rcpts: []reply.Reply{said(rcpt), said(other)}, Data: said(data), Final: said(final),
								}
								name := func() string {
									return fmt.Sprintf("%v, %v, MAIL %d, RCPT %d and %d, DATA %d, message %d", ending, err, mail, rcpt, other, data, final)
								}
								decision, _ := decide(report, 0)
								whole := ending == smtp.Answered || ending == smtp.Closing
								switch decision.Code.Class {
								case status.Success:
									if !whole || err != nil || final != 250 || rcpt != 250 || mail != 250 {
										t.Errorf("%s: %v", name(), decision)
									}
								case status.Permanent:
									if mail != 550 && rcpt != 550 && data != 550 && final != 550 {
										t.Errorf("%s: %v", name(), decision)
									}
								}
							}
						}
					}
				}
			}
		}
	}
	if decision, _ := decide(&smtp.Report{Rcpts: make([]reply.Reply, 1)}, 0); decision.Code.Class != status.Temporary {
		t.Errorf("a report that nobody completed: %v", decision)
	}
	t.Logf("%d reports", cells)
}
