package report

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func sample() *Report {
	r := &Report{Version: "1.0", Time: "now", Machine: "a machine", Rounds: 3}
	s := r.Section("Speed", "On loopback.")
	s.Add("messages", "1/s", 1234.5, 1000, 2000)
	s.Reach(AtMost(1.5), "ratio", "", 1.25)
	s.Reach(AtLeast(2), "factor", "", 1.999)
	r.Series = []Series{{Name: "a", Curves: []Curve{{"x", []Point{PointOf(1, []float64{3, 1, 2})}}}}}
	return r
}

func TestText(t *testing.T) {
	var b strings.Builder
	if err := sample().Text(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Speed\n  On loopback.\n", "messages", "1234", "1000 – 2000", "1.25", "≤ 1.50", "yes", "≥ 2", "no"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}

func TestInsert(t *testing.T) {
	document := "# A\n\n" + begin + "\nold\n" + end + "\n\n# B\n"
	got, err := sample().Insert(document)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got, "# A\n\n"+begin+"\n") || !strings.HasSuffix(got, end+"\n\n# B\n") || strings.Contains(got, "old") ||
		!strings.Contains(got, "| ratio | 1.25 |  |  | ≤ 1.50 | yes |") {
		t.Error(got)
	}
	if again, err := sample().Insert(got); err != nil || again != got {
		t.Errorf("a second time it is\n%s%v", again, err)
	}
	if _, err := sample().Insert("# A\n"); !errors.Is(err, ErrNoPlace) {
		t.Error(err)
	}
}

func TestSaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	if err := sample().Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil || !reflect.DeepEqual(got, sample()) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 5: "5", 1234.5: "1234", 123456789: "123456789", 12.34: "12.3", 1.234: "1.23", 0.01234: "0.0123"} {
		if got := Number(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
}
