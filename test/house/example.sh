#!/bin/sh
# SPDX-License-Identifier: MIT
#
# example.sh PROGRAM EXPECTED: the example runs on a fresh file, ends well and
# says what it should.
set -u
program=$1 expected=$2
dir=$(mktemp -d ./example.XXXXXX) || exit 1
trap 'rm -rf "$dir"' EXIT

said=$("$program" "$dir/file")
status=$?
if [ $status -ne 0 ] || [ "$said" != "$expected" ]; then
	echo "$program: exit status $status, said \"$said\", not \"$expected\""
	exit 1
fi
if [ "${program##*-}" = hello ] && ! grep -q "$expected" "$dir/file"; then
	echo "$program: what was synced is not in the file"
	exit 1
fi
