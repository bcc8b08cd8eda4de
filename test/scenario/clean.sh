#!/bin/sh
# SPDX-License-Identifier: MIT
#
# clean.sh SIM POLICY SEEDS [OPTION...]: no seed of any scenario finds anything under
# a policy that excludes faults.
set -u
sim=$1 policy=$2 seeds=$3
shift 3
exec "$sim" --policy "$policy" --seeds "$seeds" "$@"
