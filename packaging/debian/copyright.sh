#!/bin/sh
# Writes debian/copyright (DEP-5) for this tree: ours, and a paragraph for each
# module below vendor/, with its licence as it is there.
set -eu

cat <<'END'
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: mxpipe
Source: https://github.com/mxpipe/mxpipe

Files: *
Copyright: The mxpipe authors
License: Apache-2.0
END

# name FILE: the licence's name in DEP-5.
name() {
	case $(tr -s '\n\t ' ' ' <"$1") in
	*'Apache License'*) echo Apache-2.0 ;;
	*'Permission is hereby granted, free of charge'*) echo Expat ;;
	*'Permission to use, copy, modify, and'*) echo ISC ;;
	*'Neither the name'* | *'names of its contributors'* | *'may be used to endorse'*) echo BSD-3-clause ;;
	*'Redistribution and use in source and binary forms'*) echo BSD-2-clause ;;
	*) echo "unknown licence in $1" >&2 && return 1 ;;
	esac
}

sed -n 's/^# \([^ ]*\) .*/\1/p' vendor/modules.txt | sort -u | while read -r module; do
	[ -d "vendor/$module" ] || continue # no package of it is used
	text=
	for file in "vendor/$module"/LICENSE* "vendor/$module"/LICENCE* "vendor/$module"/COPYING*; do
		[ ! -f "$file" ] || { text=$file && break; }
	done
	if [ -z "$text" ]; then
		echo "vendor/$module has no licence" >&2
		exit 1
	fi
	license=$(name "$text")
	echo
	echo "Files: vendor/$module/*"
	sed -n 's/^[ \t*/#]*\(Copyright \(([cC])\|©\|[0-9]\).*\)/\1/p' "$text" "vendor/$module"/NOTICE* 2>/dev/null | tr -d '\r' |
		sed 's/^Copyright *\(([cC])\|©\)\{0,1\} *//; s/ *All rights reserved\.*//; s/\[yyyy\].*//; s/{yyyy}.*//' | grep . | sort -u >copyright.holders || true
	[ -s copyright.holders ] || echo "the authors of $module" >copyright.holders
	sed '1s/^/Copyright: /; 2,$s/^/           /' copyright.holders
	rm copyright.holders
	echo "License: $license"
	[ "$license" = Apache-2.0 ] || tr -d '\r\f' <"$text" | sed 's/[ \t]*$//; s/^$/./; s/^/ /'
done

cat <<'END'

License: Apache-2.0
 On Debian systems the full text of the Apache License, Version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
END
