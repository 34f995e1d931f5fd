// SPDX-License-Identifier: MIT
/*
 * Frames and IP packets, the same bytes as both. A claimed address must be one, and its bytes must
 * stand in the frame.
 */
#include "wire/ether.h"

#include <stdlib.h>

#define REQUIRE(condition)        \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_addr(const struct sm_addr *a, const uint8_t *data, size_t size)
{
	struct sm_addr same;

	REQUIRE(sm_addr_from_ip(a->family, a->ip, a->port, &same) == 0);
	REQUIRE(sm_addr_equal(a, &same) && a->port == 0);
	REQUIRE(memmem(data, size, a->ip, sm_addr_ip_len(a->family)) != NULL);
}

static void check_frame(const uint8_t *data, size_t size)
{
	struct sm_ether e;
	struct sm_addr ip;

	if (sm_ether_parse(data, size, &e) < 0) {
		REQUIRE(size < SM_ETH_HEADER_LEN);
		return;
	}
	REQUIRE(e.l3 <= size && e.l3 >= SM_ETH_HEADER_LEN && e.l3 <= SM_ETH_HEADER_LEN + 8);
	REQUIRE(e.dst >> 48 == 0 && e.src >> 48 == 0 && e.multicast == (data[0] & 1));
	if (sm_ether_claimed_ip(data, size, &e, &ip)) {
		check_addr(&ip, data, size);
		REQUIRE(e.type == 0x0806 || e.type == 0x86dd);
	}
	if (sm_ether_nd_fragmented(data, size, &e))
		REQUIRE(e.type == 0x86dd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sm_addr src, dst;

	check_frame(data, size);
	if (sm_ip_parse(data, size, &src, &dst) == 0) {
		check_addr(&src, data, size);
		check_addr(&dst, data, size);
		REQUIRE(src.family == dst.family && src.family == data[0] >> 4);
	}
	return 0;
}
