#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Shows a mesh at work: three network namespaces stand for three machines on one underlay, each runs a
# daemon with a certificate made here, and ordinary programs talk through the tunnel.
#
#     ann 198.51.100.1 ---+
#     ben 198.51.100.2 ---+--- bridge (the "internet")
#     cat 198.51.100.3 ---+
#
#     overlay: 10.7.0.1, .2, .3 /24 and an IPv6 address that each node derives
#
# Exits with 1 if anything does not work. Cleans up, also when it is interrupted.
#
# usage: demo.sh [BUILD]     BUILD: the build folder (default: build)
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
sm=$(realpath "${1:-$top/build}")/shadowmesh
nodes=(ann ben cat)
tag=smdemo$$
work=
pids=()
failed=0 passed=0

die() { echo "demo: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "network namespaces need root: sudo make demo"
[ -x "$sm" ] || die "$sm is not built: run make first"
if ! [ -c /dev/net/tun ]; then die "there is no /dev/net/tun: load the tun module (modprobe tun)"; fi

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
	bold='' green='' red='' plain=''
fi
title() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }

cleanup() {
	trap '' INT TERM HUP
	# whatever runs on the machines, the command that was interrupted included
	for name in "${nodes[@]}"; do
		mapfile -t -O "${#pids[@]}" pids < <(ip netns pids "$tag-$name" 2>/dev/null)
	done
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
	for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null; done
	for name in "${nodes[@]}" net; do ip netns del "$tag-$name" 2>/dev/null; done
	[ -z "$work" ] || rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

in_() { local name=$1; shift; ip netns exec "$tag-$name" "$@"; }
# sm_ NODE COMMAND...: the command line program, on that machine
sm_() { local name=$1; shift; SHADOWMESH_RUNTIME_DIR=$work/$name in_ "$name" "$sm" "$@"; }

# check WHAT COMMAND...: runs it, shows its output, counts
check() {
	local what=$1; shift
	case $1 in
	in_) printf '%s%s$ %s%s\n' "$bold" "$2" "${*:3}" "$plain" ;;
	sm_) printf '%s%s$ shadowmesh %s%s\n' "$bold" "$2" "${*:3}" "$plain" ;;
	*) printf '%s$ %s%s\n' "$bold" "$*" "$plain" ;;
	esac
	# beside us, and waited for: a signal ends the demo at once, not after the command
	"$@" &
	if wait $!; then
		passed=$((passed + 1)); printf '%s   ok: %s%s\n' "$green" "$what" "$plain"
	else
		failed=$((failed + 1)); printf '%s   FAILED: %s%s\n' "$red" "$what" "$plain"
	fi
}
# until_ SECONDS COMMAND...: waits for it to succeed
until_() {
	local end=$((SECONDS + $1)); shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.05
	done
}
json() { python3 -c 'import json,sys; d=json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"; }

work=$(mktemp -d /tmp/shadowmesh-demo.XXXXXX)

title "An underlay with three machines"
ip netns add "$tag-net" || die "cannot make network namespaces"
ip -n "$tag-net" link add br0 type bridge
in_ net sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 2>/dev/null
ip -n "$tag-net" link set br0 up
i=0
for name in "${nodes[@]}"; do
	i=$((i + 1))
	ip netns add "$tag-$name"
	ip link add eth0 netns "$tag-$name" type veth peer name "$name" netns "$tag-net"
	ip -n "$tag-net" link set "$name" master br0 up
	ip -n "$tag-$name" link set lo up
	ip -n "$tag-$name" link set eth0 up
	ip -n "$tag-$name" addr add "198.51.100.$i/24" dev eth0
	echo "$name: 198.51.100.$i"
done

title "A certificate authority and three certificates (ML-DSA-87)"
cd "$work" || exit 1
"$sm" ca init demo || die "no CA"
i=0
for name in "${nodes[@]}"; do
	i=$((i + 1))
	"$sm" ca issue "$name" --address "10.7.0.$i/24" || die "no certificate for $name"
	{
		printf '[Network]\nName = demo\nCA = %s\n' "$work/demo-ca/ca.pem"
		printf '[Node]\nCertificate = %s.pem\nPrivateKey = %s.key\n' "$name" "$name"
		k=0
		for other in "${nodes[@]}"; do
			k=$((k + 1))
			[ "$other" = "$name" ] && continue
			printf '[Peer]\nName = %s\nEndpoint = 198.51.100.%s:8443\n' "$other" "$k"
		done
	} >"$name.conf"
done
echo "configuration of ann:"
sed 's/^/    /' ann.conf

title "Three daemons"
for name in "${nodes[@]}"; do
	mkdir "$work/$name"
	SHADOWMESH_RUNTIME_DIR=$work/$name ip netns exec "$tag-$name" "$sm" up -c "$name.conf" 2>"$name.log" &
	pids+=($!)
done
meshed() {
	local name
	for name in "${nodes[@]}"; do
		[ "$(sm_ "$name" status --json 2>/dev/null | json 'd["peers"]["up"]' 2>/dev/null)" = 2 ] || return 1
	done
}
until_ 15 meshed || { tail -n 20 ./*.log; die "the mesh did not come up"; }
sed -n 's/^/    /; /connected/p' ann.log
sm_ ann peers --json >peers.json || die "no answer from ann's daemon"
python3 - <<'PY' || die "the handshake is not post-quantum"
import json
ok = True
for p in json.load(open("peers.json"))["peers"]:
    s = p["session"]
    print("ann and %s: key agreement %s, signatures %s, data %s" % (p["name"], s["group"], s["signature"], s["cipher"]))
    print("    handshake %d bytes in, %d bytes out, %.1f ms" % (
        s["handshake_bytes_in"], s["handshake_bytes_out"], s["handshake_us"] / 1000))
    ok = ok and "MLKEM" in s["group"] and s["signature"] == "mldsa87"
raise SystemExit(not ok)
PY
passed=$((passed + 1))
ben6=$(sm_ ben status --json | json '[a for a in d["node"]["addresses"] if ":" in a][0].split("/")[0]')

title "ICMP, ARP"
check "ping, IPv4" in_ ann ping -c 5 -i 0.2 -W 2 10.7.0.2
check "ping, IPv6" in_ ann ping -c 5 -i 0.2 -W 2 "$ben6"
check "ping, frames larger than the path (split and rejoined)" in_ cat ping -c 3 -i 0.2 -W 2 -s 8000 10.7.0.2
check "arping" in_ ann arping -c 3 -i smesh0 10.7.0.3
reachable() { in_ ann ip neigh show 10.7.0.2 dev smesh0 | grep -E 'REACHABLE|DELAY|PROBE'; }
check "neighbour is reachable" reachable
check "through the tunnel, by path" sm_ ann ping -c 3 -i 0.2 ben

title "TCP and UDP"
in_ ben iperf3 -s >/dev/null 2>&1 &
pids+=($!)
listening() { in_ ben ss -Hltn | grep -q ':5201 '; }
until_ 5 listening || die "iperf3 does not listen"
check "iperf3, TCP" in_ ann iperf3 -c 10.7.0.2 -t 3 -i 0
check "iperf3, TCP over IPv6, reverse" in_ ann iperf3 -c "$ben6" -t 2 -i 0 -R
check "iperf3, UDP" in_ ann iperf3 -u -b 100M -l 1200 -c 10.7.0.2 -t 2 -i 0

title "A file through netcat"
head -c 20000000 /dev/urandom >sent
in_ ben sh -c 'nc -l -p 7777 >received || nc -l 7777 >received' &
receiver=$!
pids+=("$receiver")
listening_nc() { in_ ben ss -Hltn | grep -q ':7777 '; }
until_ 5 listening_nc || die "nc does not listen"
send() { in_ cat nc -N 10.7.0.2 7777 <sent; }
check "20 MB sent from cat to ben" send
wait "$receiver"
sha256sum sent received
check "checksums agree" cmp sent received

title "Status of ann"
check "status" sm_ ann status --profile
check "peers" sm_ ann peers

title "Orderly end"
for name in "${nodes[@]}"; do
	check "down on $name" sm_ "$name" down
done

title "Summary"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
