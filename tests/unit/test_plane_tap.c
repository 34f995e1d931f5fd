// SPDX-License-Identifier: MIT
/*
 * A plane on a real TAP: frames of the kernel's own stack cross it, an interface that is down or deleted
 * neither stops the worker nor makes it spin.
 *
 *   kernel -- smpl0 -- plane ==== UDP on loopback ==== the test as the peer
 */
#include "base/clock.h"
#include "crypto/crypto.h"
#include "frames.h"
#include "io/netlink.h"
#include "io/tun.h"
#include "io/udp.h"
#include "netns.h"
#include "planes.h"

#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define NAME "smpl0"
#define MTU  1500u

static struct node node;
static struct sm_epoch *ours;
static struct sm_tun tun;
static struct sm_netlink *nl;
static uint8_t datagram[2048];
static uint8_t *const frame_at = datagram + SM_DATA_HEADER_LEN;
static struct sm_udp_message msg;
static int peer_fd;

static void set_up(bool up)
{
	assert_int_equal(sm_netlink_set_up(nl, tun.ifindex, up), 0);
}

static int set_everything_up(bool offload)
{
	struct planes_offload of = {
		.tso = offload, .uso = offload, .batches = offload, .gro = offload};
	struct sm_mac mac;
	struct sm_prefix address;
	char error[SM_TUN_ERROR_MAX];

	assert_int_equal(sm_tun_open(NAME, SM_MODE_TAP, 1, &tun, error), 0);
	assert_int_equal(sm_netlink_open(&nl), 0);
	assert_int_equal(sm_mac_parse("02:00:00:00:00:00", &mac), 0);
	assert_int_equal(sm_netlink_set_mac(nl, tun.ifindex, &mac), 0);
	assert_int_equal(sm_netlink_set_mtu(nl, tun.ifindex, MTU), 0);
	assert_int_equal(sm_prefix_parse("10.7.0.1/24", &address), 0);
	assert_int_equal(sm_netlink_add_address(nl, tun.ifindex, &address), 0);

	assert_int_equal(sm_tun_set_offload(&tun, offload, offload, &of.tso, &of.uso), 0);
	node_init_queue(&node, PLANES_FRAME_MAX, tun.fd[0], &of);
	peer_fd = planes_socket(&node.remote);
	ours = planes_epoch(true, 0, 2);
	node.tx = node.rx[0] = planes_epoch(false, 0, 2);
	msg.data = datagram;
	msg.room = sizeof(datagram);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return set_everything_up(false);
}

static int setup_offload(void **state)
{
	(void)state;
	return set_everything_up(true);
}

static int teardown(void **state)
{
	struct sm_epoch *epoch = node.rx[0];

	(void)state;
	node_done(&node);
	sm_epoch_free(epoch);
	sm_epoch_free(ours);
	close(peer_fd);
	sm_netlink_close(nl);
	sm_tun_close(&tun);
	return 0;
}

static void send_frame(const uint8_t *frame, uint32_t len)
{
	uint8_t content[2000];
	uint64_t number;
	int err;

	memcpy(content, frame, len);
	content[len] = SM_KIND_FRAME;
	assert_int_equal(sm_tx_lane_reserve(&ours->tx[1], 1, 1, &number), 0);
	assert_int_equal(
		sm_tx_lane_seal_to(&ours->tx[1], number, content, len + SM_KIND_LEN, datagram), 0);
	msg.peer = node.addr;
	msg.local.family = 0;
	msg.segment = 0;
	msg.len = len + SM_DATA_OVERHEAD;
	assert_int_equal(sm_udp_send(peer_fd, false, &msg, 1, &err), 1);
}

/* Waits for the next frame of @type that the kernel sent; Return: its length, at frame_at */
static uint32_t next_frame(uint16_t type)
{
	for (;;) {
		struct sm_data_header h;
		struct sm_ether e;
		struct sm_opened opened;

		assert_int_equal(poll(&(struct pollfd){.fd = peer_fd, .events = POLLIN}, 1, 5000),
				 1);
		assert_int_equal(sm_udp_receive(peer_fd, &msg, 1), 1);
		assert_int_equal(sm_data_header_decode(datagram, msg.len, &h), 0);
		assert_int_equal(sm_rx_lane_open_to(sm_epoch_rx(ours, h.lane), datagram, msg.len,
						    &h, 1, frame_at, &opened),
				 0);
		assert_int_equal(opened.kind, SM_KIND_FRAME);
		assert_int_equal(sm_ether_parse(frame_at, opened.len, &e), 0);
		if (e.type == type)
			return opened.len;
	}
}

/* The kernel asks who has 10.7.0.2, is told, and sends its datagram; checksums are complete. */
static void test_kernel_stack(void **state)
{
	static const uint8_t reply_head[] = {2,  0, 0, 0, 0, 0, 2, 0, 0, 0, 0,  1, 8, 6,
					     0,  1, 8, 0, 6, 4, 0, 2, 2, 0, 0,  0, 0, 1,
					     10, 7, 0, 2, 2, 0, 0, 0, 0, 0, 10, 7, 0, 1};
	struct sm_addr to;
	struct sockaddr_storage sa;
	socklen_t len;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint32_t sum = 17 + 8 + 5;

	(void)state;
	set_up(true);
	node_start(&node);
	assert_true(fd >= 0);
	assert_int_equal(sm_addr_parse("10.7.0.2:9", 0, &to), 0);
	len = sm_addr_to_sockaddr(&to, false, &sa);
	assert_int_equal(sendto(fd, "hello", 5, 0, (struct sockaddr *)&sa, len), 5);
	assert_int_equal(next_frame(0x0806), 42);
	send_frame(reply_head, sizeof(reply_head));
	assert_int_equal(next_frame(0x0800), 14 + 20 + 8 + 5);
	assert_memory_equal(frame_at + 42, "hello", 5);
	/* UDP's sum over pseudo-header, header and data must come out as all ones. */
	for (uint32_t at = 26; at < 47; at += 2)
		sum += (uint32_t)frame_at[at] << 8 | (at + 1 < 47 ? frame_at[at + 1] : 0);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	assert_int_equal(sum, 0xffff);
	close(fd);
}

/* RTM_DELLINK by hand: the program itself never deletes a device. Return: 0, -errno */
static int link_delete(int ifindex)
{
	struct {
		struct nlmsghdr head;
		struct ifinfomsg info;
	} request = {
		.head = {.nlmsg_len = sizeof(request),
			 .nlmsg_type = RTM_DELLINK,
			 .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
		.info = {.ifi_index = ifindex},
	};
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		uint8_t rest[256];
	} answer = {.error.error = -EIO};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	assert_true(fd >= 0);
	assert_int_equal(send(fd, &request, sizeof(request), 0), sizeof(request));
	assert_true(recv(fd, &answer, sizeof(answer), 0) > 0);
	close(fd);
	return answer.error.error;
}

static uint64_t syscalls_in(int ms)
{
	struct sm_plane_counters before, after;

	sm_plane_counters(node.plane, &before);
	(void)poll(NULL, 0, ms);
	sm_plane_counters(node.plane, &after);
	return after.syscalls - before.syscalls;
}

/* What is rebuilt from chunks of every kind is taken by this kernel, in one write each. */
static void test_kernel_takes(void **state)
{
	static const uint8_t stamp[] = {1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8};
	static const struct {
		struct shape shape;
		uint32_t gso_size, count;
	} kinds[] = {
		{{SM_MODE_TAP, 0, 4, 6, 0, stamp, 12, 1, 2, 0, 0x18}, 1400, 46},
		{{SM_MODE_TAP, 0, 4, 6, 0, stamp, 12, 1, 2, 0, 0x99}, 1400, 2},
		{{SM_MODE_TAP, 1, 4, 6, 0, NULL, 0, 1, 2, 0, 0x10}, 1400, 40},
		{{SM_MODE_TAP, 2, 6, 6, 0, stamp, 12, 1, 2, 0, 0xd8}, 1400, 40},
		{{SM_MODE_TAP, 0, 4, 6, 10, stamp, 12, 1, 2, 0, 0x18}, 1000, 20},
		{{SM_MODE_TAP, 0, 6, 6, 2, stamp, 12, 1, 2, 0, 0x18}, 1000, 20},
		{{SM_MODE_TAP, 0, 4, 6, 0, NULL, 0, 1, 2, 0, 0x18}, 1, 60},
		{{SM_MODE_TAP, 0, 4, 17, 0, NULL, 0, 0, 2, 0, 0}, 1000, 64},
		{{SM_MODE_TAP, 1, 6, 17, 0, NULL, 0, 0, 2, 0, 0}, 1000, 2},
		{{SM_MODE_TAP, 2, 6, 17, 2, NULL, 0, 0, 2, 0, 0}, 1, 64},
		{{SM_MODE_TAP, 0, 4, 17, 10, NULL, 0, 0, 2, 0, 0}, 500, 30},
	};
	static uint8_t frame[66000], payload[65536], out[66000];
	/* Kernels before 6.2 do not know TUN_F_USO4 and _USO6, nor such frames */
	bool uso = ioctl(tun.fd[0], TUNSETOFFLOAD, TUN_F_CSUM | 0x60ul) == 0;
	struct sm_plane_counters c;
	uint64_t written = 0;

	(void)state;
	assert_int_equal(ioctl(tun.fd[0], TUNSETOFFLOAD, 0ul), 0);
	set_up(true);
	node_start(&node);
	for (size_t i = 0; i < SM_ARRAY_SIZE(kinds); i++) {
		const struct shape *shape = &kinds[i].shape;
		uint32_t headers = shape_headers(shape), size = kinds[i].gso_size, at = 0;
		uint32_t content_len = size + headers + SM_CHUNK_LEN + SM_KIND_LEN;
		struct sm_chunk chunk = {.count = (uint16_t)kinds[i].count,
					 .gso_size = (uint16_t)size,
					 .header_len = (uint8_t)headers};
		uint64_t since_us = sm_clock_now_us(), first;
		int err;

		if (shape->proto == 17 && !uso)
			continue;
		(void)frame_build(shape, payload, kinds[i].count * size, false, frame);
		(void)frame_put(frame + 2, 0, 4); /* to node 0, from node 1 */
		(void)frame_put(frame + 8, 1, 4);
		assert_int_equal(sm_tx_lane_reserve(&ours->tx[1], kinds[i].count, 1, &first), 0);
		for (uint32_t k = 0; k < kinds[i].count; k++) {
			uint8_t content[2000] = {0};

			chunk.index = (uint16_t)k;
			memcpy(content + size, frame, headers);
			sm_chunk_encode(&chunk, content + size + headers);
			content[content_len - 1] = SM_KIND_CHUNK;
			if (at + content_len + SM_DATA_OVERHEAD > SM_UDP_BYTES_MAX)
				break; /* a shorter run is as good */
			assert_int_equal(sm_tx_lane_seal_to(&ours->tx[1], first + k, content,
							    content_len, out + at),
					 0);
			at += content_len + SM_DATA_OVERHEAD - SM_KIND_LEN;
		}
		msg.peer = node.addr;
		msg.local.family = 0;
		msg.data = out;
		msg.len = at;
		msg.segment = content_len + SM_DATA_OVERHEAD - SM_KIND_LEN;
		assert_int_equal(sm_udp_send(peer_fd, false, &msg, 1, &err), 1);
		msg.data = datagram;
		do {
			sm_plane_counters(node.plane, &c);
			if (sm_clock_now_us() - since_us > 5 * SM_SEC_US)
				fail_msg("kind %zu was not written", i);
		} while (c.tap_write_frames == written);
		assert_int_equal(c.tap_write_frames, ++written);
		assert_int_equal(c.offload_faults, 0);
		for (uint32_t why = 0; why < SM_DROP_COUNT; why++)
			assert_int_equal(c.drops[why], 0);
	}
}

/* Down: frames for it are dropped; up again: they flow. */
static void test_down_and_up(void **state)
{
	struct sm_plane_counters c;
	uint8_t frame[100];
	uint32_t len = planes_frame(frame, OWN_MAC(0), OWN_MAC(1), 1, sizeof(frame));

	(void)state;
	node_start(&node);
	send_frame(frame, len);
	node_wait_drop(&node, SM_DROP_TAP_WRITE, 1);
	assert_in_range(syscalls_in(60), 0, 20);
	set_up(true);
	send_frame(frame, len);
	do {
		sm_plane_counters(node.plane, &c);
	} while (c.tap_write_frames == 0 && c.drops[SM_DROP_TAP_WRITE] == 1);
	assert_int_equal(c.tap_write_frames, 1);
	set_up(false);
	send_frame(frame, len);
	node_wait_drop(&node, SM_DROP_TAP_WRITE, 2);
	node_poll(&node);
	assert_int_equal(node_count_events(&node, SM_EVENT_TAP_GONE), 0);
	assert_in_range(syscalls_in(60), 0, 20);
}

/* Deleted as with "ip link del": told, and nobody spins. */
static void test_deleted(void **state)
{
	uint8_t frame[100];

	(void)state;
	set_up(true);
	node_start(&node);
	assert_int_equal(link_delete(tun.ifindex), 0);
	(void)node_wait_event(&node, SM_EVENT_TAP_GONE, 0);
	send_frame(frame, planes_frame(frame, OWN_MAC(0), OWN_MAC(1), 1, sizeof(frame)));
	node_wait_drop(&node, SM_DROP_TAP_WRITE, 1);
	assert_in_range(syscalls_in(60), 0, 20);
	assert_int_equal(node_count_events(&node, SM_EVENT_TAP_GONE), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kernel_stack, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kernel_takes, setup_offload, teardown),
		cmocka_unit_test_setup_teardown(test_down_and_up, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deleted, setup, teardown),
	};
	int failed;

	if (sm_crypto_init() < 0)
		return 1;
	netns_enter();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	netns_leave();
	return failed;
}
