package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// decoder goes through one file's tree and gathers its mistakes.
type decoder struct {
	file     string
	env      Environment
	mistakes Mistakes
	warnings []Mistake
	untold   []untold
	// of all mistakes, those beyond maxMistakes too
	count int
	// what ReadFile gave, so that each file is read once
	files map[string]fileContent
	// told of each key the schema has; nil: nothing asks
	declared func(path string)
}

// mistake notes what is wrong at a node.
func (d *decoder) mistake(n *yaml.Node, format string, args ...any) {
	d.count++
	if len(d.mistakes) < maxMistakes {
		d.mistakes = append(d.mistakes, Mistake{d.file, max(n.Line, 1), max(n.Column, 1), fmt.Sprintf(format, args...)})
	}
}

// warn notes what is right and yet hardly meant.
func (d *decoder) warn(n *yaml.Node, format string, args ...any) {
	if len(d.warnings) < maxMistakes {
		d.warnings = append(d.warnings, Mistake{d.file, max(n.Line, 1), max(n.Column, 1), fmt.Sprintf(format, args...)})
	}
}

// value is one place in the file: a node, with the path of keys that leads to
// it.
type value struct {
	d    *decoder
	node *yaml.Node
	path string
}

// wrong notes a mistake about the value.
func (v value) wrong(format string, args ...any) {
	path := v.path
	if path == "" {
		path = "the file"
	}
	v.d.mistake(v.node, "%s: %s", path, fmt.Sprintf(format, args...))
}

// isNull reports whether there is a key but nothing after it.
func (v value) isNull() bool {
	return v.node.Kind == yaml.ScalarNode && v.node.ShortTag() == "!!null"
}

// kind is the value's kind in an administrator's words.
func (v value) kind() string {
	switch {
	case v.isNull():
		return "has no value"
	case v.node.Kind == yaml.MappingNode:
		return "is a block of keys"
	case v.node.Kind == yaml.SequenceNode:
		return "is a list"
	}
	return "is the plain value " + quote(v.node.Value)
}

// notKind notes that the value should be of another kind. An alias was
// complained of already.
func (v value) notKind(want string) {
	if v.node.Kind != yaml.AliasNode {
		v.wrong("%s; expected %s", v.kind(), want)
	}
}

// key is one key of a block: its name and what to do with its value.
type key struct {
	name string
	read func(value)
}

// names lists the names of keys.
func names(keys []key) []string {
	list := make([]string, len(keys))
	for i := range keys {
		list[i] = keys[i].name
	}
	return list
}

// block reads a block of keys, in the order in which the schema declares
// them, and returns what is there. A block without any lines is as if absent.
func (v value) block(keys ...key) map[string]value {
	if v.d.declared != nil {
		for _, k := range keys {
			v.d.declared(under(v.path, k.name))
		}
	}
	if v.isNull() {
		return nil
	}
	if v.node.Kind != yaml.MappingNode {
		v.notKind("a block with the keys " + strings.Join(names(keys), ", "))
		return nil
	}
	seen := make(map[string]value)
	for name, there := range v.entries() {
		seen[name] = there.value
	}
	// Unknown keys are complained of in the order of the file.
	known := names(keys)
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		n := v.node.Content[i]
		if n.Kind == yaml.ScalarNode && !isMerge(n) && !slices.Contains(known, n.Value) {
			v.unknown(n, known)
		}
	}
	for _, k := range keys {
		if there, ok := seen[k.name]; ok {
			k.read(there)
		}
	}
	return seen
}

// unknown notes an unknown key with the one that was probably meant.
func (v value) unknown(n *yaml.Node, known []string) {
	if v.d.count >= maxMistakes {
		v.d.count++ // the search below is not worth it
		return
	}
	in := ""
	if v.path != "" {
		in = " in " + v.path
	}
	want := "one of " + strings.Join(known, ", ")
	near := nearest(n.Value, known)
	if name, place := v.d.elsewhere(n.Value); near != "" && folded(near) == folded(n.Value) {
		want = strconv.Quote(near)
	} else if place != "" {
		want = strconv.Quote(name) + " " + place
	} else if near != "" {
		want = strconv.Quote(near)
	} else if len(known) == 1 {
		want = strconv.Quote(known[0])
	} else if len(known) == 0 {
		want = "an empty block, {}"
	}
	v.d.mistake(n, "unknown key %s%s; expected %s", quote(n.Value), in, want)
}

// entry is one key of a block with its value and its place in the file.
type entry struct {
	value value
	key   *yaml.Node
	order int
}

// entries gives the keys of a block, each with the value that was given
// first, and notes those that are no plain words or repeated.
func (v value) entries() map[string]entry {
	found := make(map[string]entry)
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		k, n := v.node.Content[i], v.node.Content[i+1]
		switch {
		case k.Kind == yaml.AliasNode || isMerge(k):
			continue
		case k.Kind != yaml.ScalarNode:
			v.d.mistake(k, "a key is a list or a block; expected a plain word")
			continue
		}
		if first, ok := found[k.Value]; ok {
			v.d.mistake(k, "duplicate key %s, first given in line %d; give it once", quote(under(v.path, k.Value)), first.key.Line)
			continue
		}
		there := value{v.d, n, under(v.path, k.Value)}
		if there.isNull() && n.Value == "" {
			// The parser places nothing at all where the next thing starts.
			at := *n
			at.Line, at.Column = k.Line, k.Column
			there.node = &at
		}
		found[k.Value] = entry{there, k, i}
	}
	return found
}

// named reads a block whose keys are names that the administrator chose, in
// the order of the file.
func (v value) named(what string, read func(name string, v value)) {
	if v.node.Kind != yaml.MappingNode {
		v.notKind("a block with " + what + " by name")
		return
	}
	found := v.entries()
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		name := v.node.Content[i].Value
		there, ok := found[name]
		if !ok || there.order != i {
			continue
		}
		if !isName(name) {
			v.d.mistake(there.key, "%s: %s is not a valid name for %s; expected 1 to 64 letters, digits, \".\", \"-\" or \"_\"", v.path, quote(name), what)
			continue
		}
		read(name, there.value)
	}
}

// under joins a key to the path above it.
func under(path, name string) string {
	if len(name) > maxQuoted || !isName(name) {
		name = quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// isName reports whether s can name a transport or a policy set: it must be
// fit for a command line and for a file descriptor's name (systemd.socket(5)).
func isName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return s[0] != '-' && s[0] != '.'
}

// format is how a plain value is written.
type format[T any] struct {
	want string // what is right, to complete the word "expected"
	read func(string) (T, error)
}

// hintError is a reading error that knows more precisely than its form what
// would be right.
type hintError struct{ what, want string }

func (b hintError) Error() string { return b.what + "; expected " + b.want }

// plain reads a plain value, or notes why it cannot.
func plain[T any](v value, f format[T]) (T, bool) {
	var zero T
	if v.node.Kind != yaml.ScalarNode || v.isNull() {
		v.notKind(f.want)
		return zero, false
	}
	return word(v, v.node.Value, f)
}

// word reads one word of a plain value.
func word[T any](v value, s string, f format[T]) (T, bool) {
	got, err := f.read(s)
	if err == nil {
		return got, true
	}
	if b, ok := errors.AsType[hintError](err); ok {
		v.wrong("%s", b.Error())
	} else {
		v.wrong("%s; expected %s", err, f.want)
	}
	var zero T
	return zero, false
}

// set reads a plain value into its field, which keeps its default when the
// value is wrong.
func set[T any](into *T, f format[T]) func(value) {
	return func(v value) {
		if got, ok := plain(v, f); ok {
			*into = got
		}
	}
}

// setList reads a list of at most most plain values; one alone may stand
// without the list. The list replaces what the field held.
func setList[T any](into *[]T, most int, f format[T]) func(value) {
	return func(v value) { list(v, into, most, func(s string) []string { return []string{s} }, f) }
}

// setWords is setList for words, which may also stand in one text with blanks
// between them.
func setWords[T any](into *[]T, most int, f format[T]) func(value) {
	return func(v value) { list(v, into, most, strings.Fields, f) }
}

func list[T any](v value, into *[]T, most int, split func(string) []string, f format[T]) {
	var all []T
	good := true
	if v.node.Kind == yaml.SequenceNode {
		for i, n := range v.node.Content {
			item := value{v.d, n, fmt.Sprintf("%s[%d]", v.path, i)}
			got, ok := plain(item, f)
			all, good = append(all, got), good && ok
		}
	} else if v.node.Kind == yaml.ScalarNode && !v.isNull() {
		for _, s := range split(v.node.Value) {
			got, ok := word(v, s, f)
			all, good = append(all, got), good && ok
		}
	} else {
		v.notKind("a list; each item " + f.want)
		return
	}
	if len(all) > most {
		v.wrong("has %d items; expected at most %d", len(all), most)
		return
	}
	if good {
		*into = all
	}
}
