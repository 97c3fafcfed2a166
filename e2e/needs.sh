#!/bin/sh
# What the tests drive beside Go: servers for those in e2e/, and what looks at
# manual pages and packages. With "packages", also what "make packages-test" and
# no other test needs; with "bench", what "make bench" needs and nothing else.
# As root on Debian or Ubuntu this installs what is missing; elsewhere it says
# what to install and fails.
set -eu
PATH=$PATH:/usr/sbin:/sbin

# Each line is a command and the Debian package that it comes from.
wanted='
postfix postfix
unbound unbound
unshare util-linux
mount mount
openssl openssl
prometheus prometheus
mandoc mandoc
systemd-analyze systemd
apparmor_parser apparmor
dpkg-deb dpkg
pgrep procps
dkimverify python3-dkim
'
[ "${1:-}" != packages ] || wanted="$wanted"'
debootstrap debootstrap
systemd-nspawn systemd-container
lintian lintian
rpm rpm
'

[ "${1:-}" != bench ] || wanted='
postfix postfix
cc gcc libc6-dev
strace strace
'

# Exim's package and Postfix's exclude each other. So Exim is unpacked into this
# folder, which the tests know as well, and only its libraries are installed.
cache=${MXPIPE_E2E_CACHE:-/var/cache/mxpipe-e2e}
exim=$cache/exim/usr/sbin/exim4

missing=$(echo "$wanted" | while read -r command package; do
	[ -z "$command" ] || command -v "$command" >/dev/null || printf '%s ' "$package"
done)
noexim=
if [ "${1:-}" != bench ] && { [ ! -x "$exim" ] || ldd "$exim" | grep -q 'not found'; }; then
	noexim=yes
fi
[ -n "$missing$noexim" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	[ -z "$missing" ] || echo "The tests need these programs: $missing" >&2
	[ -z "$noexim" ] || echo "The tests need Debian's Exim (exim4-daemon-light, exim4-config) unpacked in $cache/exim." >&2
	echo "Install them, or run \"make needs\" as root on Debian or Ubuntu. \"make unit\" does without." >&2
	exit 1
fi

# A package must not start its server, whose ports and queue are not ours. What
# invoke-rc.d may do is asked of policy-rc.d; one that is there already stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 1' HUP INT TERM
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
if [ -n "$noexim" ]; then
	missing="$missing $(apt-cache depends --important exim4-daemon-light | sed -n 's/^  Depends: \(lib.*\)/\1/p' | tr '\n' ' ')"
fi
# No mail server that somebody uses goes away for the tests' sake.
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq --no-remove --no-upgrade --no-install-recommends $missing >/dev/null
[ -n "$noexim" ] || exit 0

# The folder gets its name when all is in it. An Exim that nobody keeps up to
# date must not be a setuid program; the tests have their own copy.
mkdir -p "$cache"
rm -rf "$cache/exim" "$cache/exim.new"
mkdir "$cache/exim.new"
cd "$cache/exim.new"
apt-get download -qq -o APT::Sandbox::User=root exim4-daemon-light exim4-config
for package in *.deb; do
	dpkg -x "$package" .
done
rm -- *.deb
chmod u-s usr/sbin/exim4
cd /
mv "$cache/exim.new" "$cache/exim"
