package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/wire"
)

// Where there is no assembly for a machine, the program is made of other files.
// They must compile for all, and work.
func TestPortable(t *testing.T) {
	for _, arch := range []string{"386", "arm64", "riscv64"} {
		cmd := exec.Command("go", "build", "-o", "/dev/null", ".")
		cmd.Env = append(cmd.Environ(), "GOARCH="+arch, "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", arch, err, out)
		}
	}
	file := install(t, func() ([]byte, error) { return build("-tags", "portable") })
	got := make(chan request, 1)
	path := serve(t, answering("2.0.0", "Ok", got))
	m := message(300 << 10)
	e := execute(t, file, bytes.NewReader(m), "--socket", path, "-f", "s@example.org", "r@example.net")
	e.keepsContract(t)
	e.wants(t, 0, "2.0.0 Ok\n")
	if q := <-got; q.err != nil || !bytes.Equal(q.message, m) {
		t.Errorf("the daemon got %d bytes, %v", len(q.message), q.err)
	}
	e = execute(t, file, strings.NewReader("x"), "--socket", path+".absent", "-f", "s@example.org", "r@example.net")
	e.keepsContract(t)
	e.wants(t, 75, "4.3.2 ", "no such file or directory")
}

// The way of an ordinary message touches no heap but for its one recipient:
// each allocation of another size is two page faults.
func TestAllocations(t *testing.T) {
	args := []string{"--socket", "/run/s", "--queue-id", "4XyZ", "--size", "1024", "--nexthop=example.net", "-f", "s@example.org", "--", "r@example.net"}
	var o options
	if n := testing.AllocsPerRun(100, func() {
		if err := o.parse(args); err != nil {
			t.Fatal(err)
		}
	}); n > 1 {
		t.Errorf("the command line: %v allocations", n)
	}
	var line [maxLine]byte
	raw := string(wire.AppendAnswer(nil, wire.Answer{Code: "5.1.1", Text: "mx: 550 5.1.1 nobody"}))
	if n := testing.AllocsPerRun(100, func() {
		a, err := wire.ParseAnswer(raw)
		if err != nil {
			t.Fatal(err)
		}
		outcomeOf(a, true).appendLine(line[:0])
	}); n > 0 {
		t.Errorf("the answer: %v allocations", n)
	}
	p := findParent()
	defer unix.Close(p.fd)
	if n := testing.AllocsPerRun(100, func() {
		if p.gone(line[:]) {
			t.Fatal("our parent counts as gone")
		}
	}); n > 0 {
		t.Errorf("a look at the parent: %v allocations", n)
	}
	unix.Close(p.stat)
}
