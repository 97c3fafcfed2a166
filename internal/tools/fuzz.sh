#!/bin/sh
# Every fuzz target of the module for $1 (30s), one after the other, and a
# table at the end. Targets whose package and name match the pattern $2 alone
# if it is given. What a target found interesting is kept in Go's cache (below
# "go env GOCACHE", in fuzz/) and is where the next run begins; what breaks a
# target is written into its testdata/fuzz, to be mended and committed.
set -eu
time=${1:-30s}
only=${2:-}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
failed=0

module=$(go list -m)
for package in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		name=${package#"$module"/}.$target
		case $name in *"$only"*) ;; *) continue ;; esac
		echo "== $name"
		result=fine
		if ! go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" ${FUZZPARALLEL:+-parallel="$FUZZPARALLEL"} "$package" >"$dir/log" 2>&1; then
			result=BROKEN
			failed=1
			cat "$dir/log" >&2
		fi
		last=$(grep '^fuzz: elapsed' "$dir/log" | tail -n 1)
		execs=$(echo "$last" | sed -n 's/.*execs: \([0-9]*\).*/\1/p')
		kept=$(echo "$last" | sed -n 's/.*total: \([0-9]*\).*/\1/p')
		printf '%-45s %12s %8s  %s\n' "$name" "${execs:-0}" "${kept:-0}" "$result" >>"$dir/table"
	done
done
printf '\n%-45s %12s %8s  %s\n' "target, for $time each" executions kept result
cat "$dir/table"
exit "$failed"
