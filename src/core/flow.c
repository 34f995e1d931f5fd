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

static uint64_t mix_addresses(uint64_t hash, const uint8_t *frame, const struct sm_inet *inet)
{
	const uint8_t *ip = frame + inet->l3;

	if (inet->version == 4)
		return mix(hash, sm_load64(ip + 12));
	for (uint32_t at = 8; at < 40; at += sizeof(uint64_t))
		hash = mix(hash, sm_load64(ip + at));
	return hash;
}

uint32_t sm_flow_hash_inet(const uint8_t *frame, const struct sm_inet *inet)
{
	const uint64_t ports = sm_load32(frame + inet->l4);

	return (uint32_t)(mix_addresses(mix(inet->proto, ports), frame, inet) >> 32);
}

uint32_t sm_flow_hash(enum sm_mode mode, const uint8_t *frame, size_t len,
		      const struct sm_inet *inet)
{
	uint8_t look[2 * sizeof(uint64_t)] = {0};
	struct sm_inet ip;

	if (inet)
		return sm_flow_hash_inet(frame, inet);
	if (sm_inet_find(mode, frame, len, &ip) == 0)
		return (uint32_t)(mix_addresses(mix(0, ip.proto), frame, &ip) >> 32);
	memcpy(look, frame, SM_MIN(len, LOOK_LEN));
	return (uint32_t)(mix(mix(0, sm_load64(look)), sm_load64(look + sizeof(uint64_t))) >> 32);
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
