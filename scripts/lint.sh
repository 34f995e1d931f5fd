#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Everything that can be said about the sources without running them. Goes through
# all checks and then fails if one did.
#
# usage: lint.sh [CHECK...]    default: all
#   layers format gcc clang tidy shell python
#   rewrite (only when named): make the sources as .clang-format says
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

jobs=${JOBS:-$(nproc)}

# files PATTERN...: what git tracks or would, without what was just deleted
files() {
	git ls-files -co --exclude-standard -- "$@" | while IFS= read -r file; do
		[ ! -f "$file" ] || printf '%s\n' "$file"
	done
}

check_layers() {
	scripts/check-layers.sh
}

check_format() {
	files 'src/*.[ch]' 'tests/*.[ch]' | xargs -r -d '\n' clang-format --dry-run -Werror
}

check_rewrite() {
	files 'src/*.[ch]' 'tests/*.[ch]' | xargs -r -d '\n' clang-format -i
}

check_gcc() {
	scripts/build.sh -q gcc
}

check_clang() {
	scripts/build.sh -q clang
}

# Reads the flags of every file from the clang build.
check_tidy() {
	scripts/build.sh -q clang || return
	run-clang-tidy -quiet -j "$jobs" -p build-clang "^$PWD/src/.*\.c$" >.setup/tidy.log 2>&1
	local code=$?
	sed 's/\x1b\[[0-9;]*m//g' .setup/tidy.log | grep -E -A 6 '(warning|error):'
	return $code
}

check_shell() {
	files | xargs -r -d '\n' awk '
		FNR == 1 && /^#!.*[\/ ](ba|da|)sh( |$)/ { print FILENAME } { nextfile }' |
		xargs -r -d '\n' shellcheck -x
}

check_python() {
	files '*.py' | xargs -r -d '\n' /usr/bin/python3 -m pyflakes
}

failed=()
checks=("$@")
[ ${#checks[@]} != 0 ] || checks=(layers format gcc clang tidy shell python)
for check in "${checks[@]}"; do
	if ! declare -F "check_$check" >/dev/null; then
		sed -n '/^# usage/,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2
		exit 2
	fi
	echo "== $check"
	"check_$check" || failed+=("$check")
done
if [ ${#failed[@]} != 0 ]; then
	echo "lint: failed: ${failed[*]}"
	exit 1
fi
echo "lint: clean"
