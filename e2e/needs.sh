#!/bin/sh
# The servers that the tests in e2e/ drive. As root on Debian or Ubuntu this
# installs what is missing; elsewhere it says what to install and fails.
set -eu
PATH=$PATH:/usr/sbin:/sbin

# Each line is a command and the Debian package that it comes from.
wanted='
postfix postfix
unbound unbound
openssl openssl
'

missing=$(echo "$wanted" | while read -r command package; do
	[ -z "$command" ] || command -v "$command" >/dev/null || printf '%s ' "$package"
done)
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "The tests need these programs: $missing" >&2
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
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq --no-install-recommends $missing >/dev/null
