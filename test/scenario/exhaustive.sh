#!/bin/sh
# SPDX-License-Identifier: MIT
#
# exhaustive.sh SIM POLICY SCENARIO...: all schedules of the small plays of these
# scenarios hold under a policy that excludes faults; all there are, but where a play
# has no end of them. Policy `none`: what a search without exclusion must find.
set -u
sim=$1 policy=$2
shift 2
fail() {
	echo "FAILED: $1"
	exit 1
}

if [ "$policy" = none ]; then
	"$sim" --exhaustive --policy none --scenario fault-vs-punch |
		grep -q 'VIOLATION' || fail "without exclusion the search finds nothing"
	exit 0
fi
for name in "$@"; do
	out=$("$sim" --exhaustive --policy "$policy" --scenario "$name") || {
		echo "$out"
		fail "$name"
	}
	echo "$out"
	searched=' complete '
	# Reclaim can take a page again and again before its access comes.
	[ "$name" = reclaim-vs-fault ] && searched=' bounded at [2-9]'
	lines=$(echo "$out" | grep "^$name ")
	[ -n "$lines" ] || fail "nothing was searched of $name"
	echo "$lines" | grep -v "$searched" && fail "$name is not complete"
done
exit 0
