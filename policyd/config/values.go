package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/transport/limit"
)

// choice is one of the words that a key can have.
type choice[T any] struct {
	word string
	is   T
}

// oneOf is the form of a key with a few possible words.
func oneOf[T any](choices ...choice[T]) format[T] {
	words := make([]string, len(choices))
	for i, c := range choices {
		words[i] = c.word
	}
	return format[T]{joinOr(words), func(s string) (T, error) {
		for _, c := range choices {
			if folded(s) == folded(c.word) {
				return c.is, nil
			}
		}
		var zero T
		return zero, fmt.Errorf("unknown value %s", quote(s))
	}}
}

// joinOr joins words as a sentence does: "a, b or c".
func joinOr(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// boolean is the form of a key that is true or false.
func boolean() format[bool] {
	f := oneOf(choice[bool]{"true", true}, choice[bool]{"false", false}, choice[bool]{"yes", true}, choice[bool]{"no", false},
		choice[bool]{"on", true}, choice[bool]{"off", false})
	f.want = "true or false"
	return f
}

// number is the form of a whole number.
func number(low, high int) format[int] {
	want := fmt.Sprintf("a number from %d to %d", low, high)
	return format[int]{want, func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		switch {
		case errors.Is(err, strconv.ErrRange), err == nil && (n < low || n > high):
			return 0, fmt.Errorf("%s is out of range", quote(s))
		case err != nil:
			return 0, fmt.Errorf("%s is not a whole number", quote(s))
		}
		return n, nil
	}}
}

// port is the form of a TCP port.
func port() format[uint16] {
	n := number(1, 65535)
	return format[uint16]{n.want, func(s string) (uint16, error) {
		p, err := n.read(s)
		return uint16(p), err
	}}
}

// duration is the form of a duration from low to high.
func duration(low, high time.Duration) format[time.Duration] {
	want := fmt.Sprintf("a duration from %s to %s", formatDuration(low), formatDuration(high))
	return format[time.Duration]{want, func(s string) (time.Duration, error) {
		d, err := parseDuration(s)
		switch {
		case err != nil:
			return 0, err
		case d < low:
			return 0, fmt.Errorf("%s is too short", quote(s))
		case d > high:
			return 0, fmt.Errorf("%s is too long", quote(s))
		}
		return d, nil
	}}
}

// parseDuration reads a duration with units, in which days may come first.
func parseDuration(s string) (time.Duration, error) {
	if s != "" && len(s) < 20 && strings.Trim(s, "0123456789") == "" {
		return 0, hintError{quote(s) + " has no unit", strconv.Quote(s+"s") + " if seconds are meant"}
	}
	bad := fmt.Errorf("%s is not a duration", quote(s))
	days, rest, found := strings.Cut(s, "d")
	if !found {
		days, rest = "0", s
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, bad
	}
	d := time.Duration(n) * 24 * time.Hour
	if rest != "" && (rest[0] < '0' || rest[0] > '9') || rest == "" && !found {
		return 0, bad
	}
	if rest != "" {
		short, err := time.ParseDuration(rest)
		if err != nil || short > 1<<16*time.Hour {
			return 0, bad
		}
		d += short
	}
	return d, nil
}

// formatDuration writes a duration in the shortest way that the configuration
// reads.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// size is the form of a number of bytes.
func size(low, high int64) format[int64] {
	want := fmt.Sprintf("a size from %s to %s", bytesText(low), bytesText(high))
	return format[int64]{want, func(s string) (int64, error) {
		n, err := ParseSize(s)
		switch {
		case err != nil:
			return 0, err
		case n < low:
			return 0, fmt.Errorf("%s is too small", quote(s))
		case n > high:
			return 0, fmt.Errorf("%s is too large", quote(s))
		}
		return n, nil
	}}
}

// ParseSize reads a size as the configuration has it: bytes, or a number with a
// unit as in 10MiB. The error is for its author.
func ParseSize(s string) (int64, error) {
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	digits, unit := s[:end], strings.TrimSpace(s[end:])
	n, err := strconv.ParseInt(digits, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%s is too large", quote(s))
	} else if err != nil {
		return 0, fmt.Errorf("%s is not a size", quote(s))
	}
	var factor int64
	switch strings.ToLower(unit) {
	case "", "b":
		factor = 1
	case "kb":
		factor = 1e3
	case "mb":
		factor = 1e6
	case "gb":
		factor = 1e9
	case "kib":
		factor = 1 << 10
	case "mib":
		factor = 1 << 20
	case "gib":
		factor = 1 << 30
	case "k", "m", "g":
		letter := strings.ToUpper(unit)
		return 0, hintError{quote(s) + " does not say whether 1000 or 1024 is meant", fmt.Sprintf("%s%siB or %s%sB", digits, letter, digits, letter)}
	default:
		return 0, fmt.Errorf("%s has an unknown unit", quote(s))
	}
	if n > 1<<62/factor {
		return 0, fmt.Errorf("%s is too large", quote(s))
	}
	return n * factor, nil
}

// bytesText writes a size in the largest unit that divides it.
func bytesText(n int64) string {
	for _, u := range []struct {
		word   string
		factor int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n != 0 && n%u.factor == 0 {
			return strconv.FormatInt(n/u.factor, 10) + u.word
		}
	}
	return strconv.FormatInt(n, 10)
}

// rate is the form of "N/period"; it gives a Limit without concurrency.
func rate() format[limit.Limit] {
	const want = "a number and a period such as 20/1s"
	return format[limit.Limit]{want, func(s string) (limit.Limit, error) {
		n, period, found := strings.Cut(s, "/")
		if !found {
			if _, err := strconv.Atoi(s); err == nil && len(s) < 10 {
				return limit.Limit{}, hintError{quote(s) + " has no period", strconv.Quote(s+"/1s") + " if a second is meant"}
			}
			return limit.Limit{}, fmt.Errorf("%s is not a rate", quote(s))
		}
		count, err := number(1, 1e6).read(n)
		if err != nil {
			return limit.Limit{}, hintError{fmt.Sprintf("%s has no number from 1 to 1000000 before the slash", quote(s)), want}
		}
		d, err := duration(time.Millisecond, 24*time.Hour).read(period)
		if err != nil {
			return limit.Limit{}, hintError{fmt.Sprintf("%s has no period from 1ms to 24h after the slash", quote(s)), want}
		}
		return limit.Limit{Rate: count, Period: d}, nil
	}}
}

// mode is the form of permission bits.
func mode() format[fs.FileMode] {
	return format[fs.FileMode]{"three octal digits such as \"0660\"", func(s string) (fs.FileMode, error) {
		n, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 32)
		if err != nil || n > 0o777 {
			return 0, fmt.Errorf("%s is not an octal mode up to 0777", quote(s))
		}
		if n&0o222 == 0 {
			return 0, fmt.Errorf("%s lets no one connect", quote(s))
		}
		return fs.FileMode(n), nil
	}}
}

// group is the form of a group's name or number.
func group(find func(string) error) format[string] {
	return format[string]{"the name or number of a group", func(s string) (string, error) {
		if !isName(s) {
			return "", fmt.Errorf("%s is not a group", quote(s))
		}
		if find != nil && find(s) != nil {
			return "", hintError{fmt.Sprintf("there is not a group %s", quote(s)), "an existing group, such as one made by groupadd --system " + s}
		}
		return s, nil
	}}
}

// absolute is the form of an absolute path.
func absolute() format[string] {
	const want = "an absolute path"
	return format[string]{want, func(s string) (string, error) {
		switch {
		case s == "":
			return "", errors.New("is empty")
		case s != printable(s) || len(s) > 4000:
			return "", fmt.Errorf("%s is not a usable path", quote(s))
		case !filepath.IsAbs(s):
			return "", fmt.Errorf("%s is a relative path", quote(s))
		}
		return filepath.Clean(s), nil
	}}
}

// socketPath is the form of a unix socket's path, which has to fit into
// sun_path (unix(7)).
func socketPath() format[string] {
	a := absolute()
	return format[string]{a.want, func(s string) (string, error) {
		path, err := a.read(s)
		if err != nil {
			return "", err
		}
		if len(path) > 107 {
			return "", hintError{fmt.Sprintf("%s has %d bytes", quote(s), len(path)), "a path of at most 107 bytes, as for every unix socket"}
		}
		if strings.HasSuffix(s, "/") {
			return "", hintError{quote(s) + " is a directory", "the path of the socket in it"}
		}
		return path, nil
	}}
}

// stateful is the form of a directory that lies in the state directory unless
// it is absolute.
func stateful(state string) format[string] {
	return format[string]{"a directory", func(s string) (string, error) {
		switch {
		case s == "":
			return "", errors.New("is empty")
		case s != printable(s) || len(s) > 4000:
			return "", fmt.Errorf("%s is not a usable path", quote(s))
		case filepath.IsAbs(s):
			return filepath.Clean(s), nil
		case !filepath.IsLocal(s):
			return "", hintError{fmt.Sprintf("%s leaves state_dir", quote(s)), "a path inside it or an absolute one"}
		}
		return filepath.Join(state, s), nil
	}}
}

// optional makes an empty text right, which leaves the key as if absent.
func optional(f format[string]) format[string] {
	return format[string]{f.want, func(s string) (string, error) {
		if s == "" {
			return "", nil
		}
		return f.read(s)
	}}
}
