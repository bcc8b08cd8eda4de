#!/bin/sh
# SPDX-License-Identifier: MIT
#
# with-fs.sh WITH_FS: tools/with-fs gives a file system of the asked type, hands
# the command's status through, names a wrong word, and leaves nothing behind.
set -u
with_fs=$1
TMPDIR=$(mktemp -d) && export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
bad=0
fail() {
	echo "FAILED: $1"
	bad=1
}

said=$("$with_fs" ext5 64 true 2>&1)
[ $? -eq 2 ] || fail "an unknown file system does not exit with 2"
case $said in *ext5*) ;; *) fail "the message does not name ext5: $said" ;; esac
"$with_fs" ext4 many true 2>/dev/null
[ $? -eq 2 ] || fail "a size that is no number does not exit with 2"

said=$("$with_fs" ext4 16 sh -c 'stat -f -c %T:%S {}; echo > "$MKW_DIR/f"; exit 5')
status=$?
if [ $status -eq 77 ]; then
	echo "$said"
	exit 77
fi
[ $status -eq 5 ] || fail "the command's status 5 became $status"
[ "$said" = ext2/ext3:4096 ] || fail "asked for ext4 of 4 KiB blocks, got $said"

mkfifo "$TMPDIR/pid"
"$with_fs" ext4 16 sh -c 'echo $PPID; exec sleep 60' >"$TMPDIR/pid" &
read -r pid <"$TMPDIR/pid"
kill -TERM "$pid"
wait $!
status=$?
[ $status -eq 143 ] || fail "ended by SIGTERM, it exits with $status, not 143"
rm "$TMPDIR/pid"

[ -z "$(ls "$TMPDIR")" ] || fail "left behind: $(ls "$TMPDIR")"
grep -q "$TMPDIR" /proc/self/mounts && fail "a mount is left behind"
exit $bad
