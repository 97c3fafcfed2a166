// Command bench measures mxpipe: against an empty program, against a program
// that only reads, against Postfix's own clients, and by itself. "make bench"
// builds what it needs and runs it; "-list" tells what it can measure.
//
// Everything runs on this machine, on loopback: the remote mail servers and
// the DNS are in this process (package internet), and what they are
// measured with is a process of its own. What is compared is measured in turn,
// A B A B, in several rounds, so that what disturbs the machine disturbs both;
// a ratio is made of each round, and the median of the ratios is given.
// Figures of one run can be compared with each other, and with nothing else.
//
// It must run as root on a machine with Postfix for the parts that compare with
// Postfix; those are left out otherwise, and the table says so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mxpipe/mxpipe/bench/internet"
	"github.com/mxpipe/mxpipe/bench/report"
	"github.com/mxpipe/mxpipe/internal/lab/forks"
)

// bench is one run.
type bench struct {
	ctx    context.Context
	dir    string // of this run, removed at the end
	bin    string // where mxpipe and mxpolicyd are
	rounds int
	long   bool   // ten times the work
	tlspol string // a postfix-tlspol that is there; empty: it is built
	net    *internet.Internet
	sinks  sinks
	report *report.Report
}

// part is something to measure.
type part struct {
	name, about string
	run         func(*bench) error
}

// parts are all that can be measured, in the order of the table.
var parts = []part{
	{"process", "one call of mxpipe against an empty program", (*bench).process},
	{"pipes", "Postfix pipe(8) with mxpipe against a program that only reads", (*bench).pipes},
	{"mtas", "Postfix lmtp(8) to mxpolicyd against Postfix smtp(8)", (*bench).mtas},
	{"fronts", "mxpolicyd alone: throughput, CPU and latency", (*bench).fronts},
	{"growth", "the cost of a message with 10, 1,000 and 100,000 domains", (*bench).growth},
	{"cold", "deliveries over new connections", (*bench).cold},
	{"tables", "socketmap look-ups", (*bench).tables},
	{"starts", "the daemon's start with 10,000 cached policies", (*bench).starts},
	{"costs", "system calls, allocations and bytes of one message", (*bench).costs},
	{"flights", "round trips and time of a message, 50 ms away", (*bench).flights},
	{"sharing", "connections for many senders to many domains on few hosts", (*bench).sharing},
	{"idle", "memory and descriptors of idle connections", (*bench).idle},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	var (
		bin    = flag.String("bin", "bin", "where mxpipe and mxpolicyd were built")
		only   = flag.String("only", "", "measure only these parts, by commas")
		skip   = flag.String("skip", "", "leave these parts out")
		rounds = flag.Int("rounds", 5, "how often everything is measured")
		long   = flag.Bool("long", false, "ten times the work in each round")
		out    = flag.String("json", "", "write the report here, too")
		doc    = flag.String("doc", "", "measure nothing; put the tables of the report -json into this document")
		tlspol = flag.String("tlspol", "", "a postfix-tlspol to measure beside mxpolicyd; without, it is built from the Go module proxy")
		list   = flag.Bool("list", false, "list the parts")
	)
	flag.Parse()
	switch {
	case *list:
		for _, p := range parts {
			fmt.Printf("%-10s %s\n", p.name, p.about)
		}
		return nil
	case *doc != "":
		return document(*out, *doc)
	}
	chosen, err := choose(*only, *skip)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	b := &bench{ctx: ctx, rounds: max(*rounds, 1), long: *long, tlspol: *tlspol}
	if b.bin, err = filepath.Abs(*bin); err != nil {
		return err
	}
	return b.measure(chosen, *out)
}

// choose finds the parts that are asked for.
func choose(only, skip string) (chosen []part, err error) {
	names := func(list string) []string {
		return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	}
	known := func(name string) bool {
		return slices.ContainsFunc(parts, func(p part) bool { return p.name == name })
	}
	for _, name := range append(names(only), names(skip)...) {
		if !known(name) {
			return nil, fmt.Errorf("no part is called %q; -list lists them", name)
		}
	}
	for _, p := range parts {
		if (only == "" || slices.Contains(names(only), p.name)) && !slices.Contains(names(skip), p.name) {
			chosen = append(chosen, p)
		}
	}
	return chosen, nil
}

// document puts the tables of a report into a document.
func document(from, into string) error {
	if from == "" {
		return errors.New("-doc needs -json, the report")
	}
	r, err := report.Load(from)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(into)
	if err != nil {
		return err
	}
	changed, err := r.Insert(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", into, err)
	}
	return os.WriteFile(into, []byte(changed), 0o644)
}

// measure runs the parts and tells what they found.
func (b *bench) measure(chosen []part, out string) (err error) {
	if b.dir, err = os.MkdirTemp("", "mxpipe-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	// mail servers run commands as others
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	if err := b.bring("mxpipe", "mxpolicyd"); err != nil {
		return fmt.Errorf("%w: run \"make build\"", err)
	}
	version, err := exec.Command(filepath.Join(b.bin, "mxpipe"), "--version").Output()
	if err != nil {
		return err
	}
	b.report = &report.Report{
		Version: strings.TrimPrefix(strings.TrimSpace(string(version)), "mxpipe "),
		Time:    time.Now().UTC().Format(time.RFC3339), Machine: machine(), Rounds: b.rounds,
	}
	if err := b.startInternet(); err != nil {
		return err
	}
	defer b.net.Stop()
	for _, p := range chosen {
		start := time.Now()
		fmt.Fprintf(os.Stderr, "%s: %s ...", p.name, p.about)
		if err := p.run(b); err != nil {
			fmt.Fprintln(os.Stderr)
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(os.Stderr, " %.0f s\n", time.Since(start).Seconds())
	}
	if err := b.report.Text(os.Stdout); err != nil {
		return err
	}
	if out == "" {
		return nil
	}
	return b.report.Save(out)
}

// bring copies the programs to where everybody may run them: a mail server does
// so as somebody who has no business in a home directory.
func (b *bench) bring(programs ...string) error {
	for _, name := range programs {
		program, err := os.ReadFile(filepath.Join(b.bin, name))
		if err != nil {
			return err
		}
		if err := forks.WriteFile(filepath.Join(b.dir, name), program, 0o755); err != nil {
			return err
		}
	}
	b.bin = b.dir
	return nil
}

// machine says what this is measured on.
func machine() string {
	model := runtime.GOARCH
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%d × %s, Linux %s, %s", runtime.NumCPU(), model, strings.TrimSpace(string(kernel)), runtime.Version())
}

// amount is how much to do in a round.
func (b *bench) amount(n int) int {
	if b.long {
		return 10 * n
	}
	return n
}
