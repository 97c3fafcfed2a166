#!/bin/sh
# Writes the copyright file: ours, and the notices of everything that is linked
# into the two programs, as their licences ask.
set -eu
cd "$(dirname "$0")/.."

cat <<'END'
mxpipe and mxpolicyd are the work of the mxpipe authors.
https://github.com/mxpipe/mxpipe

Licensed under the Apache License, Version 2.0; you may not use these programs
except in compliance with it. On Debian systems the full text is in
/usr/share/common-licenses/Apache-2.0, elsewhere in
/usr/share/licenses/mxpipe/LICENSE and at
https://www.apache.org/licenses/LICENSE-2.0

The programs contain the Go standard library and the modules below, with the
notices that follow.
END

# notice NAME DIRECTORY
notice() {
	found=
	for file in "$2"/LICENSE* "$2"/LICENCE* "$2"/COPYING* "$2"/COPYRIGHT* "$2"/copyright "$2"/NOTICE*; do
		[ -f "$file" ] || continue
		found=yes
		printf '\n%s\n%s, %s\n\n' ------------------------------------------------------------------------ "$1" "${file##*/}"
		# Of this long text each Debian system has a copy, as was said above.
		if grep -q 'TERMS AND CONDITIONS FOR USE' "$file"; then
			echo 'Apache License, Version 2.0, as above.'
		else
			tr -d '\r\f' <"$file"
		fi
	done
	if [ -z "$found" ]; then
		echo "$1 has no licence that could be found in $2" >&2
		return 1
	fi
}

# Debian keeps the licence of its Go where it keeps all.
go=$(go env GOROOT)
[ -f "$go/LICENSE" ] || go=$(ls -d /usr/share/doc/golang-*-go /usr/share/doc/golang-go 2>/dev/null | head -1)
notice 'Go standard library' "$go"
# With vendor/ a module has no directory of its own.
modules=$(GOOS=linux go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{or .Dir (print "vendor/" .Path)}}{{end}}{{end}}' ./cmd/mxpipe ./cmd/mxpolicyd)
echo "$modules" | sort -u | while read -r module dir; do
	notice "$module" "$dir" || exit 1
done
