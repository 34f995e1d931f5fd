#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Finds sources, so that no build file lists them. A new .c file in a layer's
# folder or among the tests is all it takes.
#
# usage: sources.sh FROM FOLDER PATTERN [!PATTERN]
#            the files in FROM/FOLDER (not below it) that match PATTERN and not
#            !PATTERN, named as seen from FROM; FROM is seen from the checkout.
#            No folder means no files.
#        sources.sh
#            all that a build may compile, to see whether a file came or went.
set -eu
unset CDPATH
LC_ALL=C
export LC_ALL
cd "$(dirname "$0")/.."

case $# in
0)
	find src tests man dist \( -name '*.c' -o -path 'man/*' -o -path 'dist/*' \) \
		-type f 2>/dev/null | sort
	;;
3 | 4)
	cd "$1"
	[ -d "$2" ] || exit 0
	except=${4:-!}
	find "$2" -maxdepth 1 -type f -name "$3" ! -name "${except#!}" | sed 's#^\./##' | sort
	;;
*)
	sed -n '/^# usage/,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2
	exit 2
	;;
esac
