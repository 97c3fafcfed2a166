package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// maxFile bounds a configuration file, and each file it names, in bytes.
const maxFile = 1 << 20

// Default gives the built-in configuration, the one of an empty file. Its
// error is Mistakes: this host has no usable name.
func Default(env Environment) (*Config, error) { return Parse("", nil, env) }

// Load reads the configuration file at path. A missing file is an error that
// matches fs.ErrNotExist, except at DefaultPath, where it means the built-in
// defaults. The error is Mistakes when the file was read and is wrong; any
// other error means that it could not be read.
func Load(path string, env Environment) (*Config, error) {
	return load(path, DefaultPath, env)
}

// Reload is Load for a daemon that runs. A file without a single byte, which is
// what one is in the moment in which it is written anew, is a mistake here, and
// no wish that everything be as it is by default: no policy shall be lost by
// that.
func Reload(path string, env Environment) (*Config, error) {
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		return nil, Mistakes{{path, 1, 1, "the file is empty, as if it were just being written; expected a configuration, or a comment to use all defaults"}}
	}
	return Load(path, env)
}

func load(path, dispensable string, env Environment) (*Config, error) {
	read := ReadFile
	if path == dispensable && env.ReadFile != nil {
		read = env.ReadFile // the service has to read it too
	}
	text, err := read(path)
	switch {
	case err == nil:
		return Parse(path, text, env)
	case path == dispensable && errors.Is(err, fs.ErrNotExist):
		return Default(env)
	case errors.Is(err, errTooLarge):
		return nil, Mistakes{tooLarge(path)}
	}
	return nil, fmt.Errorf("cannot read the configuration: %w", err)
}

func tooLarge(file string) Mistake {
	return Mistake{file, 1, 1, "the file is larger than 1 MiB; expected a configuration of mxpolicyd"}
}

// Parse reads a configuration from its text; name is what mistakes call the
// file. The error is always Mistakes.
func Parse(name string, text []byte, env Environment) (*Config, error) {
	return parse(&decoder{file: name, env: env}, text)
}

func parse(d *decoder, text []byte) (*Config, error) {
	if len(text) > maxFile {
		return nil, Mistakes{tooLarge(d.file)}
	}
	if m, ok := badCharacter(d.file, text); ok {
		return nil, Mistakes{m}
	}
	root, m := document(d.file, text)
	if m != nil {
		return nil, Mistakes{*m}
	}
	d.plainYAML(root)
	c := d.config(value{d: d, node: root})
	if d.count == 0 {
		c.Warnings = Mistakes(d.warnings).sorted()
		c.Files = d.contents()
		return c, nil
	}
	mistakes := d.mistakes.sorted()
	if more := d.count - len(mistakes); more > 0 {
		last := mistakes[len(mistakes)-1]
		last.Text = fmt.Sprintf("%d more mistakes, only %d are listed; expected a configuration of mxpolicyd", more, maxMistakes)
		mistakes = append(mistakes, last)
	}
	return nil, mistakes
}

// document gives the root of the file's only YAML document, or why there is
// none. An empty file has a null root.
func document(file string, text []byte) (*yaml.Node, *Mistake) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, next yaml.Node
	if err := dec.Decode(&doc); err == io.EOF {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: 1, Column: 1}, nil
	} else if err != nil {
		m := syntax(file, text, err)
		return nil, &m
	}
	switch err := dec.Decode(&next); {
	case err == io.EOF:
		return doc.Content[0], nil
	case err != nil:
		m := syntax(file, text, err)
		return nil, &m
	}
	return nil, &Mistake{file, next.Line, next.Column, "a second YAML document starts; expected one document in the file"}
}

// plainYAML notes the parts of YAML that this file does without: with them one
// line could stand for another far away, or for a million others.
func (d *decoder) plainYAML(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode:
		d.mistake(n, "YAML aliases (*) are not supported; expected the value itself, or a policy set by its name")
		return
	case n.Anchor != "":
		d.mistake(n, "YAML anchors (&) are not supported; expected the value without %s", quote("&"+n.Anchor))
	case n.Style&yaml.TaggedStyle != 0:
		d.mistake(n, "YAML tags (!) are not supported; expected the value without %s", quote(n.Tag))
	case isMerge(n):
		d.mistake(n, "YAML merge keys (<<) are not supported; expected the keys themselves")
	}
	for _, child := range n.Content {
		d.plainYAML(child)
	}
}

func isMerge(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Value == "<<" && n.Tag == "!!merge"
}

// badCharacter finds what is no text at all, with a place that the YAML parser
// does not give.
func badCharacter(file string, text []byte) (Mistake, bool) {
	line, column := 1, 1
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return Mistake{file, line, column, fmt.Sprintf("the byte 0x%02x is not UTF-8; expected UTF-8 text", text[i])}, true
		case r == '\n':
			line, column = line+1, 0
		case r < 0x20 && r != '\t' && r != '\r', r >= 0x7f && r < 0xa0, r == 0xfffe, r == 0xffff, r == 0x2028, r == 0x2029:
			return Mistake{file, line, column, fmt.Sprintf("control character U+%04X; remove it", r)}, true
		case r == 0xfeff && i > 0:
			return Mistake{file, line, column, "a byte order mark inside the text; remove it"}, true
		}
		i += size
		column++
	}
	return Mistake{}, false
}

// syntax explains an error of the YAML parser. The parser's own line is that
// of the surrounding block or the one before, so the place is looked for anew:
// it is the first line at whose end the parser stops with the same complaint.
func syntax(file string, text []byte, err error) Mistake {
	problem := problemOf(err)
	ends := []int{0}
	for i, c := range text {
		if c == '\n' || i == len(text)-1 {
			ends = append(ends, i+1)
		}
	}
	// the complaint is absent at low and there at high
	low, high := 0, len(ends)-1
	for high-low > 1 {
		middle := (low + high) / 2
		if problemIn(text[:ends[middle]]) == problem {
			high = middle
		} else {
			low = middle
		}
	}
	line := string(text[ends[low]:ends[high]])
	column := 1 + len(line) - len(strings.TrimLeft(line, " "))
	if at := strings.IndexByte(line, '\t'); at >= 0 && strings.TrimLeft(line[:at], " -") == "" {
		return Mistake{file, high, at + 1, "a tab in the indentation; use spaces"}
	}
	return Mistake{file, high, column, "YAML: " + printable(problem) + "; expected " + mend(problem)}
}

// problemIn gives the YAML parser's complaint about a text, "" for none.
func problemIn(text []byte) string {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc yaml.Node
		switch err := dec.Decode(&doc); {
		case err == io.EOF:
			return ""
		case err != nil:
			return problemOf(err)
		}
	}
}

// problemOf takes "yaml: line 7: " off the parser's complaint.
func problemOf(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if _, after, found := strings.Cut(rest, ": "); found {
			return after
		}
	}
	return text
}

// mend says what would cure a complaint of the YAML parser.
func mend(problem string) string {
	switch {
	case strings.Contains(problem, "mapping values are not allowed"):
		return "one \"key: value\" a line, keys of one block in one column, and values with \": \" in quotes"
	case strings.Contains(problem, "cannot start any token"):
		return "spaces for indentation, and values that start with one of %@` in quotes"
	case strings.Contains(problem, "expected ',' or"):
		return "a closing bracket, and a comma between the items"
	case strings.Contains(problem, "unexpected end of stream"):
		return "a closing quote"
	case strings.Contains(problem, "could not find expected ':'"):
		return "\"key: value\""
	case strings.Contains(problem, "did not find expected"):
		return "the keys of one block, or the dashes of one list, in one column"
	case strings.Contains(problem, "unknown escape"):
		return "single quotes around a value with a backslash"
	case strings.Contains(problem, "unknown anchor"):
		return "the value itself: anchors and aliases are not supported"
	}
	return "well-formed YAML"
}
