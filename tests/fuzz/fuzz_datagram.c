// SPDX-License-Identifier: MIT
/*
 * The whole way of a datagram: header, session, epoch, lane, open, kind, parts, joining, switch, TAP. The
 * worker's own code runs, on this thread, between two socket pairs; the input is a list of datagrams.
 *
 * Input: one byte of options for all (bit 0: TUN, bits 1 and 2: the TAP takes no super-frames of TCP, of UDP,
 * bit 3: datagrams come in batches, of as many as bits 4 to 7 say and one), then records of
 *   how (8)     bit 0: sealed with the right key, for the lane in bits 1 and 2; bits 3 and 4: what to do to
 *               it then (nothing, send it twice, flip a bit, cut it); bits 5 to 7: how far the packet number
 *               jumps
 *   length (14) little-endian, modulo what is left; bit 14: instead of a content, that of the record before as
 *               its next (chunk or segment), as many bytes shorter as bits 0 to 7 say; bit 15: lengths and
 *               checksums of a frame are made right
 *   content     body and kind of a sealed one; else the datagram itself
 *
 * What must hold: a datagram that was not sealed, or whose number was there before, writes nothing to the
 * TAP and tells the control thread nothing (looked at without batches); what is written to the TAP is what a
 * kernel takes and makes sound frames of; all buffers come back, and nothing waits behind a batch.
 */
#include "base/clock.h"
#include "core/switch.h"
#include "crypto/crypto.h"
#include "crypto/schedule.h"
#include "plane/plane.h"
#include "plane/worker.h"

#include "../unit/taken.h"

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

enum {
	LENGTH_MASK = 0x3fff,
	LENGTH_NEXT = 0x4000,
	LENGTH_RIGHT = 0x8000,
};

/**
 * struct world - One run
 * @batch: datagrams of a turn, 0: each has its own; @waiting: sent and not yet received
 * @last:  content of the last record with one
 */
struct world {
	struct sm_plane *plane;
	const struct sm_snapshot *s;
	struct sm_epoch *ours;
	uint32_t batch, waiting;
	uint8_t last[CONTENT_MAX];
	size_t last_len;
};

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

/* Return: frames written to the TAP, each checked against the kernel's demands and the switch's rules */
static uint32_t drain_tap(const struct sm_snapshot *s)
{
	static uint8_t buf[SM_VNET_HDR_LEN + TAKEN_LEN_MAX + 1];
	const uint8_t *frame = buf + SM_VNET_HDR_LEN;
	uint32_t n = 0;
	ssize_t got;

	while ((got = recv(tap[0], buf, sizeof(buf), 0)) > 0) {
		const char *problem;
		struct sm_vnet vnet;
		uint32_t len;

		CHECK(got > (ssize_t)SM_VNET_HDR_LEN);
		len = (uint32_t)got - SM_VNET_HDR_LEN;
		sm_vnet_decode(buf, &vnet);
		problem = taken_problem(s->mode, &vnet, frame, len, FRAME_MAX, NULL, NULL);
		if (problem) {
			(void)fprintf(stderr, "written to the TAP: %s (%u bytes)\n", problem, len);
			abort();
		}
		CHECK(sm_switch_ingress(s, 1, frame, len, 1) == SM_DROP_NONE);
		n++;
	}
	return n;
}

/* Return: frames and events that came of all that was sent */
static uint32_t turn(struct world *world)
{
	struct sm_worker *w = &world->plane->workers[0];
	uint32_t told = 0, frames;

	world->waiting = 0;
	w->now_us += 1000;
	do {
		sm_ingress_turn(w, true);
		CHECK(w->joining.count == 0 && w->coalesce.count == 0 && w->joined_count == 0);
		CHECK(w->opened_len == 0);
	} while (sm_ingress_waits(w));
	frames = drain_tap(world->s);
	(void)sm_plane_poll(world->plane, on_event, &told);
	return frames + told;
}

/* One datagram through the worker; Return: frames and events that came of it; 0 when it waits for others */
static uint32_t pass(struct world *world, const void *data, size_t len)
{
	CHECK(send(udp_out, data, len, 0) == (ssize_t)len);
	return ++world->waiting < world->batch ? 0 : turn(world);
}

/* Return: the sealed datagram, in @room */
static struct sm_pbuf seal(struct sm_epoch *ours, uint8_t how, const uint8_t *content, size_t len)
{
	struct sm_tx_lane *lane = &ours->tx[how >> 1 & 3]; /* the last: the first express one */
	struct sm_pbuf p = {.buf = room, .cap = sizeof(room)}, *list = &p;
	uint8_t kind = content[len - 1];

	sm_pbuf_reset(&p);
	memcpy(sm_pbuf_put_tail(&p, (uint32_t)len - 1), content, len - 1);
	if (how >> 5)
		atomic_store(&lane->next, atomic_load(&lane->next) + (1u << (how >> 5) * 2));
	CHECK(sm_tx_lane_seal(lane, &list, &kind, 1, 1) == 1);
	return p;
}

static void pass_sealed(struct world *world, uint8_t how, const uint8_t *content, size_t len)
{
	bool alone = world->batch == 0;
	struct sm_pbuf p;
	uint32_t came;

	if (len == 0 || len > CONTENT_MAX)
		return;
	p = seal(world->ours, how, content, len);
	switch (how >> 3 & 3) {
	case 0:
		(void)pass(world, p.data, p.len);
		break;
	case 1:
		(void)pass(world, p.data, p.len);
		came = pass(world, p.data, p.len);
		CHECK(!alone || came == 0);
		break;
	case 2:
		p.data[content[0] % p.len] ^= (uint8_t)(1u << (len & 7));
		came = pass(world, p.data, p.len);
		CHECK(!alone || came == 0);
		break;
	default:
		came = pass(world, p.data, p.len - 1 - content[0] % p.len);
		CHECK(!alone || came == 0);
		break;
	}
}

/* Lengths and checksums of a frame, with which it may be joined to others */
static void make_right(enum sm_mode mode, uint8_t *frame, size_t len)
{
	struct sm_vnet vnet = {.flags = SM_VNET_NEEDS_CSUM};
	struct sm_inet inet;

	if (sm_inet_parse(mode, frame, len, &inet) < 0 || inet.payload > len)
		return;
	sm_inet_set_length(&inet, frame, (uint32_t)len - inet.payload, 0);
	vnet.csum_start = (uint16_t)inet.l4;
	vnet.csum_offset = inet.proto == SM_PROTO_TCP ? 16 : 6;
	sm_csum_store(sm_csum_fold(sm_inet_pseudo(&inet, frame, inet.end - inet.l4)),
		      frame + vnet.csum_start + vnet.csum_offset);
	CHECK(sm_segment_finish(&vnet, frame, inet.end) == 0);
}

/* The last content becomes its own successor. */
static void make_next(struct world *world, size_t shorter)
{
	uint8_t *body = world->last;
	size_t len = world->last_len - 1;
	struct sm_chunk chunk;
	struct sm_inet inet;

	if (body[len] == SM_KIND_CHUNK && len > SM_CHUNK_LEN &&
	    sm_chunk_decode(body + len - SM_CHUNK_LEN, &chunk) == 0) {
		chunk.index++;
		sm_chunk_encode(&chunk, body + len - SM_CHUNK_LEN);
		shorter = SM_MIN(shorter, len);
		memmove(body, body + shorter, len + 1 - shorter);
		world->last_len -= shorter;
	} else if (body[len] == SM_KIND_FRAME &&
		   sm_inet_parse(world->s->mode, body, len, &inet) == 0) {
		uint8_t *seq = body + inet.l4 + 4;

		if (inet.proto == SM_PROTO_TCP)
			(void)frame_put(seq,
					(taken_u16(seq) << 16 | taken_u16(seq + 2)) + inet.end -
						inet.payload,
					4);
		shorter = SM_MIN(shorter, len - SM_MIN(len, inet.payload));
		body[len - shorter] = SM_KIND_FRAME;
		world->last_len -= shorter;
	}
}

/* Reads a content to @world->last. */
static void read_content(struct world *world, struct sm_reader *r, uint32_t length)
{
	size_t len;

	if (length & LENGTH_NEXT && world->last_len > 0) {
		make_next(world, length & 0xff);
	} else {
		len = SM_MIN((length & LENGTH_MASK) % (sm_reader_left(r) + 1), CONTENT_MAX);
		if (len > 0)
			memcpy(world->last, sm_read_view(r, len), len);
		world->last_len = len;
	}
	if (length & LENGTH_RIGHT && world->last_len > 0 &&
	    world->last[world->last_len - 1] == SM_KIND_FRAME)
		make_right(world->s->mode, world->last, world->last_len - 1);
}

static void run(struct world *world, const uint8_t *data, size_t size)
{
	struct sm_reader r = sm_reader_init(data, size);

	for (int records = 0; records < 64 && sm_reader_left(&r) > 2; records++) {
		uint8_t how = sm_read_u8(&r);
		uint32_t length = sm_read_u8(&r);

		length |= (uint32_t)sm_read_u8(&r) << 8;
		read_content(world, &r, length);
		if (how & 1) {
			pass_sealed(world, how, world->last, world->last_len);
		} else {
			uint32_t came = pass(world, world->last, world->last_len);

			CHECK(world->batch > 0 || came == 0);
		}
	}
	if (world->waiting > 0)
		(void)turn(world);
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
	static struct world world;
	uint32_t free_before;

	if (size == 0)
		return 0;
	config.mode = data[0] & 1 ? SM_MODE_TUN : SM_MODE_TAP;
	config.tap_tso = !(data[0] & 2);
	config.tap_uso = !(data[0] & 4);
	CHECK(sm_epoch_new(&secret, SM_CIPHER_AES256GCM, true, 0, SESSION,
			   &(struct sm_lane_plan){LANES, LANES, true}, &ours) == 0);
	CHECK(sm_epoch_new(&secret, SM_CIPHER_AES256GCM, false, 0, 1,
			   &(struct sm_lane_plan){LANES, LANES, true}, &theirs) == 0);
	view.tx = view.rx[0] = theirs;
	fill_snapshot(&s, config.mode);
	CHECK(sm_plane_new(&config, &plane) == 0);
	plane->workers[0].now_us = SM_SEC_US;
	sm_plane_publish(plane, &s);
	free_before = plane->workers[0].pool.free_count;

	world = (struct world){.plane = plane,
			       .s = &s,
			       .ours = ours,
			       .batch = data[0] & 8 ? (data[0] >> 4) + 1u : 0};
	run(&world, data + 1, size - 1);

	sm_parts_done(&plane->workers[0].parts);
	CHECK(plane->workers[0].pool.free_count == free_before);
	sm_plane_free(plane);
	sm_map64_done(&s.owned_macs);
	sm_mactable_free(s.learned);
	sm_epoch_free(ours);
	sm_epoch_free(theirs);
	return 0;
}
