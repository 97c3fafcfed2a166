#!/bin/sh
# Builds packages, always to the same bytes for the same commit:
#
#	build.sh VERSION OUT [KIND...]
#
# KIND is deb, rpm, apk or archlinux; without any, all of them. It can also be
# "any": then no package is made, but all is put below OUT. ARCHES are the
# architectures (amd64 arm64); Go needs no other compiler for them. VERSION is
# what both programs say. The version of the packages is made of it: a tag's, or
# the number of commits behind a tag, or behind none at all.
set -eu
version=$1 out=$2
shift 2
[ $# -gt 0 ] || set -- deb rpm apk archlinux
cd "$(dirname "$0")/.."
top=$PWD
mkdir -p "$out"
out=$(cd "$out" && pwd)

# Every file is as old as the commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
umask 022

VERSION=$(sh packaging/version.sh "$version")
export VERSION

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# What is the same on every architecture.
built=$work/built
flags="-s -w -X main.version=$version"
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "$flags" -o "$work/mxpolicyd" ./cmd/mxpolicyd
sh packaging/built.sh "$work/mxpolicyd" "$built"
cat >"$built/changelog.Debian" <<END
mxpipe ($(echo "$VERSION" | sed 's/-/~/')-1) unstable; urgency=medium

  * What has changed is in changelog.gz, and what to heed in upgrading.md.

 -- The mxpipe authors <mxpipe@users.noreply.github.com>  $(date -uR -d "@$SOURCE_DATE_EPOCH")
END

if [ "$1" = any ]; then
	sh packaging/install.sh any "$out" "$built"
	for program in bin/mxpipe sbin/mxpolicyd; do
		CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "$flags" -o "$work/$program" "./cmd/${program#*/}"
		install -D "$work/$program" "$out/usr/$program"
	done
	exit
fi

# Not before: without a network there is no nfpm.
nfpm=$(go -C internal/tools tool -n nfpm)
for ARCH in ${ARCHES:-amd64 arm64}; do
	export ARCH
	for program in bin/mxpipe sbin/mxpolicyd; do
		GOOS=linux GOARCH=$ARCH CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "$flags" \
			-o "$work/$ARCH/$program" "./cmd/${program#*/}"
	done
	for kind; do
		dir=$work/$ARCH/$kind
		mkdir -p "$dir"
		sh packaging/install.sh "$kind" "$dir/root" "$built"
		cp -R packaging/scripts "$dir/scripts"
		# Arch has one directory for programs.
		sbin=sbin
		[ "$kind" != archlinux ] || sbin=bin
		install -D "$work/$ARCH/bin/mxpipe" "$dir/root/usr/bin/mxpipe"
		install -D "$work/$ARCH/sbin/mxpolicyd" "$dir/root/usr/$sbin/mxpolicyd"
		find "$dir" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
		# What comes behind a version is written in three ways.
		case $kind in
		apk) kinds=$(echo "$VERSION" | sed 's/+git/-git/') ;;
		archlinux) kinds=$(echo "$VERSION" | sed 's/+git/.git/') ;;
		*) kinds=$VERSION ;;
		esac
		(cd "$dir" && VERSION=$kinds "$nfpm" package -f "$top/packaging/nfpm.yaml" -p "$kind" -t "$out/") >/dev/null
	done
done
