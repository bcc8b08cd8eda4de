#!/bin/sh
# SPDX-License-Identifier: MIT
#
# dist.sh DIST: made twice, in other surroundings, it is the same tarball; it has
# what a build needs below one folder of its name, and nothing that git has not.
set -u
dist=$1
dir=$(mktemp -d ./dist.XXXXXX) || exit 1
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/a" "$dir/b"
a=$("$dist" "$dir/a" 2>"$dir/why")
status=$?
if [ $status -eq 77 ]; then
	cat "$dir/why"
	exit 77
fi
b=$(umask 077 && TZ=Asia/Tokyo LC_ALL=C "$dist" "$dir/b" 2>/dev/null)
[ $status -eq 0 ] && [ -f "$a" ] && [ -f "$b" ] || {
	echo "dist: exit status $status: $(cat "$dir/why")"
	exit 1
}
cmp "$a" "$b" || exit 1
name=$(basename "$a" .tar.xz)
tar -tJf "$a" >"$dir/list"
if grep -v "^$name/" "$dir/list"; then
	echo "these lie beside the folder $name"
	exit 1
fi
for file in meson.build include/mkwrite/mkwrite.h src/api/mkwrite.map debian/control LICENSE; do
	grep -qx "$name/$file" "$dir/list" || {
		echo "$file is not in it"
		exit 1
	}
done
if grep -E '/(\.git|build[^/]*)/' "$dir/list"; then
	echo "these should not be in it"
	exit 1
fi
