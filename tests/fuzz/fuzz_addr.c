// SPDX-License-Identifier: MIT
/*
 * The text parsers: addresses, prefixes, MAC addresses, numbers, durations, names. What was read must
 * print to something that reads as the same.
 */
#include "base/addr.h"
#include "base/text.h"
#include "wire/ether.h"

#include <stdlib.h>

#define REQUIRE(condition)        \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_addr(const char *text)
{
	struct sm_addr a, back;
	struct sockaddr_storage sa;
	char buf[SM_ADDR_STRLEN];

	if (sm_addr_parse(text, 9, &a) < 0)
		return;
	REQUIRE(sm_addr_parse(sm_addr_format(&a, buf), 1, &back) == 0 && sm_addr_equal(&a, &back));
	REQUIRE(sm_addr_parse(sm_addr_format_ip(&a, buf), a.port, &back) == 0);
	REQUIRE(sm_addr_equal(&a, &back));
	for (int mapped = 0; mapped <= 1; mapped++) {
		REQUIRE(sm_addr_to_sockaddr(&a, mapped, &sa) <= sizeof(sa));
		REQUIRE(sm_addr_from_sockaddr((struct sockaddr *)&sa, &back) == 0);
		REQUIRE(sm_addr_equal(&a, &back));
	}
	(void)sm_addr_is_global_unicast(&a);
}

static void check_prefix(const char *text)
{
	struct sm_prefix p, back;
	char buf[SM_ADDR_STRLEN];

	if (sm_prefix_parse(text, &p) < 0)
		return;
	REQUIRE(sm_prefix_parse(sm_prefix_format(&p, buf), &back) == 0);
	REQUIRE(memcmp(&p, &back, sizeof(p)) == 0);
	REQUIRE(sm_prefix_contains(&p, p.family, p.ip) && sm_prefix_overlaps(&p, &back));
}

static void check_duration(const char *text)
{
	char buf[64], again[64];
	uint64_t us, back;

	if (sm_text_parse_duration(text, &us) < 0)
		return;
	sm_text_format_duration(us, buf, sizeof(buf));
	REQUIRE(sm_text_parse_duration(buf, &back) == 0 && back <= us);
	REQUIRE(strcmp(sm_text_format_duration(back, again, sizeof(again)), buf) == 0);
}

static void check_mac(const char *text)
{
	struct sm_mac mac, back;
	char buf[SM_MAC_STRLEN];

	if (sm_mac_parse(text, &mac) < 0)
		return;
	REQUIRE(strcasecmp(sm_mac_format(&mac, buf), text) == 0);
	REQUIRE(sm_mac_parse(buf, &back) == 0 && memcmp(&mac, &back, sizeof(mac)) == 0);
}

static void check_hex(const char *text)
{
	uint8_t data[16];
	char buf[33];
	size_t len = SM_MIN(strlen(text) / 2, sizeof(data));

	if (sm_text_parse_hex(text, data, len) == 0)
		REQUIRE(strcasecmp(sm_text_hex(data, len, buf), text) == 0);
}

static void check_words(char *text, size_t size)
{
	char *trimmed;
	uint64_t number;
	bool yes;

	if (sm_text_parse_u64(text, 3, 70000, &number) == 0)
		REQUIRE(number >= 3 && number <= 70000);
	(void)sm_text_parse_bool(text, &yes);
	if (sm_text_is_name(text))
		REQUIRE(strlen(text) <= SM_NAME_MAX);
	for (size_t i = 0; i < size;) {
		size_t n = sm_text_char_len(text + i, size - i);

		REQUIRE(n <= 4 && n <= size - i);
		i += SM_MAX(n, 1u);
	}
	trimmed = sm_text_trim(text);
	REQUIRE(trimmed >= text && strlen(trimmed) <= size);
	REQUIRE(sm_text_trim(trimmed) == trimmed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	check_addr(text);
	check_prefix(text);
	check_duration(text);
	check_mac(text);
	check_hex(text);
	check_words(text, size);
	free(text);
	return 0;
}
