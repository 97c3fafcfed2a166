package policyd

import (
	"context"
	"time"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

const (
	// checkEvery is how often it is looked whether the DNS is fit, and
	// checkAgain how often while it is not.
	checkEvery = time.Hour
	checkAgain = time.Minute
)

// checkLoop looks at start and every hour whether the resolvers validate, and
// answer at all: DANE that is silently off is mail that may go to anybody. What
// is found is logged once, and shown by status, by every explanation, and by
// systemd.
func (d *Daemon) checkLoop(ctx context.Context) {
	if d.options.CheckDNS == nil {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		next := checkEvery
		if d.setWarnings(d.options.CheckDNS(ctx, d.current())) {
			next = checkAgain
		}
		timer.Reset(next)
	}
}

// setWarnings keeps what was found, logs what is new, and reports whether there
// is anything to warn of.
func (d *Daemon) setWarnings(found []finding.Finding) bool {
	var list []string
	for _, f := range found {
		if f.Level > finding.OK {
			list = append(list, f.What)
		}
	}
	d.mu.Lock()
	before := d.warnings
	d.warnings = list
	d.mu.Unlock()
	known := map[string]bool{}
	for _, w := range before {
		known[w] = true
	}
	for _, f := range found {
		if f.Level > finding.OK && !known[f.What] {
			d.log.Warn("the DNS is not what it should be", "text", f.What+"; fix: "+f.Mend)
		}
	}
	if len(before) > 0 && len(list) == 0 {
		d.log.Info("the DNS is as it should be again")
	}
	d.status(d.statusLine())
	return len(list) > 0
}

// currentWarnings gives what was found last.
func (d *Daemon) currentWarnings() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string{}, d.warnings...)
}

// statusLine is what systemctl status shows.
func (d *Daemon) statusLine() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	line := delivering
	if !d.state.rejected.IsZero() {
		line += "; the changed configuration is wrong and not in use"
	}
	if len(d.warnings) > 0 {
		line += "; " + d.warnings[0]
	}
	return line
}
