// SPDX-License-Identifier: MIT
/*
 * One direction of the impaired wire: random decisions, the rate queue, the delay line.
 * No system call, no clock: see "Theory of operation" in impair.h.
 */
#include "impair.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define ETH_HEADER_LEN 14u
#define VLAN_TAG_LEN   4u

struct impair_frame {
	struct impair_frame *next; /* in the rate queue */
	uint64_t arrival_ns;
	uint64_t due_ns, seq; /* order in the heap */
	size_t heap_pos;
	uint64_t gap_left; /* frames still to overtake; 0: wait for due_ns */
	uint64_t overtaken;
	double jitter; /* -1 to 1 */
	bool hold;     /* chosen for reordering */
	size_t len;
	uint8_t data[];
};

/* All random numbers of one frame, drawn in one fixed order whatever the settings are. */
struct draws {
	double loss, state, state_loss, duplicate, corrupt, reorder, jitter, jitter_copy;
	uint64_t rng[4]; /* goes on with the positions of flipped bits */
};

static uint64_t splitmix64(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static uint64_t rotl(uint64_t x, unsigned int k)
{
	return (x << k) | (x >> (64 - k));
}

/* xoshiro256** */
static uint64_t rng_next(uint64_t s[4])
{
	uint64_t ret = rotl(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return ret;
}

/* uniform in [0, 1) */
static double rng_unit(uint64_t s[4])
{
	return (double)(rng_next(s) >> 11) * 0x1p-53;
}

static void draw(struct draws *d, uint64_t key, uint64_t frame_no)
{
	uint64_t mix = key ^ (frame_no * 0xd1342543de82ef95ull);

	for (int i = 0; i < 4; i++)
		d->rng[i] = splitmix64(&mix);
	d->loss = rng_unit(d->rng);
	d->state = rng_unit(d->rng);
	d->state_loss = rng_unit(d->rng);
	d->duplicate = rng_unit(d->rng);
	d->corrupt = rng_unit(d->rng);
	d->reorder = rng_unit(d->rng);
	d->jitter = rng_unit(d->rng) * 2 - 1;
	d->jitter_copy = rng_unit(d->rng) * 2 - 1;
}

void impair_line_init(struct impair_line *line, uint64_t seed, enum impair_dir dir,
		      uint64_t memory_max, impair_emit_fn emit, void *ctx)
{
	uint64_t mix = seed + (uint64_t)dir;

	memset(line, 0, sizeof(*line));
	impair_conf_init(&line->conf);
	line->key = splitmix64(&mix);
	line->emit = emit;
	line->emit_ctx = ctx;
	line->memory_max = memory_max;
	line->fifo_tail = &line->fifo_head;
}

static uint64_t frame_cost(size_t len)
{
	return sizeof(struct impair_frame) + sizeof(struct impair_frame *) + len;
}

static void frame_free(struct impair_line *line, struct impair_frame *f)
{
	line->memory -= frame_cost(f->len);
	free(f);
}

static struct impair_frame *frame_new(struct impair_line *line, const uint8_t *data, size_t len,
				      uint64_t now_ns)
{
	struct impair_frame *f;

	if (line->memory + frame_cost(len) > line->memory_max)
		return NULL;
	f = malloc(sizeof(*f) + len);
	if (!f)
		return NULL;
	memset(f, 0, sizeof(*f));
	memcpy(f->data, data, len);
	f->len = len;
	f->arrival_ns = now_ns;
	line->memory += frame_cost(len);
	return f;
}

static void send_out(struct impair_line *line, const uint8_t *data, size_t len)
{
	if (line->emit(line->emit_ctx, data, len) < 0) {
		line->stats.dropped_write++;
		return;
	}
	line->stats.out_frames++;
	line->stats.out_bytes += len;
}

/* --- the delay line: a binary heap by (due_ns, seq) --- */

static bool before(const struct impair_frame *x, const struct impair_frame *y)
{
	return x->due_ns != y->due_ns ? x->due_ns < y->due_ns : x->seq < y->seq;
}

static void heap_place(struct impair_line *line, struct impair_frame *f, size_t pos)
{
	line->heap[pos] = f;
	f->heap_pos = pos;
}

static void heap_up(struct impair_line *line, struct impair_frame *f)
{
	size_t pos = f->heap_pos;

	while (pos && before(f, line->heap[(pos - 1) / 2])) {
		heap_place(line, line->heap[(pos - 1) / 2], pos);
		pos = (pos - 1) / 2;
	}
	heap_place(line, f, pos);
}

static void heap_down(struct impair_line *line, struct impair_frame *f)
{
	size_t pos = f->heap_pos, child;

	while ((child = 2 * pos + 1) < line->heap_len) {
		if (child + 1 < line->heap_len && before(line->heap[child + 1], line->heap[child]))
			child++;
		if (!before(line->heap[child], f))
			break;
		heap_place(line, line->heap[child], pos);
		pos = child;
	}
	heap_place(line, f, pos);
}

static bool heap_push(struct impair_line *line, struct impair_frame *f)
{
	if (line->heap_len == line->heap_cap) {
		size_t cap = line->heap_cap ? line->heap_cap * 2 : 1024;
		struct impair_frame **heap = realloc(line->heap, cap * sizeof(*heap));

		if (!heap)
			return false;
		line->heap = heap;
		line->heap_cap = cap;
	}
	f->heap_pos = line->heap_len++;
	heap_up(line, f);
	return true;
}

static struct impair_frame *heap_pop(struct impair_line *line)
{
	struct impair_frame *top = line->heap[0], *last = line->heap[--line->heap_len];

	if (line->heap_len) {
		last->heap_pos = 0;
		heap_down(line, last);
	}
	return top;
}

/* --- reordering: held frames sit in the heap at their latest time, and move up once overtaken --- */

static void held_remove(struct impair_line *line, const struct impair_frame *f)
{
	for (size_t i = 0; i < line->held_len; i++) {
		if (line->held[i] == f) {
			line->held[i] = line->held[--line->held_len];
			return;
		}
	}
}

/* a frame that leaves at due_ns overtakes the held ones */
static void held_overtake(struct impair_line *line, uint64_t due_ns)
{
	for (size_t i = 0; i < line->held_len;) {
		struct impair_frame *f = line->held[i];

		if (f->due_ns <= due_ns) { /* its time comes before that frame's */
			i++;
			continue;
		}
		f->overtaken++;
		if (!f->gap_left || --f->gap_left) {
			i++;
			continue;
		}
		f->due_ns = due_ns;
		f->seq = line->seq++;
		heap_up(line, f);
		line->held[i] = line->held[--line->held_len];
		line->stats.reordered++;
		f->hold = false;
	}
}

static void enter_delay(struct impair_line *line, struct impair_frame *f, uint64_t now_ns)
{
	const struct impair_conf *conf = &line->conf;
	double jitter_ns = f->jitter * (double)conf->jitter_ns;
	uint64_t due_ns = now_ns + conf->delay_ns;

	if (jitter_ns >= 0)
		due_ns += (uint64_t)jitter_ns;
	else
		due_ns -= (uint64_t)-jitter_ns < conf->delay_ns ? (uint64_t)-jitter_ns
								: conf->delay_ns;
	if (!conf->jitter_reorders && due_ns < line->last_due_ns)
		due_ns = line->last_due_ns;
	if (line->held_len == IMPAIR_HELD_MAX)
		f->hold = false;

	f->seq = line->seq++;
	f->due_ns = f->hold ? due_ns + conf->reorder_delay_ns : due_ns;
	f->gap_left = conf->reorder_gap;
	if (!heap_push(line, f)) {
		line->stats.dropped_memory++;
		frame_free(line, f);
		return;
	}
	if (f->hold) {
		line->held[line->held_len++] = f;
		return;
	}
	line->last_due_ns = due_ns;
	held_overtake(line, due_ns);
}

/* --- the rate queue: a token bucket before the delay line --- */

static uint64_t bits_ns(uint64_t bytes, uint64_t rate_bps)
{
	return (uint64_t)((double)bytes * 8 * (double)IMPAIR_NS_PER_S / (double)rate_bps);
}

/*
 * The bucket as a clock: bucket_ns runs ahead by what each frame costs and may lag behind the
 * frame's arrival by what a full bucket is worth. Nothing is lost by waking late.
 */
static uint64_t bucket_after(const struct impair_line *line, const struct impair_frame *f)
{
	const struct impair_conf *conf = &line->conf;
	uint64_t depth_ns, earliest_ns;

	if (!conf->rate_bps)
		return line->bucket_ns;
	depth_ns = bits_ns(conf->bucket_bytes, conf->rate_bps);
	earliest_ns = f->arrival_ns > depth_ns ? f->arrival_ns - depth_ns : 0;
	return (line->bucket_ns > earliest_ns ? line->bucket_ns : earliest_ns) +
	       bits_ns(f->len, conf->rate_bps);
}

static uint64_t fifo_departure(const struct impair_line *line)
{
	const struct impair_frame *f = line->fifo_head;
	uint64_t paid_ns;

	if (!line->conf.rate_bps)
		return f->arrival_ns;
	paid_ns = bucket_after(line, f);
	return paid_ns > f->arrival_ns ? paid_ns : f->arrival_ns;
}

static struct impair_frame *fifo_pop(struct impair_line *line)
{
	struct impair_frame *f = line->fifo_head;

	line->fifo_head = f->next;
	if (!line->fifo_head)
		line->fifo_tail = &line->fifo_head;
	line->fifo_frames--;
	line->fifo_bytes -= f->len;
	return f;
}

static bool fifo_full(const struct impair_line *line, size_t len)
{
	const struct impair_conf *conf = &line->conf;

	return (conf->queue_frames && line->fifo_frames + 1 > conf->queue_frames) ||
	       (conf->queue_bytes && line->fifo_bytes + len > conf->queue_bytes);
}

static void fifo_push(struct impair_line *line, struct impair_frame *f)
{
	f->next = NULL;
	*line->fifo_tail = f;
	line->fifo_tail = &f->next;
	line->fifo_frames++;
	line->fifo_bytes += f->len;
}

/* --- what happens to a frame on its way in --- */

/* bytes that a flipped bit spares: the Ethernet header with its VLAN tags */
static size_t header_len(const uint8_t *data, size_t len)
{
	size_t off = ETH_HEADER_LEN;

	while (off + VLAN_TAG_LEN <= len && ((data[off - 2] == 0x81 && data[off - 1] == 0x00) ||
					     (data[off - 2] == 0x88 && data[off - 1] == 0xa8)))
		off += VLAN_TAG_LEN;
	return off;
}

static bool flip_bits(struct impair_frame *f, struct draws *d, uint64_t bits)
{
	size_t head = header_len(f->data, f->len);

	if (f->len <= head)
		return false;
	for (uint64_t i = 0; i < bits; i++) {
		uint64_t bit = rng_next(d->rng) % ((f->len - head) * 8);

		f->data[head + bit / 8] ^= (uint8_t)(1u << (bit % 8));
	}
	return true;
}

static bool is_lost(struct impair_line *line, const struct draws *d)
{
	const struct impair_conf *conf = &line->conf;

	if (d->state < (line->bad ? conf->burst_leave : conf->burst_enter)) {
		line->bad = !line->bad;
		if (line->bad)
			line->stats.bursts++;
	}
	if (d->state_loss < (line->bad ? conf->burst_loss_bad : conf->burst_loss_good)) {
		line->stats.lost_burst++;
		return true;
	}
	if (d->loss < conf->loss) {
		line->stats.lost++;
		return true;
	}
	return false;
}

static void offer(struct impair_line *line, const uint8_t *data, size_t len, uint64_t now_ns,
		  struct draws *d, bool original)
{
	const struct impair_conf *conf = &line->conf;
	bool corrupt = original && d->corrupt < conf->corrupt;
	bool hold = original && d->reorder < conf->reorder;
	bool queued = conf->rate_bps || line->fifo_head;
	struct impair_frame *f;

	if (!queued && !line->heap_len && !conf->delay_ns && !conf->jitter_ns && !hold &&
	    !corrupt) {
		send_out(line, data, len);
		return;
	}
	if (queued && fifo_full(line, len)) {
		line->stats.dropped_queue++;
		return;
	}
	f = frame_new(line, data, len, now_ns);
	if (!f) {
		line->stats.dropped_memory++;
		return;
	}
	if (corrupt && flip_bits(f, d, conf->corrupt_bits))
		line->stats.corrupted++;
	f->jitter = original ? d->jitter : d->jitter_copy;
	f->hold = hold;
	if (queued)
		fifo_push(line, f);
	else
		enter_delay(line, f, now_ns);
}

void impair_line_push(struct impair_line *line, const uint8_t *data, size_t len, uint64_t now_ns)
{
	struct draws d;

	assert(len <= IMPAIR_FRAME_MAX);
	draw(&d, line->key, line->frame_no++);
	line->stats.in_frames++;
	line->stats.in_bytes += len;
	if (line->down) {
		line->stats.dropped_down++;
		return;
	}
	if (is_lost(line, &d))
		return;
	impair_line_run(line, now_ns); /* makes room, and keeps the order with what is due */
	offer(line, data, len, now_ns, &d, true);
	if (d.duplicate < line->conf.duplicate) {
		line->stats.duplicated++;
		offer(line, data, len, now_ns, &d, false);
	}
	impair_line_run(line, now_ns);
}

void impair_line_run(struct impair_line *line, uint64_t now_ns)
{
	while (line->fifo_head) {
		uint64_t at_ns = fifo_departure(line);

		if (at_ns > now_ns)
			break;
		line->bucket_ns = bucket_after(line, line->fifo_head);
		enter_delay(line, fifo_pop(line), at_ns);
	}
	while (line->heap_len && line->heap[0]->due_ns <= now_ns) {
		struct impair_frame *f = heap_pop(line);

		if (f->hold) {
			held_remove(line, f);
			if (f->overtaken)
				line->stats.reordered++;
		}
		send_out(line, f->data, f->len);
		frame_free(line, f);
	}
}

uint64_t impair_line_next(const struct impair_line *line)
{
	uint64_t next_ns = line->fifo_head ? fifo_departure(line) : IMPAIR_NEVER;

	if (line->heap_len && line->heap[0]->due_ns < next_ns)
		next_ns = line->heap[0]->due_ns;
	return next_ns;
}

static uint64_t drop_all(struct impair_line *line)
{
	uint64_t n = 0;

	for (; line->fifo_head; n++)
		frame_free(line, fifo_pop(line));
	for (; line->heap_len; n++)
		frame_free(line, line->heap[--line->heap_len]);
	line->held_len = 0;
	return n;
}

void impair_line_switch(struct impair_line *line, bool down)
{
	line->down = down;
	if (down)
		line->stats.dropped_down += drop_all(line);
}

void impair_line_done(struct impair_line *line)
{
	(void)drop_all(line);
	free(line->heap);
	line->heap = NULL;
	line->heap_cap = 0;
}
