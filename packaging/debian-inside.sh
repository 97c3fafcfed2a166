#!/bin/sh
# What debian.sh does inside a clean Debian: builds the source package twice,
# once with its tests, and looks at what came.
set -eu
version=$1
cd /build
useradd -m builder 2>/dev/null || true
chown -R builder: /build
as() { setpriv --reuid builder --regid builder --init-groups env HOME=/home/builder "$@"; }

# build DIRECTORY OPTIONS: once, at the same path, so that the bytes can agree.
build() {
	as dpkg-source -x mxpipe_"$version"-1.dsc mxpipe >/dev/null
	(cd mxpipe && as env DEB_BUILD_OPTIONS="$2" dpkg-buildpackage -b -us -uc)
	as mkdir "$1"
	mv ./*.deb ./*.changes ./*.buildinfo "$1"
	rm -rf mxpipe
}
as dpkg-source -x mxpipe_"$version"-1.dsc mxpipe >/dev/null
(cd mxpipe && dpkg-checkbuilddeps)
rm -rf mxpipe
build one ""
build two nocheck
echo "== debdiff against the second build"
debdiff one/mxpipe_*.deb two/mxpipe_*.deb
cmp one/mxpipe_*.deb two/mxpipe_*.deb
mv one/* .
echo "== lintian"
as lintian --pedantic --display-info --fail-on error,warning,info,pedantic ./*.changes ./*.dsc
echo "== autopkgtest"
autopkgtest ./mxpipe_*.deb mxpipe_"$version"-1.dsc -- null
echo "done: mxpipe $version"
