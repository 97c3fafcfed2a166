#!/bin/sh
# Writes each manual page as Markdown beside it. With "check", only says whether
# that has been done.
set -eu
cd "$(dirname "$0")"
page() {
	echo "<!-- Made of $1 by \"make docs\". -->"
	echo
	mandoc -T markdown "$1"
}
for source in *.[1578]; do
	if [ "${1:-}" = check ]; then
		page "$source" | cmp -s - "$source.md" || {
			echo "docs/$source.md is not what docs/$source says: run \"make docs\"" >&2
			exit 1
		}
	else
		page "$source" >"$source.md"
	fi
done
