#!/bin/sh
# SPDX-License-Identifier: MIT
#
# none.sh SIM: what depends on exclusion. With faults excluded by nothing every
# scenario loses, but for those named here, whose operations exclude each other by the
# lock of their own I/O, or are one fault against another, or that lose too seldom for a
# test. With writes that share their lock a read of several words sees a part of one.
set -u
sim=$1
fail() {
	echo "FAILED: $1"
	exit 1
}

lost=0
for name in $("$sim" --list | sed -n 's/^  \([a-z][a-z0-9-]*\) .*/\1/p'); do
	case $name in
	load-vs-store | direct-write-from-own-mapping | write-vs-read | crash-vs-edge | \
		failed-punch-vs-credit | sync-range-vs-store | length-changed | \
		size-watched | discard-vs-store | bad-buffer | crash-vs-store | error-at-writeback | glance-vs-reclaim | freeze-vs-mkwrite | pin-vs-writeback | \
		pin-vs-reclaim | queue-order | queue-cancel)
		continue
		;;
	esac
	"$sim" --scenario "$name" --policy none --seeds 1..30000 >/dev/null
	[ $? -eq 1 ] || fail "$name loses nothing under the policy none"
	lost=$((lost + 1))
done
[ $lost -ge 20 ] || fail "only $lost scenarios were tried"
echo "$lost scenarios lose"
"$sim" --scenario write-vs-read --mutant WRITE_SHARES --seeds 1..5000 |
	grep -q 'no order of whole operations' ||
	fail "a torn read is not noticed"
