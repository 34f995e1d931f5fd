#!/bin/sh
# SPDX-License-Identifier: MIT
#
# A dependency only points downwards. Reads the includes below src/ and fails with
# every one that does not; also when a file outside src/crypto includes OpenSSL.
# The table is the one in docs/ARCHITECTURE.md and src/meson.build. Two files of src/cli
# are the daemon's front door and not its client: they may use src/daemon.
#
# usage: check-layers.sh [FOLDER]     default: src
set -eu
unset CDPATH
LC_ALL=C
export LC_ALL
cd "$(dirname "$0")/.."
cd "${1:-src}"

# shellcheck disable=SC2016 # awk's own fields
find . -name '*.[ch]' -type f | sed 's#^\./##' | sort | xargs -r awk '
BEGIN {
	may["base"] = ""
	may["wire"] = "base"
	may["crypto"] = "base wire"
	may["core"] = "base wire crypto"
	may["io"] = "base wire crypto"
	may["plane"] = "base wire crypto core io"
	may["daemon"] = "base wire crypto core io plane"
	may["cli"] = "base wire crypto"
	exempt["cli/up.c", "daemon"] = 1
	exempt["cli/config.c", "daemon"] = 1
	for (layer in may) {
		allowed[layer, layer] = 1
		n = split(may[layer], names, " ")
		for (i = 1; i <= n; i++)
			allowed[layer, names[i]] = 1
	}
}
function complain(why) {
	printf "%s:%d: %s: %s\n", FILENAME, FNR, why, $0
	bad = 1
}
FNR == 1 {
	files++
	layer = FILENAME
	if (!sub(/\/.*/, "", layer))
		layer = "main"
	else if (!(layer in may)) {
		complain("a folder that is no layer")
		nextfile
	}
}
/^[ \t]*#[ \t]*include[ \t]*[<"]/ {
	target = $0
	sub(/^[^<"]*[<"]/, "", target)
	sub(/[>"].*/, "", target)
	if (target ~ /^openssl\// && layer != "crypto")
		complain("OpenSSL outside src/crypto")
	if ($0 !~ /"/)
		next
	other = target
	if (target ~ /^\.|\/\.\./ || !sub(/\/.*/, "", other))
		complain("name it from src/, as \"layer/file.h\"")
	else if (!(other in may))
		complain("no such layer")
	else if (layer != "main" && !((layer, other) in allowed) && !((FILENAME, other) in exempt))
		complain("src/" layer " must not use src/" other)
}
END {
	if (bad)
		exit 1
	printf "layers: %d files, every include points downwards\n", files
}'
