// SPDX-License-Identifier: MIT
/*
 * The whole way of a datagram: header, session, epoch, lane, open, kind, parts, switch, TAP. The worker's
 * own code runs, on this thread, between two socket pairs; the input is a list of datagrams.
 *
 * Input: one byte of options for all (bit 0: TUN), then records of
 *   how (8)     bit 0: sealed with the right key, for the lane in bits 1 and 2; bits 3 and 4: what to do to
 *               it then (nothing, send it twice, flip a bit, cut it); bits 5 to 7: how far the packet number
 *               jumps
 *   length (16) little-endian, modulo what is left
 *   content     body and kind of a sealed one; else the datagram itself
 *
 * What must hold: a datagram that was not sealed, or whose number was there before, writes nothing to the
 * TAP and tells the control thread nothing; all buffers come back.
 */
#include "base/clock.h"
#include "core/switch.h"
#include "crypto/crypto.h"
#include "crypto/schedule.h"
#include "plane/plane.h"
#include "plane/worker.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LANES       3u
#define FRAME_MAX   1522u
#define SESSION     0x77000001u
#define CONTENT_MAX 2400u

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(what)                                                                      \
	do {                                                                             \
		if (!(what)) {                                                           \
			(void)fprintf(stderr, "%s:%d: %s\n", __func__, __LINE__, #what); \
			abort();                                                         \
		}                                                                        \
	} while (0)

static int tap[2], udp_in, udp_out;
static struct sm_epoch_secret secret = {{1, 2, 3}};
static struct sm_route routes[8];
static uint8_t room[SM_PBUF_HEADROOM + CONTENT_MAX + SM_PBUF_TAILROOM];

static void on_wake(void *arg)
{
	(void)arg;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);

	(void)argc;
	(void)argv;
	CHECK(sm_crypto_init() == 0);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, tap) == 0);
	udp_in = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	udp_out = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	CHECK(udp_in >= 0 && udp_out >= 0);
	CHECK(bind(udp_in, (struct sockaddr *)&sa, sizeof(sa)) == 0);
	CHECK(getsockname(udp_in, (struct sockaddr *)&sa, &len) == 0);
	CHECK(connect(udp_out, (struct sockaddr *)&sa, sizeof(sa)) == 0);
	return 0;
}

/* Port 1 is the peer that sends; 2 and 3 own MACs and addresses that it must not use. */
static void fill_snapshot(struct sm_snapshot *s, enum sm_mode mode)
{
	static const char *const prefixes[] = {"10.7.0.1/32",  "10.7.0.2/32",    "10.7.0.3/32",
					       "fd00::1/128",  "fd00::2/128",    "fd00::3/128",
					       "192.0.2.0/24", "198.51.100.0/24"};
	static const sm_port_t owners[] = {0, 1, 2, 0, 1, 2, 0, 1};

	s->mode = mode;
	s->routes = routes;
	s->route_count = SM_ARRAY_SIZE(prefixes);
	for (uint32_t i = 0; i < s->route_count; i++) {
		CHECK(sm_prefix_parse(prefixes[i], &routes[i].prefix) == 0);
		routes[i].port = owners[i];
	}
	sm_snapshot_sort_routes(s);
	sm_map64_init(&s->owned_macs, 1);
	for (uint32_t port = 0; port < 4; port++)
		CHECK(sm_map64_insert(&s->owned_macs, UINT64_C(0x020000000000) + port, port) == 0);
	CHECK(sm_mactable_new(64, 4, 1, &s->learned) == 0);
}

/* Checks what an event claims; only authentic packets lead to any. */
static void on_event(void *arg, const struct sm_plane_event *event)
{
	uint32_t *told = arg;

	CHECK(event->session == SESSION);
	CHECK(event->len <= SM_EVENT_BODY_MAX);
	if (event->type == SM_EVENT_CONTROL)
		CHECK(event->kind == SM_KIND_STREAM || event->kind == SM_KIND_PROBE);
	(*told)++;
}

/* Return: frames written to the TAP, each checked against the switch's rules */
static uint32_t drain_tap(const struct sm_snapshot *s)
{
	uint8_t frame[66000];
	uint32_t n = 0;
	ssize_t got;

	while ((got = recv(tap[0], frame, sizeof(frame), 0)) > 0) {
		CHECK(got > (ssize_t)SM_VNET_HDR_LEN);
		CHECK(got <= (ssize_t)(SM_VNET_HDR_LEN + FRAME_MAX));
		CHECK(sm_switch_ingress(s, 1, frame + SM_VNET_HDR_LEN,
					(size_t)got - SM_VNET_HDR_LEN, 1) == SM_DROP_NONE);
		n++;
	}
	return n;
}

/* One datagram through the worker; Return: frames and events that came of it */
static uint32_t pass(struct sm_plane *plane, const struct sm_snapshot *s, const void *data,
		     size_t len)
{
	uint32_t told = 0, frames;

	CHECK(send(udp_out, data, len, 0) == (ssize_t)len);
	plane->workers[0].now_us += 1000;
	sm_ingress_turn(&plane->workers[0]);
	frames = drain_tap(s);
	(void)sm_plane_poll(plane, on_event, &told);
	return frames + told;
}

/* Return: the sealed datagram, in @room */
static struct sm_pbuf seal(struct sm_epoch *ours, uint8_t how, const uint8_t *content, size_t len)
{
	struct sm_tx_lane *lane = &ours->tx[how >> 1 & 3];
	struct sm_pbuf p = {.buf = room, .cap = sizeof(room)}, *list = &p;
	uint8_t kind = content[len - 1];

	sm_pbuf_reset(&p);
	memcpy(sm_pbuf_put_tail(&p, (uint32_t)len - 1), content, len - 1);
	if (how >> 5)
		atomic_store(&lane->next, atomic_load(&lane->next) + (1u << (how >> 5) * 2));
	CHECK(sm_tx_lane_seal(lane, &list, &kind, 1, 1) == 1);
	return p;
}

static void pass_sealed(struct sm_plane *plane, const struct sm_snapshot *s, struct sm_epoch *ours,
			uint8_t how, const uint8_t *content, size_t len)
{
	struct sm_pbuf p;

	if ((how >> 1 & 3) >= LANES || len == 0 || len > CONTENT_MAX)
		return;
	p = seal(ours, how, content, len);
	switch (how >> 3 & 3) {
	case 0:
		(void)pass(plane, s, p.data, p.len);
		break;
	case 1:
		(void)pass(plane, s, p.data, p.len);
		CHECK(pass(plane, s, p.data, p.len) == 0);
		break;
	case 2:
		p.data[content[0] % p.len] ^= (uint8_t)(1u << (len & 7));
		CHECK(pass(plane, s, p.data, p.len) == 0);
		break;
	default:
		CHECK(pass(plane, s, p.data, p.len - 1 - content[0] % p.len) == 0);
		break;
	}
}

static void run(struct sm_plane *plane, const struct sm_snapshot *s, struct sm_epoch *ours,
		const uint8_t *data, size_t size)
{
	struct sm_reader r = sm_reader_init(data, size);

	for (int records = 0; records < 64 && sm_reader_left(&r) > 3; records++) {
		uint8_t how = sm_read_u8(&r);
		size_t len = (size_t)sm_read_u8(&r) | (size_t)sm_read_u8(&r) << 8;
		const uint8_t *content;

		len = SM_MIN(len % (sm_reader_left(&r) + 1), 4000u);
		content = sm_read_view(&r, len);
		if (how & 1)
			pass_sealed(plane, s, ours, how, content, len);
		else
			CHECK(pass(plane, s, content, len) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sm_plane_config config = {.workers = 1,
					 .tap_fd = &tap[1],
					 .udp_fd = &udp_in,
					 .frame_max = FRAME_MAX,
					 .wake = on_wake};
	struct sm_session_view view = {
		.index = SESSION, .port = 1, .takes_parts = true, .path_mtu = 1500};
	const struct sm_session_view *sessions[] = {NULL, &view}, *sends[] = {NULL, &view};
	struct sm_snapshot s = {
		.session_count = 2, .port_count = 2, .sessions = sessions, .send = sends};
	struct sm_epoch *ours = NULL, *theirs = NULL;
	struct sm_plane *plane = NULL;
	uint32_t free_before;

	if (size == 0)
		return 0;
	CHECK(sm_epoch_new(&secret, SM_CIPHER_AES256GCM, true, 0, SESSION, LANES, LANES, &ours) ==
	      0);
	CHECK(sm_epoch_new(&secret, SM_CIPHER_AES256GCM, false, 0, 1, LANES, LANES, &theirs) == 0);
	view.tx = view.rx[0] = theirs;
	fill_snapshot(&s, data[0] & 1 ? SM_MODE_TUN : SM_MODE_TAP);
	CHECK(sm_plane_new(&config, &plane) == 0);
	plane->workers[0].now_us = SM_SEC_US;
	sm_plane_publish(plane, &s);
	free_before = plane->workers[0].pool.free_count;

	run(plane, &s, ours, data + 1, size - 1);

	sm_parts_done(&plane->workers[0].parts);
	CHECK(plane->workers[0].pool.free_count == free_before);
	sm_plane_free(plane);
	sm_map64_done(&s.owned_macs);
	sm_mactable_free(s.learned);
	sm_epoch_free(ours);
	sm_epoch_free(theirs);
	return 0;
}
