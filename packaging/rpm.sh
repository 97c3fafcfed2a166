#!/bin/sh
# Builds rpm/mxpipe.spec from the tarball that debian.sh has put into OUT, with
# the Go that is here, and compares its files with those of the .rpm of a
# release:
#
#	rpm.sh VERSION OUT
set -eu
version=$1 out=$2
cd "$(dirname "$0")/.."
out=$(cd "$out" && pwd)
plain=$(sh packaging/version.sh "$version")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$work/SOURCES"
cp "$out/mxpipe_$plain.orig.tar.xz" packaging/scripts/rpm-* "$work/SOURCES"
rpmbuild -ba --nodeps --without check --define "_topdir $work" --define "version_given $plain" packaging/rpm/mxpipe.spec
rpmbuilt=$(find "$work/RPMS" -name '*.rpm')
rpm=$(dpkg --print-architecture 2>/dev/null || echo amd64)
ARCHES=$rpm sh packaging/build.sh "$version" "$work/release" rpm
# Directories are left out: the spec owns its own.
files() { rpm -qp --qf '[%{FILEMODES:perms} %{FILENAMES}\n]' "$1" | sed -n 's/^[^d][^ ]* //p' | sort; }
files "$rpmbuilt" >"$work/spec.files"
files "$work"/release/*.rpm >"$work/release.files"
diff -u "$work/release.files" "$work/spec.files"
cp "$rpmbuilt" "$work"/SRPMS/*.rpm "$out"
echo "done: $(wc -l <"$work/spec.files") files, the same as in the release's package"
