// SPDX-License-Identifier: MIT
/*
 * Nanoseconds per packet of what a worker does with each: seal, open, segment, join, look up, count. JSON on
 * stdout, a table on stderr.
 *
 * Each batch of 64 (a super-frame: of 45) is timed by itself; the median and the best of SAMPLES batches are told, so that a
 * disturbed moment on a shared machine counts for one batch only. A copy of 1,400 bytes is measured beside
 * them as the reference.
 */
#include "base/clock.h"
#include "base/hist.h"
#include "base/ring.h"
#include "core/coalesce.h"
#include "core/segment.h"
#include "core/super.h"
#include "core/switch.h"
#include "crypto/crypto.h"
#include "crypto/schedule.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define SAMPLES    3001u
#define FRAME_LEN  1400u
#define PEERS      1000u
#define SECRET_FOR 7u

/* A super-frame of TCP over IPv4, about as large as a kernel makes them, and a frame of UDP */
#define SEGMENT_LEN 1448u
#define SEGMENTS    45u
#define L4_AT       34u
#define TCP_HEAD    54u
#define UDP_HEAD    42u
#define UDP_LEN     22u
#define PLAIN_MAX   (TCP_HEAD + SEGMENT_LEN)

/**
 * struct offload - Frames to be cut and joined
 * @super:  SEGMENTS segments of TCP under one set of headers; @vnet: says so
 * @plain:  the segments as frames, or a datagram of each of SM_BATCH_MAX flows; @plain_vnet: of each
 */
struct offload {
	uint8_t super[TCP_HEAD + SEGMENTS * SEGMENT_LEN];
	struct sm_vnet vnet, plain_vnet;
	struct sm_inet inet;
	uint8_t plain[SM_BATCH_MAX][PLAIN_MAX];
	struct sm_coalesce batch;
};

/**
 * struct bench - What is measured and with what
 * @len: bytes of a frame; @n: operations of one call of the measured function
 */
struct bench {
	struct sm_epoch *tx, *rx;
	struct sm_pbuf_pool pool;
	struct sm_pbuf *pkts[SM_BATCH_MAX];
	uint8_t kinds[SM_BATCH_MAX];
	uint8_t frame[FRAME_LEN], copy[FRAME_LEN];
	uint32_t len;
	uint64_t now_us;
	struct sm_snapshot snapshot;
	const struct sm_session_view *send[PEERS + 1];
	struct sm_session_view view;
	struct sm_hist hist;
	struct sm_ring ring;
	struct offload offload;
	uint64_t sink;
};

static void die(const char *what)
{
	(void)fprintf(stderr, "bench_micro: %s\n", what);
	exit(1);
}

static void check(int r, const char *what)
{
	if (r < 0)
		die(what);
}

static uint64_t mac_of(uint32_t peer)
{
	return UINT64_C(0x020000000000) + peer * 7919u;
}

static void set_mac(uint8_t *at, uint64_t mac)
{
	for (unsigned i = 0; i < SM_MAC_LEN; i++)
		at[i] = (uint8_t)(mac >> 8 * (5 - i));
}

/* A lane's numbers end at the limit, so each run has an epoch of its own. */
static void new_epoch(struct bench *b, enum sm_cipher cipher)
{
	struct sm_epoch_secret secret = {{SECRET_FOR}};

	sm_epoch_free(b->tx);
	sm_epoch_free(b->rx);
	b->tx = b->rx = NULL;
	check(sm_epoch_new(&secret, cipher, true, 0, 1, &(struct sm_lane_plan){2, 2, false},
			   &b->tx),
	      "epoch");
	check(sm_epoch_new(&secret, cipher, false, 0, 1, &(struct sm_lane_plan){2, 2, false},
			   &b->rx),
	      "epoch");
}

static void fill_packets(struct bench *b)
{
	for (uint32_t i = 0; i < SM_BATCH_MAX; i++) {
		sm_pbuf_reset(b->pkts[i]);
		b->pkts[i]->len = b->len;
	}
}

static uint32_t run_seal(struct bench *b)
{
	fill_packets(b);
	if (sm_tx_lane_seal(&b->tx->tx[1], b->pkts, b->kinds, SM_BATCH_MAX, 1) != SM_BATCH_MAX)
		die("seal");
	return SM_BATCH_MAX;
}

static uint32_t run_open(struct bench *b)
{
	for (uint32_t i = 0; i < SM_BATCH_MAX; i++) {
		struct sm_data_header h;
		uint8_t kind;
		bool newest;

		check(sm_data_header_decode(b->pkts[i]->data, b->pkts[i]->len, &h), "header");
		check(sm_rx_lane_open(&b->rx->rx[1], b->pkts[i], &h, 1, &kind, &newest), "open");
	}
	return SM_BATCH_MAX;
}

static uint32_t run_copy(struct bench *b)
{
	for (uint32_t i = 0; i < SM_BATCH_MAX; i++) {
		memcpy(b->copy, b->frame, FRAME_LEN);
		__asm__ volatile("" ::"r"(b->copy) : "memory");
	}
	return SM_BATCH_MAX;
}

static uint32_t egress(struct bench *b, uint64_t base)
{
	for (uint32_t i = 0; i < SM_BATCH_MAX; i++) {
		sm_port_t port = 0;
		enum sm_drop why;

		set_mac(b->frame, base + mac_of(1 + (uint32_t)(b->sink++ % PEERS)));
		if (sm_switch_egress(&b->snapshot, b->frame, FRAME_LEN, b->now_us, &port, &why) !=
		    SM_VERDICT_PORT)
			die("egress");
	}
	return SM_BATCH_MAX;
}

static uint32_t run_egress_owned(struct bench *b)
{
	return egress(b, 0);
}

#define LEARNED UINT64_C(0x0a0000000000)

static uint32_t run_egress_learned(struct bench *b)
{
	return egress(b, LEARNED - UINT64_C(0x020000000000));
}

static uint32_t run_ingress(struct bench *b)
{
	set_mac(b->frame, mac_of(0));
	for (uint32_t i = 0; i < SM_BATCH_MAX; i++) {
		uint32_t peer = 1 + (uint32_t)(b->sink++ % PEERS);

		set_mac(b->frame + SM_MAC_LEN, mac_of(peer));
		if (sm_switch_ingress(&b->snapshot, (sm_port_t)peer, b->frame, FRAME_LEN,
				      b->now_us) != SM_DROP_NONE)
			die("ingress");
	}
	set_mac(b->frame + SM_MAC_LEN, mac_of(0));
	return SM_BATCH_MAX;
}

static uint32_t run_route(struct bench *b)
{
	struct sm_addr ip = {.ip = {10, 7}, .family = 4};

	for (uint32_t i = 0; i < SM_BATCH_MAX; i++) {
		uint32_t peer = 1 + (uint32_t)(b->sink++ % PEERS);

		ip.ip[2] = (uint8_t)(peer >> 8);
		ip.ip[3] = (uint8_t)peer;
		if (sm_snapshot_route(&b->snapshot, &ip) != peer)
			die("route");
	}
	return SM_BATCH_MAX;
}

static uint32_t run_hist(struct bench *b)
{
	for (uint32_t i = 0; i < SM_BATCH_MAX; i++)
		sm_hist_add(&b->hist, 100 + (b->sink++ & 1023), 1);
	return SM_BATCH_MAX;
}

static uint32_t run_clock(struct bench *b)
{
	for (uint32_t i = 0; i < SM_BATCH_MAX; i++)
		b->sink += sm_clock_now_ns();
	return SM_BATCH_MAX;
}

/* As handing over does: copied in, copied out */
static uint32_t run_ring(struct bench *b)
{
	for (uint32_t i = 0; i < SM_BATCH_MAX; i++) {
		void *slot = sm_ring_reserve(&b->ring);

		if (!slot)
			die("ring");
		memcpy(slot, b->frame, FRAME_LEN);
		sm_ring_commit(&b->ring);
		memcpy(b->copy, sm_ring_peek(&b->ring), FRAME_LEN);
		sm_ring_release(&b->ring);
	}
	return SM_BATCH_MAX;
}

/* Headers of Ethernet and IPv4 and the ports; lengths and checksums are set later */
static void fill_headers(uint8_t *frame, uint8_t proto, uint16_t sport)
{
	static const uint8_t ip[20] = {0x45, 0, 0,  0, 0, 1, 0x40, 0, 64, 0,
				       0,    0, 10, 7, 0, 1, 10,   7, 0,  2};

	set_mac(frame, mac_of(1));
	set_mac(frame + SM_MAC_LEN, mac_of(0));
	frame[12] = 0x08;
	memcpy(frame + 14, ip, sizeof(ip));
	frame[23] = proto;
	frame[L4_AT] = (uint8_t)(sport >> 8);
	frame[L4_AT + 1] = (uint8_t)sport;
	frame[L4_AT + 3] = 9;
}

static void fill_super(struct offload *o)
{
	uint8_t *tcp = o->super + L4_AT;
	uint32_t payload_len = SEGMENTS * SEGMENT_LEN;
	uint16_t ip_len = (uint16_t)(sizeof(o->super) - 14);

	fill_headers(o->super, SM_PROTO_TCP, 5000);
	o->super[16] = (uint8_t)(ip_len >> 8);
	o->super[17] = (uint8_t)ip_len;
	tcp[12] = 5 << 4;
	tcp[13] = SM_TCP_ACK;
	tcp[14] = 0xff;
	for (uint32_t i = 0; i < payload_len; i++)
		o->super[TCP_HEAD + i] = (uint8_t)(i * 31);
	check(sm_inet_parse(SM_MODE_TAP, o->super, sizeof(o->super), &o->inet), "super-frame");
	sm_inet_set_length(&o->inet, o->super, payload_len, 0);
	sm_csum_store(sm_csum_fold(sm_inet_pseudo(&o->inet, o->super, 20 + payload_len)), tcp + 16);
	o->vnet = (struct sm_vnet){.flags = SM_VNET_NEEDS_CSUM,
				   .gso_type = SM_VNET_GSO_TCPV4,
				   .hdr_len = TCP_HEAD,
				   .gso_size = SEGMENT_LEN,
				   .csum_start = L4_AT,
				   .csum_offset = 16};
}

static uint32_t run_segment(struct bench *b)
{
	struct offload *o = &b->offload;
	struct sm_segmenter s;
	uint32_t n = 0;

	check(sm_segmenter_init(&s, SM_MODE_TAP, &o->vnet, o->super, sizeof(o->super)), "segment");
	for (; sm_segmenter_frame_len(&s) > 0; n++)
		sm_segmenter_next(&s, o->plain[n]);
	if (n != SEGMENTS)
		die("segments");
	return n;
}

static void prepare_join(struct bench *b)
{
	(void)run_segment(b);
	b->offload.plain_vnet = (struct sm_vnet){0};
}

/* As from a peer that left the checksums to us */
static void prepare_join_partial(struct bench *b)
{
	struct offload *o = &b->offload;

	(void)run_segment(b);
	for (uint32_t i = 0; i < SEGMENTS; i++)
		sm_csum_store(sm_csum_fold(sm_inet_pseudo(&o->inet, o->super, 20 + SEGMENT_LEN)),
			      o->plain[i] + L4_AT + 16);
	o->plain_vnet = (struct sm_vnet){
		.flags = SM_VNET_NEEDS_CSUM, .csum_start = L4_AT, .csum_offset = 16};
}

static void join(struct offload *o, uint32_t n, uint32_t len, uint32_t runs)
{
	sm_coalesce_init(&o->batch, SM_MODE_TAP, true, true);
	for (uint32_t i = 0; i < n; i++) {
		if (!sm_coalesce_add(&o->batch, o->plain[i], len, &o->plain_vnet))
			die("join");
	}
	sm_coalesce_finish(&o->batch);
	if (o->batch.count != runs)
		die("runs");
}

static uint32_t run_join(struct bench *b)
{
	join(&b->offload, SEGMENTS, PLAIN_MAX, 1);
	return SEGMENTS;
}

static void prepare_flows(struct bench *b)
{
	struct offload *o = &b->offload;

	o->plain_vnet = (struct sm_vnet){0};
	for (uint32_t i = 0; i < SM_BATCH_MAX; i++) {
		uint8_t *frame = o->plain[i];
		struct sm_inet inet;

		memset(frame, 0, UDP_HEAD + UDP_LEN);
		fill_headers(frame, SM_PROTO_UDP, (uint16_t)(6000 + i));
		frame[17] = 28 + UDP_LEN;
		frame[L4_AT + 5] = 8 + UDP_LEN;
		check(sm_inet_parse(SM_MODE_TAP, frame, UDP_HEAD + UDP_LEN, &inet), "datagram");
		sm_inet_set_length(&inet, frame, UDP_LEN, 0);
	}
}

/* Nothing can be joined: what looking for it costs */
static uint32_t run_flows(struct bench *b)
{
	join(&b->offload, SM_BATCH_MAX, UDP_HEAD + UDP_LEN, SM_BATCH_MAX);
	return SM_BATCH_MAX;
}

/* A super-frame that travels as it is: the sender's part, without sealing */
static uint32_t run_chunks_send(struct bench *b)
{
	struct offload *o = &b->offload;
	struct sm_super super;
	uint32_t piece, n;

	check(sm_super_classify(SM_MODE_TAP, &o->vnet, o->super, sizeof(o->super), &super),
	      "classify");
	n = sm_super_plan(&super, PLAIN_MAX + SM_CHUNK_LEN, &piece);
	if (n != SEGMENTS)
		die("plan");
	for (uint32_t i = 0; i < n; i++) {
		struct sm_chunk chunk = {.index = (uint16_t)i,
					 .count = (uint16_t)n,
					 .gso_size = (uint16_t)piece,
					 .header_len = (uint8_t)super.header_len};

		memcpy(o->plain[i], o->super, TCP_HEAD);
		sm_chunk_encode(&chunk, o->plain[i] + TCP_HEAD);
	}
	return n;
}

static void prepare_chunks(struct bench *b)
{
	(void)run_chunks_send(b);
}

/* and the receiver's, without opening */
static uint32_t run_chunks_receive(struct bench *b)
{
	struct offload *o = &b->offload;
	struct sm_chunk chunk, first = {0};
	struct sm_inet inet = {0};
	struct sm_vnet vnet;

	for (uint32_t i = 0; i < SEGMENTS; i++) {
		check(sm_chunk_decode(o->plain[i] + TCP_HEAD, &chunk), "descriptor");
		check(sm_chunk_check(SM_MODE_TAP, &chunk, SEGMENT_LEN, o->plain[i], PLAIN_MAX,
				     &inet),
		      "chunk");
		if (i == 0)
			first = chunk;
		else if (memcmp(o->plain[i], o->plain[0], TCP_HEAD) != 0)
			die("template");
	}
	sm_super_rebuild(&inet, &first, SEGMENTS, SEGMENTS * SEGMENT_LEN, o->plain[0], &vnet);
	b->sink += vnet.gso_size;
	return SEGMENTS;
}

static void prepare_none(struct bench *b)
{
	(void)b;
}

/* What is not measured: packets that open() then takes */
static void prepare_open(struct bench *b)
{
	(void)run_seal(b);
}

struct row {
	const char *name;
	uint32_t (*run)(struct bench *b);
	void (*prepare)(struct bench *b);
	uint32_t len; /* 0: no frame matters */
	enum sm_cipher cipher;
};

static const struct row rows[] = {
	{"copy_1400", run_copy, prepare_none, FRAME_LEN, SM_CIPHER_AES256GCM},
	{"seal_aes256gcm_1400", run_seal, prepare_none, 1400, SM_CIPHER_AES256GCM},
	{"open_aes256gcm_1400", run_open, prepare_open, 1400, SM_CIPHER_AES256GCM},
	{"seal_aes256gcm_64", run_seal, prepare_none, 64, SM_CIPHER_AES256GCM},
	{"open_aes256gcm_64", run_open, prepare_open, 64, SM_CIPHER_AES256GCM},
	{"seal_chacha20poly1305_1400", run_seal, prepare_none, 1400, SM_CIPHER_CHACHA20POLY1305},
	{"open_chacha20poly1305_1400", run_open, prepare_open, 1400, SM_CIPHER_CHACHA20POLY1305},
	{"segment_tcp_1448", run_segment, prepare_none, 0, SM_CIPHER_AES256GCM},
	{"coalesce_tcp_1448", run_join, prepare_join, 0, SM_CIPHER_AES256GCM},
	{"coalesce_tcp_partial_1448", run_join, prepare_join_partial, 0, SM_CIPHER_AES256GCM},
	{"coalesce_flows_64", run_flows, prepare_flows, 0, SM_CIPHER_AES256GCM},
	{"chunks_send_1448", run_chunks_send, prepare_none, 0, SM_CIPHER_AES256GCM},
	{"chunks_receive_1448", run_chunks_receive, prepare_chunks, 0, SM_CIPHER_AES256GCM},
	{"switch_egress_owned", run_egress_owned, prepare_none, 0, SM_CIPHER_AES256GCM},
	{"switch_egress_learned", run_egress_learned, prepare_none, 0, SM_CIPHER_AES256GCM},
	{"switch_ingress", run_ingress, prepare_none, 0, SM_CIPHER_AES256GCM},
	{"route", run_route, prepare_none, 0, SM_CIPHER_AES256GCM},
	{"hist_add", run_hist, prepare_none, 0, SM_CIPHER_AES256GCM},
	{"clock_ns", run_clock, prepare_none, 0, SM_CIPHER_AES256GCM},
	{"handover_ring_1400", run_ring, prepare_none, FRAME_LEN, SM_CIPHER_AES256GCM},
};

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct result {
	double median_ns, best_ns; /* of one operation */
};

static struct result measure(struct bench *b, const struct row *row)
{
	static double sample[SAMPLES];

	b->len = row->len;
	new_epoch(b, row->cipher);
	for (uint32_t i = 0; i < SAMPLES; i++) {
		uint64_t begin;
		uint32_t n;

		row->prepare(b);
		begin = sm_clock_now_ns();
		n = row->run(b);
		sample[i] = (double)(sm_clock_now_ns() - begin) / n;
	}
	qsort(sample, SAMPLES, sizeof(sample[0]), compare_double);
	return (struct result){.median_ns = sample[SAMPLES / 2], .best_ns = sample[0]};
}

static void fill_snapshot(struct bench *b)
{
	struct sm_snapshot *s = &b->snapshot;

	*s = (struct sm_snapshot){.mode = SM_MODE_TAP, .port_count = PEERS + 1, .send = b->send};
	s->routes = calloc(PEERS + 1, sizeof(*s->routes));
	if (!s->routes)
		die("memory");
	sm_map64_init(&s->owned_macs, 1);
	check(sm_mactable_new(4096, PEERS + 1, 1, &s->learned), "MAC table");
	for (uint32_t peer = 0; peer <= PEERS; peer++) {
		struct sm_route *r = &s->routes[s->route_count++];

		r->prefix = (struct sm_prefix){
			.ip = {10, 7, (uint8_t)(peer >> 8), (uint8_t)peer}, .family = 4, .len = 32};
		r->port = (sm_port_t)peer;
		check(sm_map64_insert(&s->owned_macs, mac_of(peer), peer), "MAC");
		if (peer > 0) {
			b->send[peer] = &b->view;
			check(sm_mactable_learn(s->learned,
						LEARNED + mac_of(peer) - UINT64_C(0x020000000000),
						(uint16_t)peer, b->now_us),
			      "learn");
		}
	}
	sm_snapshot_sort_routes(s);
}

static void init(struct bench *b)
{
	b->now_us = sm_clock_now_us();
	check(sm_pbuf_pool_init(&b->pool, SM_BATCH_MAX, FRAME_LEN + SM_DATA_OVERHEAD), "pool");
	for (uint32_t i = 0; i < SM_BATCH_MAX; i++) {
		b->pkts[i] = sm_pbuf_get(&b->pool);
		b->kinds[i] = SM_KIND_FRAME;
	}
	memset(b->pool.memory, 0x5a, (size_t)b->pkts[0]->cap * SM_BATCH_MAX);
	check(sm_ring_init(&b->ring, 128, 2048), "ring");
	set_mac(b->frame, mac_of(1));
	set_mac(b->frame + SM_MAC_LEN, mac_of(0));
	b->frame[12] = 0x08;
	fill_super(&b->offload);
	fill_snapshot(b);
}

static void done(struct bench *b)
{
	sm_epoch_free(b->tx);
	sm_epoch_free(b->rx);
	sm_ring_done(&b->ring);
	sm_pbuf_pool_done(&b->pool);
	sm_map64_done(&b->snapshot.owned_macs);
	sm_mactable_free(b->snapshot.learned);
	free(b->snapshot.routes);
	free(b);
}

int main(void)
{
	struct bench *b = aligned_alloc(64, (sizeof(*b) + 63) & ~(size_t)63);
	json_t *out = json_object(), *results = json_array();
	double reference = 0;

	if (!b || !out || !results)
		die("memory");
	memset(b, 0, sizeof(*b));
	check(sm_crypto_init(), "crypto");
	init(b);
	(void)fprintf(stderr, "%-28s %10s %10s %10s\n", "ns per packet", "median", "best",
		      "of a copy");
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		struct result r = measure(b, &rows[i]);

		if (i == 0)
			reference = r.median_ns;
		(void)fprintf(stderr, "%-28s %10.1f %10.1f %10.1f\n", rows[i].name, r.median_ns,
			      r.best_ns, r.median_ns / reference);
		if (json_array_append_new(results,
					  json_pack("{s:s, s:f, s:f, s:f}", "name", rows[i].name,
						    "ns_per_packet", r.median_ns,
						    "best_ns_per_packet", r.best_ns,
						    "ratio_to_copy", r.median_ns / reference)) < 0)
			die("memory");
	}
	if (json_object_set_new(out, "bench", json_string("micro")) < 0 ||
	    json_object_set_new(out, "openssl", json_string(sm_crypto_version())) < 0 ||
	    json_object_set_new(out, "results", results) < 0 ||
	    json_dumpf(out, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) < 0)
		die("output");
	(void)puts("");
	json_decref(out);
	done(b);
	return 0;
}
