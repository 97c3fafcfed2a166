#!/bin/sh
# Makes a bare Debian with systemd and no mail server, to be copied for each
# test, and beside it the packages of the mail servers, which tests install
# without a network. Once; remove DIRECTORY to have it made anew.
#
#	image.sh DIRECTORY
set -eu
dir=$1
suite=${SUITE:-bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}
[ ! -e "$dir/done" ] || exit 0
rm -rf "$dir"
mkdir -p "$dir"

debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates,procps \
	"$suite" "$dir/root" "$mirror" >"$dir/log"
cp /etc/resolv.conf "$dir/root/etc/resolv.conf"
for server in postfix exim4-daemon-light; do
	chroot "$dir/root" apt-get install -y -qq --download-only --no-install-recommends $server rpm >>"$dir/log"
done
rm "$dir/root/etc/resolv.conf"
: >"$dir/done"
