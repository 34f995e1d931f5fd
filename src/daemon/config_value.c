// SPDX-License-Identifier: MIT
/*
 * One value of each kind: read, printed, compared, freed. What parse_one() takes, print_one()
 * writes in a form that parse_one() takes again.
 */
#include "daemon/config_key.h"

#include <limits.h>
#include <stdlib.h>
#include <strings.h>

static void *value_at(const struct sm_config_row *row, void *base)
{
	return (char *)base + row->offset;
}

static const void *value_in(const struct sm_config_row *row, const void *base)
{
	return (const char *)base + row->offset;
}

static bool is_given(const struct sm_config_row *row, const void *base)
{
	return row->flag == SM_CONFIG_NO_FLAG || *((const bool *)base + row->flag);
}

static int parse_path(const char *text, const char *dir, char **ret_path)
{
	size_t dir_len = strcmp(dir, "/") != 0 ? strlen(dir) : 0, len = strlen(text);
	bool absolute = text[0] == '/';
	char *path;

	if (!len || dir_len + 1 + len >= PATH_MAX)
		return -EINVAL;
	path = malloc(dir_len + 1 + len + 1);
	if (!path)
		return -ENOMEM;
	if (absolute) {
		memcpy(path, text, len + 1);
	} else {
		memcpy(path, dir, dir_len);
		path[dir_len] = '/';
		memcpy(path + dir_len + 1, text, len + 1);
	}
	*ret_path = path;
	return 0;
}

/* A single one replaces what was there, so that a repeated key leaks nothing. */
static int set_string(char **value, int err, char *text)
{
	if (err)
		return err;
	free(*value);
	*value = text;
	return 0;
}

static int parse_text(const char *text, char **ret_text)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
	size_t len = strlen(text);

	if (!len || len > SM_NAME_MAX || strspn(text, allowed) != len)
		return -EINVAL;
	*ret_text = strdup(text);
	return *ret_text ? 0 : -ENOMEM;
}

static int parse_ifname(const char *text, char ret_name[IFNAMSIZ])
{
	const char *number = strchr(text, '%');
	size_t len = strlen(text);

	if (!len || len >= IFNAMSIZ || !strcmp(text, ".") || !strcmp(text, "..") ||
	    strpbrk(text, "/: \t"))
		return -EINVAL;
	if (number && strcmp(number, "%d") != 0)
		return -EINVAL;
	memcpy(ret_name, text, len + 1);
	return 0;
}

static int parse_word(const struct sm_config_row *row, const char *text, int *ret_value)
{
	for (const struct sm_config_word *w = row->words; w->name; w++) {
		if (!strcasecmp(w->name, text)) {
			*ret_value = w->value;
			return 0;
		}
	}
	return -EINVAL;
}

static void store_number(const struct sm_config_row *row, void *value, uint64_t number)
{
	uint16_t half = (uint16_t)number;
	uint32_t word = (uint32_t)number;

	if (row->size == sizeof(half))
		memcpy(value, &half, sizeof(half));
	else if (row->size == sizeof(word))
		memcpy(value, &word, sizeof(word));
	else
		memcpy(value, &number, sizeof(number));
}

static uint64_t load_number(const struct sm_config_row *row, const void *value)
{
	uint64_t number = 0;
	uint16_t half;
	uint32_t word;

	if (row->size == sizeof(half)) {
		memcpy(&half, value, sizeof(half));
		return half;
	}
	if (row->size == sizeof(word)) {
		memcpy(&word, value, sizeof(word));
		return word;
	}
	memcpy(&number, value, sizeof(number));
	return number;
}

static int parse_size(const char *text, uint64_t *ret_bytes)
{
	static const struct {
		char letter;
		unsigned shift;
	} suffixes[] = {{'k', 10}, {'m', 20}, {'g', 30}};
	char digits[24];
	size_t len = strlen(text);
	unsigned shift = 0;
	uint64_t value;

	if (!len || len >= sizeof(digits))
		return -EINVAL;
	memcpy(digits, text, len + 1);
	for (size_t i = 0; i < SM_ARRAY_SIZE(suffixes); i++) {
		if ((digits[len - 1] | 0x20) == suffixes[i].letter)
			shift = suffixes[i].shift;
	}
	if (shift)
		digits[len - 1] = 0;
	if (sm_text_parse_u64(digits, 0, UINT64_MAX >> shift, &value))
		return -EINVAL;
	*ret_bytes = value << shift;
	return 0;
}

static int parse_number(const struct sm_config_row *row, const char *text, void *value)
{
	uint64_t number = 0;
	int err;

	if (row->zero && !strcasecmp(text, row->zero)) {
		store_number(row, value, 0);
		return 0;
	}
	if (row->kind == SM_CONFIG_KIND_DURATION)
		err = sm_text_parse_duration(text, &number);
	else if (row->kind == SM_CONFIG_KIND_SIZE)
		err = parse_size(text, &number);
	else
		err = sm_text_parse_u64(text, 0, UINT64_MAX, &number);
	if (err || number < row->min || number > row->max)
		return -EINVAL;
	store_number(row, value, number);
	return 0;
}

static int parse_hex(const struct sm_config_row *row, const char *text, void *value)
{
	char digits[2 * 64 + 1];
	size_t len = 0;

	if (row->size == SM_FINGERPRINT_LEN && !strncasecmp(text, "sha256:", 7))
		text += 7; /* as `shadowmesh fingerprint` prints it */
	for (size_t i = 0; text[i]; i++) {
		if (text[i] == ':' && i % 3 == 2)
			continue;
		if (len == sizeof(digits) - 1)
			return -EINVAL;
		digits[len++] = text[i];
	}
	digits[len] = 0;
	return sm_text_parse_hex(digits, value, row->size) ? -EINVAL : 0;
}

static int parse_mac(const char *text, struct sm_mac *ret_mac)
{
	static const struct sm_mac none;
	struct sm_mac mac;

	if (sm_mac_parse(text, &mac) || (mac.b[0] & 1) || !memcmp(&mac, &none, sizeof(mac)))
		return -EINVAL;
	*ret_mac = mac;
	return 0;
}

static bool is_host_bits(const struct sm_prefix *p, bool ones)
{
	for (uint32_t bit = p->len; bit < (p->family == 4 ? 32u : 128u); bit++) {
		if ((p->ip[bit / 8] >> (7 - bit % 8) & 1) != ones)
			return false;
	}
	return true;
}

/* An interface's own address: neither the network's nor the broadcast address. */
static int parse_interface_address(const char *text, struct sm_prefix *ret_prefix)
{
	struct sm_addr addr = {0};
	struct sm_prefix p = {0};
	uint32_t bits;

	if (!strchr(text, '/') || sm_prefix_parse(text, &p))
		return -EINVAL;
	bits = p.family == 4 ? 32 : 128;
	addr.family = p.family;
	memcpy(addr.ip, p.ip, sizeof(addr.ip));
	if (!p.len || !sm_addr_is_global_unicast(&addr))
		return -EINVAL;
	if (p.len < bits - 1 &&
	    (is_host_bits(&p, false) || (p.family == 4 && is_host_bits(&p, true))))
		return -EINVAL;
	*ret_prefix = p;
	return 0;
}

static bool is_unspecified(const struct sm_addr *a)
{
	static const uint8_t zero[16];

	return !memcmp(a->ip, zero, sizeof(zero));
}

static bool is_multicast(const struct sm_addr *a)
{
	return a->family == 4 ? a->ip[0] >= 0xe0 : a->ip[0] == 0xff;
}

static int parse_listen_address(const char *text, struct sm_addr *ret_addr)
{
	struct sm_addr a, b;

	/* A port in the text wins over both defaults. */
	if (sm_addr_parse(text, 1, &a) || sm_addr_parse(text, 2, &b) || a.port == b.port ||
	    is_multicast(&a))
		return -EINVAL;
	a.port = 0;
	*ret_addr = a;
	return 0;
}

static bool is_host_name(const char *host)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
	const char *label = host;
	size_t len = strlen(host);

	if (!len || len > SM_CONFIG_HOST_MAX)
		return false;
	for (;;) {
		size_t label_len = strspn(label, allowed);

		if (!label_len || label_len > 63 || label[0] == '-' || label[label_len - 1] == '-')
			return false;
		if (!label[label_len] || !strcmp(label + label_len, "."))
			break;
		if (label[label_len] != '.')
			return false;
		label += label_len + 1;
	}
	/* All digits at the end: an IPv4 address that is none. */
	return strspn(label, "0123456789.") != strlen(label);
}

static int parse_endpoint(const char *text, struct sm_config_endpoint *ret_endpoint)
{
	struct sm_config_endpoint e = {.port = SM_CONTROL_PORT};
	const char *colon = strrchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : strlen(text);
	char buf[SM_ADDR_STRLEN];
	uint64_t port;

	if (!sm_addr_parse(text, SM_CONTROL_PORT, &e.addr)) {
		if (!e.addr.port || is_unspecified(&e.addr) || is_multicast(&e.addr))
			return -EINVAL;
		e.port = e.addr.port;
		snprintf(e.host, sizeof(e.host), "%s", sm_addr_format_ip(&e.addr, buf));
		*ret_endpoint = e;
		return 0;
	}
	e.addr = (struct sm_addr){0};
	if (len > SM_CONFIG_HOST_MAX)
		return -EINVAL;
	memcpy(e.host, text, len);
	if (!is_host_name(e.host))
		return -EINVAL;
	if (colon) {
		if (sm_text_parse_u64(colon + 1, 1, UINT16_MAX, &port))
			return -EINVAL;
		e.port = (uint16_t)port;
	}
	*ret_endpoint = e;
	return 0;
}

static int append_path(struct sm_config_paths *list, const char *text, const char *dir)
{
	int err;

	if (list->count == SM_ARRAY_SIZE(list->path))
		return -E2BIG;
	err = parse_path(text, dir, &list->path[list->count]);
	if (!err)
		list->count++;
	return err;
}

static int append_prefix(struct sm_config_prefixes *list, const char *text)
{
	int err;

	if (list->count == SM_ARRAY_SIZE(list->prefix))
		return -E2BIG;
	err = parse_interface_address(text, &list->prefix[list->count]);
	if (!err)
		list->count++;
	return err;
}

static int append_address(struct sm_config_addresses *list, const char *text)
{
	int err;

	if (list->count == SM_ARRAY_SIZE(list->addr))
		return -E2BIG;
	err = parse_listen_address(text, &list->addr[list->count]);
	if (!err)
		list->count++;
	return err;
}

static int append_endpoint(struct sm_config_endpoints *list, const char *text)
{
	int err;

	if (list->count == SM_ARRAY_SIZE(list->endpoint))
		return -E2BIG;
	err = parse_endpoint(text, &list->endpoint[list->count]);
	if (!err)
		list->count++;
	return err;
}

static int parse_one(const struct sm_config_row *row, void *value, const char *dir,
		     const char *text)
{
	char *string = NULL;
	bool flag;
	int err;

	switch (row->kind) {
	case SM_CONFIG_KIND_NAME:
		if (!sm_text_is_name(text))
			return -EINVAL;
		memcpy(value, text, strlen(text) + 1);
		return 0;
	case SM_CONFIG_KIND_IFNAME:
		return parse_ifname(text, value);
	case SM_CONFIG_KIND_TEXT:
		err = parse_text(text, &string);
		return set_string(value, err, string);
	case SM_CONFIG_KIND_PATH:
		err = parse_path(text, dir, &string);
		return set_string(value, err, string);
	case SM_CONFIG_KIND_PATHS:
		return append_path(value, text, dir);
	case SM_CONFIG_KIND_WORD:
		return parse_word(row, text, value);
	case SM_CONFIG_KIND_BOOL:
		err = sm_text_parse_bool(text, &flag);
		if (!err)
			memcpy(value, &flag, sizeof(flag));
		return err;
	case SM_CONFIG_KIND_NUMBER:
	case SM_CONFIG_KIND_SIZE:
	case SM_CONFIG_KIND_DURATION:
		return parse_number(row, text, value);
	case SM_CONFIG_KIND_HEX:
		return parse_hex(row, text, value);
	case SM_CONFIG_KIND_MAC:
		return parse_mac(text, value);
	case SM_CONFIG_KIND_PREFIXES:
		return append_prefix(value, text);
	case SM_CONFIG_KIND_ADDRESSES:
		return append_address(value, text);
	case SM_CONFIG_KIND_ENDPOINTS:
		return append_endpoint(value, text);
	case SM_CONFIG_KIND_COUNT:
		break;
	}
	return -EINVAL;
}

int sm_config_value_parse(const struct sm_config_row *row, void *base, const char *dir, char *text,
			  const char **ret_bad)
{
	bool list = sm_config_row_is_list(row);
	int err;

	do {
		char *comma = list ? strchr(text, ',') : NULL;

		if (comma)
			*comma++ = 0;
		*ret_bad = sm_text_trim(text);
		err = parse_one(row, value_at(row, base), dir, *ret_bad);
		text = comma;
	} while (!err && text);
	if (!err && row->flag != SM_CONFIG_NO_FLAG)
		*((bool *)base + row->flag) = true;
	return err;
}

static const char *word_name(const struct sm_config_row *row, const void *value)
{
	const struct sm_config_word *w = row->words;
	int number;

	memcpy(&number, value, sizeof(number));
	while (w->name && w->value != number)
		w++;
	return w->name;
}

static void print_number(const struct sm_config_row *row, const void *value, FILE *out)
{
	unsigned long long number = load_number(row, value);

	if (!number && row->zero)
		fputs(row->zero, out);
	else if (row->kind != SM_CONFIG_KIND_DURATION)
		fprintf(out, "%llu", number);
	else if (number % SM_SEC_US == 0)
		fprintf(out, "%llus", number / SM_SEC_US);
	else
		fprintf(out, "%lluus", number);
}

/* How many values there are to print. */
static uint32_t value_count(const struct sm_config_row *row, const void *base)
{
	const void *value = value_in(row, base);

	switch (row->kind) {
	case SM_CONFIG_KIND_NAME:
	case SM_CONFIG_KIND_IFNAME:
		return *(const char *)value != 0;
	case SM_CONFIG_KIND_TEXT:
	case SM_CONFIG_KIND_PATH:
		return *(char *const *)value != NULL;
	case SM_CONFIG_KIND_PATHS:
		return ((const struct sm_config_paths *)value)->count;
	case SM_CONFIG_KIND_PREFIXES:
		return ((const struct sm_config_prefixes *)value)->count;
	case SM_CONFIG_KIND_ADDRESSES:
		return ((const struct sm_config_addresses *)value)->count;
	case SM_CONFIG_KIND_ENDPOINTS:
		return ((const struct sm_config_endpoints *)value)->count;
	case SM_CONFIG_KIND_WORD:
	case SM_CONFIG_KIND_BOOL:
	case SM_CONFIG_KIND_NUMBER:
	case SM_CONFIG_KIND_SIZE:
	case SM_CONFIG_KIND_DURATION:
	case SM_CONFIG_KIND_HEX:
	case SM_CONFIG_KIND_MAC:
	case SM_CONFIG_KIND_COUNT:
		break;
	}
	return is_given(row, base);
}

static void print_endpoint(const struct sm_config_endpoint *e, FILE *out)
{
	char buf[SM_ADDR_STRLEN];

	if (e->addr.family)
		fputs(sm_addr_format(&e->addr, buf), out);
	else
		fprintf(out, "%s:%u", e->host, e->port);
}

static void print_one(const struct sm_config_row *row, const void *value, uint32_t i, FILE *out)
{
	char buf[2 * 64 + 1];

	static_assert(sizeof(buf) >= SM_ADDR_STRLEN && sizeof(buf) >= SM_MAC_STRLEN, "room");
	switch (row->kind) {
	case SM_CONFIG_KIND_NAME:
	case SM_CONFIG_KIND_IFNAME:
		fputs(value, out);
		break;
	case SM_CONFIG_KIND_TEXT:
	case SM_CONFIG_KIND_PATH:
		fputs(*(char *const *)value, out);
		break;
	case SM_CONFIG_KIND_PATHS:
		fputs(((const struct sm_config_paths *)value)->path[i], out);
		break;
	case SM_CONFIG_KIND_WORD:
		fputs(word_name(row, value), out);
		break;
	case SM_CONFIG_KIND_BOOL:
		fputs(*(const bool *)value ? "yes" : "no", out);
		break;
	case SM_CONFIG_KIND_NUMBER:
	case SM_CONFIG_KIND_SIZE:
	case SM_CONFIG_KIND_DURATION:
		print_number(row, value, out);
		break;
	case SM_CONFIG_KIND_HEX:
		fputs(sm_text_hex(value, row->size, buf), out);
		break;
	case SM_CONFIG_KIND_MAC:
		fputs(sm_mac_format(value, buf), out);
		break;
	case SM_CONFIG_KIND_PREFIXES:
		fputs(sm_prefix_format(&((const struct sm_config_prefixes *)value)->prefix[i], buf),
		      out);
		break;
	case SM_CONFIG_KIND_ADDRESSES:
		fputs(sm_addr_format_ip(&((const struct sm_config_addresses *)value)->addr[i], buf),
		      out);
		break;
	case SM_CONFIG_KIND_ENDPOINTS:
		print_endpoint(&((const struct sm_config_endpoints *)value)->endpoint[i], out);
		break;
	case SM_CONFIG_KIND_COUNT:
		break;
	}
}

void sm_config_value_print(const struct sm_config_row *row, const void *base, FILE *out)
{
	uint32_t count = value_count(row, base);

	for (uint32_t i = 0; i < count; i++) {
		fprintf(out, "%s = ", row->name);
		print_one(row, value_in(row, base), i, out);
		fputc('\n', out);
	}
}

static bool paths_equal(const struct sm_config_paths *a, const struct sm_config_paths *b)
{
	if (a->count != b->count)
		return false;
	for (uint32_t i = 0; i < a->count; i++) {
		if (strcmp(a->path[i], b->path[i]) != 0)
			return false;
	}
	return true;
}

bool sm_config_value_equal(const struct sm_config_row *row, const void *a, const void *b)
{
	const void *va = value_in(row, a), *vb = value_in(row, b);
	const char *sa, *sb;

	if (is_given(row, a) != is_given(row, b))
		return false;
	switch (row->kind) {
	case SM_CONFIG_KIND_NAME:
	case SM_CONFIG_KIND_IFNAME:
		return !strcmp(va, vb);
	case SM_CONFIG_KIND_TEXT:
	case SM_CONFIG_KIND_PATH:
		sa = *(char *const *)va;
		sb = *(char *const *)vb;
		return sa && sb ? !strcmp(sa, sb) : sa == sb;
	case SM_CONFIG_KIND_PATHS:
		return paths_equal(va, vb);
	case SM_CONFIG_KIND_WORD:
	case SM_CONFIG_KIND_BOOL:
	case SM_CONFIG_KIND_NUMBER:
	case SM_CONFIG_KIND_SIZE:
	case SM_CONFIG_KIND_DURATION:
	case SM_CONFIG_KIND_HEX:
	case SM_CONFIG_KIND_MAC:
	case SM_CONFIG_KIND_PREFIXES:
	case SM_CONFIG_KIND_ADDRESSES:
	case SM_CONFIG_KIND_ENDPOINTS:
	case SM_CONFIG_KIND_COUNT:
		break;
	}
	return !memcmp(va, vb, row->size);
}

void sm_config_value_free(const struct sm_config_row *row, void *base)
{
	struct sm_config_paths *paths;
	char **string;

	if (row->kind == SM_CONFIG_KIND_TEXT || row->kind == SM_CONFIG_KIND_PATH) {
		string = value_at(row, base);
		free(*string);
		*string = NULL;
	} else if (row->kind == SM_CONFIG_KIND_PATHS) {
		paths = value_at(row, base);
		while (paths->count)
			free(paths->path[--paths->count]);
	}
}
