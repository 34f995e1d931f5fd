#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Configures and compiles one build folder. Configures anew when the options
# changed or a source came or went; otherwise ninja alone decides what to do.
#
# usage: build.sh [-q] KIND [FOLDER [MESON-OPTION...]]
#   KIND    release, asan, tsan, fuzz, gcc or clang (these two with -Werror)
#   FOLDER  default: build for release, else build-KIND
#   -q      nothing but errors; without it, the compiler's progress too
set -eu
unset CDPATH
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"

quiet=0
if [ "${1:-}" = -q ]; then
	quiet=1
	shift
fi
kind=${1:-release}
[ $# = 0 ] || shift
folder=build-$kind
compiler=clang
case $kind in
release)
	folder=build compiler=${CC:-gcc}
	options="--prefix=${PREFIX:-/usr/local}"
	;;
asan) options="-Db_sanitize=address,undefined -Doptimization=1 -Db_lundef=false" ;;
tsan) options="-Db_sanitize=thread -Doptimization=1 -Db_lundef=false" ;;
fuzz) options="-Dfuzz=true -Db_sanitize=address,undefined -Doptimization=1 -Db_lundef=false" ;;
gcc) options="-Dwerror=true" compiler=gcc ;;
clang) options="-Dwerror=true" ;;
*)
	sed -n '/^# usage/,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2
	exit 2
	;;
esac
if [ $# != 0 ]; then
	folder=$1
	shift
fi

[ -f .setup/openssl.env ] || scripts/setup-openssl.sh
# shellcheck source=/dev/null
. .setup/openssl.env

if [ $quiet = 1 ]; then
	exec 3>&1 >".setup/build.$$.log" 2>&1
	trap 'test $? = 0 || cat ".setup/build.$$.log" >&3; rm -f ".setup/build.$$.log"' EXIT
fi

# All that configuring depends on and ninja does not see by itself.
inputs() {
	printf '%s\n' "$compiler" "$options $*" "$SM_OPENSSL_ORIGIN $SM_OPENSSL"
	scripts/sources.sh
}
known=$folder/.inputs
if [ ! -f "$folder/build.ninja" ] || ! inputs "$@" | cmp -s - "$known"; then
	again=
	[ ! -f "$folder/build.ninja" ] || again=--wipe
	# An unchanged compiler and options need no new start.
	if [ -n "$again" ] && [ "$(head -n 3 "$known" 2>/dev/null)" = "$(inputs "$@" | head -n 3)" ]; then
		again=--reconfigure
	fi
	# shellcheck disable=SC2086 # the options are lists
	CC=$compiler meson setup $again "$folder" $options "$@" >".setup/meson.$$.log" 2>&1 || {
		cat ".setup/meson.$$.log" >&2
		rm -f ".setup/meson.$$.log"
		exit 1
	}
	rm -f ".setup/meson.$$.log"
	inputs "$@" >"$known"
fi
ninja -C "$folder" -j "${JOBS:-$(getconf _NPROCESSORS_ONLN)}"
