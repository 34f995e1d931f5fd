// SPDX-License-Identifier: MIT
/*
 * Planes to test with.
 */
#include "planes.h"

#include "base/clock.h"
#include "crypto/schedule.h"
#include "io/tun.h"
#include "io/udp.h"

#include <arpa/inet.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_US (5 * SM_SEC_US)
#define BUFFER  (4u << 20)

static const struct planes_offload no_offload;

static void on_wake(void *arg)
{
	struct node *n = arg;

	atomic_fetch_add_explicit(&n->wakes, 1, memory_order_relaxed);
}

static void on_retire(void *arg, struct sm_snapshot *s)
{
	struct node *n = arg;

	n->frees++;
	sm_map64_done(&s->owned_macs);
	sm_mactable_free(s->learned);
	free(s->owner); /* the views */
	free(s->sessions);
	free(s->send);
	free(s->members);
	/* A reader that comes late finds nothing sane, even without a sanitizer. */
	memset(s, 0xa5, sizeof(*s));
	free(s);
}

static int udp_socket(const struct sm_addr *at, bool reuse, struct sm_addr *ret_addr)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	bool mapped;
	int fd = sm_udp_open(at, at->port, reuse, BUFFER, &mapped);

	assert_true(fd >= 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	assert_int_equal(sm_addr_from_sockaddr((struct sockaddr *)&sa, ret_addr), 0);
	return fd;
}

int planes_socket(struct sm_addr *ret_addr)
{
	struct sm_addr at;

	assert_int_equal(sm_addr_parse("127.0.0.1", 0, &at), 0);
	return udp_socket(&at, false, ret_addr);
}

static void tap_pair(int *ret_test, int *ret_plane)
{
	int pair[2];

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	for (int end = 0; end < 2; end++)
		(void)setsockopt(pair[end], SOL_SOCKET, SO_SNDBUF, &(int){BUFFER}, sizeof(int));
	*ret_test = pair[0];
	*ret_plane = pair[1];
}

/* @queue: a TAP to use, or -1 for socket pairs */
static void init(struct node *n, uint32_t workers, uint32_t frame_max, int queue,
		 const struct planes_offload *offload)
{
	struct sm_plane_config config = {.workers = workers,
					 .mode = SM_MODE_TAP,
					 .tap_fd = n->queue,
					 .udp_fd = n->udp,
					 .frame_max = frame_max,
					 .tap_tso = offload->tso,
					 .tap_uso = offload->uso,
					 .udp_offload = offload->batches,
					 .wake = on_wake,
					 .arg = n};

	*n = (struct node){.workers = workers,
			   .members = 1,
			   .mode = SM_MODE_TAP,
			   .path_mtu = 65535,
			   .takes_parts = true};
	assert_int_equal(sm_addr_parse("127.0.0.1", 0, &n->addr), 0);
	for (uint32_t i = 0; i < workers; i++) {
		n->tap[i] = -1;
		n->queue[i] = queue >= 0 ? dup(queue) : -1;
		if (queue < 0)
			tap_pair(&n->tap[i], &n->queue[i]);
		assert_true(n->queue[i] >= 0);
		n->udp[i] = udp_socket(&n->addr, workers > 1, &n->addr);
		if (offload->gro)
			assert_int_equal(sm_udp_set_gro(n->udp[i], true), 0);
	}
	n->events = calloc(PLANES_EVENTS_MAX, sizeof(*n->events));
	assert_non_null(n->events);
	assert_int_equal(sm_plane_new(&config, &n->plane), 0);
	sm_plane_on_retire(n->plane, on_retire, n);
}

void node_init(struct node *n, uint32_t workers, uint32_t frame_max)
{
	init(n, workers, frame_max, -1, &no_offload);
}

void node_init_offload(struct node *n, uint32_t workers, uint32_t frame_max,
		       const struct planes_offload *offload)
{
	init(n, workers, frame_max, -1, offload);
	n->chunk_ports = UINT64_MAX;
}

void node_init_queue(struct node *n, uint32_t frame_max, int fd,
		     const struct planes_offload *offload)
{
	init(n, 1, frame_max, fd, offload);
}

void node_publish(struct node *n)
{
	struct sm_snapshot *s = calloc(1, sizeof(*s));
	struct sm_session_view *views = calloc(n->members + 1, sizeof(*views));

	assert_non_null(s);
	assert_non_null(views);
	s->mode = n->mode;
	s->generation = ++n->published;
	s->port_count = s->session_count = n->members + 1;
	s->member_count = n->unconnected ? 0 : n->members;
	s->awaited = n->members - s->member_count;
	s->owner = views;
	s->sessions = calloc(s->session_count, sizeof(*s->sessions));
	s->send = calloc(s->port_count, sizeof(*s->send));
	s->members = calloc(n->members + 1, sizeof(*s->members));
	assert_true(s->sessions && s->send && s->members);
	sm_map64_init(&s->owned_macs, 1);
	assert_int_equal(sm_mactable_new(64, SM_PORT_MAX, 1, &s->learned), 0);
	sm_snapshot_sort_routes(s);
	for (uint32_t port = 0; port <= n->members; port++) {
		struct sm_session_view *v = &views[port];

		assert_int_equal(sm_map64_insert(&s->owned_macs,
						 OWN_MAC(n->second && port < 2 ? 1 - port : port),
						 port),
				 0);
		if (port == 0 || n->unconnected)
			continue;
		*v = (struct sm_session_view){.index = 0x77000000 + port,
					      .batches = true,
					      .port = (sm_port_t)port,
					      .takes_parts = n->takes_parts,
					      .takes_chunks = port < 64 &&
							      (n->chunk_ports >> port & 1),
					      .tx = n->tx,
					      .remote = n->remote,
					      .path_mtu = n->path_mtu};
		memcpy(v->rx, n->rx, sizeof(v->rx));
		s->sessions[port] = s->send[port] = v;
		s->members[port - 1] = (sm_port_t)port;
	}
	sm_plane_publish(n->plane, s);
}

void node_start(struct node *n)
{
	node_publish(n);
	assert_int_equal(sm_plane_start(n->plane), 0);
}

void node_done(struct node *n)
{
	sm_plane_free(n->plane);
	assert_int_equal(n->frees, n->published);
	for (uint32_t i = 0; i < n->workers; i++) {
		if (n->tap[i] >= 0)
			close(n->tap[i]);
		close(n->queue[i]);
		close(n->udp[i]);
	}
	free(n->events);
}

static void on_event(void *arg, const struct sm_plane_event *event)
{
	struct node *n = arg;

	assert_true(n->event_count < PLANES_EVENTS_MAX);
	n->events[n->event_count++] = *event;
}

void node_poll(struct node *n)
{
	(void)sm_plane_poll(n->plane, on_event, n);
}

static void nap(uint64_t since_us, const char *what, unsigned which)
{
	if (sm_clock_now_us() - since_us > WAIT_US)
		fail_msg("%s %u did not come", what, which);
	(void)poll(NULL, 0, 1);
}

const struct sm_plane_event *node_wait_event(struct node *n, enum sm_plane_event_type type,
					     uint32_t from)
{
	uint64_t since_us = sm_clock_now_us();

	for (;;) {
		node_poll(n);
		for (uint32_t i = from; i < n->event_count; i++) {
			if (n->events[i].type == type)
				return &n->events[i];
		}
		nap(since_us, "event", type);
	}
}

uint32_t node_count_events(const struct node *n, enum sm_plane_event_type type)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < n->event_count; i++)
		count += n->events[i].type == type;
	return count;
}

uint64_t node_drops(const struct node *n, enum sm_drop why)
{
	struct sm_plane_counters c;

	sm_plane_counters(n->plane, &c);
	return c.drops[why];
}

void node_wait_drop(const struct node *n, enum sm_drop why, uint64_t at_least)
{
	uint64_t since_us = sm_clock_now_us();

	while (node_drops(n, why) < at_least)
		nap(since_us, "drop", why);
}

struct sm_epoch *planes_epoch(bool client, uint32_t number, uint32_t lanes)
{
	struct sm_epoch_secret secret;
	struct sm_epoch *epoch = NULL;

	for (size_t i = 0; i < sizeof(secret.b); i++)
		secret.b[i] = (uint8_t)(i * 5 + 3);
	assert_int_equal(sm_epoch_new(&secret, SM_CIPHER_AES256GCM, client, number, 0x77000001,
				      &(struct sm_lane_plan){lanes, lanes, true}, &epoch),
			 0);
	return epoch;
}

static void join(struct node *a, struct node *b, uint32_t workers)
{
	b->second = true;
	a->remote = b->addr;
	b->remote = a->addr;
	a->tx = a->rx[0] = planes_epoch(true, 0, workers + 1);
	b->tx = b->rx[0] = planes_epoch(false, 0, workers + 1);
}

void planes_join(struct node *a, struct node *b, uint32_t workers, uint32_t frame_max)
{
	node_init(a, workers, frame_max);
	node_init(b, workers, frame_max);
	join(a, b, workers);
}

void planes_join_offload(struct node *a, struct node *b, uint32_t workers, uint32_t frame_max,
			 const struct planes_offload *of_a, const struct planes_offload *of_b)
{
	node_init_offload(a, workers, frame_max, of_a);
	node_init_offload(b, workers, frame_max, of_b);
	join(a, b, workers);
}

void planes_part(struct node *a, struct node *b)
{
	struct sm_epoch *epochs[] = {a->rx[0], a->rx[1], a->rx[2], b->rx[0], b->rx[1], b->rx[2]};

	node_done(a);
	node_done(b);
	for (size_t i = 0; i < SM_ARRAY_SIZE(epochs); i++)
		sm_epoch_free(epochs[i]);
}

#define NUMBER_AT SM_ETH_HEADER_LEN

static uint8_t filler(uint32_t number, uint32_t at)
{
	return (uint8_t)(number * 31 + at * 7);
}

uint32_t planes_frame(uint8_t *buf, uint64_t dst, uint64_t src, uint32_t number, uint32_t len)
{
	struct sm_writer w = sm_writer_init(buf, len);

	assert_true(len >= NUMBER_AT + 4);
	sm_write_u16(&w, (uint16_t)(dst >> 32));
	sm_write_u32(&w, (uint32_t)dst);
	sm_write_u16(&w, (uint16_t)(src >> 32));
	sm_write_u32(&w, (uint32_t)src);
	sm_write_u16(&w, 0x88b5); /* local experiment */
	sm_write_u32(&w, number);
	for (uint32_t i = NUMBER_AT + 4; i < len; i++)
		sm_write_u8(&w, filler(number, i));
	assert_int_equal(sm_writer_done(&w), len);
	return len;
}

uint32_t planes_frame_number(const uint8_t *buf, uint32_t len)
{
	struct sm_reader r = sm_reader_init(buf, len);
	uint32_t number;

	assert_true(len >= NUMBER_AT + 4);
	(void)sm_read_view(&r, NUMBER_AT);
	number = sm_read_u32(&r);
	for (uint32_t i = NUMBER_AT + 4; i < len; i++)
		assert_int_equal(sm_read_u8(&r), filler(number, i));
	return number;
}

void tap_put_vnet(int fd, const struct sm_vnet *vnet, const uint8_t *frame, uint32_t len)
{
	uint8_t buf[SM_VNET_HDR_LEN + 66000];
	uint64_t since_us = sm_clock_now_us();

	assert_true(len <= 66000);
	sm_vnet_encode(vnet, buf);
	memcpy(buf + SM_VNET_HDR_LEN, frame, len);
	while (send(fd, buf, SM_VNET_HDR_LEN + len, MSG_NOSIGNAL) < 0) {
		assert_int_equal(errno, EAGAIN);
		nap(since_us, "room in TAP", (unsigned)fd);
	}
}

void tap_put(int fd, const uint8_t *frame, uint32_t len)
{
	static const struct sm_vnet complete;

	tap_put_vnet(fd, &complete, frame, len);
}

uint32_t tap_get_vnet(int fd, struct sm_vnet *ret_vnet, uint8_t *frame, uint32_t room,
		      int timeout_ms)
{
	uint8_t buf[SM_VNET_HDR_LEN + 66000];
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t got;

	if (poll(&p, 1, timeout_ms) <= 0)
		return 0;
	got = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
	assert_true(got > (ssize_t)SM_VNET_HDR_LEN);
	sm_vnet_decode(buf, ret_vnet);
	got -= SM_VNET_HDR_LEN;
	assert_true((size_t)got <= room);
	memcpy(frame, buf + SM_VNET_HDR_LEN, (size_t)got);
	return (uint32_t)got;
}

uint32_t tap_get(int fd, uint8_t *frame, uint32_t room, int timeout_ms)
{
	static const struct sm_vnet complete;
	struct sm_vnet vnet;
	uint32_t len = tap_get_vnet(fd, &vnet, frame, room, timeout_ms);

	if (len > 0)
		assert_memory_equal(&vnet, &complete, sizeof(vnet));
	return len;
}
