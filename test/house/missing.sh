#!/bin/sh
# SPDX-License-Identifier: MIT
#
# missing.sh WHAT...: stands for a test that cannot be built here, and says why.
echo "SKIP: needs $*, which tools/deps installs"
exit 77
