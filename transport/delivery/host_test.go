package delivery

import "testing"

func TestIsTooMany(t *testing.T) {
	for text, want := range map[string]bool{
		"421 4.7.0 Too many connections from your host":                true,
		"421 4.3.2 too many concurrent SMTP connections":               true,
		"451 4.7.1 Rate limit exceeded for this sender":                true,
		"421 4.7.28 connection rate limit exceeded":                    true,
		"421 4.3.2 the maximum number of sessions has been exceeded":   true,
		"421 4.7.0 too many simultaneous sessions, come back later":    true,
		"450 4.7.1 too many connections":                               false, // said of the message, by that code
		"550 5.7.1 too many connections":                               false,
		"421 4.3.2 closing the connection for maintenance":             false,
		"451 4.3.0 mailbox temporarily not available":                  false,
		"250 2.0.0 queued as Too many connections":                     false,
		"mx1.example: dial tcp 192.0.2.1:421: connection limit (ours)": false,
	} {
		if got := isTooMany(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
