#!/bin/sh
# SPDX-License-Identifier: MIT
#
# probes.sh LIBRARY PAGE SOURCES: the library has the static probes that its sources
# name and its manual page lists, each with as many arguments as listed. Skipped
# (77) where it was built without.
set -u
library=$1 page=$2 sources=$3
command -v readelf >/dev/null || {
	echo "there is no readelf"
	exit 77
}
has=$(readelf -n "$library" 2>/dev/null | awk '
	/Provider: / { ours = $2 == "mkwrite" }
	ours && /Name: / { name = $2 }
	ours && /Arguments: / { print name, NF - 1; ours = 0 }' | sort -u)
[ -n "$has" ] || {
	echo "$library was built without probes (sys/sdt.h, package systemtap-sdt-dev)"
	exit 77
}
listed=$(sed -n 's/^\.BI "\([a-z_]*\)(" "\(.*\)" )$/\1 \2/p' "$page" |
	awk '{ n = gsub(/,/, ","); print $1, n + 1 }' | sort -u)
named=$(grep -ohE 'MKW__PROBE[0-9]\([a-z_]+' "$sources"/*.c |
	sed 's/MKW__PROBE\([0-9]\)(\(.*\)/\2 \1/' | sort -u)
[ "$has" = "$named" ] || {
	printf 'The library has\n%s\nand its sources name\n%s\n' "$has" "$named"
	exit 1
}
[ "$has" = "$listed" ] || {
	printf 'The library has\n%s\nand %s lists\n%s\n' "$has" "$page" "$listed"
	exit 1
}
