#!/bin/sh
# SPDX-License-Identifier: MIT
#
# check.sh WITH_FS MKWRITE FSTYPE SECONDS: mkwrite check finds the engine clean on a
# file system of that type, under each policy and in both fault modes.
set -u
with_fs=$1 mkwrite=$2 fstype=$3 seconds=$4

exec "$with_fs" "$fstype" 512 sh -c '
	bad=0
	for policy in retry invalidate; do
		for mode in "" --inline; do
			"$1" check --target engine --policy $policy $mode \
				--window none --seconds "$2" "$MKW_DIR" || {
				echo "FAILED: $policy $mode: exit status $?"
				bad=1
			}
		done
	done
	exit $bad' check "$mkwrite" "$seconds"
