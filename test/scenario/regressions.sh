#!/bin/sh
# SPDX-License-Identifier: MIT
#
# regressions.sh SIM FILE: what once found a bug finds nothing any more, and finds it
# where it is planted again. Each line of FILE is the commit that mended the bug, its
# name as a planted one, and the options that found it.
set -u
sim=$1 file=$2 lines=0
fail() {
	echo "FAILED: $1"
	exit 1
}

while read -r commit bug options; do
	case $commit in '' | '#'*) continue ;; esac
	lines=$((lines + 1))
	# shellcheck disable=SC2086 # options are words
	out=$("$sim" $options) || {
		echo "$out"
		fail "$options finds again what it found at $commit"
	}
	# shellcheck disable=SC2086
	"$sim" $options --mutant "$bug" >/dev/null
	[ $? -eq 1 ] || fail "$options does not find $bug"
done <"$file"
[ $lines -gt 0 ] || fail "$file has no line"
echo "$lines lines"
