// SPDX-License-Identifier: MIT
/*
 * Lanes: what one side seals the other opens, once; counts of loss against a model; limits.
 */
#include "core/lane.h"
#include "crypto/crypto.h"
#include "crypto/schedule.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define BODY_MAX 1500u

static struct sm_pbuf_pool pool;
static struct sm_epoch *client, *server;

static struct sm_epoch *epoch_of(bool is_client, uint32_t number, uint32_t lanes)
{
	struct sm_epoch_secret secret;
	struct sm_epoch *epoch = NULL;

	for (size_t i = 0; i < sizeof(secret.b); i++)
		secret.b[i] = (uint8_t)(i * 7 + 1);
	assert_int_equal(sm_epoch_new(&secret, SM_CIPHER_AES256GCM, is_client, number, 0x01020304,
				      &(struct sm_lane_plan){lanes, lanes, false}, &epoch),
			 0);
	return epoch;
}

static int setup(void **state)
{
	(void)state;
	client = epoch_of(true, 0x205, 3);
	server = epoch_of(false, 0x205, 3);
	return sm_pbuf_pool_init(&pool, 2 * SM_BATCH_MAX, BODY_MAX + SM_DATA_OVERHEAD);
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(pool.free_count, pool.count);
	sm_pbuf_pool_done(&pool);
	sm_epoch_free(client);
	sm_epoch_free(server);
	return 0;
}

static struct sm_pbuf *body(const void *data, uint32_t len)
{
	struct sm_pbuf *p = sm_pbuf_get(&pool);

	assert_non_null(p);
	memcpy(sm_pbuf_put_tail(p, len), data, len);
	return p;
}

static struct sm_pbuf *sealed(struct sm_tx_lane *lane, const void *data, uint32_t len, uint8_t kind)
{
	struct sm_pbuf *p = body(data, len);

	assert_int_equal(sm_tx_lane_seal(lane, &p, &kind, 1, 7), 1);
	return p;
}

static int open_copy(struct sm_rx_lane *lane, const uint8_t *data, uint32_t len, bool *ret_newest)
{
	struct sm_pbuf *p = body(data, len);
	struct sm_data_header h;
	uint8_t kind;
	int r = sm_data_header_decode(p->data, p->len, &h);

	assert_int_equal(r, 0);
	r = sm_rx_lane_open(lane, p, &h, 9, &kind, ret_newest);
	sm_pbuf_put(&pool, p);
	return r;
}

static void test_roundtrip(void **state)
{
	static const uint32_t lens[] = {0, 1, 15, 16, 17, 64, 1400, BODY_MAX};
	uint8_t data[BODY_MAX];
	struct sm_data_header h;

	(void)state;
	for (uint32_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)i;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(lens); i++) {
		struct sm_pbuf *p = sealed(&client->tx[2], data, lens[i], (uint8_t)(0x40 + i));
		uint8_t kind = 0;
		bool newest = false;

		assert_int_equal(p->len, lens[i] + SM_DATA_OVERHEAD);
		assert_int_equal(sm_data_header_decode(p->data, p->len, &h), 0);
		assert_int_equal(h.epoch, 0x05);
		assert_int_equal(h.lane, 2);
		assert_int_equal(h.session, 0x01020304);
		assert_int_equal(h.number, i);
		assert_int_equal(sm_rx_lane_open(&server->rx[2], p, &h, 9, &kind, &newest), 0);
		assert_int_equal(p->len, lens[i]);
		assert_memory_equal(p->data, data, lens[i]);
		assert_int_equal(kind, 0x40 + i);
		assert_true(newest);
		sm_pbuf_put(&pool, p);
	}
	assert_int_equal(client->tx[2].first_us, 7);
	assert_int_equal(server->rx[2].first_us, 9);
	assert_int_equal(client->tx[2].bytes, server->rx[2].bytes);
	assert_int_equal(server->rx[2].packets, SM_ARRAY_SIZE(lens));
}

/* Lanes, directions and epochs each have a key of their own. */
static void test_keys_differ(void **state)
{
	struct sm_epoch *other = epoch_of(false, 0x206, 3);
	struct sm_pbuf *p = sealed(&client->tx[1], "hello", 5, SM_KIND_FRAME);
	bool newest;

	(void)state;
	assert_int_equal(open_copy(&server->rx[0], p->data, p->len, &newest), -EBADMSG);
	assert_int_equal(open_copy(&server->rx[2], p->data, p->len, &newest), -EBADMSG);
	assert_int_equal(open_copy(&client->rx[1], p->data, p->len, &newest), -EBADMSG);
	assert_int_equal(open_copy(&other->rx[1], p->data, p->len, &newest), -EBADMSG);
	assert_int_equal(open_copy(&server->rx[1], p->data, p->len, &newest), 0);
	assert_int_equal(open_copy(&server->rx[1], p->data, p->len, &newest), -EALREADY);
	sm_pbuf_put(&pool, p);
	sm_epoch_free(other);
}

/* Whatever bit is flipped, nothing but the counter of forged ones moves. */
static void test_flipped_bits(void **state)
{
	struct sm_rx_lane *lane = &server->rx[1];
	struct sm_pbuf *p = sealed(&client->tx[1], "a frame that matters", 20, SM_KIND_FRAME);
	uint64_t forged = 0;
	bool newest;

	(void)state;
	for (uint32_t bit = 0; bit < p->len * 8; bit++) {
		struct sm_data_header h;

		p->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (sm_data_header_decode(p->data, p->len, &h) == 0) {
			assert_int_equal(open_copy(lane, p->data, p->len, &newest), -EBADMSG);
			forged++;
		}
		p->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_true(forged > 20 * 8);
	assert_int_equal(lane->forged, forged);
	assert_int_equal(lane->packets, 0);
	assert_int_equal(lane->duplicate, 0);
	assert_int_equal(lane->lost, 0);
	assert_int_equal(lane->first_us, 0);
	assert_int_equal(lane->replay.top, 0);
	assert_int_equal(open_copy(lane, p->data, p->len, &newest), 0);
	sm_pbuf_put(&pool, p);
}

static void test_batch_and_limit(void **state)
{
	struct sm_tx_lane *lane = &client->tx[1];
	struct sm_pbuf *pkts[SM_BATCH_MAX];
	uint8_t kinds[SM_BATCH_MAX];
	struct sm_data_header h;

	(void)state;
	for (uint32_t i = 0; i < SM_BATCH_MAX; i++) {
		pkts[i] = body(&i, sizeof(i));
		kinds[i] = SM_KIND_FRAME;
	}
	lane->next = SM_PACKET_LIMIT - SM_BATCH_MAX + 1;
	assert_int_equal(sm_tx_lane_seal(lane, pkts, kinds, SM_BATCH_MAX, 1), 0);
	assert_int_equal(lane->refused, SM_BATCH_MAX);
	assert_int_equal(lane->next, SM_PACKET_LIMIT - SM_BATCH_MAX + 1);
	assert_int_equal(pkts[0]->len, sizeof(uint32_t));

	lane->next = SM_PACKET_LIMIT - SM_BATCH_MAX;
	assert_int_equal(sm_tx_lane_seal(lane, pkts, kinds, SM_BATCH_MAX, 1), SM_BATCH_MAX);
	for (uint32_t i = 0; i < SM_BATCH_MAX; i++) {
		assert_int_equal(sm_data_header_decode(pkts[i]->data, pkts[i]->len, &h), 0);
		assert_int_equal(h.number, SM_PACKET_LIMIT - SM_BATCH_MAX + i);
		sm_pbuf_put(&pool, pkts[i]);
	}
	pkts[0] = body("x", 1);
	assert_int_equal(sm_tx_lane_seal(lane, pkts, kinds, 1, 1), 0);
	assert_int_equal(lane->next, SM_PACKET_LIMIT);
	sm_pbuf_put(&pool, pkts[0]);
}

/* A number beyond the limit is refused although its tag is right. */
static void test_number_beyond_limit(void **state)
{
	static const uint64_t numbers[] = {SM_PACKET_LIMIT, UINT64_MAX - 1, UINT64_MAX};
	struct sm_rx_lane *lane = &server->rx[1];
	bool newest;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(numbers); i++) {
		struct sm_data_header h = {
			.epoch = 5, .lane = 1, .session = 1, .number = numbers[i]};
		uint8_t buf[64] = {0};

		sm_data_header_encode(&h, buf);
		assert_int_equal(sm_aead_seal(client->tx[1].aead, h.number, buf, SM_DATA_HEADER_LEN,
					      buf + SM_DATA_HEADER_LEN, 5,
					      buf + SM_DATA_HEADER_LEN),
				 0);
		assert_int_equal(open_copy(lane, buf, SM_DATA_OVERHEAD + 4, &newest), -EBADMSG);
		assert_int_equal(lane->replay.top, 0);
	}
}

#define MODEL_PACKETS 4000u

/*
 * Packets lost, late and doubled in a random order: the counts are those of a model that remembers what
 * came.
 */
static void test_counts_against_model(void **state)
{
	struct sm_rx_lane *lane = &server->rx[1];
	struct rng rng = rng_init("lane");
	static uint8_t stored[MODEL_PACKETS][SM_DATA_OVERHEAD + 4];
	static bool came[MODEL_PACKETS];
	uint64_t top = 0, late = 0, duplicate = 0, packets = 0;

	(void)state;
	memset(came, 0, sizeof(came));
	for (uint32_t i = 0; i < MODEL_PACKETS; i++) {
		struct sm_pbuf *p = sealed(&client->tx[1], &i, sizeof(i), SM_KIND_FRAME);

		memcpy(stored[i], p->data, p->len);
		sm_pbuf_put(&pool, p);
	}
	for (uint32_t step = 0; step < 2 * MODEL_PACKETS; step++) {
		uint64_t ahead = top + rng_below(&rng, 5), back = rng_below(&rng, 50);
		uint64_t i = rng_below(&rng, 3) ? ahead : (top > back ? top - back : 0);
		uint64_t gaps = 0;
		bool newest = false;
		int r;

		if (i >= MODEL_PACKETS)
			continue;
		r = open_copy(lane, stored[i], sizeof(stored[i]), &newest);
		assert_int_equal(r, came[i] ? -EALREADY : 0);
		assert_int_equal(newest, !came[i] && i >= top);
		duplicate += came[i];
		late += !came[i] && i < top;
		packets += !came[i];
		came[i] = true;
		top = SM_MAX(top, i + 1);
		for (uint64_t k = 0; k < top; k++)
			gaps += !came[k];
		assert_int_equal(lane->lost, gaps);
	}
	assert_int_equal(lane->late, late);
	assert_int_equal(lane->duplicate, duplicate);
	assert_int_equal(lane->packets, packets);
	assert_true(late > 100 && duplicate > 100);
}

/* Every lane has a place of its own, and what one side calls a lane is the other's of the same number. */
static void test_express_lanes(void **state)
{
	struct sm_epoch_secret secret = {{1}};
	struct sm_epoch *ours = NULL, *theirs = NULL;

	(void)state;
	assert_int_equal(sm_epoch_new(&secret, SM_CIPHER_AES256GCM, true, 3, 9,
				      &(struct sm_lane_plan){3, 5, true}, &ours),
			 0);
	assert_int_equal(sm_epoch_new(&secret, SM_CIPHER_AES256GCM, false, 3, 9,
				      &(struct sm_lane_plan){5, 3, true}, &theirs),
			 0);
	assert_int_equal(ours->tx_count, 5);
	assert_int_equal(ours->rx_count, 9);
	for (uint32_t worker = 0; worker < 2; worker++) {
		for (int express = 0; express < 2; express++) {
			struct sm_tx_lane *tx = sm_epoch_tx(ours, worker, express);
			struct sm_data_header header;
			struct sm_opened opened;
			uint8_t packet[64], body[64];
			const uint8_t content[] = {'x', SM_KIND_FRAME};
			struct sm_rx_lane *rx;
			uint64_t number;

			assert_int_equal(tx->lane, (worker + 1) | (express ? SM_LANE_EXPRESS : 0));
			assert_int_equal(sm_tx_lane_reserve(tx, 1, 1, &number), 0);
			assert_int_equal(sm_tx_lane_seal_to(tx, number, content, sizeof(content),
							    packet),
					 0);
			assert_int_equal(
				sm_data_header_decode(packet, SM_DATA_OVERHEAD + 1, &header), 0);
			rx = sm_epoch_rx(theirs, header.lane);
			assert_non_null(rx);
			assert_int_equal(rx->lane, tx->lane);
			assert_int_equal(sm_rx_lane_open_to(rx, packet, SM_DATA_OVERHEAD + 1,
							    &header, 1, body, &opened),
					 0);
		}
	}
	assert_null(sm_epoch_tx(ours, 2, false));
	assert_null(sm_epoch_tx(ours, 2, true));
	for (uint32_t lane = 0; lane < 256; lane++) {
		const uint32_t worker = lane & 0x7f;
		const bool there = worker < 3 && lane != SM_LANE_EXPRESS;

		assert_int_equal(sm_epoch_rx(theirs, (uint8_t)lane) != NULL, there);
		if (there)
			assert_int_equal(sm_epoch_rx(theirs, (uint8_t)lane)->lane, lane);
	}
	sm_epoch_free(ours);
	sm_epoch_free(theirs);

	/* and where there are none */
	ours = epoch_of(true, 0, 2);
	assert_null(sm_epoch_rx(ours, SM_LANE_EXPRESS | 1));
	assert_ptr_equal(sm_epoch_tx(ours, 0, true), &ours->tx[1]);
	sm_epoch_free(ours);
}

static void test_epoch_bounds(void **state)
{
	struct sm_epoch_secret secret = {{0}};
	struct sm_epoch *epoch = NULL;

	(void)state;
	assert_int_equal(sm_epoch_new(&secret, SM_CIPHER_AES256GCM, true, 0, 1,
				      &(struct sm_lane_plan){0, 1, false}, &epoch),
			 -EINVAL);
	assert_int_equal(sm_epoch_new(&secret, SM_CIPHER_AES256GCM, true, 0, 1,
				      &(struct sm_lane_plan){1, SM_LANE_MAX + 1, false}, &epoch),
			 -EINVAL);
	assert_null(epoch);
	assert_int_equal(sm_epoch_new(&secret, SM_CIPHER_CHACHA20POLY1305, true, 0, 1,
				      &(struct sm_lane_plan){SM_LANE_MAX, SM_LANE_MAX, false},
				      &epoch),
			 0);
	sm_epoch_free(epoch);
	sm_epoch_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_roundtrip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keys_differ, setup, teardown),
		cmocka_unit_test_setup_teardown(test_flipped_bits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_batch_and_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_number_beyond_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_counts_against_model, setup, teardown),
		cmocka_unit_test(test_express_lanes),
		cmocka_unit_test(test_epoch_bounds),
	};

	if (sm_crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
