// SPDX-License-Identifier: MIT
/*
 * The text in the certificate's attribute extension: encoder and decoder.
 */
#include "crypto/attributes.h"

#include "crypto/objects.h"

#include <stdio.h>

struct text {
	char *pos, *end;
	bool first, failed;
};

static void append(struct text *out, const char *key, const char *value)
{
	size_t room = (size_t)(out->end - out->pos);
	int n = snprintf(out->pos, room, "%s%s=%s", out->first ? "" : ";", key, value);

	if (n < 0 || (size_t)n >= room)
		out->failed = true;
	else
		out->pos += n;
	out->first = false;
}

int sm_attributes_encode(const struct sm_identity *id, char *buf, size_t size)
{
	struct text out = {.pos = buf, .end = buf + size, .first = true};
	char text[SM_ADDR_STRLEN];

	for (size_t i = 0; !out.failed && i < id->address_count; i++)
		append(&out, "address", sm_prefix_format(&id->addresses[i], text));
	for (size_t i = 0; !out.failed && i < id->prefix_count; i++)
		append(&out, "prefix", sm_prefix_format(&id->prefixes[i], text));
	for (size_t i = 0; !out.failed && i < id->group_count; i++)
		append(&out, "group", id->groups[i]);
	for (unsigned bit = 0; !out.failed && bit < 32; bit++)
		if (id->roles & UINT32_C(1) << bit && sm_ident_role_name(UINT32_C(1) << bit))
			append(&out, "role", sm_ident_role_name(UINT32_C(1) << bit));
	return out.failed ? -ENOSPC : (int)(out.pos - buf);
}

static int decode_address(struct sm_identity *id, const char *value, char *error)
{
	struct sm_prefix prefix;
	size_t ip_len;

	if (sm_prefix_parse(value, &prefix) != 0) {
		sm_explain(error, "attribute address=%.60s is not an address", value);
		return -EBADMSG;
	}
	ip_len = prefix.family == 4 ? 4 : 16;
	for (size_t i = 0; i < id->address_count; i++)
		if (id->addresses[i].family == prefix.family &&
		    memcmp(id->addresses[i].ip, prefix.ip, ip_len) == 0) {
			id->addresses[i].len = prefix.len;
			return 0;
		}
	sm_explain(error, "attribute address=%.60s names an address that the SAN lacks", value);
	return -EBADMSG;
}

static int decode_prefix(struct sm_identity *id, const char *value, char *error)
{
	if (id->prefix_count == SM_IDENT_PREFIX_MAX) {
		sm_explain(error, "more than %u prefixes", SM_IDENT_PREFIX_MAX);
		return -EBADMSG;
	}
	if (sm_prefix_parse(value, &id->prefixes[id->prefix_count]) != 0) {
		sm_explain(error, "attribute prefix=%.60s is not a prefix", value);
		return -EBADMSG;
	}
	id->prefix_count++;
	return 0;
}

static int decode_group(struct sm_identity *id, const char *value, char *error)
{
	if (!sm_text_is_name(value) || strlen(value) > SM_GROUP_NAME_MAX) {
		sm_explain(error, "attribute group=%.60s is not a name of at most %u characters",
			   value, SM_GROUP_NAME_MAX);
		return -EBADMSG;
	}
	if (id->group_count == SM_IDENT_GROUP_MAX) {
		sm_explain(error, "more than %u groups", SM_IDENT_GROUP_MAX);
		return -EBADMSG;
	}
	memcpy(id->groups[id->group_count++], value, strlen(value) + 1);
	return 0;
}

static int decode_role(struct sm_identity *id, const char *value, char *error)
{
	uint32_t role;

	(void)error;
	if (sm_ident_parse_role(value, &role) == 0)
		id->roles |= role;
	return 0;
}

static const struct {
	const char *key;
	int (*decode)(struct sm_identity *id, const char *value, char *error);
} attributes[] = {
	{"address", decode_address},
	{"prefix", decode_prefix},
	{"group", decode_group},
	{"role", decode_role},
};

int sm_attributes_decode(const char *text, size_t len, struct sm_identity *id, char *error)
{
	char copy[SM_ATTRIBUTES_MAX + 1];
	char *rest = copy, *item;

	if (len > SM_ATTRIBUTES_MAX || memchr(text, '\0', len)) {
		sm_explain(error, "attributes are longer than %u bytes or hold a NUL",
			   SM_ATTRIBUTES_MAX);
		return -EBADMSG;
	}
	memcpy(copy, text, len);
	copy[len] = '\0';
	while ((item = strsep(&rest, ";"))) {
		char *value = strchr(item, '=');
		int err = 0;

		if (!value)
			continue; /* a kind of attribute that does not exist yet */
		*value++ = '\0';
		for (size_t i = 0; !err && i < SM_ARRAY_SIZE(attributes); i++)
			if (strcmp(item, attributes[i].key) == 0)
				err = attributes[i].decode(id, value, error);
		if (err)
			return err;
	}
	return 0;
}
