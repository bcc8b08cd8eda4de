#!/bin/sh
# SPDX-License-Identifier: MIT
#
# regressions.sh SIM FILE: what once found a bug finds nothing any more. Each line of
# FILE is the commit that mended the bug and the options that found it. Each run of
# seeds must find a planted bug, which shows that the scenario is run and judged; not
# that these seeds would find the mended one again.
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
