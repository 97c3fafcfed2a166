package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/policyd/doctor/mailserver"
)

// What the doctor makes of real mail servers: nothing of contrib's own entries,
// and something of those beside them in which the tests have changed one thing
// for the worse.
func TestDoctorReadsRealConfigurations(t *testing.T) {
	t.Parallel()
	w := lab(t)
	d := mailserver.Daemon{Transports: []string{"default"}, Pipe: w.daemon.socket, LMTP: []string{w.daemon.lmtp}, MaxMessageSize: 100 << 20, MaxDeliveries: 1000}
	postconf := func(args ...string) string {
		out, err := exec.Command("postconf", append([]string{"-c", w.out.conf()}, args...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	x := mailserver.EximOutput{Main: w.exim.run(t, "-bP"), Transports: w.exim.run(t, "-bP", "transports"), Config: w.exim.run(t, "-bP", "config")}
	for server, c := range map[string]struct {
		findings []finding.Finding
		entry    string
		bad      []string // what is said of other entries
	}{
		"postfix":    {mailserver.Postfix(d, postconf(), postconf("-M")), "mxpipe in master.cf", []string{"many in master.cf: up to 10 recipients", "absent in master.cf: mxpipe connects to"}},
		"postfix -n": {mailserver.Postfix(d, postconf("-n"), postconf("-M")), "mxpipe in master.cf", []string{"slow in master.cf: Postfix bounces after 1m0s"}},
		"exim": {mailserver.Exim(d, x), "transport mxpipe", []string{"transport many: up to 10 recipients", "transport absent: mxpipe connects to",
			"transport overslow: Exim kills mxpipe after 2s", "transport usage: without --queue-id"}},
	} {
		var text strings.Builder
		seen := false
		for _, f := range c.findings {
			text.WriteString(f.Level.String() + " " + f.What + "\n")
			if strings.Contains(f.What, c.entry+": ") {
				seen = true
				if f.Level != finding.OK {
					t.Errorf("%s: %+v", server, f)
				}
			}
		}
		if !seen {
			t.Errorf("%s: nothing is said of %s", server, c.entry)
		}
		for _, bad := range c.bad {
			if !strings.Contains(text.String(), bad) {
				t.Errorf("%s: it is not said that %s:\n%s", server, bad, &text)
			}
		}
	}
}
