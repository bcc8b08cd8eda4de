#!/bin/sh
# SPDX-License-Identifier: MIT
#
# race-2012.sh SIM: with faults excluded by nothing the simulator finds the race
# between a fault and a hole punch, tells its steps, names a seed, and finds it
# again with that seed, in the same steps. Without rule R0 it finds the deadlocks
# of a buffer that is a mapping of the file, and says who holds what.
set -u
sim=$1
fail() {
	echo "FAILED: $1"
	exit 1
}

story=$("$sim" --scenario fault-vs-punch --policy none --seeds 1..20000)
[ $? -eq 1 ] || fail "the race is not found in 20000 seeds"
echo "$story"
again=$(echo "$story" | sed -n 's/^again: mkwrite sim //p')
[ -n "$again" ] || fail "no command shows it again"
hash=$(echo "$story" | grep '^trace hash')
[ -n "$hash" ] || fail "no trace hash is printed"
echo "$story" | grep -q punch || fail "the steps do not tell of a punch"

# The command is words without spaces or quotes.
once_more=$("$sim" $again)
[ $? -eq 1 ] || fail "this does not show it again: $again"
[ "$(echo "$once_more" | grep '^trace hash')" = "$hash" ] ||
	fail "this runs otherwise: $again"

# The objection raised against both designs: a buffer that is a mapping of the
# file not yet faulted in, copied to or from while the file's locks are held.
deadlocks() {
	told=$("$sim" --r0-off --scenario "$1" --policy "$2" --seeds 1..5000)
	echo "$told" | grep -q '^violation (deadlock)' &&
		echo "$told" | grep -q ' holds \['
}
deadlocks direct-write-from-own-mapping invalidate ||
	fail "without rule R0 a write out of its own page does not deadlock"
deadlocks direct-write-from-own-mapping retry ||
	fail "without rule R0 a write out of its own page does not deadlock under retry"
deadlocks direct-read-into-own-mapping retry ||
	fail "without rule R0 a read into its own pages does not deadlock under retry"
