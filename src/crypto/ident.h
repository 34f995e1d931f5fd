// SPDX-License-Identifier: MIT
/*
 * Who a node is: network id, name, node id, and what follows from them (MAC, IPv6 ULA).
 */
#ifndef SM_CRYPTO_IDENT_H
#define SM_CRYPTO_IDENT_H

#include "base/addr.h"
#include "base/text.h"
#include "wire/const.h"
#include "wire/ether.h"

#define SM_IDENT_ADDRESS_MAX 16u
#define SM_IDENT_PREFIX_MAX  32u
#define SM_IDENT_GROUP_MAX   16u
#define SM_GROUP_NAME_MAX    31u

/* Roles of the certificate profile, bits */
#define SM_ROLE_ISSUER     1u
#define SM_ROLE_RENDEZVOUS 2u
#define SM_ROLE_RELAY      4u

/**
 * struct sm_identity - What a certificate says, after it was verified (or what our own says)
 * @node_id:     SHA-256("shadowmesh/1 node" || network id || name)[0..15]; in pinned mode the
 *               fingerprint stands in the name's place
 * @addresses:   overlay addresses with the prefix length of their subnet (32 or 128 where unknown)
 * @prefixes:    networks behind the node, routed to it in TUN mode
 * @not_before, @not_after: seconds since 1970
 * @issuer:      fingerprint of the CA that sm_trust_check() found to have signed; zero in pinned mode
 *               and before that check
 */
struct sm_identity {
	uint8_t network_id[SM_NETWORK_ID_LEN];
	uint8_t node_id[SM_NODE_ID_LEN];
	char name[SM_NAME_MAX + 1];
	uint8_t fingerprint[SM_FINGERPRINT_LEN]; /* SHA-256 of the SPKI */
	uint8_t spki_sha384[48];
	uint8_t serial[20];
	uint8_t serial_len;
	int64_t not_before, not_after;
	struct sm_prefix addresses[SM_IDENT_ADDRESS_MAX];
	uint8_t address_count;
	struct sm_prefix prefixes[SM_IDENT_PREFIX_MAX];
	uint8_t prefix_count;
	char groups[SM_IDENT_GROUP_MAX][SM_GROUP_NAME_MAX + 1];
	uint8_t group_count;
	uint32_t roles;
	uint8_t issuer[SM_FINGERPRINT_LEN];
};

/**
 * sm_ident_network_from_name() - Pinned mode: the id of a network that has only a name,
 *                                SHA-256("shadowmesh/1 network" || name)[0..15]
 * Return: 0, -EIO
 */
SM_MUST_CHECK int sm_ident_network_from_name(const char *name, uint8_t ret_id[SM_NETWORK_ID_LEN]);

/** sm_ident_node_id() - @fingerprint: NULL with a CA; else it stands in the name's place; Return: 0, -EIO */
SM_MUST_CHECK int sm_ident_node_id(const uint8_t network_id[SM_NETWORK_ID_LEN], const char *name,
				   const uint8_t *fingerprint, uint8_t ret_id[SM_NODE_ID_LEN]);

/**
 * sm_ident_mac() - The node's MAC: SHA-256("shadowmesh/1 mac" || node id)[0..5], locally administered, unicast
 */
SM_MUST_CHECK int sm_ident_mac(const uint8_t node_id[SM_NODE_ID_LEN], struct sm_mac *ret_mac);

/**
 * sm_ident_ula() - The node's IPv6 ULA with /64: fd || SHA-256("shadowmesh/1 ula" || network id)[0..6]
 *                  || SHA-256("shadowmesh/1 iid" || node id)[0..7]
 */
SM_MUST_CHECK int sm_ident_ula(const uint8_t network_id[SM_NETWORK_ID_LEN],
			       const uint8_t node_id[SM_NODE_ID_LEN], struct sm_prefix *ret_ula);

/** sm_ident_role_name() - Return: "issuer", "rendezvous", "relay" for one SM_ROLE_ bit, else NULL */
const char *sm_ident_role_name(uint32_t role);
/** sm_ident_parse_role() - Return: 0, -EINVAL */
SM_MUST_CHECK int sm_ident_parse_role(const char *text, uint32_t *ret_role);

#define SM_FINGERPRINT_STRLEN 72
/** sm_ident_format_fingerprint() - "sha256:" and 64 hex digits; Return: @buf */
const char *sm_ident_format_fingerprint(const uint8_t fp[SM_FINGERPRINT_LEN],
					char buf[SM_FINGERPRINT_STRLEN]);
/** sm_ident_parse_fingerprint() - With or without "sha256:", colons allowed; Return: 0, -EINVAL */
SM_MUST_CHECK int sm_ident_parse_fingerprint(const char *text, uint8_t ret_fp[SM_FINGERPRINT_LEN]);

#endif
