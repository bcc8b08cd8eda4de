#!/bin/sh
# SPDX-License-Identifier: MIT
#
# windows.sh WITH_FS MKWRITE FSTYPE: what the windows say of a file system of Linux
# 6.18 is what is known of it. A window whose verdict is the file system's own
# affair (which operation waits) is not compared.
set -u
with_fs=$1 mkwrite=$2 fstype=$3

case $(uname -r) in
6.18.*) ;;
*)
	echo "skipped: what is known is known of Linux 6.18, and this is $(uname -r)"
	exit 77
	;;
esac

case $fstype in
ext4) known="
dwrite-store-in-range lost direct write
dwrite-store-other-sector lost direct write
dwrite-store-next-to-range lost direct write
dwrite-load coherent
write-read torn
read-write torn
dread-store coherent
dread-store-hole spurious error
past-end-truncate coherent
past-end-direct-write bytes past the end
self-buffered-read-same coherent
self-buffered-read-page torn
self-direct-read-page coherent" ;;
xfs) known="
dwrite-store-in-range lost direct write
dwrite-store-other-sector lost direct write
dwrite-store-next-to-range lost direct write
dwrite-load coherent
write-read blocked (excluded)
read-write blocked (excluded)
dread-store-hole spurious error
past-end-direct-write coherent
self-buffered-read-page torn
self-direct-read-page coherent" ;;
btrfs) known="
dwrite-store-in-range coherent
dwrite-store-other-sector coherent
dwrite-store-next-to-range coherent
write-read torn
read-write torn
dread-store-hole coherent
past-end-direct-write coherent
self-buffered-read-page torn
self-direct-read-page torn" ;;
tmpfs) known="
dwrite-store-in-range coherent
read-write torn
past-end-direct-write bytes past the end
self-buffered-read-page torn
self-direct-read-page torn" ;;
esac

names=$(echo "$known" | awk 'NF { printf "%s%s", n++ ? "," : "", $1 }')
said=$("$with_fs" "$fstype" 512 "$mkwrite" check --target kernel \
	--window "$names" {})
status=$?
[ $status -le 1 ] || { echo "$said"; exit $status; }
bad=0
echo "$known" | while read -r name verdict; do
	[ -n "$name" ] || continue
	echo "$said" | grep -q "^$name  *$verdict *\$" || {
		echo "$fstype: $name is not: $verdict"
		exit 1
	}
done || bad=1
[ $bad -eq 0 ] || echo "$said"
exit $bad
