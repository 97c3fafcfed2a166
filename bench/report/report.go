// Package report is what a run of the benchmarks found: rows for a table,
// series for plots, as JSON to keep and as text to read.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/mxpipe/mxpipe/bench/measure"
)

// Report is one run.
type Report struct {
	Version  string // of mxpipe
	Time     string // RFC 3339
	Machine  string
	Rounds   int
	Sections []*Section
	Series   []Series
}

// Section is a table.
type Section struct {
	Title string
	Notes []string // what a reader must know, a line each
	Rows  []Row
}

// Row is one thing that was measured in several rounds, or counted once.
type Row struct {
	Name   string
	Unit   string
	Values measure.Sample
	Goal   *Goal `json:",omitempty"`
}

// Goal is what a row is to reach.
type Goal struct {
	Bound float64
	Upper bool // at most the bound, or else at least
}

// AtMost and AtLeast make goals.
func AtMost(v float64) *Goal  { return &Goal{v, true} }
func AtLeast(v float64) *Goal { return &Goal{v, false} }

// Reached says whether the median reaches the goal.
func (g *Goal) Reached(median float64) bool {
	if g.Upper {
		return median <= g.Bound
	}
	return median >= g.Bound
}

// String says the goal.
func (g *Goal) String() string {
	if g.Upper {
		return "≤ " + Number(g.Bound)
	}
	return "≥ " + Number(g.Bound)
}

// Series is a plot.
type Series struct {
	Name   string // of the file, without its ending
	Title  string
	X, Y   string // the axes
	LogX   bool
	Curves []Curve
}

// Curve is one line of a plot.
type Curve struct {
	Name   string
	Points []Point
}

// Point is a median with its spread.
type Point struct{ X, Y, Low, High float64 }

// PointOf makes a point of rounds.
func PointOf(x float64, s measure.Sample) Point { return Point{x, s.Median(), s.Min(), s.Max()} }

// Section begins a table.
func (r *Report) Section(title string, notes ...string) *Section {
	s := &Section{Title: title, Notes: notes}
	r.Sections = append(r.Sections, s)
	return s
}

// Add adds a row without a goal.
func (s *Section) Add(name, unit string, values ...float64) {
	s.Rows = append(s.Rows, Row{Name: name, Unit: unit, Values: values})
}

// Reach adds a row with a goal.
func (s *Section) Reach(goal *Goal, name, unit string, values ...float64) {
	s.Rows = append(s.Rows, Row{Name: name, Unit: unit, Values: values, Goal: goal})
}

// Number writes a number with about three digits, as people read it.
func Number(v float64) string {
	switch a := math.Abs(v); {
	case v == math.Trunc(v) && a < 1e6:
		return fmt.Sprintf("%.0f", v)
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// cells are a row's columns: what, median, spread, unit, goal, reached.
func (row *Row) cells() []string {
	median := row.Values.Median()
	spread := ""
	if len(row.Values) > 1 {
		spread = Number(row.Values.Min()) + " – " + Number(row.Values.Max())
	}
	goal, reached := "", ""
	if row.Goal != nil {
		goal, reached = row.Goal.String(), "no"
		if row.Goal.Reached(median) {
			reached = "yes"
		}
	}
	return []string{row.Name, Number(median), spread, row.Unit, goal, reached}
}

var header = []string{"what", "median", "spread", "unit", "goal", "reached"}

// Text writes the tables for a terminal.
func (r *Report) Text(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "mxpipe %s, %s\n%s\n", r.Version, r.Time, r.Machine); err != nil {
		return err
	}
	for _, s := range r.Sections {
		fmt.Fprintf(w, "\n%s\n", s.Title)
		for _, note := range s.Notes {
			fmt.Fprintf(w, "  %s\n", note)
		}
		tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, row := range s.Rows {
			fmt.Fprintf(tab, "  %s\n", strings.Join(row.cells(), "\t"))
		}
		if err := tab.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// Markdown writes the tables for a document.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "mxpipe %s, %s, %s; medians of %d rounds, and the spread of all.\n", r.Version, r.Time, r.Machine, r.Rounds)
	for _, s := range r.Sections {
		fmt.Fprintf(&b, "\n### %s\n\n", s.Title)
		for _, note := range s.Notes {
			fmt.Fprintf(&b, "%s\n", note)
		}
		if len(s.Notes) > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(header, " | "), strings.Repeat("---|", len(header)))
		for _, row := range s.Rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row.cells(), " | "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Save writes the report as JSON.
func (r *Report) Save(path string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// Load reads a saved report.
func Load(path string) (*Report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &Report{}
	return r, json.Unmarshal(text, r)
}

// ErrNoPlace says that a document has no place for the tables.
var ErrNoPlace = errors.New("the document lacks the lines " + begin + " and " + end)

const (
	begin = "<!-- figures -->"
	end   = "<!-- end of figures -->"
)

// Insert puts the tables between the two marks of a document.
func (r *Report) Insert(document string) (string, error) {
	before, rest, ok := strings.Cut(document, begin+"\n")
	_, after, also := strings.Cut(rest, end+"\n")
	if !ok || !also {
		return "", ErrNoPlace
	}
	var b strings.Builder
	if err := r.Markdown(&b); err != nil {
		return "", err
	}
	return before + begin + "\n\n" + b.String() + "\n" + end + "\n" + after, nil
}
