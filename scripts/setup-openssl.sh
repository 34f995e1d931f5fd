#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Finds, or builds once and caches, an OpenSSL >= 3.5 (ML-DSA, ML-KEM and the
# hybrid TLS groups), and writes a file of shell variables that says where:
#
#   PKG_CONFIG_PATH    extended, so that `pkg-config openssl` finds this one
#   SM_OPENSSL         its command line program, a second opinion for the tests
#   SM_OPENSSL_ORIGIN  "system" or "debian-source-VERSION"
#
# 1. The system's OpenSSL is taken where it passes the probe below.
# 2. Otherwise Debian's own source package of a newer suite is fetched through
#    apt with a private state: mirror and proxy are the machine's, but its
#    package lists, its configuration and its libssl stay untouched. apt checks
#    the signatures against the Debian archive keyring. It is built as static
#    libraries into the cache, which all checkouts of one user share.
#
# usage: setup-openssl.sh [-o FILE] [-s SUITE] [-f] [-n]
#   -o FILE   the file to write    (default: .setup/openssl.env in the checkout)
#   -s SUITE  suite of the source  (default: trixie)
#   -f        never take the system's OpenSSL
#   -n        no network: the system's or a cached one, else fail
#
# The cache: $SHADOWMESH_CACHE, else $XDG_CACHE_HOME/shadowmesh, else
# ~/.cache/shadowmesh.
set -eu
umask 022
LC_ALL=C
export LC_ALL
unset CDPATH

say() { echo "openssl: $*"; }
die() { echo "openssl: $*" >&2; exit 1; }
usage() { sed -n '/^# usage/,/^#$/s/^# \{0,1\}//p' "$0" >&2; exit 2; }

top=$(cd "$(dirname "$0")/.." && pwd)
out=$top/.setup/openssl.env suite=trixie force=0 offline=0
while getopts o:s:fn opt; do
	case $opt in
	o) out=$OPTARG ;;
	s) suite=$OPTARG ;;
	f) force=1 ;;
	n) offline=1 ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# = 0 ] || usage

# The library keeps what the daemon uses. TLS 1.2 and the classical groups stay,
# because the tests play a client that is to be refused; the daemon's own TLS
# context never enables them.
CONFIG="no-shared no-tests no-docs no-legacy no-engine no-module no-dso no-autoload-config
no-comp no-cms no-cmp no-ct no-ts no-http no-ocsp no-srp no-srtp no-dtls no-tls1 no-tls1_1
no-quic no-idea no-camellia no-aria no-seed no-sm2 no-sm3 no-sm4 no-rc2 no-rc4 no-md4
no-mdc2 no-rmd160 no-whirlpool no-bf no-cast no-dsa no-ec2m no-siphash no-siv no-argon2
no-slh-dsa no-rfc3779 no-nextprotoneg no-multiblock no-deprecated no-integrity-only-ciphers"
# P-384, half of the first hybrid group, is three times faster this way; the
# code wants a 64-bit little-endian CPU.
case $(uname -m) in
x86_64 | aarch64 | riscv64 | ppc64le) CONFIG="$CONFIG enable-ec_nistp_64_gcc_128" ;;
esac
FLAGS="-O3 -g1 -fstack-protector-strong -D_FORTIFY_SOURCE=2"
[ "$(uname -m)" != x86_64 ] || FLAGS="$FLAGS -fcf-protection"
# Always cc: the cached library serves gcc and clang builds alike.
CC=cc
command -v $CC >/dev/null || die "no C compiler; cure: apt-get install build-essential"

cache=${SHADOWMESH_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set; set SHADOWMESH_CACHE to a folder}/.cache}/shadowmesh}
mkdir -p "$cache" "$(dirname "$out")"
cache=$(cd "$cache" && pwd)
case $cache in *[[:space:]]*) die "the path '$cache' has a blank; set SHADOWMESH_CACHE to one without" ;; esac

exec 9>"$cache/.lock"
if ! flock -n 9; then
	say "another run is building it; waiting"
	flock 9
fi
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

# probe CFLAGS LIBS: everything that the daemon needs, compiled, linked and run;
# prints the version
probe() {
	cat >"$work/probe.c" <<'C'
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#if OPENSSL_VERSION_NUMBER < 0x30500000L
#error "older than 3.5"
#endif
int main(void)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());
	EVP_PKEY *sign = EVP_PKEY_Q_keygen(NULL, NULL, "ML-DSA-87");
	EVP_PKEY *kem = EVP_PKEY_Q_keygen(NULL, NULL, "ML-KEM-1024");
	EVP_CIPHER *gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	EVP_CIPHER *chacha = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL);
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);

	if (!ctx || !sign || !kem || !gcm || !chacha || !kdf ||
	    SSL_CTX_set1_groups_list(ctx, "SecP384r1MLKEM1024:X25519MLKEM768:MLKEM1024") != 1 ||
	    SSL_CTX_set1_sigalgs_list(ctx, "mldsa87") != 1)
		return 1;
	puts(OpenSSL_version(OPENSSL_VERSION_STRING));
	return 0;
}
C
	# shellcheck disable=SC2086 # the flags are lists
	$CC $1 "$work/probe.c" -o "$work/probe" $2 2>"$work/probe.log" &&
		"$work/probe" 2>>"$work/probe.log"
}

# emit ORIGIN VERSION PKGCONFIG_DIR PROGRAM: an unchanged file keeps its time
emit() {
	{
		[ -z "$3" ] ||
			echo "PKG_CONFIG_PATH='$3'\${PKG_CONFIG_PATH:+:\$PKG_CONFIG_PATH}"
		echo "SM_OPENSSL='$4'"
		echo "SM_OPENSSL_ORIGIN='$1'"
		echo "SM_OPENSSL_VERSION='$2'"
		echo "export PKG_CONFIG_PATH SM_OPENSSL SM_OPENSSL_ORIGIN SM_OPENSSL_VERSION"
	} >"$work/env"
	cmp -s "$work/env" "$out" || cp "$work/env" "$out"
	say "$2 ($1); in a shell: . $out"
	exit 0
}

# use FOLDER: take it if it is complete and still works
use() {
	[ -f "$1/.complete" ] || return 1
	version=$(probe "-I$1/include" "$1/lib/libssl.a $1/lib/libcrypto.a -lpthread -ldl") || return 1
	emit "debian-source-$(cat "$1/.complete")" "$version" "$1/lib/pkgconfig" "$1/bin/openssl"
}

if [ $force = 0 ] && version=$(probe "" "-lssl -lcrypto"); then
	emit system "$version" "" "$(command -v openssl || :)"
fi

# The key names all that changes the result, besides the source's version.
key=$(printf '%s\n' "$CONFIG" "$FLAGS" "$suite" "$(uname -m)" \
	"$($CC -dumpfullversion -dumpmachine)" "$(ldd --version 2>/dev/null | sed -n '1s/.* //p')" |
	sha256sum | cut -c1-12)
newest=
for d in "$cache"/openssl-*-"$key"; do
	[ -f "$d/.complete" ] || continue
	if [ -z "$newest" ] ||
		dpkg --compare-versions "$(cat "$d/.complete")" gt "$(cat "$newest/.complete")"; then
		newest=$d
	fi
done
[ -z "$newest" ] || use "$newest" || say "the cached $newest does not work any more; building anew"
[ $offline = 0 ] || die "no OpenSSL >= 3.5 here, and -n forbids fetching one"

missing=
for tool in apt-get apt-cache dpkg-source dpkg make perl; do
	command -v $tool >/dev/null || missing="$missing $tool"
done
[ -z "$missing" ] || die "missing:$missing; cure: apt-get install build-essential perl"
keyring=
for k in /usr/share/keyrings/debian-archive-keyring.pgp /usr/share/keyrings/debian-archive-keyring.gpg; do
	if [ -f $k ]; then keyring=$k; break; fi
done
[ -n "$keyring" ] || die "no Debian archive keyring; cure: apt-get install debian-archive-keyring"

# archive SUITE: the machine's own mirror of it; apt knows every format of list
archive() {
	apt-get --print-uris update 2>/dev/null |
		sed -n "s#^'\([^']*\)/dists/$1/InRelease'.*#\1#p" | head -n 1
}
# shellcheck source=/dev/null
. /etc/os-release
codename=${VERSION_CODENAME:?}
mirror=$(archive "$codename")
security=$(archive "$codename-security")
[ -n "$mirror" ] || die "apt has no Debian archive configured for $codename"

mkdir -p "$work/state/lists/partial" "$work/apt/archives/partial" "$work/src" "$work/build"
{
	echo "deb-src [signed-by=$keyring] $mirror $suite main"
	[ -z "$security" ] || echo "deb-src [signed-by=$keyring] $security $suite-security main"
} >"$work/sources.list"
: >"$work/status"

# private PROGRAM ARGUMENT...: apt's programs on a state of their own
private() {
	program=$1
	shift
	"$program" -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
		-o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=- \
		-o Dir::State="$work/state" -o Dir::State::lists="$work/state/lists" \
		-o Dir::State::status="$work/status" -o Dir::Cache="$work/apt" \
		-o APT::Sandbox::User=root -o APT::Get::AllowUnauthenticated=false \
		-o Acquire::AllowInsecureRepositories=false -o Acquire::Retries=3 "$@"
}

say "reading the package lists of Debian $suite"
private apt-get update >"$work/update.log" 2>&1 || {
	cat "$work/update.log" >&2
	die "cannot read the package lists of $suite from $mirror"
}
# An archive between two states may lack one version's files and have another's:
# newest first, take the first that is whole. The order is dpkg's.
versions=$(private apt-cache showsrc --only-source openssl | sed -n 's/^Version: //p' | sort -u)
got=
while [ -n "$versions" ] && [ -z "$got" ]; do
	top_version=
	for v in $versions; do
		if [ -z "$top_version" ] || dpkg --compare-versions "$v" gt "$top_version"; then
			top_version=$v
		fi
	done
	dpkg --compare-versions "$top_version" ge 3.5 || break
	say "fetching the source of openssl $top_version"
	if (cd "$work/src" && private apt-get source --only-source --download-only \
		"openssl=$top_version") >"$work/get.log" 2>&1; then
		got=$top_version
	else
		say "the archive lacks files of $top_version"
		versions=$(printf '%s\n' "$versions" | grep -vxF "$top_version" || :)
	fi
done
[ -n "$got" ] || {
	[ ! -f "$work/get.log" ] || cat "$work/get.log" >&2
	die "no source of OpenSSL >= 3.5 could be fetched from $suite"
}
(cd "$work/src" && dpkg-source -x ./*.dsc tree) >"$work/unpack.log" 2>&1 || {
	cat "$work/unpack.log" >&2
	die "cannot unpack the source"
}

final=$cache/openssl-$(printf %s "$got" | tr '~:' '__')-$key
log=$cache/openssl-build.log
say "building $got: a minute or two, once; log: $log"
(
	cd "$work/build"
	# --prefix is where it will lie. The library never reads --openssldir
	# (no-autoload-config), so no writable folder can configure the daemon.
	# shellcheck disable=SC2086 # the options are lists
	"$work/src/tree/config" $CONFIG $FLAGS --prefix="$final" --libdir=lib --openssldir=/etc/ssl
) >"$log" 2>&1 || {
	tail -n 30 "$log" >&2
	die "configuring failed: $log"
}
total=$(make -C "$work/build" -n build_sw 2>/dev/null | grep -c -- ' -c -o ' || :)
make -C "$work/build" -j"$(getconf _NPROCESSORS_ONLN)" build_sw >>"$log" 2>&1 9>&- &
build=$!
# make takes its compilers along
trap 'kill -TERM $build 2>/dev/null; wait $build 2>/dev/null; exit 130' INT TERM HUP
ticks=0
while kill -0 $build 2>/dev/null; do
	sleep 1
	ticks=$((ticks + 1))
	[ $((ticks % 10)) != 0 ] ||
		say "compiled $(grep -c -- ' -c -o ' "$log" || :) of $total files"
done
if ! wait $build ||
	! make -C "$work/build" DESTDIR="$work/root" install_sw install_ssldirs >>"$log" 2>&1; then
	tail -n 30 "$log" >&2
	die "the build failed: $log"
fi
trap 'exit 130' INT TERM HUP

# The program gets a configuration of its own: req wants one, and the system's
# may name providers which this build does not have.
mkdir -p "$work/root$final/ssl" "$work/root$final/libexec"
cp "$work/root/etc/ssl/openssl.cnf.dist" "$work/root$final/ssl/openssl.cnf"
mv "$work/root$final/bin/openssl" "$work/root$final/libexec/openssl"
cat >"$work/root$final/bin/openssl" <<WRAPPER
#!/bin/sh
OPENSSL_CONF=\${OPENSSL_CONF-$final/ssl/openssl.cnf} exec $final/libexec/openssl "\$@"
WRAPPER
chmod 755 "$work/root$final/bin/openssl"
echo "$got" >"$work/root$final/.complete"
rm -rf "$final"
mv "$work/root$final" "$final"
use "$final" || {
	cat "$work/probe.log" >&2
	die "the built library does not pass the probe"
}
