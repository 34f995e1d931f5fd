#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Makes the machine ready: installs the Debian packages that are missing (only
# then is apt touched, and root needed), then finds or builds OpenSSL. A machine
# that is ready costs a fraction of a second.
#
# usage: setup.sh [PURPOSE...]     purposes as in scripts/packages; default: build
set -eu
unset CDPATH
LC_ALL=C
export LC_ALL
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"

# listed PURPOSE: its packages
listed() { sed -n "s/^$1: *//p" scripts/packages; }
die() { echo "setup: $*" >&2; exit 1; }

wanted="$(listed build) $(listed "build-$(dpkg --print-architecture 2>/dev/null)")"
for purpose in "$@"; do
	more=$(listed "$purpose")
	[ -n "$more" ] || die "no purpose '$purpose' in scripts/packages"
	wanted="$wanted $more"
done
# shellcheck disable=SC2086 # a list
wanted=$(printf '%s\n' $wanted | sort -u)
command -v dpkg-query >/dev/null ||
	die "this is no Debian system; install by hand what these Debian packages hold:
$wanted"

# The wanted packages that dpkg does not call installed.
missing() {
	# shellcheck disable=SC2086 # a list
	{
		printf 'wanted %s\n' $wanted
		dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2>/dev/null || :
	} | awk '$1 == "wanted" { need[$2] } $1 == "installed" { delete need[$2] }
		END { for (name in need) print name }' | sort
}
mkdir -p .setup
need=$(missing | tr '\n' ' ')
if [ -n "$need" ]; then
	if [ "$(id -u)" != 0 ]; then
		die "these Debian packages are missing, and installing them needs root; cure:
  sudo apt-get update && sudo apt-get install --no-install-recommends $need"
	fi
	echo "setup: installing $need"
	# shellcheck disable=SC2086 # a list
	{
		apt-get -q -o DPkg::Lock::Timeout=300 update &&
			DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends --no-remove \
				-o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install $need
	} >.setup/apt.log 2>&1 || {
		tail -n 20 .setup/apt.log >&2
		die "apt-get could not install: $need
  see .setup/apt.log; with a package that would have to be removed, decide about that one by hand"
	}
	need=$(missing | tr '\n' ' ')
	[ -z "$need" ] || die "still missing after installing: $need"
fi

# OpenSSL is looked for again when what was found is gone or its recipe changed.
if [ -n "$(find .setup/openssl.env -newer scripts/setup-openssl.sh 2>/dev/null)" ]; then
	# shellcheck source=/dev/null
	. .setup/openssl.env
	[ -z "$SM_OPENSSL" ] || [ ! -x "$SM_OPENSSL" ] || exit 0
fi
scripts/setup-openssl.sh
touch .setup/openssl.env
