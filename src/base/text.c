// SPDX-License-Identifier: MIT
/*
 * Values from text and back. Everything a person or a file wrote is checked to the last character.
 */
#include "base/text.h"

#include <stdio.h>
#include <strings.h>

static const char white_space[] = " \t\r\n\f\v";

char *sm_text_hex(const void *data, size_t len, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i++) {
		out[2 * i] = digits[p[i] >> 4];
		out[2 * i + 1] = digits[p[i] & 15];
	}
	out[2 * len] = '\0';
	return out;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int sm_text_parse_hex(const char *text, void *ret_data, size_t len)
{
	uint8_t *out = ret_data;

	if (strlen(text) != 2 * len)
		return -EINVAL;
	for (size_t i = 0; i < 2 * len; i++) {
		if (hex_digit(text[i]) < 0)
			return -EINVAL;
	}
	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)((unsigned)hex_digit(text[2 * i]) << 4 |
				   (unsigned)hex_digit(text[2 * i + 1]));
	return 0;
}

/* Reads digits and moves @text behind them; Return: 0, -EINVAL if there is none, -ERANGE */
static int take_number(const char **text, uint64_t *ret_value)
{
	const char *p = *text;
	uint64_t v = 0;
	int r = 0;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(v, 10u, &v) ||
		    __builtin_add_overflow(v, (unsigned)(*p - '0'), &v))
			r = -ERANGE;
	}
	*text = p;
	if (r == 0)
		*ret_value = v;
	return r;
}

int sm_text_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
	uint64_t v = 0;
	int r = take_number(&text, &v);

	if (*text != '\0')
		return -EINVAL;
	if (r < 0)
		return r;
	if (v < min || v > max)
		return -ERANGE;
	*ret_value = v;
	return 0;
}

int sm_text_parse_bool(const char *text, bool *ret_value)
{
	static const struct {
		const char *name;
		bool value;
	} words[] = {
		{"yes", true}, {"true", true},   {"on", true},   {"1", true},
		{"no", false}, {"false", false}, {"off", false}, {"0", false},
	};

	for (size_t i = 0; i < SM_ARRAY_SIZE(words); i++) {
		if (strcasecmp(text, words[i].name) == 0) {
			*ret_value = words[i].value;
			return 0;
		}
	}
	return -EINVAL;
}

#define MIN_US  (60 * SM_SEC_US)
#define HOUR_US (60 * MIN_US)
#define DAY_US  (24 * HOUR_US)

/* Reads a unit and moves @text behind it; Return: its length in microseconds, 0 if there is none */
static uint64_t take_unit(const char **text)
{
	static const struct {
		const char *name;
		uint64_t us;
	} units[] = {
		{"us", 1},       {"ms", SM_MSEC_US}, {"s", SM_SEC_US},
		{"min", MIN_US}, {"m", MIN_US},      {"h", HOUR_US},
		{"d", DAY_US},   {"w", 7 * DAY_US},  {"y", 365 * DAY_US},
	};
	size_t len = strspn(*text, "abcdefghijklmnopqrstuvwxyz");

	for (size_t i = 0; i < SM_ARRAY_SIZE(units); i++) {
		if (len == strlen(units[i].name) && memcmp(*text, units[i].name, len) == 0) {
			*text += len;
			return units[i].us;
		}
	}
	return 0;
}

int sm_text_parse_duration(const char *text, uint64_t *ret_us)
{
	uint64_t sum = 0;
	bool first = true;
	int error = 0;

	do {
		uint64_t number = 0, unit;
		int r = take_number(&text, &number);

		if (r == -EINVAL)
			return r;
		text += strspn(text, white_space);
		unit = take_unit(&text);
		if (unit == 0 && first && *text == '\0')
			unit = SM_SEC_US;
		if (unit == 0)
			return -EINVAL;
		if (r < 0 || __builtin_mul_overflow(number, unit, &number) ||
		    __builtin_add_overflow(sum, number, &sum) || sum > INT64_MAX)
			error = -ERANGE;
		text += strspn(text, white_space);
		first = false;
	} while (*text != '\0');

	if (error == 0)
		*ret_us = sum;
	return error;
}

const char *sm_text_format_duration(uint64_t us, char *buf, size_t len)
{
	static const struct {
		uint64_t us;
		const char *name;
	} units[] = {
		{DAY_US, "d"},
		{HOUR_US, "h"},
		{MIN_US, "min"},
		{SM_SEC_US, "s"},
	};
	size_t i = 0;
	uint64_t whole, rest;

	if (us > 0 && us < SM_MSEC_US) {
		(void)snprintf(buf, len, "%u us", (unsigned)us);
		return buf;
	}
	if (us > 0 && us < SM_SEC_US) {
		(void)snprintf(buf, len, "%u ms", (unsigned)(us / SM_MSEC_US));
		return buf;
	}
	while (i + 1 < SM_ARRAY_SIZE(units) && us < units[i].us)
		i++;
	whole = us / units[i].us;
	rest = i + 1 < SM_ARRAY_SIZE(units) ? us % units[i].us / units[i + 1].us : 0;
	if (rest > 0)
		(void)snprintf(buf, len, "%llu %s %llu %s", (unsigned long long)whole,
			       units[i].name, (unsigned long long)rest, units[i + 1].name);
	else
		(void)snprintf(buf, len, "%llu %s", (unsigned long long)whole, units[i].name);
	return buf;
}

const char *sm_text_format_bytes(uint64_t bytes, char *buf, size_t len)
{
	static const char *const names[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
	uint64_t unit = 1, tenths;
	size_t i = 0;

	if (bytes < 1000) {
		(void)snprintf(buf, len, "%u B", (unsigned)bytes);
		return buf;
	}
	do {
		unit *= 1000;
		i++;
		tenths = bytes / unit * 10 + (bytes % unit + unit / 20) / (unit / 10);
	} while (tenths >= 10000 && i + 1 < SM_ARRAY_SIZE(names));
	(void)snprintf(buf, len, "%u.%u %s", (unsigned)(tenths / 10), (unsigned)(tenths % 10),
		       names[i]);
	return buf;
}

/* Decodes one character of UTF-8; Return: its bytes, 0 if it is malformed, overlong or a surrogate */
static size_t decode_utf8(const uint8_t *p, size_t len, uint32_t *ret_code)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t need;
	uint32_t code;

	if (len == 0)
		return 0;
	if (p[0] < 0x80)
		need = 1, code = p[0];
	else if ((p[0] & 0xe0) == 0xc0)
		need = 2, code = p[0] & 0x1fu;
	else if ((p[0] & 0xf0) == 0xe0)
		need = 3, code = p[0] & 0x0fu;
	else if ((p[0] & 0xf8) == 0xf0)
		need = 4, code = p[0] & 0x07u;
	else
		return 0;
	if (len < need)
		return 0;
	for (size_t i = 1; i < need; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (p[i] & 0x3fu);
	}
	if (code < least[need] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	*ret_code = code;
	return need;
}

size_t sm_text_char_len(const char *text, size_t len)
{
	static const struct {
		uint32_t first, last;
	} hidden[] = {
		{0x0000, 0x001f}, {0x007f, 0x009f}, /* control characters */
		{0x061c, 0x061c}, {0x200e, 0x200f}, /* direction marks */
		{0x2028, 0x202e},                   /* line and paragraph ends, directions */
		{0x2066, 0x2069}, {0xfeff, 0xfeff}, /* isolated directions; byte order mark */
	};
	uint32_t code = 0;
	size_t n = decode_utf8((const uint8_t *)text, len, &code);

	if (n == 0)
		return 0;
	for (size_t i = 0; i < SM_ARRAY_SIZE(hidden); i++) {
		if (code >= hidden[i].first && code <= hidden[i].last)
			return 0;
	}
	return n;
}

bool sm_text_is_name(const char *text)
{
	size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");

	return len >= 1 && len <= SM_NAME_MAX && text[len] == '\0' && text[0] != '-' &&
	       text[len - 1] != '-';
}

char *sm_text_trim(char *text)
{
	size_t len;

	text += strspn(text, white_space);
	len = strlen(text);
	while (len > 0 && strchr(white_space, text[len - 1]))
		len--;
	text[len] = '\0';
	return text;
}
