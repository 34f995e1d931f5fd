#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Runs every micro benchmark; each prints JSON, which is kept in build/bench/ too.
#
# usage: bench-micro.sh [NAME...]     NAME as in tests/bench/bench_NAME.c
set -eu
unset CDPATH
cd "$(dirname "$0")/.."

mkdir -p build/bench
failed=
# shellcheck disable=SC2046 # a list
[ $# != 0 ] || set -- $(scripts/sources.sh tests/bench . 'bench_*.c' | sed 's/^bench_//; s/\.c$//')
[ $# != 0 ] || {
	echo "bench-micro: no tests/bench/bench_*.c" >&2
	exit 1
}
for name in "$@"; do
	echo "== $name"
	if "build/tests/bench/bench_$name" >"build/bench/$name.json"; then
		cat "build/bench/$name.json"
	else
		failed="$failed $name"
	fi
done
[ -z "$failed" ] || {
	echo "bench-micro: failed:$failed" >&2
	exit 1
}
