#!/bin/sh
# Makes Debian's source package, and builds it in a clean Debian without a
# network:
#
#	debian.sh VERSION OUT [SUITE...]
#
# The source package is what is committed, with the modules that it needs in
# vendor/, and packaging/debian as debian/. In each SUITE (trixie, with the Go
# of its backports, or sid) it is then built twice, its unit tests run, looked
# at by lintian, and used by its autopkgtest. The clean systems are kept in
# MXPIPE_DEBIAN_CACHE (/var/cache/mxpipe-debian); remove one to have it made
# anew. Building in a suite needs root; the source package needs no one.
set -eu
version=$1 out=$2
shift 2
cd "$(dirname "$0")/.."
mkdir -p "$out"
out=$(cd "$out" && pwd)
cache=${MXPIPE_DEBIAN_CACHE:-/var/cache/mxpipe-debian}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
umask 022

plain=$(sh packaging/version.sh "$version")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

tree=$work/mxpipe-$plain
git archive --prefix="mxpipe-$plain/" HEAD | tar -x -C "$work"
(cd "$tree" && go mod vendor)
tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u+rwX,go+rX,go-w \
	-cJf "$work/mxpipe_$plain.orig.tar.xz" "mxpipe-$plain"
cp -R packaging/debian "$tree/debian"
(cd "$tree" && sh debian/copyright.sh >debian/copyright && rm debian/copyright.sh)
cat >"$tree/debian/changelog" <<END
mxpipe ($plain-1) unstable; urgency=medium

  * What has changed is in changelog.gz, and what to heed in upgrading.md.

 -- The mxpipe authors <mxpipe@users.noreply.github.com>  $(LC_ALL=C date -uR -d "@$SOURCE_DATE_EPOCH")
END
(cd "$work" && dpkg-source -b "mxpipe-$plain")
cp "$work"/mxpipe_"$plain"* "$out"

# clean SUITE: a Debian with what is needed to build and to look at what came.
clean() {
	[ ! -s "$cache/$1.tar" ] || return 0
	mkdir -p "$cache"
	set -- "$1" "deb http://deb.debian.org/debian $1 main"
	case $1 in
	sid) go=golang-go ;;
	*)
		go="golang-1.26-go"
		set -- "$1" "$2" "deb http://deb.debian.org/debian $1-backports main"
		;;
	esac
	suite=$1
	shift
	mmdebstrap --variant=buildd --include=debhelper,dh-apparmor,dh-golang,ca-certificates,lintian,devscripts,$go \
		--include=autopkgtest,postfix,python3,openssl,unbound,procps,mandoc "$suite" "$cache/new-$suite.tar" "$@"
	mv "$cache/new-$suite.tar" "$cache/$suite.tar"
}

# inside ROOT COMMAND: in the clean Debian, where no network is but loopback.
inside() {
	dir=$1
	shift
	unshare --net --mount --pid --fork sh -ec '
		ip link set lo up
		dir=$1
		shift
		mount --bind "$dir" "$dir"
		mount -t proc proc "$dir/proc"
		mount -t tmpfs tmpfs "$dir/dev/shm"
		exec chroot "$dir" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root TERM=dumb "$@"
	' sh "$dir" "$@"
}

for suite; do
	clean "$suite"
	root=$work/$suite
	mkdir "$root"
	tar -x -f "$cache/$suite.tar" -C "$root"
	mkdir -p "$root/dev/shm" "$root/build"
	cp "$out"/mxpipe_"$plain"*.dsc "$out"/mxpipe_"$plain"*.tar.* "$root/build"
	cp packaging/debian-inside.sh "$root/build/"
	inside "$root" sh -e /build/debian-inside.sh "$plain" 2>&1 | tee "$out/$suite.log"
	grep -q '^done: ' "$out/$suite.log"
	mkdir -p "$out/$suite"
	cp "$root"/build/*.deb "$root"/build/*.changes "$root"/build/*.buildinfo "$out/$suite"
done
