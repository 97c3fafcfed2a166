package config

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/mxpipe/mxpipe/internal/mdoc"
)

var (
	index = regexp.MustCompile(`\[\d+\]`)
	named = regexp.MustCompile(`^(mx_auth|transports|providers)\.[^.]+`)
)

// general brings a key's path to the form of mxpolicyd.yaml(5).
func general(path string) string {
	return named.ReplaceAllString(index.ReplaceAllString(path, "[]"), "$1.NAME")
}

// schema gives the path of every key that there is, one that this stands for.
func schema(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	d := &decoder{file: "mxpolicyd.yaml", env: someHost(), declared: func(path string) {
		g := general(path)
		_, inOverride, isOverride := strings.Cut(g, "overrides[].")
		if isOverride && inOverride != "match" && inOverride != "nexthop" && inOverride != "pin" {
			return // the same keys as a transport's
		}
		if all[g] == "" {
			all[g] = path
		}
	}}
	if _, err := parse(d, []byte(uncommented(true))); err != nil {
		t.Fatal(err)
	}
	return all
}

func manual(t *testing.T) []mdoc.Item {
	t.Helper()
	text, err := os.ReadFile("../../docs/mxpolicyd.yaml.5")
	if err != nil {
		t.Fatal(err)
	}
	return mdoc.Items(string(text), "KEYS")
}

// The manual page has every key, and no other.
func TestManualListsKeys(t *testing.T) {
	all := schema(t)
	var listed []string
	for _, item := range manual(t) {
		listed = append(listed, item.Head)
	}
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if !slices.Contains(listed, path) {
			t.Errorf("%s is not in mxpolicyd.yaml(5)", path)
		}
	}
	for i, path := range listed {
		if all[path] == "" {
			t.Errorf("mxpolicyd.yaml(5) has %s, which is no key", path)
		}
		if slices.Contains(listed[:i], path) {
			t.Errorf("mxpolicyd.yaml(5) has %s twice", path)
		}
	}
}

// The examples are right, and are examples of their key.
func TestManualExamples(t *testing.T) {
	for _, item := range manual(t) {
		if len(item.Displays) == 0 {
			t.Errorf("%s has no example", item.Head)
		}
		for _, example := range item.Displays {
			env := someHost()
			env.ReadFile = nil // the files are examples too
			if _, err := Parse("example", []byte(example), env); err != nil {
				t.Errorf("%s: %v", item.Head, err)
				continue
			}
			var root yaml.Node
			if err := yaml.Unmarshal([]byte(example), &root); err != nil {
				t.Fatal(err)
			}
			shown := map[string]bool{}
			walk(root.Content[0], "", shown)
			found := false
			for path := range shown {
				found = found || general(path) == item.Head
			}
			if !found {
				t.Errorf("the example of %s does not have that key:\n%s", item.Head, example)
			}
		}
	}
}

// The values that the page gives for a key are those that a mistake in it is
// answered with.
func TestManualValues(t *testing.T) {
	all := schema(t)
	want := regexp.MustCompile(`; expected ([^\n]*)$`)
	for _, item := range manual(t) {
		path, ok := all[item.Head]
		if !ok {
			continue // another test says so
		}
		env := someHost()
		_, err := Parse("mistake", []byte(mistaken(path)), env)
		got := want.FindStringSubmatch(fmt.Sprint(err))
		if got == nil {
			t.Errorf("%s takes anything: %v", item.Head, err)
			continue
		}
		want := "Value: " + got[1] + "."
		if item.Head == "listen.lmtp[].transport" {
			want = "Value: the name of a transport."
		}
		if !strings.HasPrefix(item.Text, want) {
			t.Errorf("%s: %.100q; a mistake says %q", item.Head, item.Text, want)
		}
	}
}

// mistaken is a file with an impossible value for one key.
func mistaken(path string) string {
	const impossible = `"\x7f?"`
	if path == "transports.default.overrides[0].nexthop" || path == "transports.default.overrides[1].nexthop" {
		return "transports: {default: {overrides: [{match: example.org, nexthop: " + impossible + "}]}}"
	}
	var open, shut string
	for name := range strings.SplitSeq(path, ".") {
		name, _, isList := strings.Cut(name, "[")
		if isList {
			open, shut = open+"{"+name+": [", "]}"+shut
		} else {
			open, shut = open+"{"+name+": ", "}"+shut
		}
	}
	return open + impossible + shut
}

// The defaults that the page gives are those of the file that is installed,
// which another test compares with the program's.
func TestManualDefaults(t *testing.T) {
	defaults := map[string]string{}
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(uncommented(false)), &root); err != nil {
		t.Fatal(err)
	}
	scalars(root.Content[0], "", defaults)
	// Blocks that are absent have defaults all the same.
	for _, kind := range []string{"lmtp[]", "socketmap"} {
		name := strings.TrimSuffix(kind, "[]")
		defaults["listen."+kind+".path"] = DefaultSocketDir + "/" + name + ".sock"
		defaults["listen."+kind+".mode"] = `"0660"`
		defaults["listen."+kind+".group"] = `""`
	}
	defaults["listen.lmtp[].transport"] = DefaultTransport
	defaults["listen.metrics.address"] = DefaultMetricsAddress
	defaults["mx_auth.NAME.local_policy.min_tls_level"] = "encrypted"
	defaults["mx_auth.NAME.local_policy.min_mx_level"] = "none"
	// These depend on the host, or are said in words.
	for _, path := range []string{"state_dir", "transports.NAME.mx_auth"} {
		delete(defaults, path)
	}
	given := regexp.MustCompile(` Default: (.*?)\.(?: |$)`)
	for _, item := range manual(t) {
		got := ""
		if m := given.FindStringSubmatch(item.Text); m != nil {
			got = m[1]
		}
		if item.Head == "listen.metrics.address" || strings.HasSuffix(item.Head, ".path") {
			// Dots are part of the value.
			_, got, _ = strings.Cut(item.Text, " Default: ")
			if want := defaults[item.Head]; !strings.HasPrefix(got, want+". ") {
				t.Errorf("%s: the default is %q, the page has %.60q", item.Head, want, got)
			}
			continue
		}
		if want := defaults[item.Head]; got != want {
			t.Errorf("%s: the default is %q, the page has %q", item.Head, want, got)
		}
	}
}

// scalars notes the values of keys that are no blocks.
func scalars(n *yaml.Node, path string, found map[string]string) {
	for i := 1; i < len(n.Content); i += 2 {
		at := general(under(path, n.Content[i-1].Value))
		switch value := n.Content[i]; value.Kind {
		case yaml.MappingNode:
			scalars(value, under(path, n.Content[i-1].Value), found)
		case yaml.SequenceNode:
			found[at] = "[]"
		default:
			found[at] = value.Value
			if value.Style == yaml.DoubleQuotedStyle {
				found[at] = `"` + value.Value + `"`
			}
		}
	}
}
