#!/bin/sh
# Writes what packages have beside the files of the tree, into OUT: completions
# and the copyright file.
#
#	built.sh MXPOLICYD OUT
set -eu
program=$1 out=$2
cd "$(dirname "$0")/.."
mkdir -p "$out/completions"
for shell in bash zsh fish; do
	"$program" completion $shell >"$out/completions/mxpolicyd.$shell"
	cp "packaging/completions/mxpipe.$shell" "$out/completions/"
done
sh packaging/copyright.sh >"$out/copyright"
