// SPDX-License-Identifier: MIT
#include "core/flow.h"

#define LOOK_LEN 14u /* Ethernet's addresses and type */

/* 2^64 by the golden ratio (Knuth, volume 3, 6.4) */
#define ODD UINT64_C(0x9e3779b97f4a7c15)

static uint64_t mix(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * ODD;
	return hash ^ hash >> 32;
}

static uint64_t mix_bytes(uint64_t hash, const uint8_t *data, size_t len)
{
	for (uint64_t word; len > 0; len -= SM_MIN(len, sizeof(word)), data += sizeof(word)) {
		word = 0;
		memcpy(&word, data, SM_MIN(len, sizeof(word)));
		hash = mix(hash, word);
	}
	return hash;
}

uint32_t sm_flow_hash(enum sm_mode mode, const uint8_t *frame, size_t len,
		      const struct sm_inet *inet)
{
	uint64_t hash = 0;
	struct sm_inet ip;

	if (inet)
		ip = *inet;
	else if (sm_inet_find(mode, frame, len, &ip) < 0)
		return (uint32_t)(mix_bytes(hash, frame, SM_MIN(len, LOOK_LEN)) >> 32);
	hash = mix(hash, ip.proto);
	if (inet)
		hash = mix_bytes(hash, frame + ip.l4, 4); /* the ports */
	hash = ip.version == 4 ? mix_bytes(hash, frame + ip.l3 + 12, 8)
			       : mix_bytes(hash, frame + ip.l3 + 8, 32);
	return (uint32_t)(hash >> 32);
}

bool sm_flow_is_bulk(struct sm_flows *flows, uint32_t hash, uint32_t len, uint64_t now_us)
{
	const uint32_t at = (uint32_t)((uint64_t)hash * SM_FLOW_PLACES >> 32);

	if (now_us - flows->place[at].window_us >= SM_FLOW_WINDOW_US) {
		flows->place[at].window_us = now_us;
		flows->place[at].bytes = 0;
	}
	flows->place[at].bytes += SM_MIN(len, UINT32_MAX - flows->place[at].bytes);
	if (flows->place[at].bytes <= SM_FLOW_BYTES && now_us >= flows->place[at].bulk_until_us)
		return false;
	flows->place[at].bulk_until_us = now_us + SM_FLOW_SILENT_US;
	return true;
}
