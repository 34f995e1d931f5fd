// SPDX-License-Identifier: MIT
/*
 * The TAP's own header against the kernel's definition of it.
 */
#include "wire/vnet.h"

#include <linux/virtio_net.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#ifndef VIRTIO_NET_HDR_GSO_UDP_L4 /* headers older than Linux 6.2 */
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

static_assert(sizeof(struct virtio_net_hdr) == SM_VNET_HDR_LEN, "length");
static_assert(SM_VNET_NEEDS_CSUM == VIRTIO_NET_HDR_F_NEEDS_CSUM, "flag");
static_assert(SM_VNET_DATA_VALID == VIRTIO_NET_HDR_F_DATA_VALID, "flag");
static_assert(SM_VNET_GSO_NONE == VIRTIO_NET_HDR_GSO_NONE, "type");
static_assert(SM_VNET_GSO_TCPV4 == VIRTIO_NET_HDR_GSO_TCPV4, "type");
static_assert(SM_VNET_GSO_TCPV6 == VIRTIO_NET_HDR_GSO_TCPV6, "type");
static_assert(SM_VNET_GSO_UDP == VIRTIO_NET_HDR_GSO_UDP_L4, "type");
static_assert(SM_VNET_GSO_ECN == VIRTIO_NET_HDR_GSO_ECN, "bit");

static const struct virtio_net_hdr kernel = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					     .gso_type = VIRTIO_NET_HDR_GSO_TCPV6 |
							 VIRTIO_NET_HDR_GSO_ECN,
					     .hdr_len = 0x1234,
					     .gso_size = 0x5678,
					     .csum_start = 0x9abc,
					     .csum_offset = 0xdef0};

static void test_decode(void **state)
{
	struct sm_vnet v;
	uint8_t buf[SM_VNET_HDR_LEN + 1];

	(void)state;
	memcpy(buf + 1, &kernel, SM_VNET_HDR_LEN);
	sm_vnet_decode(buf + 1, &v);
	assert_int_equal(v.flags, SM_VNET_NEEDS_CSUM);
	assert_int_equal(v.gso_type, SM_VNET_GSO_TCPV6 | SM_VNET_GSO_ECN);
	assert_int_equal(v.hdr_len, 0x1234);
	assert_int_equal(v.gso_size, 0x5678);
	assert_int_equal(v.csum_start, 0x9abc);
	assert_int_equal(v.csum_offset, 0xdef0);
}

static void test_encode(void **state)
{
	const struct sm_vnet v = {.flags = SM_VNET_NEEDS_CSUM,
				  .gso_type = SM_VNET_GSO_TCPV6 | SM_VNET_GSO_ECN,
				  .hdr_len = 0x1234,
				  .gso_size = 0x5678,
				  .csum_start = 0x9abc,
				  .csum_offset = 0xdef0};
	uint8_t buf[SM_VNET_HDR_LEN + 2];

	(void)state;
	memset(buf, 0xa5, sizeof(buf));
	sm_vnet_encode(&v, buf + 1);
	assert_memory_equal(buf + 1, &kernel, SM_VNET_HDR_LEN);
	assert_int_equal(buf[0], 0xa5);
	assert_int_equal(buf[SM_VNET_HDR_LEN + 1], 0xa5);
}

/* One field that is set at a time comes back in that field alone. */
static void test_round_trip(void **state)
{
	(void)state;
	for (unsigned i = 0; i < SM_VNET_HDR_LEN; i++) {
		uint8_t in[SM_VNET_HDR_LEN] = {0}, out[SM_VNET_HDR_LEN];
		struct sm_vnet v;

		in[i] = 0xc3;
		sm_vnet_decode(in, &v);
		sm_vnet_encode(&v, out);
		assert_memory_equal(in, out, sizeof(in));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_decode),
		cmocka_unit_test(test_encode),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
