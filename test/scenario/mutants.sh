#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mutants.sh SIM: each planted bug is noticed by some scenario that finds nothing
# with the same seeds when it is not planted.
set -u
sim=$1
seeds=1..3000
bad=0

list=$("$sim" --list) || exit 1
names() {
	echo "$list" | sed -n "/^$1/,/^[^ ]/p" | sed -n 's/^  *\([^ ]*\).*/\1/p'
}
scenarios=$(names scenarios)
mutants=$(names planted)
[ -n "$scenarios" ] && [ -n "$mutants" ] || {
	echo "FAILED: cannot read the list: $list"
	exit 1
}

for mutant in $mutants; do
	by= machine=
	# What is only there for old kernels.
	[ "$mutant" = WINDOW_NOT_COMPARED ] && machine=--old-kernel
	for scenario in $scenarios; do
		"$sim" --scenario "$scenario" --mutant "$mutant" $machine \
			--seeds $seeds >/dev/null 2>&1
		[ $? -eq 1 ] || continue
		"$sim" --scenario "$scenario" $machine --seeds $seeds >/dev/null 2>&1 &&
			by="$by $scenario"
	done
	if [ -n "$by" ]; then
		echo "$mutant: noticed by$by"
	else
		echo "FAILED: $mutant is noticed by no scenario"
		bad=1
	fi
done
exit $bad
