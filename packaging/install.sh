#!/bin/sh
# Puts everything but the programs below a directory, as it lies on a host: the
# packages are made of that, and "make install" is this with the programs.
#
#	install.sh KIND DIRECTORY BUILT
#
# KIND is deb, rpm, apk, archlinux, or any for what suits every system; source
# is Debian's own build, which brings changelogs, copyright and overrides.
# BUILT holds what built.sh and build.sh have made: completions/, copyright and
# changelogs.
set -eu
kind=$1 to=$2 built=$3
here=$(cd "$(dirname "$0")" && pwd)
top=$here/..

# file MODE SOURCE DESTINATION
file() { install -D -m "$1" "$2" "$to$3"; }

# packed SOURCE DESTINATION: compressed, always to the same bytes.
packed() {
	mkdir -p "$to$(dirname "$2")"
	gzip -9nc "$1" >"$to$2"
	chmod 644 "$to$2"
}

# One that is there is the administrator's.
[ -e "$to/etc/mxpolicyd/mxpolicyd.yaml" ] ||
	file 644 "$top/policyd/config/mxpolicyd.yaml" /etc/mxpolicyd/mxpolicyd.yaml

for unit in "$here"/systemd/mxpolicyd*.service "$here"/systemd/mxpolicyd*.socket; do
	file 644 "$unit" "/usr/lib/systemd/system/${unit##*/}"
done
file 644 "$here/systemd/sysusers.conf" /usr/lib/sysusers.d/mxpipe.conf
file 644 "$here/systemd/tmpfiles.conf" /usr/lib/tmpfiles.d/mxpipe.conf

for page in "$top"/docs/*.[1578]; do
	packed "$page" "/usr/share/man/man${page##*.}/${page##*/}.gz"
done

zsh=/usr/share/zsh/site-functions
case $kind in deb | source) zsh=/usr/share/zsh/vendor-completions ;; esac
for program in mxpipe mxpolicyd; do
	file 644 "$built/completions/$program.bash" "/usr/share/bash-completion/completions/$program"
	file 644 "$built/completions/$program.zsh" "$zsh/_$program"
	file 644 "$built/completions/$program.fish" "/usr/share/fish/vendor_completions.d/$program.fish"
done

doc=/usr/share/doc/mxpipe
[ "$kind" = source ] || file 644 "$built/copyright" $doc/copyright
for text in "$top/README.md" "$top"/docs/security.md "$top"/docs/handshakes.md "$top"/docs/upgrading.md "$top"/docs/first-message.md "$top"/docs/questions.md; do
	file 644 "$text" "$doc/${text##*/}"
done
find "$top/contrib" -type f ! -name "*.go" | while read -r text; do
	file 644 "$text" "$doc/contrib/${text#"$top"/contrib/}"
done
for text in "$here"/examples/*; do
	file 644 "$text" "$doc/examples/${text##*/}"
done

case $kind in
source)
	file 644 "$here/apparmor/usr.sbin.mxpolicyd" /etc/apparmor.d/usr.sbin.mxpolicyd
	;;
deb)
	file 644 "$here/apparmor/usr.sbin.mxpolicyd" /etc/apparmor.d/usr.sbin.mxpolicyd
	file 644 "$here/deb/lintian-overrides" /usr/share/lintian/overrides/mxpipe
	packed "$top/CHANGELOG.md" $doc/changelog.gz
	packed "$built/changelog.Debian" $doc/changelog.Debian.gz
	;;
*)
	file 644 "$top/CHANGELOG.md" $doc/CHANGELOG.md
	file 644 "$top/LICENSE" /usr/share/licenses/mxpipe/LICENSE
	;;
esac
case $kind in
rpm | archlinux)
	file 644 "$here/systemd/mxpolicyd.preset" /usr/lib/systemd/system-preset/80-mxpolicyd.preset
	;;
apk)
	file 755 "$here/apk/mxpolicyd.initd" /etc/init.d/mxpolicyd
	;;
esac
