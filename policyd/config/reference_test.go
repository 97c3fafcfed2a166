package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// uncommented takes the comment signs off the reference's defaults and, when
// asked to, off its examples.
func uncommented(examples bool) string {
	var b strings.Builder
	for line := range strings.Lines(Reference()) {
		example, isExample := strings.CutPrefix(line, "#:")
		setting, isComment := strings.CutPrefix(line, "#")
		blanks := len(setting) - len(strings.TrimLeft(setting, " "))
		switch {
		case isExample && examples:
			b.WriteString(example)
		case isExample:
		case isComment && blanks%2 == 0:
			b.WriteString(setting)
		default:
			b.WriteString(line)
		}
	}
	return b.String()
}

// The file works without an edit and changes nothing.
func TestReferenceIsDefault(t *testing.T) {
	got, err := Parse("mxpolicyd.yaml", []byte(Reference()), someHost())
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, defaults())
}

// The defaults that it shows are the defaults.
func TestReferenceShowsDefaults(t *testing.T) {
	text := uncommented(false)
	if strings.Count(text, "\n") == 0 || !strings.Contains(text, "\nmax_deliveries: 1000\n") {
		t.Fatalf("nothing was uncommented:\n%s", text)
	}
	got, err := Parse("mxpolicyd.yaml", []byte(text), someHost())
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Listen.Builtin = false // the block is there now
	same(t, got, want)
}

// Every key of the schema is in it, where it belongs.
func TestReferenceIsComplete(t *testing.T) {
	text := uncommented(true)
	var declared []string
	d := &decoder{file: "mxpolicyd.yaml", env: someHost(), declared: func(path string) { declared = append(declared, path) }}
	if _, err := parse(d, []byte(text)); err != nil {
		t.Fatal(err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		t.Fatal(err)
	}
	shown := make(map[string]bool)
	walk(root.Content[0], "", shown)
	for _, path := range declared {
		_, inOverride, isOverride := strings.Cut(path, "overrides[")
		if isOverride && !strings.HasSuffix(path, "].match") && !strings.HasSuffix(path, "].nexthop") && !strings.HasSuffix(path, "].pin") {
			continue // the same keys as a transport's
		}
		if strings.HasPrefix(inOverride, "0].nexthop") || strings.HasPrefix(inOverride, "1].pin") || path == "listen.socketmap.address" {
			// the other override shows it; an alternative shows it in a comment
			continue
		}
		if !shown[path] {
			t.Errorf("%s is not in the reference", path)
		}
	}
	if !strings.Contains(Reference(), "# address: 127.0.0.1:8461 ") {
		t.Error("listen.socketmap.address is not in the reference")
	}
	// The test would prove nothing if the schema had not been visited.
	for _, path := range []string{"tlsrpt.socket", "listen.lmtp[0].transport", "mx_auth.outbound.mtasts.fs_dir",
		"transports.default.tls_client.key", "transports.default.limits.source.rate", "transports.default.overrides[1].nexthop"} {
		if !slices.Contains(declared, path) {
			t.Errorf("%s is not in the schema", path)
		}
	}
}

// walk notes the path of every key below a node.
func walk(n *yaml.Node, path string, shown map[string]bool) {
	for i, child := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode:
			walk(child, fmt.Sprintf("%s[%d]", path, i), shown)
		case i%2 == 1:
			at := under(path, n.Content[i-1].Value)
			shown[at] = true
			walk(child, at, shown)
		}
	}
}
