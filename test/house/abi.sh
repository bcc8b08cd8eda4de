#!/bin/sh
# SPDX-License-Identifier: MIT
#
# abi.sh SOURCE VERSION CC...: tools/check-abi finds planted breaks of the ABI, and lets
# pass what may change. The libraries that it is shown are the public functions
# alone, with what they call left undefined.
set -u
top=$1 version=$2
shift 2
cc=$*
command -v abidiff >/dev/null || {
	echo "there is no abidiff (package abigail-tools)"
	exit 77
}
dir=$(mktemp -d ./abi.XXXXXX) || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0

make_library() { # name, sed script for the header, sed script for the map
	mkdir -p "$dir/$1/mkwrite"
	for header in "$top"/include/mkwrite/*.h; do
		sed "$2" "$header" >"$dir/$1/mkwrite/${header##*/}"
	done
	sed "$3" "$top/src/api/mkwrite.map" >"$dir/$1.map"
	$cc -std=c11 -g -O0 -fPIC -shared -D_GNU_SOURCE -DMKW_VERSION="\"$version\"" \
		-I"$dir/$1" -I"$top/src" -I"$top" -o "$dir/$1.so" "$top"/src/api/*.c \
		-Wl,--version-script="$dir/$1.map" -Wl,-soname,libmkwrite.so.0 || {
		echo "$1 does not build"
		exit 1
	}
}
expect() { # status, new
	"$top/tools/check-abi" --pair "$dir/old.so:$dir/old" \
		"$dir/$2.so:$dir/$2" >"$dir/said" 2>&1
	status=$?
	[ $status -eq "$1" ] || {
		echo "check-abi of $2: exit status $status, not $1:"
		cat "$dir/said"
		bad=1
	}
}

make_library old '' ''
make_library same '' ''
make_library grown 's/^\tvoid \*log_arg;/&\n\tuint64_t planted;/' ''
# A function fewer; another offset; another type of an argument.
make_library removed '' '/mkw_seek;/d'
make_library moved 's/^\tuint32_t direct_align;/\tuint64_t planted;\n&/' ''
make_library retyped 's/^\tuint32_t writeback_age_ms;/\tuint64_t writeback_age_ms;/' ''
expect 0 same
expect 0 grown
expect 1 removed
expect 1 moved
expect 1 retyped
exit $bad
