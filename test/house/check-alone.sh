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
	# Held by a file of its own, where a user may have FUSE: the device is lent.
	if command -v fusermount3 >/dev/null && [ -c /dev/fuse ] &&
	   "$check" --window write-read --lever-by-file "$dir/open" |
	   grep -q '^write-read .*\(torn\|coherent\|excluded\)'; then
		mkdir "$dir/dev"
		said=$(unshare -m sh -c '
			mount -t tmpfs none "$1/dev" &&
			mknod -m 666 "$1/dev/fuse" c 10 229 &&
			mount --bind "$1/dev/fuse" /dev/fuse || exit
			TMPDIR=$1/open setpriv --reuid 65534 --regid 65534 \
				--clear-groups "$1/mkwrite-check" \
				--window write-read "$1/open"
			grep "$1/open" /proc/mounts | sed "s/^/left: /"' \
			alone "$dir" 2>&1)
		case $said in
		*left:* | *skipped*) fail "a user with FUSE: $said" ;;
		*torn* | *coherent* | *excluded*) ;;
		*) fail "a user with FUSE: $said" ;;
		esac
	else
		echo "not tried: an ordinary user's lever by FUSE"
	fi
	[ -z "$(ls -A "$dir/open")" ] || fail "something is left behind"
fi
exit $bad
