// SPDX-License-Identifier: MIT
/*
 * The control stream: order and completeness over a bad wire, its limits, and what a bad peer may say.
 */
#include "core/stream.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define WIRE_MAX 512u

struct packet {
	uint64_t at_us;
	uint32_t to;
	size_t len;
	uint8_t body[SM_STREAM_HEADER_LEN + SM_STREAM_SEGMENT_MAX];
};

/* Two ends and the wire between them */
struct wire {
	struct rng rng;
	struct sm_stream end[2];
	struct packet packet[WIRE_MAX];
	uint64_t now_us, sent;
	uint32_t loss, copies; /* of 1000 */
	uint64_t jitter_us;
	uint32_t written[2], read[2]; /* bytes; their values follow from their place */
};

static uint8_t byte_at(uint32_t end, uint32_t place)
{
	return (uint8_t)(place * 31 + (place >> 8) * 7 + end);
}

static void put(struct wire *w, uint32_t to, const struct sm_segment *segment)
{
	for (uint32_t i = 0; i < WIRE_MAX; i++) {
		struct packet *p = &w->packet[i];

		if (p->at_us)
			continue;
		p->at_us = w->now_us + 5000 + (w->jitter_us ? rng_u64(&w->rng) % w->jitter_us : 0);
		p->to = to;
		p->len = sm_segment_encode(segment, p->body);
		return;
	}
	fail_msg("the wire is full: a storm");
}

static void flush(struct wire *w, uint32_t end)
{
	struct sm_segment segment;

	while (sm_stream_next(&w->end[end], w->now_us, &segment)) {
		w->sent++;
		if (rng_below(&w->rng, 1000) < w->loss)
			continue;
		put(w, 1 - end, &segment);
		if (rng_below(&w->rng, 1000) < w->copies)
			put(w, 1 - end, &segment);
	}
}

static void deliver(struct wire *w, struct packet *p)
{
	const uint32_t end = p->to;
	struct sm_segment segment;
	const uint8_t *data;
	size_t len;

	p->at_us = 0;
	assert_int_equal(sm_segment_decode(p->body, p->len, &segment), 0);
	assert_int_equal(sm_stream_receive(&w->end[end], &segment, w->now_us, &data, &len), 0);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(data[i], byte_at(1 - end, w->read[end]++));
	flush(w, end);
}

/* To the next thing that happens; Return: false if nothing ever does */
static bool step(struct wire *w)
{
	uint64_t at = SM_NEVER;
	struct packet *next = NULL;

	for (uint32_t i = 0; i < WIRE_MAX; i++)
		if (w->packet[i].at_us && w->packet[i].at_us < at) {
			next = &w->packet[i];
			at = next->at_us;
		}
	for (uint32_t i = 0; i < 2; i++) {
		const uint64_t due = sm_stream_deadline(&w->end[i]);

		if (due < at) {
			next = NULL;
			at = due;
		}
	}
	if (at == SM_NEVER)
		return false;
	w->now_us = SM_MAX(w->now_us, at);
	if (next)
		deliver(w, next);
	for (uint32_t i = 0; i < 2; i++)
		if (sm_stream_deadline(&w->end[i]) <= w->now_us) {
			flush(w, i);
			assert_true(sm_stream_deadline(&w->end[i]) > w->now_us);
		}
	return true;
}

static bool write_some(struct wire *w, uint32_t end, uint32_t len)
{
	uint8_t buf[8192];

	for (uint32_t i = 0; i < len; i++)
		buf[i] = byte_at(end, w->written[end] + i);
	if (sm_stream_write(&w->end[end], buf, len))
		return false;
	w->written[end] += len;
	return true;
}

static void run(struct wire *w, uint32_t bytes)
{
	while (w->read[0] < bytes || w->read[1] < bytes) {
		for (uint32_t i = 0; i < 2; i++)
			if (w->written[i] < bytes && rng_below(&w->rng, 3) == 0)
				(void)!write_some(w, i,
						  SM_MIN(bytes - w->written[i],
							 1 + (w->written[i] * 7919u) % 5000));
		if (!step(w))
			assert_true(w->written[0] < bytes || w->written[1] < bytes);
		assert_true(w->now_us < 4000 * SM_SEC_US);
	}
	while (step(w))
		continue;
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(w->end[i].len, 0);
		assert_null(w->end[i].buf); /* idle: no memory held */
		sm_stream_done(&w->end[i]);
	}
}

static void set_offset(struct wire *w, uint32_t offset)
{
	for (uint32_t i = 0; i < 2; i++)
		w->end[i].acked = w->end[i].rx_next = offset;
}

static void test_bad_wire(void **state)
{
	static const struct {
		uint32_t loss, copies;
		uint64_t jitter_us;
		uint32_t most; /* segments sent for each that is needed, in tenths */
	} rows[] = {
		{0, 0, 0, 25},         {0, 0, 30000, 400},  {100, 0, 0, 120},
		{300, 100, 2000, 600}, {0, 500, 1000, 250}, {500, 0, 5000, 2500},
		{50, 50, 200, 250},
	};
	struct rng rng = rng_init("stream");

	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		struct wire *w = calloc(1, sizeof(*w));
		const uint32_t bytes = 200000;

		assert_non_null(w);
		w->rng.state = rng_u64(&rng);
		w->now_us = SM_SEC_US;
		w->loss = rows[i].loss;
		w->copies = rows[i].copies;
		w->jitter_us = rows[i].jitter_us;
		if (i % 2)
			set_offset(w, UINT32_MAX - 70000); /* offsets wrap on the way */
		run(w, bytes);
		printf("loss %u copies %u jitter %u us: %u segments, %.1f s\n", w->loss, w->copies,
		       (unsigned)w->jitter_us, (unsigned)w->sent,
		       (double)(w->now_us - SM_SEC_US) / 1e6);
		assert_true(w->sent < 2 * bytes / SM_STREAM_SEGMENT_MAX * rows[i].most / 10);
		free(w);
	}
}

static void test_window(void **state)
{
	static uint8_t bytes[SM_STREAM_WINDOW + 1];
	struct sm_stream s = {0};
	struct sm_segment segment;
	uint32_t flight = 0;

	(void)state;
	assert_int_equal(sm_stream_write(&s, bytes, sizeof(bytes)), -ENOBUFS);
	assert_int_equal(sm_stream_write(&s, bytes, SM_STREAM_WINDOW), 0);
	assert_int_equal(sm_stream_write(&s, bytes, 1), -ENOBUFS);
	assert_int_equal(s.len, SM_STREAM_WINDOW);
	while (sm_stream_next(&s, 1, &segment)) {
		assert_int_equal(segment.offset, flight * SM_STREAM_SEGMENT_MAX);
		assert_int_equal(segment.len, SM_STREAM_SEGMENT_MAX);
		flight++;
	}
	assert_int_equal(flight, SM_STREAM_FLIGHT);
	/* silence: the same flight again, each time after twice as long */
	uint64_t last = 0, wait = 0;

	for (uint32_t i = 0; i < 8; i++) {
		const uint64_t due = sm_stream_deadline(&s);

		assert_true(due > last && due - last <= SM_STREAM_RTO_MAX_US && due - last >= wait);
		wait = i ? due - last : 0;
		last = due;
		assert_false(sm_stream_next(&s, due - 1, &segment));
		assert_true(sm_stream_next(&s, due, &segment));
		assert_int_equal(segment.offset, 0);
		while (sm_stream_next(&s, due, &segment))
			continue;
	}
	sm_stream_done(&s);
}

static int ack(struct sm_stream *s, uint32_t acked)
{
	const struct sm_segment segment = {.acked = acked};
	const uint8_t *data;
	size_t len;

	return sm_stream_receive(s, &segment, 1000, &data, &len);
}

static void test_acks(void **state)
{
	uint8_t bytes[5000] = {0};
	struct sm_stream s = {0};
	struct sm_segment segment;

	(void)state;
	assert_int_equal(ack(&s, 1), -EPROTO); /* nothing was sent */
	assert_int_equal(sm_stream_write(&s, bytes, sizeof(bytes)), 0);
	assert_int_equal(ack(&s, 1024), -EPROTO); /* queued only */
	assert_true(sm_stream_next(&s, 1, &segment));
	assert_int_equal(ack(&s, 1025), -EPROTO);
	assert_int_equal(s.len, 5000);
	assert_int_equal(ack(&s, 1024), 0);
	assert_int_equal(s.len, 3976);
	assert_int_equal(ack(&s, 24), 0); /* an old one */
	assert_int_equal(s.len, 3976);
	/* what was sent before going back may still be acknowledged */
	while (sm_stream_next(&s, 2, &segment))
		continue;
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(ack(&s, 1024), 0);
	assert_int_equal(s.sent, 0);
	assert_int_equal(ack(&s, 5000), 0);
	assert_int_equal(s.len, 0);
	assert_int_equal(ack(&s, 5001), -EPROTO);
	sm_stream_done(&s);
}

/* Many repeated acknowledgements of one flight send it again once, not once for every three. */
static void test_no_storm(void **state)
{
	static uint8_t bytes[SM_STREAM_WINDOW];
	struct sm_stream s = {0};
	struct sm_segment segment;
	uint32_t sent = 0;

	(void)state;
	assert_int_equal(sm_stream_write(&s, bytes, sizeof(bytes)), 0);
	for (uint32_t i = 0; i < 100; i++) {
		while (sm_stream_next(&s, 1, &segment))
			sent++;
		assert_int_equal(ack(&s, 0), 0);
	}
	assert_int_equal(sent, 2 * SM_STREAM_FLIGHT);
	sm_stream_done(&s);
}

static void test_random_segments(void **state)
{
	struct rng rng = rng_init("random segments");
	uint8_t bytes[SM_STREAM_SEGMENT_MAX] = {0};
	struct sm_stream s = {0};
	uint32_t taken = 0;

	(void)state;
	for (uint32_t i = 0; i < 200000; i++) {
		struct sm_segment segment =
					  {
						  .offset = s.rx_next + rng_below(&rng, 3000) -
							    1500,
						  .acked = s.acked + rng_below(&rng, 3000) - 1500,
						  .data = bytes,
						  .len = rng_below(&rng, SM_STREAM_SEGMENT_MAX + 1),
					  },
				  out;
		const uint8_t *data = NULL;
		size_t len = 0;

		if (rng_below(&rng, 4) == 0)
			(void)!sm_stream_write(&s, bytes, rng_below(&rng, 1000));
		if (!sm_stream_receive(&s, &segment, i, &data, &len) && len) {
			assert_true(data >= bytes && data + len <= bytes + segment.len);
			taken += (uint32_t)len;
		}
		assert_true(s.sent <= s.top && s.top <= s.len && s.len <= SM_STREAM_WINDOW);
		(void)sm_stream_next(&s, i, &out);
	}
	assert_int_equal(taken, s.rx_next);
	sm_stream_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_wire),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_acks),
		cmocka_unit_test(test_no_storm),
		cmocka_unit_test(test_random_segments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
