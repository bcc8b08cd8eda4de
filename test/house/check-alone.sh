#!/bin/sh
# SPDX-License-Identifier: MIT
#
# check-alone.sh MKWRITE_CHECK: the checker without the engine is one static file,
# judges the kernel, says what an ordinary user cannot have, and leaves nothing.
set -u
check=$1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0
fail() {
	echo "FAILED: $1"
	bad=1
}

ldd "$check" >/dev/null 2>&1 && fail "it is not static"
"$check" --help | grep -q -e --policy && fail "it offers what is the engine's"
"$check" --list | grep -q dwrite-store-in-range || fail "no list of windows"

said=$("$check" --seconds 1 --window none "$dir")
status=$?
[ $status -le 1 ] || fail "exit status $status"
case $said in *"kernel "*) ;; *) fail "no kernel in: $said" ;; esac
case $said in *"not clean"*) want=1 ;; *) want=0 ;; esac
[ $status -eq $want ] || fail "the status $status is not the verdict"

# As somebody else, from a place that everybody can reach.
if [ "$(id -u)" -eq 0 ]; then
	cp "$check" "$dir/mkwrite-check"
	chmod 755 "$dir" "$dir/mkwrite-check"
	mkdir -m 777 "$dir/open"
	said=$(setpriv --reuid 65534 --regid 65534 --clear-groups \
		"$dir/mkwrite-check" --window fault-punch "$dir/open")
	case $said in
	*skipped:*"only root"* | *skipped:*/dev/fuse*) ;;
	*) fail "no reason for what an ordinary user cannot have: $said" ;;
	esac
	said=$(setpriv --reuid 65534 --regid 65534 --clear-groups \
		"$dir/mkwrite-check" --seconds 0.5 --window none "$dir/open")
	[ $? -le 1 ] || fail "an ordinary user cannot run it: $said"
	[ -z "$(ls -A "$dir/open")" ] || fail "something is left behind"
fi
exit $bad
