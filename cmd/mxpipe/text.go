package main

import "unsafe"

// What package strings and package time would do, and cost at each start.

// view gives bytes that do not change any more as a string.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// dashed reports whether a word looks like a flag.
func dashed(word string) bool { return word != "" && word[0] == '-' }

// cut slices s around the first c.
func cut(s string, c byte) (before, after string, found bool) {
	for i := 0; i < len(s); i++ {
		if s[i] == c {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// trim cuts the blanks at the ends.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// equalFold compares in any letter case of ASCII.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// parseDuration reads a time span of more than nothing as time.ParseDuration
// does: numbers with units from ns to h, each with an optional fraction. It
// gives nanoseconds.
func parseDuration(s string) (nanoseconds int64, ok bool) {
	const most = 1<<63 - 1
	var sum uint64
	for s != "" {
		var whole, part, scale uint64 = 0, 0, 1
		digits := 0
		for s != "" && s[0] >= '0' && s[0] <= '9' {
			if whole > most/10 {
				return 0, false
			}
			whole = whole*10 + uint64(s[0]-'0')
			s, digits = s[1:], digits+1
		}
		if s != "" && s[0] == '.' {
			s = s[1:]
			for s != "" && s[0] >= '0' && s[0] <= '9' {
				if scale < 1e12 { // finer than any unit can tell
					part, scale = part*10+uint64(s[0]-'0'), scale*10
				}
				s, digits = s[1:], digits+1
			}
		}
		i := 0
		for i < len(s) && s[i] != '.' && (s[i] < '0' || s[i] > '9') {
			i++
		}
		unit := unitOf(s[:i])
		if digits == 0 || unit == 0 || whole > most/unit {
			return 0, false
		}
		s = s[i:]
		sum += whole*unit + uint64(float64(part)*(float64(unit)/float64(scale)))
		if sum > most {
			return 0, false
		}
	}
	return int64(sum), sum > 0
}

// unitOf gives a unit in nanoseconds; 0 is none.
func unitOf(name string) uint64 {
	switch name {
	case "ns":
		return 1
	case "us", "µs", "μs":
		return 1000
	case "ms":
		return millisecond
	case "s":
		return second
	case "m":
		return minute
	case "h":
		return hour
	}
	return 0
}
