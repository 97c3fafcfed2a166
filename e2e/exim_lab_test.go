package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// eximParts are the three parts of contrib/exim/exim.conf.mxpipe, with this
// test's paths. All of contrib's users are in the /etc that Exim sees.
func (w *world) eximParts(d *daemon) (eximConfig, error) {
	var parts eximConfig
	text, err := os.ReadFile("../contrib/exim/exim.conf.mxpipe")
	if err != nil {
		return parts, err
	}
	rest := string(text)
	for _, part := range []struct {
		head string
		text *string
	}{
		{"# After \"begin transports\":", &parts.transports}, {"# After \"begin routers\",", &parts.routers}, {"# To the main section,", &parts.main},
	} {
		before, after, ok := strings.Cut(rest, part.head)
		if !ok {
			return parts, fmt.Errorf("contrib/exim/exim.conf.mxpipe has no part with the head %s", part.head)
		}
		rest, *part.text = before, "#"+after
	}
	for _, change := range [][2]string{
		{"exec /usr/bin/mxpipe ", "exec " + w.mxpipe + " --socket " + d.socket + " "},
		{"socket = /run/mxpolicyd/lmtp.sock", "socket = " + d.lmtp},
		{"GOTRACEBACK=crash ", "GOTRACEBACK=crash : " + workdirVar + "=" + w.dir + "/ "},
	} {
		if strings.Count(parts.transports, change[0]) != 1 {
			return parts, fmt.Errorf("contrib/exim/exim.conf.mxpipe does not have %q once", change[0])
		}
		parts.transports = strings.Replace(parts.transports, change[0], change[1], 1)
	}
	return parts, nil
}

// startExim starts the Exim that sends, with the very lines of contrib/exim.
// Each transport beside mxpipe is that of contrib with one thing changed, and
// serves the domains below NAME.example.
func (w *world) startExim() error {
	parts, err := w.eximParts(w.daemon)
	if err != nil {
		return err
	}
	address, err := w.host("exim.e2e.example")
	if err != nil {
		return err
	}
	// A command that panics, without the variable that contrib exports: mxpipe
	// itself sees to how it dies.
	panicking, err := w.script("exim-panicking", "unset GOTRACEBACK && exec "+w.panicking)
	if err != nil {
		return err
	}
	// A command whose user may have no further process, and so mxpipe no
	// thread: only that variable helps.
	starved, err := w.script("exim-starved", "ulimit -p 1 && exec "+w.mxpipe)
	if err != nil {
		return err
	}
	config := parts
	config.routers = ""
	for _, v := range []struct{ name, old, new string }{
		{"many", "batch_max = 1\n", "batch_max = 10\n"},
		{"usage", "--queue-id", "--queue-identity"},
		{"slow", "--queue-id", "--timeout 3s --queue-id"},
		{"overslow", "timeout = 1000s", "timeout = 2s"},
		{"absent", w.daemon.socket, w.daemon.socket + ".absent"},
		{"missing", w.mxpipe, w.mxpipe + ".missing"},
		{"panicking", w.mxpipe, panicking},
		{"starved", w.mxpipe, starved},
	} {
		pipe, _, ok := strings.Cut(parts.transports, "\nmxpolicyd_lmtp:\n")
		text := strings.Replace(pipe, "\nmxpipe:\n", "\n"+v.name+":\n", 1)
		if !ok || text == pipe || !strings.Contains(text, v.old) {
			return fmt.Errorf("contrib/exim/exim.conf.mxpipe has no %q to change", v.old)
		}
		config.transports += strings.Replace(text, v.old, v.new, 1)
		config.routers += fmt.Sprintf("%[1]s:\n  driver = accept\n  domains = *.%[1]s.example\n  transport = %[1]s\n", v.name)
	}
	config.routers += "lmtp:\n  driver = accept\n  domains = *.lmtp.example\n  transport = mxpolicyd_lmtp\n" + parts.routers
	w.exim, err = newExim(filepath.Join(w.dir, "exim"), "exim", address, config)
	return err
}
