// Package finding is the form in which everything that looks for mistakes tells
// what it has found: how bad it is, what it is, and what mends it.
package finding

// Level says how bad a finding is. The greater one is the worse.
type Level int

// The levels.
const (
	OK   Level = iota // nothing to do
	Warn              // works, but not as well or as safely as it could
	// mail is lost, bounced or held up, or is bound to be some day
	Fail
)

// String returns "ok", "warn" or "fail".
func (l Level) String() string {
	switch l {
	case OK:
		return "ok"
	case Warn:
		return "warn"
	}
	return "fail"
}

// MarshalText implements encoding.TextMarshaler.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Finding is one thing that was looked at.
type Finding struct {
	Level Level `json:"level"`
	// one line: what was found, and for Warn and Fail what comes of it
	What string `json:"what"`
	// one line: what to do, as a command where one does it; empty for OK
	Mend string `json:"mend,omitempty"`
}

// Worst returns the worst level in a list, OK for an empty one.
func Worst(list []Finding) Level {
	worst := OK
	for _, f := range list {
		worst = max(worst, f.Level)
	}
	return worst
}
