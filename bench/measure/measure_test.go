package measure

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		text   string
		parent int
		cpu    time.Duration
		ok     bool
	}{
		{"17 (cat) R 16 17 9 0 -1 4 102 0 0 0 1 2 30 40 20 0 1 0 61 31 389", 16, 730 * time.Millisecond, true},
		{"17 (a) b (c) S 1 17 9 0 -1 4 102 0 0 0 0 0 0 0 20 0 1 0 61 31 389", 1, 0, true},
		{"17 (cat) R 16 17", 0, 0, false},
		{"17 cat R 16", 0, 0, false},
		{"17 (cat) R x 17 9 0 -1 4 102 0 0 0 1 2 30 40 20 0 1 0", 0, 0, false},
	} {
		s, err := parseStat([]byte(tt.text))
		if (err == nil) != tt.ok || tt.ok && (s.parent != tt.parent || s.cpu != tt.cpu) {
			t.Errorf("%q: %+v, %v", tt.text, s, err)
		}
	}
}

// A child's CPU counts while it runs, and when it was waited for.
func TestTreeCPU(t *testing.T) {
	before, err := TreeCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	after, err := TreeCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	spent := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if after-before < spent-2*tick {
		t.Errorf("%v, the child alone took %v", after-before, spent)
	}
	if _, err := TreeCPU(1 << 30); err == nil {
		t.Error("a process that is not there was measured")
	}
}

func TestOwnMemoryAndIO(t *testing.T) {
	m, err := MemoryOf(os.Getpid())
	if err != nil || m.Resident < 100<<10 || m.Descriptors < 3 {
		t.Errorf("%+v, %v", m, err)
	}
	before, err := IOOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile("/proc/self/status"); err != nil {
		t.Fatal(err)
	}
	after, err := IOOf(os.Getpid())
	if err != nil || after.BytesRead-before.BytesRead < 500 || after.Reads <= before.Reads {
		t.Errorf("%+v, then %+v, %v", before, after, err)
	}
}

func TestSample(t *testing.T) {
	s := Sample{5, 1, 4, 2}
	if s.Median() != 3 || s.Min() != 1 || s.Max() != 5 {
		t.Errorf("%v %v %v", s.Median(), s.Min(), s.Max())
	}
	if got := (Sample{7}).Median(); got != 7 {
		t.Error(got)
	}
	if got := Sample(nil).Median(); got != 0 {
		t.Error(got)
	}
	if got := (Sample{2, 9, 4}).Over(Sample{1, 3, 0, 5}); len(got) != 2 || got[0] != 2 || got[1] != 3 {
		t.Error(got)
	}
}

func TestPercentile(t *testing.T) {
	var l Latencies
	for i := range 100 {
		l = append(l, time.Duration(100-i))
	}
	for p, want := range map[float64]time.Duration{0: 1, 50: 50, 95: 95, 99: 99, 99.5: 100, 100: 100} {
		if got := l.Percentile(p); got != want {
			t.Errorf("p%v = %v, want %v", p, got, want)
		}
	}
	if Latencies(nil).Percentile(50) != 0 {
		t.Error("of nothing")
	}
}
