// SPDX-License-Identifier: MIT
/*
 * Flows: what belongs together has one hash, what does not mostly has another; who sends much is bulk in time.
 */
#include "core/flow.h"
#include "frames.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define BEGIN_US (1000 * SM_SEC_US)

static struct sm_flows flows;

static int setup(void **state)
{
	(void)state;
	memset(&flows, 0, sizeof(flows));
	return 0;
}

/* As the plane does it, out of memory that ends with the frame */
static uint32_t hash_of(enum sm_mode mode, const uint8_t *frame, size_t len)
{
	uint8_t *copy = malloc(len > 0 ? len : 1);
	struct sm_inet inet;
	uint32_t hash;

	assert_non_null(copy);
	memcpy(copy, frame, len);
	hash = sm_flow_hash(mode, copy, len,
			    sm_inet_parse(mode, copy, len, &inet) == 0 ? &inet : NULL);
	free(copy);
	return hash;
}

static uint32_t make(const struct shape *shape, uint8_t *frame, uint32_t payload_len)
{
	static const uint8_t payload[1400];

	return frame_build(shape, payload, payload_len, true, frame);
}

static void test_one_flow_has_one_hash(void **state)
{
	uint8_t frame[2048];

	(void)state;
	for (uint8_t version = 4; version <= 6; version += 2) {
		for (uint8_t proto = 6; proto <= 17; proto += 11) {
			struct shape shape = {.mode = SM_MODE_TAP,
					      .version = version,
					      .proto = proto,
					      .flags = 0x10};
			uint32_t len = make(&shape, frame, 1400);
			uint32_t hash = hash_of(SM_MODE_TAP, frame, len), other;

			shape.seq = 12345;
			shape.id = 7;
			shape.tags = 1;
			shape.flags = 0x18;
			len = make(&shape, frame, 3);
			assert_int_equal(hash_of(SM_MODE_TAP, frame, len), hash);

			frame[shape_l4(&shape) + 1] ^= 1; /* a port */
			other = hash_of(SM_MODE_TAP, frame, len);
			assert_int_not_equal(other, hash);
			frame[shape_l4(&shape) + 1] ^= 1;
			frame[shape_l3(&shape) + (version == 4 ? 19 : 39)] ^= 1; /* an address */
			assert_int_not_equal(hash_of(SM_MODE_TAP, frame, len), hash);
		}
	}
}

static void test_other_packets(void **state)
{
	uint8_t ping[98] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45};
	uint8_t arp[60] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6};
	uint32_t hash;

	(void)state;
	ping[14 + 9] = 1;
	hash = hash_of(SM_MODE_TAP, ping, sizeof(ping));
	ping[60]++; /* its number: the same flow */
	assert_int_equal(hash_of(SM_MODE_TAP, ping, sizeof(ping)), hash);
	ping[14 + 19]++;
	assert_int_not_equal(hash_of(SM_MODE_TAP, ping, sizeof(ping)), hash);

	hash = hash_of(SM_MODE_TAP, arp, sizeof(arp));
	arp[40]++; /* what it carries is not looked at: the order of addresses and type is kept */
	assert_int_equal(hash_of(SM_MODE_TAP, arp, sizeof(arp)), hash);
	arp[5]++;
	assert_int_not_equal(hash_of(SM_MODE_TAP, arp, sizeof(arp)), hash);
	for (size_t len = 0; len < sizeof(ping); len++) {
		(void)hash_of(SM_MODE_TAP, ping, len); /* never reads past the end */
		(void)hash_of(SM_MODE_TUN, ping + 14, len < 84 ? len : 84);
	}
}

/* Of many flows few share a place. */
static void test_spread(void **state)
{
	struct shape shape = {.mode = SM_MODE_TAP, .version = 4, .proto = 17};
	uint32_t places[SM_FLOW_PLACES] = {0}, most = 0;
	uint8_t frame[2048];

	(void)state;
	for (uint32_t i = 0; i < 4 * SM_FLOW_PLACES; i++) {
		uint32_t len = make(&shape, frame, 10), at;

		frame[shape_l4(&shape)] = (uint8_t)(i >> 8);
		frame[shape_l4(&shape) + 1] = (uint8_t)i;
		at = (uint32_t)((uint64_t)hash_of(SM_MODE_TAP, frame, len) * SM_FLOW_PLACES >> 32);
		most = SM_MAX(most, ++places[at]);
	}
	assert_in_range(most, 5, 24); /* 4 on average */
}

static void test_bulk_in_time(void **state)
{
	uint64_t now_us = BEGIN_US;

	(void)state;
	/* a ping every 10 ms for ever */
	for (uint32_t i = 0; i < 1000; i++, now_us += 10 * SM_MSEC_US)
		assert_false(sm_flow_is_bulk(&flows, 1u << 30, 1500, now_us));
	/* a film begins: bulk from the frame on that goes beyond, not before */
	for (uint32_t sent = 1500; sent < SM_FLOW_BYTES; sent += 1500)
		assert_false(sm_flow_is_bulk(&flows, 2u << 30, 1500, now_us));
	assert_true(sm_flow_is_bulk(&flows, 2u << 30, 1500, now_us));
	assert_false(sm_flow_is_bulk(&flows, 1u << 30, 1500, now_us)); /* nobody else */
	/* and stays so while it is on its way */
	for (uint32_t i = 0; i < 10; i++, now_us += SM_FLOW_SILENT_US - 1)
		assert_true(sm_flow_is_bulk(&flows, 2u << 30, 60, now_us));
	now_us++;
	assert_false(sm_flow_is_bulk(&flows, 2u << 30, 60, now_us));
	/* a super-frame is bulk by itself */
	assert_true(sm_flow_is_bulk(&flows, 3u << 30, 65000, now_us));
	assert_true(sm_flow_is_bulk(&flows, 0, UINT32_MAX, now_us));
	assert_true(sm_flow_is_bulk(&flows, 0, UINT32_MAX, now_us)); /* does not wrap */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_flow_has_one_hash),
		cmocka_unit_test(test_other_packets),
		cmocka_unit_test(test_spread),
		cmocka_unit_test_setup(test_bulk_in_time, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
