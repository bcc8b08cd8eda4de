#!/bin/sh
# SPDX-License-Identifier: MIT
#
# clean.sh SIM POLICY SEEDS: no seed of any scenario finds anything under a policy
# that excludes faults.
set -u
exec "$1" --policy "$2" --seeds "$3"
