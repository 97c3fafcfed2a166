#!/bin/sh
# What the tests drive beside Go: servers for those in e2e/, and what looks at
# manual pages and packages. With "packages", also what "make packages-test" and
# no other test needs; with "receivers" and "handshakes", also what the targets
# of these names need; with "bench" or "debian", what the target of that name
# needs and nothing else.
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
/usr/bin/jsonschema python3-jsonschema
opendkim opendkim
python3 python3
pflogsumm pflogsumm
chromium chromium
cc gcc libc6-dev
shellcheck shellcheck
zstd zstd
chromium chromium
microsocks microsocks
'
[ "${1:-}" != receivers ] || wanted="$wanted"'
node nodejs
npm npm
'
[ "${1:-}" != packages ] || wanted="$wanted"'
debootstrap debootstrap
systemd-nspawn systemd-container
lintian lintian
rpm rpm
'

[ "${1:-}" != debian ] || wanted='
dpkg-source dpkg-dev
mmdebstrap mmdebstrap
unshare util-linux
ip iproute2
xz xz-utils
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

# OpenSSL of another Debian, unpacked beside this machine's and run with its own
# libraries: name, suite, packages. Only programs of the tests use it.
other() {
	there=$cache/$1
	[ ! -x "$there/openssl" ] || return 0
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "\"make handshakes\" needs OpenSSL of Debian's $2 in $there: run \"sh e2e/needs.sh handshakes\" as root on Debian." >&2
		exit 1
	fi
	new=$there.new
	rm -rf "$new"
	mkdir -p "$new/apt/lists/partial" "$new/apt/cache/archives/partial"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg check-valid-until=no] http://deb.debian.org/debian $2 main" >"$new/apt/sources.list"
	(
		cd "$new"
		apt="apt-get -qq -o Dir::Etc::sourcelist=$new/apt/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$new/apt/lists"
		apt="$apt -o Dir::Cache=$new/apt/cache -o Dir::State::status=/dev/null -o APT::Sandbox::User=root"
		$apt update
		# shellcheck disable=SC2086 # a list of words
		$apt download $3
		for package in *.deb; do
			dpkg -x "$package" .
		done
		rm -r -- *.deb apt
		cat >openssl <<-'END'
			#!/bin/sh
			here=$(dirname "$0")
			libraries=$(echo "$here"/usr/lib/*-linux-gnu*)
			for loader in "$here"/usr/lib*/ld-linux-*.so.* "$here"/lib*/ld-linux-*.so.*; do
				[ ! -x "$loader" ] || exec "$loader" --library-path "$libraries" "$here/usr/bin/openssl" "$@"
			done
			LD_LIBRARY_PATH=$libraries exec "$here/usr/bin/openssl" "$@"
		END
		chmod 755 openssl
		./openssl version
	)
	mv "$new" "$there"
}
if [ "${1:-}" = handshakes ]; then
	other openssl3.5 trixie "openssl libssl3t64 libc6 libzstd1 zlib1g"
	other openssl1.1 bullseye "openssl libssl1.1"
fi

missing=$(echo "$wanted" | while read -r command package; do
	[ -z "$command" ] || command -v "$command" >/dev/null || printf '%s ' "$package"
done)
noexim=
if [ "${1:-}" != bench ] && { [ ! -x "$exim" ] || ldd "$exim" | grep -q 'not found'; }; then
	noexim=yes
fi

# The receivers whose packages exclude Postfix's too are unpacked likewise, one
# folder each, with all that their packages depend on and that is not installed:
# the folder, the program that must be in it, and the package.
receivers='
opensmtpd usr/sbin/smtpd opensmtpd
sendmail usr/libexec/sendmail/sendmail sendmail-bin
courier usr/sbin/couriertcpd courier-mta
aiosmtpd usr/lib/python3/dist-packages/aiosmtpd/smtp.py python3-aiosmtpd
'
[ "${1:-}" != bench ] || receivers=
packed=$(echo "$receivers" | while read -r folder program package; do
	[ -z "$folder" ] || [ -e "$cache/$folder/$program" ] || printf '%s ' "$folder:$package"
done)
# Haraka comes from npm, and wants a Node.js of 20 or later.
haraka=
haraka_version=3.3.4
if [ "${1:-}" = receivers ] && [ ! -e "$cache/haraka/node_modules/Haraka/package.json" ]; then
	haraka=yes
fi
# axe-core comes from npm too: one file, which a browser runs.
axe=
axe_version=4.14.1
axe_sha256=e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745
if [ "${1:-}" != bench ] && [ ! -e "$cache/axe-core/$axe_version/axe.min.js" ]; then
	axe=yes
fi
[ -n "$missing$noexim$packed$haraka$axe" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	[ -z "$missing" ] || echo "The tests need these programs: $missing" >&2
	[ -z "$noexim" ] || echo "The tests need Debian's Exim (exim4-daemon-light, exim4-config) unpacked in $cache/exim." >&2
	for each in $packed; do
		echo "The tests need Debian's ${each#*:}, with what it depends on, unpacked in $cache/${each%:*}." >&2
	done
	[ -z "$haraka" ] || echo "\"make receivers\" needs Haraka $haraka_version from npm in $cache/haraka." >&2
	[ -z "$axe" ] || echo "The tests need axe.min.js of axe-core $axe_version from npm in $cache/axe-core/$axe_version." >&2
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
[ -z "$missing" ] || apt-get install -y -qq --no-remove --no-upgrade --no-install-recommends $missing >/dev/null

# unpack makes the folder $1 of the packages that follow. It gets its name when
# all is in it. A server that nobody keeps up to date must not be a setuid
# program; the tests have their own copy where they need one.
unpack() {
	folder=$cache/$1
	shift
	rm -rf "$folder" "$folder.new"
	mkdir -p "$folder.new"
	cd "$folder.new"
	apt-get download -qq -o APT::Sandbox::User=root "$@"
	for package in *.deb; do
		dpkg -x "$package" .
	done
	rm -- *.deb
	find . -type f -perm /6000 -exec chmod ug-s {} +
	cd /
	mv "$folder.new" "$folder"
}

[ -z "$noexim" ] || unpack exim exim4-daemon-light exim4-config
for each in $packed; do
	# What would be installed, was this not a simulation. Neither fonts nor
	# styles of documentation are looked at by anybody.
	packages=$(apt-get -s -qq install --no-install-recommends "${each#*:}" | sed -n 's/^Inst \([^ ]*\).*/\1/p' | grep -v -e ^fonts- -e sphinx)
	# shellcheck disable=SC2086 # a list of words
	unpack "${each%:*}" $packages
done
if [ -n "$haraka" ]; then
	rm -rf "$cache/haraka" "$cache/haraka.new"
	mkdir -p "$cache/haraka.new"
	npm install --prefix "$cache/haraka.new" --ignore-scripts --omit=dev --omit=optional --no-audit --no-fund --loglevel=error "Haraka@$haraka_version" >/dev/null
	mv "$cache/haraka.new" "$cache/haraka"
fi
if [ -n "$axe" ]; then
	rm -rf "$cache/axe-core" "$cache/axe-core.new"
	mkdir -p "$cache/axe-core.new"
	cd "$cache/axe-core.new"
	if command -v npm >/dev/null; then
		npm pack --loglevel=error "axe-core@$axe_version" >/dev/null
	else
		# npm brings some hundred packages along, and this is one file.
		python3 -c 'import sys, urllib.request as u; u.urlretrieve(sys.argv[1], sys.argv[2])' \
			"https://registry.npmjs.org/axe-core/-/axe-core-$axe_version.tgz" "axe-core-$axe_version.tgz"
	fi
	echo "$axe_sha256  axe-core-$axe_version.tgz" | sha256sum -c --quiet
	tar -xzf "axe-core-$axe_version.tgz" package/axe.min.js package/LICENSE
	rm "axe-core-$axe_version.tgz"
	mv package "$axe_version"
	cd /
	mv "$cache/axe-core.new" "$cache/axe-core"
fi
