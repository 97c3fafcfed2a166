package admin

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

// documented reads docs/admin.md: the keys of each type, and those of them that
// may be missing.
func documented(t *testing.T) (keys, optional map[string][]string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/admin.md")
	if err != nil {
		t.Fatal(err)
	}
	keys, optional = map[string][]string{}, map[string][]string{}
	heading := ""
	key := regexp.MustCompile("`([a-z0-9_]+)`")
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.HasPrefix(line, "#"):
			heading = strings.TrimSpace(strings.TrimLeft(line, "#"))
		case strings.HasPrefix(line, "| `"):
			cells := strings.SplitN(line, "|", 4)
			for _, m := range key.FindAllStringSubmatch(cells[1], -1) {
				keys[heading] = append(keys[heading], m[1])
				if strings.Contains(strings.ToLower(cells[2]), "may be missing") {
					optional[heading] = append(optional[heading], m[1])
				}
			}
		}
	}
	return keys, optional
}

// types gives a type and all that it is made of.
func types(of reflect.Type, all map[string]reflect.Type) {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || of.PkgPath() == "time" || all[of.Name()] != nil {
		return
	}
	all[of.Name()] = of
	for i := range of.NumField() {
		types(of.Field(i).Type, all)
	}
}

// Scripts rely on docs/admin.md: it has every key of every answer, and no
// other.
func TestEveryKeyIsDocumented(t *testing.T) {
	keys, optional := documented(t)
	all := map[string]reflect.Type{}
	for _, answer := range []any{Status{}, Explanation{}, CacheList{}, Cached{}, Flushed{}, TraceList{}, History{}, SuspendedList{}, ProviderList{}, ReportList{}, finding.Finding{}} {
		types(reflect.TypeOf(answer), all)
	}
	for name, of := range all {
		var want []string
		for i := range of.NumField() {
			f := of.Field(i)
			if f.Anonymous {
				continue
			}
			key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			want = append(want, key)
			if missing := slices.Contains(optional[name], key) || name == "MTASTS" && key != "state"; missing != (options == "omitempty") {
				t.Errorf("%s.%s: it may be missing: %v, documented: %v", name, key, options == "omitempty", missing)
			}
		}
		got := slices.Clone(keys[name])
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: documented are\n%v, there are\n%v", name, got, want)
		}
	}
	for _, name := range []string{"Status", "Explanation", "Finding"} {
		if all[name] == nil {
			t.Errorf("nothing was looked at of %s", name)
		}
	}
}
