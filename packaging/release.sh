#!/bin/sh
# Everything of a release, in OUT: the packages, both programs by themselves,
# what they are made of (CycloneDX), and checksums.
#
#	release.sh VERSION OUT
set -eu
version=$1 out=$2
cd "$(dirname "$0")/.."
rm -rf "$out"
sh packaging/build.sh "$version" "$out"

gomod=$(go -C internal/tools tool -n cyclonedx-gomod)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
umask 022
for arch in amd64 arm64; do
	name=mxpipe-${version#v}-linux-$arch
	mkdir -p "$work/$name/bin" "$work/$name/sbin"
	for program in bin/mxpipe sbin/mxpolicyd; do
		GOOS=linux GOARCH=$arch CGO_ENABLED=0 go build -trimpath -buildvcs=false \
			-ldflags "-s -w -X main.version=$version" -o "$work/$name/$program" "./cmd/${program#*/}"
		# All modules are here by now, but for our own of this version.
		GOPROXY=off "$gomod" bin -json -std -licenses -noserial -notimestamp -version "$version" \
			-output "$out/${program#*/}-linux-$arch.cdx.json" "$work/$name/$program" 2>"$work/said" || {
			cat "$work/said" >&2
			exit 1
		}
	done
	cp LICENSE README.md CHANGELOG.md "$work/$name/"
	tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$work" -c "$name" |
		gzip -9n >"$out/$name.tar.gz"
done
cd "$out"
find . -type f ! -name SHA256SUMS -printf '%P\n' | LC_ALL=C sort | xargs sha256sum >SHA256SUMS
