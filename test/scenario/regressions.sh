#!/bin/sh
# SPDX-License-Identifier: MIT
#
# regressions.sh SIM FILE: what once found a bug finds nothing any more. Each line of
# FILE is a commit and the options that found it there; with a planted bug each
# such run of seeds finds something, or the line could not fail.
set -u
sim=$1 file=$2 lines=0
fail() {
	echo "FAILED: $1"
	exit 1
}

while read -r commit options; do
	case $commit in '' | '#'*) continue ;; esac
	lines=$((lines + 1))
	# shellcheck disable=SC2086 # options are words
	out=$("$sim" $options) || {
		echo "$out"
		fail "$options finds again what it found at $commit"
	}
	case $options in *--seeds*)
		# shellcheck disable=SC2086
		"$sim" $options --mutant PIN_KEPT >/dev/null &&
			fail "$options finds not even a planted bug"
		;;
	esac
done <"$file"
[ $lines -gt 0 ] || fail "$file has no line"
echo "$lines lines"
