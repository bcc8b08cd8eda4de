#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mutants.sh SIM: every planted bug is noticed by some scenario. (That the same seeds
# find nothing without one is what clean.sh shows.)
set -u
exec "$1" --mutants --seeds 1..60000
