// SPDX-License-Identifier: MIT
/*
 * The data packet's header and the bodies of sealed packets. The first byte chooses the decoder; what
 * it takes must encode to the bytes it came from.
 */
#include "wire/data.h"

#include <stdlib.h>

#define REQUIRE(condition)        \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_header(const uint8_t *data, size_t size)
{
	uint8_t buf[SM_DATA_HEADER_LEN];
	struct sm_data_header h;

	if (sm_data_header_decode(data, size, &h) < 0)
		return;
	REQUIRE(size >= SM_DATA_OVERHEAD);
	sm_data_header_encode(&h, buf);
	REQUIRE(memcmp(buf, data, sizeof(buf)) == 0);
}

static void check_part(const uint8_t *data, size_t size)
{
	uint8_t buf[SM_PART_TRAILER_LEN];
	struct sm_part part;

	if (size < SM_PART_TRAILER_LEN || sm_part_decode(data, &part) < 0)
		return;
	REQUIRE(part.index < part.count && part.count <= SM_PART_COUNT_MAX);
	sm_part_encode(&part, buf);
	REQUIRE(memcmp(buf, data, sizeof(buf)) == 0);
}

static void check_probe(const uint8_t *data, size_t size)
{
	uint8_t buf[SM_PROBE_LEN_MAX];
	struct sm_probe probe, back;
	size_t len;

	if (sm_probe_decode(data, size, &probe) < 0)
		return;
	len = sm_probe_encode(&probe, buf);
	REQUIRE(len <= size && len <= sizeof(buf) && memcmp(buf, data, len) == 0);
	for (size_t i = len; i < size; i++)
		REQUIRE(data[i] == 0);
	REQUIRE(sm_probe_decode(buf, len, &back) == 0);
	REQUIRE(back.op == probe.op && back.token == probe.token &&
		sm_addr_equal(&back.observed, &probe.observed));
}

static void check_segment(const uint8_t *data, size_t size)
{
	static uint8_t buf[SM_STREAM_HEADER_LEN + SM_STREAM_SEGMENT_MAX];
	struct sm_segment segment;

	if (sm_segment_decode(data, size, &segment) < 0)
		return;
	REQUIRE(segment.data + segment.len == data + size);
	REQUIRE(sm_segment_encode(&segment, buf) == size);
	REQUIRE(memcmp(buf, data, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const checks[])(const uint8_t *, size_t) = {
		check_header,
		check_part,
		check_probe,
		check_segment,
	};

	if (size > 0)
		checks[data[0] % SM_ARRAY_SIZE(checks)](data + 1, size - 1);
	return 0;
}
