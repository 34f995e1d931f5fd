// SPDX-License-Identifier: MIT
/*
 * The key table: one row says how a key is read, printed, compared, freed and explained.
 */
#ifndef SM_DAEMON_CONFIG_KEY_H
#define SM_DAEMON_CONFIG_KEY_H

#include "daemon/config.h"

enum sm_config_kind {
	SM_CONFIG_KIND_NAME,      /* char[SM_NAME_MAX + 1] */
	SM_CONFIG_KIND_IFNAME,    /* char[IFNAMSIZ] */
	SM_CONFIG_KIND_TEXT,      /* char *, a word for another program */
	SM_CONFIG_KIND_PATH,      /* char *, made absolute */
	SM_CONFIG_KIND_PATHS,     /* struct sm_config_paths */
	SM_CONFIG_KIND_WORD,      /* an enum, by @words */
	SM_CONFIG_KIND_BOOL,      /* bool */
	SM_CONFIG_KIND_NUMBER,    /* unsigned of @size bytes in [@min, @max], or @zero */
	SM_CONFIG_KIND_SIZE,      /* the same with K, M, G */
	SM_CONFIG_KIND_DURATION,  /* uint64_t, microseconds in [@min, @max] */
	SM_CONFIG_KIND_HEX,       /* @size bytes; colons between them are fine */
	SM_CONFIG_KIND_MAC,       /* struct sm_mac */
	SM_CONFIG_KIND_PREFIXES,  /* struct sm_config_prefixes */
	SM_CONFIG_KIND_ADDRESSES, /* struct sm_config_addresses */
	SM_CONFIG_KIND_ENDPOINTS, /* struct sm_config_endpoints */
	SM_CONFIG_KIND_COUNT,
};

enum sm_config_section {
	SM_CONFIG_NETWORK,
	SM_CONFIG_NODE,
	SM_CONFIG_INTERFACE,
	SM_CONFIG_TRANSPORT,
	SM_CONFIG_PEER, /* may repeat; its rows are relative to a struct sm_config_peer */
	SM_CONFIG_LOG,
	SM_CONFIG_CONTROL,
	SM_CONFIG_SECTION_COUNT,
};

/** struct sm_config_word - One value of an enum; the list ends with a NULL name */
struct sm_config_word {
	const char *name;
	int value;
};

#define SM_CONFIG_NO_FLAG UINT32_MAX

/**
 * struct sm_config_row - All about one key
 * @offset: of the value in struct sm_config, in struct sm_config_peer for [Peer]
 * @size:   of the value, bytes
 * @flag:   offset of the bool that says whether it was given, or SM_CONFIG_NO_FLAG
 * @zero:   the word for 0 ("auto"), or NULL
 * @fallback: default, read like a value from a file; NULL: none
 * @change: what differs when it differs
 */
struct sm_config_row {
	enum sm_config_section section;
	const char *name;
	enum sm_config_kind kind;
	uint32_t offset, size, flag;
	uint64_t min, max;
	const struct sm_config_word *words;
	const char *zero, *fallback, *expected, *help;
	bool required;
	enum sm_config_change change;
};

extern const struct sm_config_row sm_config_rows[];
extern const uint32_t sm_config_row_count; /* at most SM_CONFIG_ROW_MAX */

/** sm_config_section_name() - Return: "Network" */
const char *sm_config_section_name(enum sm_config_section section);

/** sm_config_section_find() - Whatever the case; Return: the section, or SM_CONFIG_SECTION_COUNT */
enum sm_config_section sm_config_section_find(const char *name);

/** sm_config_row_find() - Whatever the case; Return: the row, or NULL */
const struct sm_config_row *sm_config_row_find(enum sm_config_section section, const char *name);

/** sm_config_row_elsewhere() - Return: the first row of any section with that name, or NULL */
const struct sm_config_row *sm_config_row_elsewhere(const char *name);

/** sm_config_nearest_key() - Return: the key of @section that @name may be a slip of, or NULL */
const char *sm_config_nearest_key(enum sm_config_section section, const char *name);

/** sm_config_nearest_section() - Return: the section's name that @name may be a slip of, or NULL */
const char *sm_config_nearest_section(const char *name);

/** sm_config_row_is_list() - Return: true if the key may repeat */
bool sm_config_row_is_list(const struct sm_config_row *row);

/**
 * sm_config_value_parse() - Read one value, or the parts of a list between commas
 * @base: struct sm_config or struct sm_config_peer; a list is appended to
 * @dir:  for relative paths
 * @text: is taken apart in place
 * @ret_bad: the part of @text that was refused
 * Return: 0, -EINVAL, -ENOMEM, -E2BIG the list is full
 */
SM_MUST_CHECK int sm_config_value_parse(const struct sm_config_row *row, void *base,
					const char *dir, char *text, const char **ret_bad);

/** sm_config_value_print() - Write "Key = value" lines, none if there is no value */
void sm_config_value_print(const struct sm_config_row *row, const void *base, FILE *out);

/** sm_config_value_equal() - Return: true if both say the same */
bool sm_config_value_equal(const struct sm_config_row *row, const void *a, const void *b);

/** sm_config_value_free() - Free what the value points to */
void sm_config_value_free(const struct sm_config_row *row, void *base);

#endif
