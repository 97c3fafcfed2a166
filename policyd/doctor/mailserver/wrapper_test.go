package mailserver

import (
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

func TestWrapperOf(t *testing.T) {
	for line, want := range map[string]string{
		"/usr/bin/mxpipe -f ${sender} -- ${recipient}": "",
		"/usr/local/bin/other ${recipient}":            "",
		"":                                             "",
		"timeout 60 /usr/bin/mxpipe -- ${recipient}": "timeout",
		"/usr/bin/nice -n 5 mxpipe":                  "nice",
		"/usr/bin/nice timeout 60 mxpipe":            "timeout",
		"sudo -u mxpipe /usr/bin/mxpipe":             "sudo",
	} {
		if got := wrapperOf(strings.Fields(line)); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	for script, want := range map[string]string{
		`/usr/bin/mxpipe "$@"; exit $?`:     "sh",
		`exec /usr/bin/mxpipe "$@"`:         "exec",
		`exec timeout 9 /usr/bin/mxpipe $1`: "timeout",
	} {
		if got := wrapperOf([]string{"/bin/sh", "-c", script}); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
}

// An entry that runs mxpipe below another program is told so, although nothing
// else of it can be read.
func TestPostfixWrapper(t *testing.T) {
	main, master := shipped(t)
	for program, level := range map[string]finding.Level{"timeout 60": finding.Fail, "nice": finding.Warn} {
		wrapped := change(t, master, "argv=/usr/bin/mxpipe", "argv=/usr/bin/"+program+" /usr/bin/mxpipe")
		name, _, _ := strings.Cut(program, " ")
		check(t, Postfix(ours, main, wrapped), level, name, "run /usr/bin/mxpipe itself in argv= of mxpipe in master.cf")
	}
}

func TestLimits(t *testing.T) {
	enough := Limits{AddressSpace: 2 << 30, Data: 256 << 20}
	if list := enough.Problems("Postfix"); list != nil {
		t.Errorf("%+v", list)
	}
	check(t, Limits{2<<30 - 1, enough.Data}.Problems("Postfix"), finding.Fail, "Postfix: its processes have 2047 MiB of address space", "LimitAS=infinity")
	check(t, Limits{enough.AddressSpace, 32 << 20}.Problems("Exim"), finding.Fail, "Exim: its processes have 32 MiB of data", "LimitDATA=infinity")
}
