#!/bin/sh
# SPDX-License-Identifier: MIT
#
# coverage.sh SIM: seeds, over both policies and kernels, until every transition of a page
# and every nesting of locks that the documents name was taken; a few do not do.
set -u
"$1" --coverage --seeds 1..20000 || exit 1
"$1" --coverage --scenario load-vs-store --seed 1 >/dev/null && {
	echo "FAILED: one run of one scenario is said to take everything"
	exit 1
}
exit 0
