#!/bin/sh
# SPDX-License-Identifier: MIT
#
# cli.sh MKWRITE MAN_DIR: a wrong command line ends with status 2 and a message that
# names the wrong word; --help and --version end well; each command has a manual page, whose
# options, and workloads, are those of its --help; and the page of all names each command.
set -u
mkwrite=$1 man=$2
bad=0
refused() { # word, arguments
	word=$1
	shift
	said=$("$mkwrite" "$@" 2>&1 >/dev/null)
	status=$?
	[ $status -eq 2 ] || {
		echo "mkwrite $*: exit status $status, not 2"
		bad=1
	}
	case $said in
	*"$word"*) ;;
	*)
		echo "mkwrite $*: \"$word\" is not in the message: $said"
		bad=1
		;;
	esac
}
answered() { # pattern, arguments
	pattern=$1
	shift
	said=$("$mkwrite" "$@") || {
		echo "mkwrite $*: exit status $?"
		bad=1
	}
	case $said in
	*"$pattern"*) ;;
	*)
		echo "mkwrite $*: \"$pattern\" is not in: $said"
		bad=1
		;;
	esac
}

answered usage --help
answered "mkwrite 0." --version
refused missing
refused chekc chekc
refused --frob --frob

answered usage check --help
refused --frob check --frob .
refused nosuchdir check ./nosuchdir
refused soon check --seconds soon .

answered usage bench --help
refused --frob bench --frob .
refused DIR bench
refused many bench --rounds many .
refused sometimes bench --policy sometimes .
refused "0" bench --rounds 0 .
refused rand-read bench rand-read .
refused nosuchdir bench ./nosuchdir

answered usage sim --help
refused --frob sim --frob
refused sometimes sim --scenario fault-vs-punch --policy sometimes
refused fault-vs-lunch sim --scenario fault-vs-lunch --policy retry

# What programs read is what programs can read; and a violation is status 1.
json=$(mktemp) || exit 1
"$mkwrite" sim --scenario fault-vs-punch --seeds 1..20 --json "$json" >/dev/null &&
	! "$mkwrite" sim --scenario fault-vs-punch --policy none --seeds 1..2000 \
		--json "$json.bad" >/dev/null &&
	python3 - "$json" "$json.bad" <<'EOF' || { echo "mkwrite sim --json: not as it should be"; bad=1; }
import json, sys
good, lost = (json.load(open(name))['runs'][0] for name in sys.argv[1:])
assert good['verdict'] == 'clean' and good['schedules'] == 20, good
assert lost['verdict'] == 'VIOLATION' and lost['schedules'] < 2000, lost
EOF
rm -f "$json" "$json.bad"

# The options that a page describes, and that --help names.
described() {
	sed 's/\\f[BIPR]//g; s/\\-/-/g' "$1" | sed -n '/^\.SH OPTIONS/,/^\.SH EXIT/p' |
		grep -A1 '^\.TP' | grep -o -e '--[a-z][a-z0-9-]*' | sort -u
}
helped() {
	{
		"$mkwrite" "$1" --help | grep -o -e '--[a-z0-9-]*'
		echo --help
	} | sort -u
}
for part in $("$mkwrite" --help | sed -n 's/^  \([a-z]*\)  .*/\1/p'); do
	page=$man/mkwrite-$part.1
	[ "$(described "$page")" = "$(helped "$part")" ] || {
		echo "$page describes other options than mkwrite $part --help: $(described "$page") / $(helped "$part")" | tr '\n' ' '
		echo
		bad=1
	}
	grep -q "mkwrite-$part (1)" "$man/mkwrite.1" || {
		echo "$man/mkwrite.1 does not name mkwrite-$part(1)"
		bad=1
	}
done
for workload in $("$mkwrite" bench --help | sed -n '/^Workloads/,$s/^  \([a-z0-9-]*\)  .*/\1/p'); do
	grep -q "^\.BR* .*$workload" "$man/mkwrite-bench.1" || {
		echo "$man/mkwrite-bench.1 does not name $workload"
		bad=1
	}
done

# Where there is no simulator, that is said, with where it was looked for.
alone=$(mktemp -d) || exit 1
cp "$mkwrite" "$alone/mkwrite"
mkwrite=$alone/mkwrite
refused "$alone/mkwrite-sim" sim
rm -rf "$alone"
exit $bad
