package e2e

import (
	"testing"
)

// mailServer is a Postfix or an Exim of ours, as far as a test asks the same of
// both.
type mailServer interface {
	// submit hands a message over and gives its queue id.
	submit(t *testing.T, m mail) (id string)
	// attempts lists every try so far for a message.
	attempts(id string) []attempt
	// tries waits for the n-th result of a message, counted from 1 over all of
	// its recipients, and gives all n.
	tries(t *testing.T, id string, n int) []attempt
	// sent waits until try n of a message is over, and asserts that it was sent
	// and that the server let it go.
	sent(t *testing.T, id string, n int) attempt
	// deferred waits until try n is over, and asserts that all were deferred,
	// that the message is kept, and that the last has this code and this
	// reason, as regular expressions.
	deferred(t *testing.T, id string, n int, dsn, pattern string)
	// done waits until the server lets a message go.
	done(t *testing.T, id string)
	// retry has the server try a deferred message now.
	retry(t *testing.T, id string)
	// bounceOf waits for a message to bounce, and gives the queue id of the
	// bounce.
	bounceOf(t *testing.T, id string) string
	// arrived waits for the one message that a recipient gets whose mail the
	// server keeps.
	arrived(t *testing.T, recipient string) arrival
	// logFile is where its log is.
	logFile() string
}

// attempt is what a mail server's log says of one try for one recipient.
type attempt struct {
	to     string
	relay  string // Postfix's; of Exim, the transport
	status string // sent, deferred, bounced
	// the enhanced status code; Exim has none for its own failures
	dsn string
	// what mxpipe or mxpolicyd said, and without that the mail server itself
	text string
	own  string // what Exim itself said
}

// each runs a test with Postfix and with Exim, side by side.
func each(t *testing.T, test func(t *testing.T, w *world, m mailServer)) {
	t.Parallel()
	w := lab(t)
	for name, m := range map[string]mailServer{"Postfix": w.out, "Exim": w.exim} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, w, m)
		})
	}
}

func (p *postfix) bounceOf(t *testing.T, id string) string {
	t.Helper()
	return p.find(t, `bounce\[\d+\]: `+id+`: sender non-delivery notification: (\w+)`)
}

func (x *exim) bounceOf(t *testing.T, id string) string {
	t.Helper()
	return x.find(t, `^\S+ \S+ (\S+) <= <> R=`+id+` `)
}

func (b mailbox) logFile() string { return b.log }
