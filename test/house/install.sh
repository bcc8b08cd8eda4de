#!/bin/sh
# SPDX-License-Identifier: MIT
#
# install.sh BUILD EXAMPLE CC...: what `make install` puts down is enough to build and
# run a program with nothing but pkg-config, shared and static, and the manual can
# be read.
set -u
build=$1 example=$2
shift 2
cc=$*
dir=$(mktemp -d ./install.XXXXXX) || exit 1
dir=$(cd "$dir" && pwd)
trap 'rm -rf "$dir"' EXIT
fail() {
	echo "FAILED: $1"
	exit 1
}

DESTDIR=$dir/root meson install -C "$build" --no-rebuild --quiet ||
	fail "meson install"
pc=$(find "$dir/root" -name mkwrite.pc)
[ -n "$pc" ] || fail "no mkwrite.pc was installed"
export PKG_CONFIG_PATH="${pc%/*}" PKG_CONFIG_SYSROOT_DIR="$dir/root"

$cc -o "$dir/shared" "$example" $(pkg-config --cflags --libs mkwrite) ||
	fail "building with the shared library"
LD_LIBRARY_PATH=$(dirname "${pc%/*}") "$dir/shared" "$dir/file" >/dev/null ||
	fail "the program with the shared library"

library=$(find "$dir/root" -name libmkwrite.a)
[ -n "$library" ] || fail "no libmkwrite.a was installed"
$cc -o "$dir/static" "$example" $(pkg-config --cflags mkwrite) "$library" \
	$(PKG_CONFIG_SYSROOT_DIR='' pkg-config --libs --static mkwrite |
		sed 's/-lmkwrite//; s/-L[^ ]*//') ||
	fail "building with the static library"
"$dir/static" "$dir/file" >/dev/null || fail "the program with the static library"

for page in man1/mkwrite.1 man3/mkw_map.3 man7/mkwrite.7; do
	find "$dir/root" -path "*/$page*" | grep -q . ||
		fail "$page was not installed"
done
find "$dir/root" -path '*/mkwrite/mkwrite-sim' -perm -u+x | grep -q . ||
	fail "mkwrite-sim was not installed"
mkwrite=$(find "$dir/root" -path '*/bin/mkwrite')
"$mkwrite" --version >/dev/null || fail "the installed mkwrite"
