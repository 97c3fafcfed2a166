package policycache

import (
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/transport/mtasts"
)

// Who knows an entry need not look it up again until its time, as long as the
// generation is the same, or the entry's own number: whatever happens, the
// look-up would say the same.
func TestGeneration(t *testing.T) {
	skipped := 0
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 18))
		inWorld(t, func(t *testing.T, w *world, c *Cache) {
			var known Entry
			var generation uint64
			for step := range 200 {
				switch random.IntN(12) {
				case 0:
					w.set(func() { w.texts = txt(string('1' + rune(random.IntN(3)))) })
				case 1:
					w.set(func() { w.texts = nil })
				case 2:
					w.set(func() { w.txtErr = errServfail })
				case 3:
					w.set(func() { w.txtErr = nil })
				case 4:
					w.set(func() { w.policy = aged(enforce("mx1.example.org"), time.Duration(random.IntN(3))*time.Hour) })
				case 5:
					w.set(func() { w.policy.Mode = mtasts.ModeNone })
				case 6:
					w.set(func() { w.webErr = errDown })
				case 7:
					w.set(func() { w.webErr = nil })
				case 8:
					if err := c.Flush(domain); err != nil {
						t.Fatal(err)
					}
				case 9:
					w.set(func() { w.webWait = time.Duration(random.IntN(40)) * time.Second })
				}
				time.Sleep([]time.Duration{0, time.Second, time.Minute, 20 * time.Minute, ttl}[random.IntN(5)])
				synctest.Wait()
				same := generation == c.Generation()
				if seed%2 == 1 { // others change it all the time
					same = c.Unchanged(domain, known.Serial)
				}
				holds := same && time.Now().Before(known.Until)
				generation = c.Generation()
				e := w.look(c)
				if holds {
					skipped++
					if e.State != known.State || e.ID != known.ID || e.RecordID != known.RecordID || !e.Expires.Equal(known.Expires) ||
						!errors.Is(e.Err, known.Err) && e.Err != known.Err || e.Policy.Mode != known.Policy.Mode {
						t.Fatalf("seed %d, step %d: %s, and known was %s until %v", seed, step, describe(e), describe(known), known.Until)
					}
				}
				known = e
			}
		})
	}
	if skipped < 1000 {
		t.Errorf("only %d look-ups could have been spared", skipped)
	}
}
