#!/bin/sh
# Known vulnerabilities in the code that mxpipe calls: vulncheck.sh GOVULNCHECK
# from the module's root. What it finds fails the run. The database lies on the
# network (https://vuln.go.dev, or where VULNDB says, a file:// copy included);
# where it cannot be reached nothing was checked, which is said aloud and fails
# nothing: a build must be possible without the network.
set -u

if out=$("$1" ${VULNDB:+-db "$VULNDB"} ./... 2>&1); then
	exit 0
else
	status=$?
fi
case $status,$out in
3,*) # something was found
	printf '%s\n' "$out" >&2
	exit 1
	;;
*,*'fetching vulnerabilities: '*)
	{
		echo '******************************************************************'
		echo 'govulncheck could not reach its database: NOTHING WAS CHECKED.'
		printf '%s\n' "$out" | grep 'fetching vulnerabilities: '
		echo 'Run "make lint" with the network, or with VULNDB=file:///a/copy.'
		echo '******************************************************************'
	} >&2
	exit 0
	;;
esac
printf '%s\n' "$out" >&2
exit 1
