#!/bin/sh
# Lists the packages whose tests need no other program, no root and no network
# but loopback: those that a distribution's build runs.
set -eu
cd "$(dirname "$0")/.."
go list ./... | grep -v -e /e2e -e /packaging -e /bench -e /docs
