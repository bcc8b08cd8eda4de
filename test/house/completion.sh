#!/bin/bash
# SPDX-License-Identifier: MIT
#
# completion.sh MKWRITE COMPLETIONS: every command and option that --help names is
# completed, a beginning to what it begins, and a choice after its option; and what
# does not exist is not.
set -u
mkwrite=$1
. "$2" || exit 1
bad=0
complain() {
	echo "$*"
	bad=1
}
complete_line() { # words, the last one under the cursor: COMPREPLY
	COMP_WORDS=("$mkwrite" "$@")
	COMP_CWORD=$#
	_mkwrite 2>/dev/null
}
offers() { # wanted, words
	local wanted=$1 word
	shift
	complete_line "$@"
	for word in "${COMPREPLY[@]}"; do
		[[ $word == "$wanted" ]] && return 0
	done
	return 1
}
wants() {
	offers "$@" || complain "mkwrite ${*:2}<TAB>: no $1, but: ${COMPREPLY[*]}"
}

seen=0
for part in $("$mkwrite" --help | grep -oE '^  [a-z]+' ); do
	wants "$part" "${part:0:2}"
	for option in $("$mkwrite" "$part" --help | grep -oE -e '--[a-z0-9-]+'); do
		wants "$option" "$part" --
		wants "$option" "$part" "${option%?}"
		seen=$((seen + 1))
	done
done
((seen > 30)) || complain "only $seen options seen"
wants --version --
wants invalidate check --policy in
wants none sim --policy ""
offers none check --policy "" && complain "check has no policy none"
wants ext4,xfs check --fs ext4,x
wants dwrite-load check --window dwrite-l
wants fault-vs-punch sim --scenario fault-vs-p
wants STORE_LEAVES_CLEAN sim --mutant STORE_L
wants random-read bench rand
wants "$PWD" check "${PWD%?}"
complete_line check --seconds ""
((${#COMPREPLY[@]})) && complain "a number cannot be guessed: ${COMPREPLY[*]}"
offers --frob check --fr && complain "--frob does not exist"
exit $bad
