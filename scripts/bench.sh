#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Measures a whole tunnel between network namespaces, each figure beside its
# reference in the same run: handshake, memory, ping, TCP, UDP, time from start
# to the first ping. Writes build/bench/tunnel.json and prints its tables.
# With "compare" other tunnels are measured in turn with it, which are fetched as
# Debian packages into build/peers and not installed: build/bench/compare.json.
#
# usage: bench.sh [--quick] [--rounds N] [--set SECTION.KEY=VALUE]... [PART...]
#        bench.sh --markdown | --write-doc      tables of the last run, printed
#                                               or put into docs/PERFORMANCE.md
#   PART      handshake, memory, latency, tcp, udp, startup, perf, impair (what the
#             impairment tool carries), micro (single steps); default: all
#   SM_BUILD  build folder to measure (default: build)
# and    bench.sh compare [--underlay plain|gro|none|loss|all] [--only NAME]...
#                 [--quick] [--rounds N] [tcp] [udp] [small] [ping]
#        bench.sh compare --markdown | --write-doc
set -eu
unset CDPATH
top=$(cd "$(dirname "$0")/.." && pwd)
case " $* " in
*" --markdown "* | *" --write-doc "* | *" --help "* | *" -h "*) ;;
*)
	[ "$(id -u)" = 0 ] || {
		echo "bench: network namespaces need root: sudo make bench" >&2
		exit 1
	}
	[ -x "${SM_BUILD:-$top/build}/shadowmesh" ] || {
		echo "bench: ${SM_BUILD:-$top/build}/shadowmesh is not built: run make first" >&2
		exit 1
	}
	;;
esac
what=tunnel.py
if [ "${1:-}" = compare ]; then
	what=compare/compare.py
	shift
fi
exec /usr/bin/python3 "$top/tests/bench/$what" "$@"
