package packaging

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What Alpine's and Arch's own builds would install are the files of the
// packages of releases: each recipe's package() runs, with programs that are
// there already, and the two lists are compared.
func recipes(t *testing.T, dir string) {
	kinds := map[string]struct{ recipe, file, list string }{
		"apk":       {"alpine/APKBUILD", "*.apk", "tar --ignore-zeros -tzf %s"},
		"archlinux": {"arch/PKGBUILD", "*.pkg.tar.zst", "tar --zstd -tf %s"},
	}
	for kind, k := range kinds {
		t.Run(kind, func(t *testing.T) {
			packages, err := filepath.Glob(filepath.Join(dir, k.file))
			if err != nil || len(packages) != 1 {
				t.Fatal(packages, err)
			}
			want := files(output(t, "sh", "-c", strings.ReplaceAll(k.list, "%s", packages[0])))
			got := files(output(t, "bash", "-ec", runPackage, "bash", k.recipe))
			if !slices.Equal(got, want) {
				t.Errorf("%s installs\n%s\nthe package has\n%s", k.recipe, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// runPackage runs a recipe's package() in a copy of the tree, and lists what
// it has installed.
const runPackage = `
top=$(cd .. && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
srcdir=$work
pkgdir=$work/pkg
startdir=$PWD
. "./$1"
tree=$work/mxpipe-$pkgver
mkdir -p "$tree/_build/bin" "$tree/_build/built/completions" "$pkgdir"
for part in packaging docs contrib policyd README.md CHANGELOG.md LICENSE; do ln -s "$top/$part" "$tree/$part"; done
for shell in bash zsh fish; do
	echo made >"$tree/_build/built/completions/mxpipe.$shell"
	echo made >"$tree/_build/built/completions/mxpolicyd.$shell"
done
for file in built/copyright bin/mxpipe bin/mxpolicyd; do echo made >"$tree/_build/$file"; done
cd "$tree"
package >&2
cd "$pkgdir"
find . ! -type d
`

// files sorts a list of paths, without directories and without what a package
// says about itself.
func files(list string) []string {
	var names []string
	for line := range strings.Lines(list) {
		name := strings.TrimPrefix(strings.TrimSpace(line), "./")
		if name == "" || strings.HasSuffix(name, "/") || strings.HasPrefix(name, ".") {
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Each recipe's scripts are those of the packages of releases.
func TestRecipesRunTheSameScripts(t *testing.T) {
	want := bytes.Buffer{}
	for _, name := range []string{"post_install", "post_upgrade", "pre_remove", "post_remove"} {
		text, err := os.ReadFile("scripts/arch-" + name)
		if err != nil {
			t.Fatal(err)
		}
		if want.Len() > 0 {
			want.WriteByte('\n')
		}
		want.WriteString(name + "() {\n")
		for line := range strings.Lines(string(text)) {
			want.WriteString("\t" + line)
		}
		want.WriteString("}\n")
	}
	if got, err := os.ReadFile("arch/mxpipe.install"); err != nil || string(got) != want.String() {
		t.Errorf("arch/mxpipe.install is not made of scripts/arch-*: %v, want\n%s", err, want.String())
	}
	for _, name := range []string{"pre-install", "post-install", "post-upgrade", "pre-deinstall"} {
		if to, err := os.Readlink("alpine/mxpipe." + name); err != nil || to != "../scripts/apk-"+name {
			t.Error(name, to, err)
		}
	}
}

// The recipes are well-formed: what a shell can tell, and what shellcheck does.
func TestRecipesAreWellFormed(t *testing.T) {
	for shell, names := range map[string][]string{
		"bash": {"arch/PKGBUILD", "arch/mxpipe.install"},
		"sh":   {"alpine/APKBUILD", "debian.sh", "debian-inside.sh", "built.sh", "unit.sh", "version.sh", "rpm.sh", "debian/copyright.sh", "debian/tests/deliver", "debian/mxpipe.postinst", "debian/mxpipe.postrm"},
	} {
		for _, name := range names {
			output(t, shell, "-n", name)
			// Variables that the builder of the package reads, or gives.
			cmd := exec.CommandContext(t.Context(), "shellcheck", "-s", shell, "-e", "SC2034,SC2154,SC2148,SC2164", "-S", "warning", name)
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("shellcheck %s: %v (\"make needs\" installs it)\n%s", name, err, text)
			}
		}
	}
}
