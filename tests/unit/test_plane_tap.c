// SPDX-License-Identifier: MIT
/*
 * A plane on a real TAP: frames of the kernel's own stack cross it, an interface that is down or deleted
 * neither stops the worker nor makes it spin.
 *
 *   kernel -- smpl0 -- plane ==== UDP on loopback ==== the test as the peer
 */
#include "base/clock.h"
#include "crypto/crypto.h"
#include "io/netlink.h"
#include "io/tun.h"
#include "io/udp.h"
#include "netns.h"
#include "planes.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
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

static int setup(void **state)
{
	struct sm_mac mac;
	struct sm_prefix address;
	char error[SM_TUN_ERROR_MAX];
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	bool mapped;

	(void)state;
	assert_int_equal(sm_tun_open(NAME, SM_MODE_TAP, 1, &tun, error), 0);
	assert_int_equal(sm_netlink_open(&nl), 0);
	assert_int_equal(sm_mac_parse("02:00:00:00:00:00", &mac), 0);
	assert_int_equal(sm_netlink_set_mac(nl, tun.ifindex, &mac), 0);
	assert_int_equal(sm_netlink_set_mtu(nl, tun.ifindex, MTU), 0);
	assert_int_equal(sm_prefix_parse("10.7.0.1/24", &address), 0);
	assert_int_equal(sm_netlink_add_address(nl, tun.ifindex, &address), 0);

	node_init_queue(&node, PLANES_FRAME_MAX, tun.fd[0]);
	peer_fd = sm_udp_open(&node.addr, 0, false, 1u << 20, &mapped);
	assert_true(peer_fd >= 0);
	assert_int_equal(getsockname(peer_fd, (struct sockaddr *)&sa, &len), 0);
	assert_int_equal(sm_addr_from_sockaddr((struct sockaddr *)&sa, &node.remote), 0);
	ours = planes_epoch(true, 0, 2);
	node.tx = node.rx[0] = planes_epoch(false, 0, 2);
	msg.data = datagram;
	msg.room = sizeof(datagram);
	return 0;
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
		assert_int_equal(sm_rx_lane_open_to(&ours->rx[1], datagram, msg.len, &h, 1,
						    frame_at, &opened),
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
