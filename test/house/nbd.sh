#!/bin/sh
# SPDX-License-Identifier: MIT
#
# nbd.sh PROGRAM: the example over servers of several kinds: one that answers late and in
# another order, what it leaves in its file, servers that fail, one that dies. None
# hangs, and none is taken for one that did its work.
set -u
program=$1
dir=$(mktemp -d ./nbd.XXXXXX) || exit 1
trap 'rm -rf "$dir"' EXIT
well='8 MiB of a server mapped in a cache of 1 MiB'

try() {
	what=$1 status=$2 says=$3
	shift 3
	said=$("$program" "$dir/file" "$@" 2>"$dir/errors")
	got=$?
	if [ $got -ne "$status" ] || [ "$said" != "$says" ]; then
		tail -3 "$dir/errors"
		echo "FAILED: $what: exit status $got, \"$said\", not $status, \"$says\""
		exit 1
	fi
}
nbdkit='nbdkit -s --exit-with-parent'

# shellcheck disable=SC2086 # a command of several words
{
	try 'a file' 0 "$well"
	cp "$dir/file" "$dir/right"
	try 'a file, late' 0 "$well" $nbdkit --filter=delay file "$dir/file" \
		delay-write=2ms
	cmp "$dir/file" "$dir/right" || exit 1
	try 'memory' 0 "$well" $nbdkit memory 8M
	try 'memory without zeroing' 0 "$well" $nbdkit --filter=nozero memory 8M
	try 'reads fail' 1 'a mapped access: Input/output error' \
		$nbdkit --filter=error memory 8M error-pread-rate=100%
	try 'writes fail' 1 'a mapped access: Input/output error' \
		$nbdkit --filter=error memory 8M error-pwrite-rate=100%
	try 'zeroing fails' 1 'a hole: Input/output error' \
		$nbdkit --filter=error memory 8M error-zero-rate=100%
	try 'a server that dies' 1 'a mapped access: Input/output error' \
		$nbdkit eval get_size='echo 8M' pwrite='rm -rf "$tmpdir"; kill -9 $PPID' \
		pread='dd if=/dev/zero count=$3 iflag=count_bytes status=none'
	try 'no server' 2 '' false
}
exit 0
