// SPDX-License-Identifier: MIT
/*
 * Joining of frames, and cutting of what came of it: the same frames come out, in the order of each flow.
 *
 * The first byte: TUN (bit 0), joins no TCP (bit 1), no UDP (bit 2). Then records. Each begins with a byte:
 * bit 0 the frame's checksums are made right, bit 1 TCP's or UDP's is left to be finished, bit 2 the frame is
 * the last one again, as what would follow it, bit 3 the batch ends behind it. A frame: its length (16 bits)
 * and bytes. A repetition: how many bytes of payload are missing (8 bits), then as many changes as bits 4 to 7
 * say: offset, value.
 */
#include "base/cursor.h"
#include "core/coalesce.h"
#include "core/segment.h"

#include <stdlib.h>

#define FRAMES_MAX 256u
#define FRAME_MAX  2048u

#define REQUIRE(condition)        \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum record {
	RECORD_RIGHT = 0x01,
	RECORD_PARTIAL = 0x02,
	RECORD_AGAIN = 0x04,
	RECORD_END = 0x08,
};

/**
 * struct item - One frame
 * @frame:   as offered, in memory of its own
 * @offered: copy of it
 * @whole:   copy of it with all checksums finished
 * @is_flow: @inet says of which
 * @is_fragment: of any flow
 */
struct item {
	uint8_t *frame, *offered, *whole;
	uint32_t len;
	struct sm_inet inet;
	struct sm_vnet vnet;
	bool is_flow, is_fragment;
};

struct world {
	struct sm_reader r;
	enum sm_mode mode;
	bool tcp, udp;
	struct sm_coalesce coalesce;
	struct item item[FRAMES_MAX];
	uint32_t count, seen[FRAMES_MAX], seen_count;
	uint8_t last[FRAME_MAX];
	uint32_t last_len;
};

static uint32_t csum_at(const struct sm_inet *inet)
{
	return inet->proto == SM_PROTO_TCP ? 16 : 6;
}

static bool same_flow(const struct item *a, const struct item *b)
{
	uint32_t from = a->inet.version == 4 ? 12 : 8, len = a->inet.version == 4 ? 8 : 32;

	return a->is_flow && b->is_flow && a->inet.version == b->inet.version &&
	       a->inet.proto == b->inet.proto &&
	       memcmp(a->offered + a->inet.l3 + from, b->offered + b->inet.l3 + from, len) == 0 &&
	       memcmp(a->offered + a->inet.l4, b->offered + b->inet.l4, 4) == 0;
}

/* A plain IPv4 fragment of TCP or UDP */
static bool is_fragment(enum sm_mode mode, const uint8_t *frame, uint32_t len)
{
	uint32_t l3 = mode == SM_MODE_TUN ? 0 : 14;

	if (len < l3 + 20 || (l3 > 0 && memcmp(frame + 12, "\x08\0", 2) != 0) ||
	    frame[l3] >> 4 != 4)
		return false;
	return (frame[l3 + 9] == SM_PROTO_TCP || frame[l3 + 9] == SM_PROTO_UDP) &&
	       ((frame[l3 + 6] & 0x3f) != 0 || frame[l3 + 7] != 0);
}

static uint32_t index_of(const struct world *w, const uint8_t *data)
{
	uint32_t i = 0;

	while (i < w->count && ((uintptr_t)data < (uintptr_t)w->item[i].frame ||
				(uintptr_t)data >= (uintptr_t)w->item[i].frame + w->item[i].len))
		i++;
	REQUIRE(i < w->count);
	return i;
}

static void note_order(struct world *w, uint32_t index)
{
	const struct item *item = &w->item[index];

	for (uint32_t i = 0; i < w->seen_count; i++) {
		const struct item *before = &w->item[w->seen[i]];

		REQUIRE(w->seen[i] != index);
		if (same_flow(before, item) || (before->is_fragment && item->is_flow) ||
		    (before->is_flow && item->is_fragment))
			REQUIRE(w->seen[i] < index);
	}
	w->seen[w->seen_count++] = index;
}

/* The identification of a packet that must not be fragmented says nothing. */
static void forget_id(const struct item *item, uint8_t *frame)
{
	struct sm_inet inet = item->inet;

	if (inet.version != 4 || !(frame[inet.l3 + 6] & 0x40))
		return;
	memset(frame + inet.l3 + 4, 0, 2);
	sm_inet_set_length(&inet, frame, inet.end - inet.payload, 0);
}

static void check_joined(struct world *w, const struct sm_run *run)
{
	static uint8_t super[SM_FRAME_MAX], out[FRAME_MAX];
	struct sm_segmenter s;
	uint32_t len = run->head_len;

	REQUIRE(run->count <= SM_RUN_SEGMENTS_MAX && len + run->payload_len <= SM_FRAME_MAX);
	memcpy(super, run->head, len);
	for (uint32_t i = 0; i < run->count; len += run->segment[i++].len)
		memcpy(super + len, run->segment[i].data, run->segment[i].len);
	REQUIRE(len == run->head_len + run->payload_len);
	REQUIRE(sm_segmenter_init(&s, w->mode, &run->vnet, super, len) == 0);
	for (uint32_t i = 0; i < run->count; i++) {
		uint32_t index = index_of(w, run->segment[i].data);
		const struct item *item = &w->item[index];

		note_order(w, index);
		REQUIRE(item->inet.proto == SM_PROTO_TCP ? w->tcp : w->udp);
		REQUIRE(sm_segmenter_frame_len(&s) == item->len);
		sm_segmenter_next(&s, out);
		forget_id(item, out);
		forget_id(item, item->whole);
		REQUIRE(memcmp(out, item->whole, item->len) == 0);
	}
	REQUIRE(sm_segmenter_frame_len(&s) == 0);
}

static void drain(struct world *w)
{
	sm_coalesce_finish(&w->coalesce);
	for (uint32_t i = 0; i < w->coalesce.count; i++) {
		const struct sm_run *run = &w->coalesce.run[i];
		uint32_t index = index_of(w, run->head);
		const struct item *item = &w->item[index];

		if (run->count > 1) {
			check_joined(w, run);
			continue;
		}
		note_order(w, index);
		REQUIRE(run->head == item->frame && run->head_len == item->len);
		REQUIRE(memcmp(run->head, item->offered, item->len) == 0);
		REQUIRE(memcmp(&run->vnet, &item->vnet, sizeof(item->vnet)) == 0);
	}
	sm_coalesce_init(&w->coalesce, w->mode, w->tcp, w->udp);
}

static void add_be(uint8_t *field, size_t len, uint32_t add)
{
	for (size_t i = len; i-- > 0; add >>= 8) {
		add += field[i];
		field[i] = (uint8_t)add;
	}
}

/* The next frame of the flow: sequence number and identification follow, and so many bytes are missing. */
static void follow(struct world *w, uint8_t shorter)
{
	struct sm_inet inet;
	uint32_t payload_len;

	if (sm_inet_parse(w->mode, w->last, w->last_len, &inet) < 0 || inet.end > w->last_len)
		return;
	payload_len = inet.end - inet.payload;
	if (inet.proto == SM_PROTO_TCP)
		add_be(w->last + inet.l4 + 4, 4, payload_len);
	payload_len -= SM_MIN(shorter, payload_len);
	sm_inet_set_length(&inet, w->last, payload_len, 1);
	w->last_len = inet.end;
}

/* Return: false at the end of the input */
static bool read_frame(struct world *w, uint8_t record)
{
	if (record & RECORD_AGAIN) {
		follow(w, sm_read_u8(&w->r));
		for (int i = record >> 4; i > 0 && w->last_len > 0; i--) {
			uint8_t at = sm_read_u8(&w->r);

			w->last[at % w->last_len] = sm_read_u8(&w->r);
		}
	} else {
		size_t len = sm_read_u16(&w->r), left = sm_reader_left(&w->r);

		w->last_len = (uint32_t)SM_MIN(SM_MIN(len, left), FRAME_MAX);
		sm_read_bytes(&w->r, w->last, w->last_len);
	}
	return w->last_len > 0 && !w->r.failed;
}

static uint8_t *copy_of(const uint8_t *data, uint32_t len)
{
	uint8_t *copy = malloc(len);

	REQUIRE(copy);
	memcpy(copy, data, len);
	return copy;
}

static void make_item(struct world *w, uint8_t record)
{
	struct item *item = &w->item[w->count++];
	uint8_t *field;

	*item = (struct item){.len = w->last_len};
	item->is_flow = sm_inet_parse(w->mode, w->last, w->last_len, &item->inet) == 0;
	item->is_fragment = !item->is_flow && is_fragment(w->mode, w->last, w->last_len);
	if (item->is_flow && item->inet.end == item->len && record & RECORD_RIGHT) {
		sm_inet_set_length(&item->inet, w->last, item->len - item->inet.payload, 0);
		item->vnet = (struct sm_vnet){
			.flags = SM_VNET_NEEDS_CSUM,
			.csum_start = (uint16_t)item->inet.l4,
			.csum_offset = (uint16_t)csum_at(&item->inet),
		};
		field = w->last + item->inet.l4 + csum_at(&item->inet);
		sm_csum_store(sm_csum_fold(sm_inet_pseudo(&item->inet, w->last,
							  item->len - item->inet.l4)),
			      field);
		item->whole = copy_of(w->last, item->len);
		REQUIRE(sm_segment_finish(&item->vnet, item->whole, item->len) == 0);
		if (!(record & RECORD_PARTIAL)) {
			memcpy(w->last, item->whole, item->len);
			item->vnet = (struct sm_vnet){0};
		}
	} else {
		item->whole = copy_of(w->last, item->len);
	}
	item->frame = copy_of(w->last, item->len);
	item->offered = copy_of(w->last, item->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world w;
	uint8_t options;

	w.r = sm_reader_init(data, size);
	options = sm_read_u8(&w.r);
	w.mode = options & 1 ? SM_MODE_TUN : SM_MODE_TAP;
	w.tcp = !(options & 2);
	w.udp = !(options & 4);
	w.count = w.seen_count = w.last_len = 0;
	sm_coalesce_init(&w.coalesce, w.mode, w.tcp, w.udp);
	while (sm_reader_left(&w.r) > 0 && w.count < FRAMES_MAX) {
		uint8_t record = sm_read_u8(&w.r);
		const struct item *item = &w.item[w.count];

		if (!read_frame(&w, record))
			break;
		make_item(&w, record);
		if (!sm_coalesce_add(&w.coalesce, item->frame, item->len, &item->vnet)) {
			REQUIRE(w.coalesce.count == SM_RUNS_MAX);
			drain(&w);
			REQUIRE(sm_coalesce_add(&w.coalesce, item->frame, item->len, &item->vnet));
		}
		if (record & RECORD_END)
			drain(&w);
	}
	drain(&w);
	REQUIRE(w.seen_count == w.count);
	for (uint32_t i = 0; i < w.count; i++) {
		free(w.item[i].frame);
		free(w.item[i].offered);
		free(w.item[i].whole);
	}
	return 0;
}
