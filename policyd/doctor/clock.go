package doctor

import (
	"time"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// setClock is the mend for every clock.
const setClock = "use NTP: apt install systemd-timesyncd (or chrony), then timedatectl"

// clock judges the clock by what has a time of its own: the signatures of a DNS
// answer, the program, and the kernel's opinion.
func (h Host) clock(probes []resolver.Probe) []finding.Finding {
	const form = "2006-01-02 15:04 MST"
	now := h.Now.UTC()
	for _, p := range probes {
		if p.End.IsZero() || !now.Before(p.Begin) && !now.After(p.End) {
			continue
		}
		return []finding.Finding{fail(setClock, "clock: set to %s, but DNSSEC signatures are valid from %s to %s; certificates and policies cannot be checked with a wrong clock",
			now.Format(form), p.Begin.UTC().Format(form), p.End.UTC().Format(form))}
	}
	if !h.Built.IsZero() && now.Before(h.Built.Add(-24*time.Hour)) {
		return []finding.Finding{fail(setClock, "clock: set to %s, before this program was built; certificates and policies cannot be checked with a wrong clock", now.Format(form))}
	}
	switch right, err := h.Synchronised(); {
	case err != nil:
		return []finding.Finding{warn(setClock, "clock: cannot tell whether it is synchronised: %v", err)}
	case !right:
		return []finding.Finding{warn(setClock, "clock: %s, not synchronised (no NTP)", now.Format(form))}
	}
	return []finding.Finding{ok("clock: %s, synchronised", now.Format(form))}
}
