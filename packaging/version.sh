#!/bin/sh
# Makes a package's version of what "git describe" says: a tag's, or the number
# of commits behind a tag, or behind none at all.
set -eu
plain=${1#v}
plain=${plain%-dirty}
case $plain in
[0-9]*-*-g*)
	base=${plain%-g*}
	plain=${base%-*}+git${base##*-}
	;;
[0-9]*.*) ;;
*) plain=0.0.0+git$(git rev-list --count HEAD 2>/dev/null || echo 0) ;;
esac
echo "$plain"
