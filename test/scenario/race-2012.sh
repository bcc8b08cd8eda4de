#!/bin/sh
# SPDX-License-Identifier: MIT
#
# race-2012.sh SIM: with faults excluded by nothing the simulator finds the race
# between a fault and a hole punch, tells its steps, names a seed, and finds it
# again with that seed, in the same steps.
set -u
sim=$1
fail() {
	echo "FAILED: $1"
	exit 1
}

story=$("$sim" --scenario fault-vs-punch --policy none --seeds 1..20000)
[ $? -eq 1 ] || fail "the race is not found in 20000 seeds"
echo "$story"
seed=$(echo "$story" | sed -n 's/^again:.*--seed \([0-9]*\)$/\1/p')
[ -n "$seed" ] || fail "no seed is named"
hash=$(echo "$story" | grep '^trace hash')
[ -n "$hash" ] || fail "no trace hash is printed"
echo "$story" | grep -q punch || fail "the steps do not tell of a punch"

again=$("$sim" --scenario fault-vs-punch --policy none --seed "$seed")
[ $? -eq 1 ] || fail "seed $seed alone does not find it again"
[ "$(echo "$again" | grep '^trace hash')" = "$hash" ] ||
	fail "seed $seed alone runs otherwise"
