// SPDX-License-Identifier: MIT
/*
 * What follows from a network id and a node's name: node id, MAC, ULA; fingerprints as text.
 */
#include "crypto/ident.h"

#include "crypto/crypto.h"

#include <ctype.h>
#include <strings.h>

/* SHA-256 over a label and up to two more pieces */
static int labelled_hash(const char *label, struct sm_bytes a, struct sm_bytes b,
			 uint8_t ret_digest[SM_SHA256_LEN])
{
	const struct sm_bytes pieces[] = {{label, strlen(label)}, a, b};

	return sm_sha256(pieces, SM_ARRAY_SIZE(pieces), ret_digest);
}

int sm_ident_network_from_name(const char *name, uint8_t ret_id[SM_NETWORK_ID_LEN])
{
	const struct sm_bytes text = {name, strlen(name)};
	uint8_t digest[SM_SHA256_LEN];
	int err = labelled_hash("shadowmesh/1 network", text, (struct sm_bytes){0}, digest);

	if (!err)
		memcpy(ret_id, digest, SM_NETWORK_ID_LEN);
	return err;
}

int sm_ident_node_id(const uint8_t network_id[SM_NETWORK_ID_LEN], const char *name,
		     const uint8_t *fingerprint, uint8_t ret_id[SM_NODE_ID_LEN])
{
	const struct sm_bytes network = {network_id, SM_NETWORK_ID_LEN};
	const struct sm_bytes who = fingerprint ? (struct sm_bytes){fingerprint, SM_FINGERPRINT_LEN}
						: (struct sm_bytes){name, strlen(name)};
	uint8_t digest[SM_SHA256_LEN];
	int err = labelled_hash("shadowmesh/1 node", network, who, digest);

	if (!err)
		memcpy(ret_id, digest, SM_NODE_ID_LEN);
	return err;
}

int sm_ident_mac(const uint8_t node_id[SM_NODE_ID_LEN], struct sm_mac *ret_mac)
{
	const struct sm_bytes node = {node_id, SM_NODE_ID_LEN};
	uint8_t digest[SM_SHA256_LEN];
	int err = labelled_hash("shadowmesh/1 mac", node, (struct sm_bytes){0}, digest);

	if (err)
		return err;
	memcpy(ret_mac->b, digest, SM_MAC_LEN);
	ret_mac->b[0] = (uint8_t)((ret_mac->b[0] & 0xfc) | 0x02); /* local, unicast */
	return 0;
}

int sm_ident_ula(const uint8_t network_id[SM_NETWORK_ID_LEN], const uint8_t node_id[SM_NODE_ID_LEN],
		 struct sm_prefix *ret_ula)
{
	const struct sm_bytes network = {network_id, SM_NETWORK_ID_LEN};
	const struct sm_bytes node = {node_id, SM_NODE_ID_LEN};
	struct sm_prefix ula = {.family = 6, .len = 64};
	uint8_t digest[SM_SHA256_LEN];
	int err = labelled_hash("shadowmesh/1 ula", network, (struct sm_bytes){0}, digest);

	if (err)
		return err;
	ula.ip[0] = 0xfd;
	memcpy(ula.ip + 1, digest, 7);
	err = labelled_hash("shadowmesh/1 iid", node, (struct sm_bytes){0}, digest);
	if (err)
		return err;
	memcpy(ula.ip + 8, digest, 8);
	*ret_ula = ula;
	return 0;
}

static const char *const role_names[] = {"issuer", "rendezvous", "relay"};
static_assert(SM_ROLE_ISSUER == 1u << 0 && SM_ROLE_RENDEZVOUS == 1u << 1 &&
		      SM_ROLE_RELAY == 1u << 2,
	      "bit n has name n");

const char *sm_ident_role_name(uint32_t role)
{
	for (size_t i = 0; i < SM_ARRAY_SIZE(role_names); i++)
		if (role == UINT32_C(1) << i)
			return role_names[i];
	return NULL;
}

int sm_ident_parse_role(const char *text, uint32_t *ret_role)
{
	for (size_t i = 0; i < SM_ARRAY_SIZE(role_names); i++)
		if (strcmp(text, role_names[i]) == 0) {
			*ret_role = UINT32_C(1) << i;
			return 0;
		}
	return -EINVAL;
}

#define FINGERPRINT_PREFIX "sha256:"

const char *sm_ident_format_fingerprint(const uint8_t fp[SM_FINGERPRINT_LEN],
					char buf[SM_FINGERPRINT_STRLEN])
{
	static_assert(sizeof(FINGERPRINT_PREFIX) + (size_t)2 * SM_FINGERPRINT_LEN <=
			      SM_FINGERPRINT_STRLEN,
		      "it fits");
	memcpy(buf, FINGERPRINT_PREFIX, strlen(FINGERPRINT_PREFIX));
	sm_text_hex(fp, SM_FINGERPRINT_LEN, buf + strlen(FINGERPRINT_PREFIX));
	return buf;
}

int sm_ident_parse_fingerprint(const char *text, uint8_t ret_fp[SM_FINGERPRINT_LEN])
{
	char hex[2 * SM_FINGERPRINT_LEN + 1];
	size_t n = 0;

	if (strncasecmp(text, FINGERPRINT_PREFIX, strlen(FINGERPRINT_PREFIX)) == 0)
		text += strlen(FINGERPRINT_PREFIX);
	for (; *text; text++) {
		/* A colon stands between two whole bytes, nowhere else. */
		if (*text == ':' && n > 0 && n % 2 == 0 && text[1] && text[1] != ':')
			continue;
		if (n == sizeof(hex) - 1 || !isxdigit((unsigned char)*text))
			return -EINVAL;
		hex[n++] = *text;
	}
	hex[n] = '\0';
	if (n != sizeof(hex) - 1)
		return -EINVAL;
	return sm_text_parse_hex(hex, ret_fp, SM_FINGERPRINT_LEN);
}
