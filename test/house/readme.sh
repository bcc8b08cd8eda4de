#!/bin/sh
# SPDX-License-Identifier: MIT
#
# readme.sh README EXAMPLE: the program in the README is the example that is built
# and run, from its first #include on.
set -u
readme=$1 example=$2
shown=$(sed -n '/^```c$/,/^```$/p' "$readme" | sed '1d;$d')
built=$(sed -n '/^#include/,$p' "$example")
[ "$shown" = "$built" ] && exit 0
echo "the program in $readme is not $example"
exit 1
