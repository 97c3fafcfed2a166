package mailserver

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

// replacing are programs that become the one that they start, so that mxpipe
// keeps the mail server as its parent.
var replacing = []string{"env", "nice", "ionice", "chrt", "taskset", "setpriv", "nohup", "stdbuf", "prlimit", "chpst", "setuidgid", "softlimit", "exec"}

// wrapperOf names the program below which a command line runs mxpipe: the last
// one before it that does not become the one that it starts, else the first.
// Empty: it runs mxpipe itself, or not at all.
func wrapperOf(argv []string) string {
	if len(argv) < 2 || path.Base(argv[0]) == "mxpipe" {
		return ""
	}
	program := path.Base(argv[0])
	for _, word := range argv[1:] {
		// a shell's script is one word
		for part := range strings.FieldsSeq(word) {
			switch name := path.Base(part); {
			case name == "mxpipe":
				return program
			case name == "exec":
				program = name
			case slices.Contains(forking, name):
				program = name
			}
		}
	}
	return ""
}

// forking are programs that stay beside the one that they start.
var forking = []string{"timeout", "sudo", "runuser", "su", "strace", "time", "flock", "xargs", "systemd-run", "unshare"}

// wrapper is what is wrong with running mxpipe below a program of another kind.
// mxpipe watches its parent: that is the program then, which may live on when
// the mail server is stopped, or end first.
func wrapper(entry, program, where string) []finding.Finding {
	r := &report{name: entry}
	if slices.Contains(replacing, program) {
		r.warn("run /usr/bin/mxpipe itself "+where, "runs mxpipe by %s, so its other settings are not checked", program)
	} else {
		r.fail("run /usr/bin/mxpipe itself "+where, "runs mxpipe below %s, which mxpipe takes for the mail server: "+
			"when that is stopped in the middle of a delivery, the message goes out twice, and an exit status may be lost", program)
	}
	return r.findings()
}

// wrappers finds the entries that run mxpipe below another program.
func (c postfixConfig) wrappers() (list []finding.Finding) {
	for _, e := range c.entries {
		if program := wrapperOf(e.argv()); e.command == "pipe" && program != "" {
			list = append(list, wrapper("Postfix, "+e.name+" in master.cf", program, "in argv= of "+e.name+" in master.cf")...)
		}
	}
	return list
}

// wrappers finds the transports that run mxpipe below another program.
func (c eximConfig) wrappers() (list []finding.Finding) {
	for _, t := range c.transports {
		if _, ok := parseEximCall(t.options["command"]); ok || t.options["driver"] != "pipe" {
			continue
		}
		if program := wrapperOf(splitWords(t.options["command"])); program != "" {
			list = append(list, wrapper("Exim, transport "+t.name, program, "in command of the transport "+t.name)...)
		}
	}
	return list
}

// PostfixPIDFile is where Postfix's master(8) writes its process id. main is
// what "postconf" prints.
func PostfixPIDFile(main string) string {
	c := postfixConfig{settings: parseSettings(main)}
	return path.Join(c.value("queue_directory"), cmp.Or(c.value("process_id_directory"), "pid"), "master.pid")
}

// EximPIDFile is where Exim's daemon writes its process id.
func EximPIDFile(x EximOutput) string {
	return cmp.Or(parseOptions(x.Main)["pid_file_path"], "/run/exim4/exim.pid")
}

// Limits are those on a mail server's memory that the processes which it starts
// inherit, in bytes.
type Limits struct {
	AddressSpace uint64 // RLIMIT_AS
	Data         uint64 // RLIMIT_DATA
}

// What mxpipe can start in: Go reserves most of a gigabyte of address space and
// some tens of megabytes of data, and uses next to nothing of them.
const (
	enoughAddressSpace = 2 << 30
	enoughData         = 256 << 20
)

// Problems is what is wrong with the limits; nil: nothing. name is Postfix or
// Exim.
func (l Limits) Problems(name string) (list []finding.Finding) {
	add := func(what, mend string, limit uint64) {
		list = append(list, finding.Finding{
			Level: finding.Fail,
			What: fmt.Sprintf("%s: its processes have %d MiB of %s, in which mxpipe cannot start: it ends with status 2, and the message bounces",
				name, limit>>20, what),
			Mend: mend + " in what starts it, and restart it",
		})
	}
	if l.AddressSpace < enoughAddressSpace {
		add("address space", "set LimitAS=infinity in its unit, or remove ulimit -v", l.AddressSpace)
	}
	if l.Data < enoughData {
		add("data", "set LimitDATA=infinity in its unit, or remove ulimit -d", l.Data)
	}
	return list
}

// crashBySignal is the variable by which a Go runtime that cannot go on ends by
// a signal, where it has come so far as to read it.
const crashBySignal = "GOTRACEBACK=crash"

// runtimeVariables looks for the variables in an environment, NAME or
// NAME=value, that the Go runtime in mxpipe reads as it starts. mend is where
// they are.
func (r *report) runtimeVariables(environment []string, mend string) {
	for _, v := range environment {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case !strings.HasPrefix(name, "GO") || v == crashBySignal:
		case name == "GOMEMLIMIT":
			r.fail("remove "+name+" from "+mend, "mxpipe gets %s: where it is malformed, mxpipe cannot start, and mail bounces or waits", v)
		default:
			r.warn("remove "+name+" from "+mend, "mxpipe gets %s, which changes how the Go runtime in it works, or what it prints", v)
		}
	}
}
