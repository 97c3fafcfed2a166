package delivery

import (
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport/replyrule"
	"github.com/mxpipe/mxpipe/transport/status"
)

// What asks for fewer connections, and what does not, in many servers' words.
func TestTooMany(t *testing.T) {
	rules, err := replyrule.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"421 4.7.0 Too many connections from your host":              true,
		"421 4.3.2 too many concurrent SMTP connections":             true,
		"451 4.7.1 Rate limit exceeded for this sender":              true,
		"421 4.7.28 connection rate limit exceeded":                  true,
		"421 4.3.2 the maximum number of sessions has been exceeded": true,
		"421 4.7.0 too many simultaneous sessions, come back later":  true,
		// said of the message, by that code
		"450 4.7.1 too many connections":                               false,
		"550 5.7.1 too many connections":                               false,
		"421 4.3.2 closing the connection for maintenance":             false,
		"451 4.3.0 mailbox temporarily not available":                  false,
		"250 2.0.0 queued as Too many connections":                     false,
		"mx1.example: dial tcp 192.0.2.1:421: connection limit (ours)": false,
	} {
		v := &hostDelivery{Delivery: &Delivery{cfg: &Config{Traffic: Traffic{Rules: rules}}}, provider: "example.org"}
		rule, _ := v.rule([]*recipient{{result: &status.Error{Code: status.New(status.Temporary, 4, 1), Text: text}}})
		if got := rule != nil && rule.Do == replyrule.Slow; got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// While another host is left one has 30 seconds to be connected to; the last
// has what is left of connect_timeout, and none has more than that.
func TestBudget(t *testing.T) {
	for _, tt := range []struct {
		timeout, spent time.Duration
		last           bool
		want           time.Duration
	}{
		{5 * time.Minute, 0, false, 30 * time.Second},
		{5 * time.Minute, time.Minute, false, 30 * time.Second},
		{5 * time.Minute, time.Minute, true, 4 * time.Minute},
		{20 * time.Second, 5 * time.Second, false, 15 * time.Second},
		{20 * time.Second, 5 * time.Second, true, 15 * time.Second},
	} {
		d := &Delivery{cfg: &Config{ConnectTimeout: tt.timeout}}
		if got := d.budget(tt.spent, tt.last); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}
