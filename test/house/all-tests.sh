#!/bin/sh
# SPDX-License-Identifier: MIT
#
# all-tests.sh MESON_BUILD: every program and script under test/ is named in
# test/meson.build, by its file or by the list that makes its name. A test that
# nobody runs does not say so by itself.
set -eu
build=$1
cd "$(dirname "$build")"
lost=0 seen=0
for path in unit/test_*.c real/test_*.c crash/test_*.c real/*.sh scenario/*.sh house/*.sh; do
	[ -e "$path" ] || continue
	seen=$((seen + 1))
	name=${path##*/}
	short=${name#test_}
	short=${short%.c}
	grep -qE "'$path'|['/]$name'|'$short'" "$build" && continue
	grep -rqF "$name" --include=meson.build .. && continue
	echo "$path is in no meson.build: name it there, or remove it"
	lost=1
done
[ "$seen" -gt 20 ] || { echo "only $seen tests seen below $(pwd)"; exit 1; }
exit $lost
