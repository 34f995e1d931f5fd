// SPDX-License-Identifier: MIT
/*
 * Text to values and back: hexadecimal, durations, sizes, node names.
 */
#ifndef SM_BASE_TEXT_H
#define SM_BASE_TEXT_H

#include "base/base.h"

/** sm_text_hex() - Print @len bytes as lower-case hex; @out takes 2 * @len + 1 bytes; Return: @out */
char *sm_text_hex(const void *data, size_t len, char *out);

/** sm_text_parse_hex() - Read exactly @len bytes of hex; Return: 0, -EINVAL */
SM_MUST_CHECK int sm_text_parse_hex(const char *text, void *ret_data, size_t len);

/** sm_text_parse_u64() - Read a decimal number in [@min, @max]; Return: 0, -EINVAL, -ERANGE */
SM_MUST_CHECK int sm_text_parse_u64(const char *text, uint64_t min, uint64_t max,
				    uint64_t *ret_value);

/** sm_text_parse_bool() - yes/no, true/false, on/off, 1/0; Return: 0, -EINVAL */
SM_MUST_CHECK int sm_text_parse_bool(const char *text, bool *ret_value);

/**
 * sm_text_parse_duration() - "200ms", "10s", "5min", "2h", "7d", "2w", "1y" (365 days), "1h 30min"
 *
 * Units: us, ms, s, min (or m), h, d, w, y; a bare number counts seconds.
 * Return: 0, -EINVAL, -ERANGE
 */
SM_MUST_CHECK int sm_text_parse_duration(const char *text, uint64_t *ret_us);

/** sm_text_format_duration() - "1 d 3 h", "4 min 10 s", "812 ms"; Return: @buf */
const char *sm_text_format_duration(uint64_t us, char *buf, size_t len);

/** sm_text_format_bytes() - "1.5 MB" (powers of 1000); Return: @buf */
const char *sm_text_format_bytes(uint64_t bytes, char *buf, size_t len);

/**
 * sm_text_char_len() - Look at one character of UTF-8 that somebody else wrote
 * Return: bytes of the character at @text, 1 to 4; 0 if it is not printable (control characters,
 *         characters that break lines or change their direction), is no UTF-8, or @len is 0
 */
size_t sm_text_char_len(const char *text, size_t len);

/** sm_text_is_name() - Return: true for [a-z0-9-]{1,63} that neither begins nor ends with '-' */
bool sm_text_is_name(const char *text);

/** sm_text_trim() - Cut white space from both ends in place; Return: the first character kept */
char *sm_text_trim(char *text);

#define SM_NAME_MAX 63

#endif
