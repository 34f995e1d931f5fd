# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# Completion of shadowmesh's command line for bash. Belongs to
# /usr/share/bash-completion/completions/shadowmesh.

# The networks that have a control socket
_shadowmesh_networks() {
	local socket

	for socket in "${SHADOWMESH_RUNTIME_DIR:-/run/shadowmesh}"/*.sock; do
		[ -S "$socket" ] || continue
		socket=${socket##*/}
		printf '%s\n' "${socket%.sock}"
	done
}

# The nodes that the daemon knows; jq is not everywhere
_shadowmesh_nodes() {
	shadowmesh peers --json "$@" 2>/dev/null |
		sed -n 's/^      "name": "\([a-z0-9-]*\)",\{0,1\}$/\1/p'
}

_shadowmesh() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
	local command=${COMP_WORDS[1]-} words='' i
	local network=()

	for ((i = 2; i < COMP_CWORD - 1; i++)); do
		[ "${COMP_WORDS[i]}" != --network ] || network=("${COMP_WORDS[i + 1]}")
	done
	COMPREPLY=()
	case $previous in
	-c | --config)
		# ping's -c is a count
		[ "$command" = ping ] || mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	--socket | --file | --key | --ca | --crl | --request | --passphrase-file | -o | --out | --dir)
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	-L | --log-level)
		words='error warn notice info debug'
		;;
	--network)
		words=$(_shadowmesh_networks)
		;;
	--role)
		words='issuer rendezvous relay'
		;;
	*)
		if [ "$COMP_CWORD" = 1 ]; then
			words='up down status peers ping reload config ca keygen fingerprint request version help'
			words+=' --help --version'
		else
			case $command in
			up) words='-c --config -d --detach -v --verbose -q --quiet --log-level' ;;
			down | reload) words="$(_shadowmesh_networks) --socket" ;;
			status) words="$(_shadowmesh_networks) --json --profile --socket" ;;
			peers) words="$(_shadowmesh_networks) --json --socket" ;;
			ping)
				words="$(_shadowmesh_nodes "${network[@]}")"
				words+=' --count --interval --timeout --network --socket'
				;;
			config) [ "$COMP_CWORD" = 2 ] && words='check' || words='--json' ;;
			ca)
				[ "$COMP_CWORD" = 2 ] && words='init issue revoke crl list show' ||
					words='--dir --valid --address --prefix --group --role --key --request --out --json'
				;;
			keygen) words='--out --passphrase --passphrase-file' ;;
			fingerprint) words='--passphrase-file' ;;
			request) words='--key --out --passphrase-file' ;;
			version) words='--json' ;;
			help) words='up down status peers ping reload config ca keygen fingerprint request version' ;;
			esac
			words+=' --help'
		fi
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
	case $command in
	config | fingerprint)
		[ "$COMP_CWORD" = 1 ] || mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$current")
		;;
	esac
}

complete -o filenames -F _shadowmesh shadowmesh
