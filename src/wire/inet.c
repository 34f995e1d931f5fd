// SPDX-License-Identifier: MIT
/*
 * TCP and UDP inside a frame.
 *
 * Theory of operation: a one's complement sum of 16-bit words does not care for the byte order in which it is
 * taken, nor for the width of the words added, as long as carries go round (RFC 1071, section 2). So words of
 * the machine's own order are added as they stand in memory, many at a time, and folded at the end.
 */
#include "wire/inet.h"

#include <endian.h>

#define ETHERTYPE_AT           12u
#define ETHERTYPE_IPV4         0x0800
#define ETHERTYPE_VLAN         0x8100
#define ETHERTYPE_IPV6         0x86dd
#define ETHERTYPE_SERVICE_VLAN 0x88a8
#define VLAN_TAGS_MAX          2
#define VLAN_TAG_LEN           4u

#define IPV4_HEADER_LEN 20u
#define IPV4_FRAGMENT   0x3fffu /* more fragments, and the offset */
#define IPV6_HEADER_LEN 40u
#define IPV6_CHAIN_MAX  8
#define TCP_HEADER_LEN  20u
#define UDP_HEADER_LEN  8u

enum next_header {
	NEXT_HOP_BY_HOP = 0,
	NEXT_ROUTING = 43,
	NEXT_DESTINATION = 60,
};

static uint16_t get16(const uint8_t *buf)
{
	return (uint16_t)(buf[0] << 8 | buf[1]);
}

static void put16(uint8_t *buf, uint32_t value)
{
	buf[0] = (uint8_t)(value >> 8);
	buf[1] = (uint8_t)value;
}

static int find_ip(enum sm_mode mode, const uint8_t *frame, size_t len, struct sm_inet *inet)
{
	uint32_t at = ETHERTYPE_AT;
	uint16_t type;

	if (mode == SM_MODE_TUN) {
		if (len == 0)
			return -EBADMSG;
		inet->l3 = 0;
		inet->version = frame[0] >> 4;
		return 0;
	}
	if (len < at + 2)
		return -EBADMSG;
	type = get16(frame + at);
	for (int i = 0; i < VLAN_TAGS_MAX; i++) {
		if (type != ETHERTYPE_VLAN && type != ETHERTYPE_SERVICE_VLAN)
			break;
		at += VLAN_TAG_LEN;
		if (len < at + 2)
			return -EBADMSG;
		type = get16(frame + at);
	}
	at += 2;
	if (len <= at || (type != ETHERTYPE_IPV4 && type != ETHERTYPE_IPV6))
		return -EBADMSG;
	inet->l3 = at;
	inet->version = frame[at] >> 4;
	return inet->version == (type == ETHERTYPE_IPV4 ? 4 : 6) ? 0 : -EBADMSG;
}

static int parse_ipv4(const uint8_t *frame, size_t len, struct sm_inet *inet)
{
	const uint8_t *ip = frame + inet->l3;
	uint32_t header_len, total;

	if (len < inet->l3 + IPV4_HEADER_LEN)
		return -EBADMSG;
	header_len = (ip[0] & 15u) * 4;
	total = get16(ip + 2);
	if (header_len < IPV4_HEADER_LEN || total < header_len || get16(ip + 6) & IPV4_FRAGMENT)
		return -EBADMSG;
	inet->proto = ip[9];
	inet->l4 = inet->l3 + header_len;
	inet->end = inet->l3 + total;
	return 0;
}

static int parse_ipv6(const uint8_t *frame, size_t len, struct sm_inet *inet)
{
	const uint8_t *ip = frame + inet->l3;

	if (len < inet->l3 + IPV6_HEADER_LEN)
		return -EBADMSG;
	inet->proto = ip[6];
	inet->l4 = inet->l3 + IPV6_HEADER_LEN;
	inet->end = inet->l4 + get16(ip + 4);
	for (int i = 0; i < IPV6_CHAIN_MAX; i++) {
		const uint8_t *header = frame + inet->l4;

		if (inet->proto != NEXT_HOP_BY_HOP && inet->proto != NEXT_ROUTING &&
		    inet->proto != NEXT_DESTINATION)
			break;
		if (len < inet->l4 + 8)
			return -EBADMSG;
		/* Under way, the checksum is about another destination than the header's. */
		if (inet->proto == NEXT_ROUTING && header[3] != 0)
			return -EBADMSG;
		inet->proto = header[0];
		inet->l4 += 8 + header[1] * 8u;
	}
	return 0;
}

int sm_inet_find(enum sm_mode mode, const uint8_t *frame, size_t len, struct sm_inet *ret_inet)
{
	struct sm_inet inet = {0};

	if (find_ip(mode, frame, len, &inet) < 0 || (inet.version != 4 && inet.version != 6) ||
	    len < inet.l3 + (inet.version == 4 ? IPV4_HEADER_LEN : IPV6_HEADER_LEN))
		return -EBADMSG;
	inet.proto = frame[inet.l3 + (inet.version == 4 ? 9 : 6)];
	*ret_inet = inet;
	return 0;
}

static int parse_l4(const uint8_t *frame, size_t len, struct sm_inet *inet)
{
	const uint8_t *l4 = frame + inet->l4;

	if (inet->proto == SM_PROTO_TCP) {
		uint32_t header_len;

		if (len < inet->l4 + TCP_HEADER_LEN)
			return -EBADMSG;
		header_len = (l4[12] >> 4) * 4u;
		inet->payload = inet->l4 + header_len;
		if (header_len < TCP_HEADER_LEN)
			return -EBADMSG;
	} else if (inet->proto == SM_PROTO_UDP) {
		if (len < inet->l4 + UDP_HEADER_LEN)
			return -EBADMSG;
		inet->payload = inet->l4 + UDP_HEADER_LEN;
		if (inet->end < inet->l4 || get16(l4 + 4) != inet->end - inet->l4)
			return -EBADMSG;
	} else {
		return -EBADMSG;
	}
	return inet->payload <= len && inet->payload <= inet->end ? 0 : -EBADMSG;
}

int sm_inet_parse(enum sm_mode mode, const uint8_t *frame, size_t len, struct sm_inet *ret_inet)
{
	struct sm_inet inet = {0};

	if (find_ip(mode, frame, len, &inet) < 0)
		return -EBADMSG;
	if (inet.version == 4) {
		if (parse_ipv4(frame, len, &inet) < 0)
			return -EBADMSG;
	} else if (inet.version != 6 || parse_ipv6(frame, len, &inet) < 0) {
		return -EBADMSG;
	}
	if (parse_l4(frame, len, &inet) < 0)
		return -EBADMSG;
	*ret_inet = inet;
	return 0;
}

static uint64_t add_around(uint64_t a, uint64_t b)
{
	a += b;
	return a + (a < b);
}

/* Two words; compilers turn this into the machine's vectors, of which all 64-bit machines have such. */
typedef uint64_t pair __attribute__((vector_size(16)));

static pair load_pair(const uint8_t *data)
{
	pair words;

	memcpy(&words, data, sizeof(words));
	return words;
}

/* Halves, so that the carries of four billion words fit above them */
static pair halves(pair words)
{
	return (words & UINT32_MAX) + (words >> 32);
}

uint64_t sm_csum_add(uint64_t sum, const uint8_t *data, size_t len)
{
	pair even = {0}, odd = {0};
	uint32_t word = 0;
	uint16_t last = 0;

	if (len >= 2 * sizeof(pair)) {
		do {
			even += halves(load_pair(data));
			odd += halves(load_pair(data + sizeof(pair)));
			data += 2 * sizeof(pair);
			len -= 2 * sizeof(pair);
		} while (len >= 2 * sizeof(pair));
		even += odd;
		sum = add_around(add_around(sum, even[0]), even[1]);
	}
	for (; len >= sizeof(uint64_t); data += sizeof(uint64_t), len -= sizeof(uint64_t))
		sum = add_around(sum, sm_load64(data));
	if (len & sizeof(word)) {
		memcpy(&word, data, sizeof(word));
		sum = add_around(sum, word);
		data += sizeof(word);
	}
	if (len & sizeof(last)) {
		memcpy(&last, data, sizeof(last));
		sum = add_around(sum, last);
		data += sizeof(last);
	}
	if (len & 1) {
		memcpy(&last, (const uint8_t[]){*data, 0}, sizeof(last));
		sum = add_around(sum, last);
	}
	return sum;
}

uint16_t sm_csum_fold(uint64_t sum)
{
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 16 & 0xffff) + (sum & 0xffff) + (sum >> 32);
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return (uint16_t)sum;
}

void sm_csum_store(uint16_t value, uint8_t *buf)
{
	memcpy(buf, &value, sizeof(value));
}

uint64_t sm_inet_pseudo(const struct sm_inet *inet, const uint8_t *frame, uint32_t l4_len)
{
	const uint8_t *ip = frame + inet->l3;
	uint64_t sum = (uint64_t)htobe32(l4_len) + htobe32(inet->proto);

	return inet->version == 4 ? sm_csum_add(sum, ip + 12, 8) : sm_csum_add(sum, ip + 8, 32);
}

bool sm_inet_verify(const struct sm_inet *inet, const uint8_t *frame)
{
	const uint8_t *l4 = frame + inet->l4;
	uint32_t l4_len = inet->end - inet->l4;

	if (inet->proto == SM_PROTO_UDP && get16(l4 + 6) == 0)
		return inet->version == 4;
	return sm_csum_fold(sm_csum_add(sm_inet_pseudo(inet, frame, l4_len), l4, l4_len)) == 0xffff;
}

static void set_ipv4_length(const struct sm_inet *inet, uint8_t *ip, uint32_t id_add)
{
	put16(ip + 2, inet->end - inet->l3);
	put16(ip + 4, get16(ip + 4) + id_add);
	put16(ip + 10, 0);
	sm_csum_store((uint16_t)~sm_csum_fold(sm_csum_add(0, ip, inet->l4 - inet->l3)), ip + 10);
}

void sm_inet_set_length(struct sm_inet *inet, uint8_t *frame, uint32_t payload_len, uint32_t id_add)
{
	uint8_t *ip = frame + inet->l3;

	inet->end = inet->payload + payload_len;
	if (inet->version == 4)
		set_ipv4_length(inet, ip, id_add);
	else
		put16(ip + 4, inet->end - inet->l3 - IPV6_HEADER_LEN);
	if (inet->proto == SM_PROTO_UDP)
		put16(frame + inet->l4 + 4, inet->end - inet->l4);
}
