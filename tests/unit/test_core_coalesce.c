// SPDX-License-Identifier: MIT
/*
 * Joining: which frames are joined and which are not, and that cutting gives back what came, in the order of
 * each flow. Cutting, and what a kernel wants of a super-frame, stands here once more, slow and on its own.
 */
#include "core/coalesce.h"
#include "rng.h"

#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define FRAMES_MAX  128u
#define FLOWS       4u
#define PAYLOAD     100u
#define EMPTY       (-1)
#define ACK         SM_TCP_ACK
#define PSH         (SM_TCP_ACK | SM_TCP_PSH)
#define FIN         (SM_TCP_ACK | SM_TCP_FIN)
#define STAMP_LEN   12u
#define FRAME_SPARE 2100u

enum kind { TCP4, TCP6, UDP4, UDP6, KINDS };

/**
 * struct spec - One frame, as it differs from the usual one
 *
 * The usual one continues its flow: 100 bytes, sequence number and identification that follow, ACK, DF.
 * @skip:    bytes that are missing in front of it; negative: sent again
 * @id_skip: likewise
 * @payload: bytes, 0 for the usual, or EMPTY
 * @stamp:   a timestamp option of that value
 * @partial: the checksum is left to be finished; @start_off, @offset_off: and not TCP's or UDP's
 */
struct spec {
	enum kind kind;
	uint8_t flow;
	int skip, id_skip, payload;
	uint8_t flags, tos, hops, reserved;
	uint16_t window, urgent;
	uint32_t label, ack, stamp;
	uint8_t tags, priority, padding;
	bool no_df, first_fragment, fragment, ip_options, extension;
	bool bad_csum, bad_ip_csum, no_csum, partial, start_off, offset_off;
};

/* A frame: in memory of its own, as it came, and as it looks with its checksum finished */
struct made {
	struct spec spec;
	uint32_t len, l3, l4, payload;
	uint8_t *frame, *finished;
	struct sm_vnet vnet;
};

struct world {
	enum sm_mode mode;
	bool tcp, udp;
	uint32_t seq[KINDS][FLOWS];
	uint16_t id[KINDS][FLOWS];
	struct made made[FRAMES_MAX];
	uint32_t made_count;
	struct sm_coalesce coalesce;
	uint32_t last_of[KINDS][FLOWS], seen; /* what has come out so far */
	uint32_t joined;
};

static void put16(uint8_t *buf, uint32_t value)
{
	buf[0] = (uint8_t)(value >> 8);
	buf[1] = (uint8_t)value;
}

static void put32(uint8_t *buf, uint32_t value)
{
	put16(buf, value >> 16);
	put16(buf + 2, value);
}

static uint32_t get16(const uint8_t *buf)
{
	return (uint32_t)buf[0] << 8 | buf[1];
}

static uint32_t get32(const uint8_t *buf)
{
	return get16(buf) << 16 | get16(buf + 2);
}

static uint32_t slow_sum(uint32_t sum, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum += i % 2 == 0 ? (uint32_t)data[i] << 8 : data[i];
	while (sum >> 16)
		sum = (sum >> 16) + (sum & 0xffff);
	return sum;
}

static bool is_v4(enum kind kind)
{
	return kind == TCP4 || kind == UDP4;
}

static bool is_tcp(enum kind kind)
{
	return kind == TCP4 || kind == TCP6;
}

static uint32_t csum_at(enum kind kind)
{
	return is_tcp(kind) ? 16 : 6;
}

static uint32_t slow_pseudo(enum kind kind, const uint8_t *ip, uint32_t l4_len)
{
	uint32_t sum = (is_tcp(kind) ? 6 : 17) + (l4_len >> 16) + (l4_len & 0xffff);

	return is_v4(kind) ? slow_sum(sum, ip + 12, 8) : slow_sum(sum, ip + 8, 32);
}

/* Complete the checksum of a frame whose field holds the pseudo header's sum or anything else. */
static void slow_finish(const struct made *m, uint8_t *frame, uint32_t len)
{
	uint8_t *field = frame + m->l4 + csum_at(m->spec.kind);
	uint32_t sum;

	put16(field, 0);
	sum = slow_pseudo(m->spec.kind, frame + m->l3, len - m->l4);
	sum = ~slow_sum(sum, frame + m->l4, len - m->l4) & 0xffff;
	put16(field, sum == 0 ? 0xffff : sum);
}

static void finish_ipv4(uint8_t *ip)
{
	put16(ip + 10, 0);
	put16(ip + 10, ~slow_sum(0, ip, (ip[0] & 15u) * 4));
}

static uint32_t make_l2(const struct spec *s, uint8_t *f)
{
	uint32_t at = 12;

	memcpy(f, "\x02\0\0\0\0\x02\x02\0\0\0\0\x01", 12);
	for (uint32_t i = 0; i < s->tags; i++, at += 4) {
		put16(f + at, i + 1 < s->tags ? 0x88a8 : 0x8100);
		put16(f + at + 2, (uint32_t)s->priority << 13 | 5);
	}
	put16(f + at, is_v4(s->kind) ? 0x0800 : 0x86dd);
	return at + 2;
}

static uint32_t make_ip(const struct spec *s, uint8_t *ip, uint16_t id)
{
	uint8_t proto = is_tcp(s->kind) ? 6 : 17, hops = (uint8_t)(64 + s->hops);
	uint32_t len = is_v4(s->kind) ? 20 : 40;

	if (is_v4(s->kind)) {
		memset(ip, 0, 24);
		ip[1] = s->tos;
		put16(ip + 4, id);
		ip[6] = (uint8_t)((s->no_df ? 0 : 0x40) | (s->first_fragment ? 0x20 : 0));
		ip[7] = s->fragment ? 8 : 0;
		ip[8] = hops;
		ip[9] = proto;
		memcpy(ip + 12, "\xc0\0\x02\x01\xc0\0\x02\x02", 8);
		len += s->ip_options ? 4 : 0;
		ip[0] = (uint8_t)(0x40 | len / 4);
		ip[20] = s->ip_options ? 1 : 0;
		return len;
	}
	put32(ip, UINT32_C(0x60000000) | (uint32_t)s->tos << 20 | s->label);
	ip[6] = s->extension ? 60 : s->first_fragment || s->fragment ? 44 : proto;
	ip[7] = hops;
	for (uint32_t i = 0; i < 16; i++) {
		ip[8 + i] = (uint8_t)(0x20 + i);
		ip[24 + i] = (uint8_t)(0x40 + i);
	}
	if (ip[6] == proto)
		return len;
	memcpy(ip + len, (uint8_t[]){proto, 0, 1, 4, 0, 0, 0, 0}, 8);
	if (ip[6] == 44)
		put16(ip + len + 2, s->fragment ? 64 : 1);
	return len + 8;
}

static uint32_t make_l4(const struct spec *s, uint8_t *l4, uint32_t seq, uint32_t payload)
{
	put16(l4, 1000u + s->flow);
	put16(l4 + 2, 2000);
	if (!is_tcp(s->kind)) {
		put16(l4 + 4, 8 + payload);
		return 8;
	}
	put32(l4 + 4, seq);
	put32(l4 + 8, 77 + s->ack);
	l4[12] = (uint8_t)((s->stamp ? 0x80 : 0x50) | s->reserved);
	l4[13] = s->flags ? s->flags : ACK;
	put16(l4 + 14, 5000u + s->window);
	put16(l4 + 18, s->urgent);
	if (!s->stamp)
		return 20;
	put32(l4 + 20, 0x0101080a);
	put32(l4 + 24, s->stamp);
	put32(l4 + 28, 9999);
	return 20 + STAMP_LEN;
}

static void set_ip_length(const struct made *m, uint8_t *frame, uint32_t len)
{
	if (is_v4(m->spec.kind)) {
		put16(frame + m->l3 + 2, len - m->l3);
		finish_ipv4(frame + m->l3);
	} else {
		put16(frame + m->l3 + 4, len - m->l3 - 40);
	}
}

static void make_checksums(struct made *m, uint8_t *frame, uint32_t end)
{
	const struct spec *s = &m->spec;
	uint8_t *field = frame + m->l4 + csum_at(s->kind);

	slow_finish(m, frame, end);
	if (s->no_csum)
		put16(field, 0);
	if (s->bad_csum)
		field[1] ^= 0x10;
	if (s->bad_ip_csum && is_v4(s->kind))
		frame[m->l3 + 11] ^= 0x10;
	m->finished = malloc(m->len);
	memcpy(m->finished, frame, m->len);
	if (s->partial) {
		put16(field, slow_pseudo(s->kind, frame + m->l3, end - m->l4));
		m->vnet.flags = SM_VNET_NEEDS_CSUM;
		m->vnet.csum_start = (uint16_t)(m->l4 + (s->start_off ? 2 : 0));
		m->vnet.csum_offset = (uint16_t)(csum_at(s->kind) - (s->offset_off ? 2 : 0));
		m->vnet.hdr_len = 1;
	}
}

static void make(struct world *w, const struct spec *s)
{
	static uint8_t frame[SM_FRAME_MAX + FRAME_SPARE];
	struct made *m = &w->made[w->made_count++];
	uint32_t *seq = &w->seq[s->kind][s->flow], end;
	uint32_t payload = s->payload == 0       ? PAYLOAD
			   : s->payload == EMPTY ? 0
						 : (uint32_t)s->payload;
	uint16_t *id = &w->id[s->kind][s->flow];

	assert_true(w->made_count <= FRAMES_MAX);
	*m = (struct made){.spec = *s};
	*seq += (uint32_t)s->skip;
	*id = (uint16_t)(*id + s->id_skip);
	m->l3 = w->mode == SM_MODE_TUN ? 0 : make_l2(s, frame);
	m->l4 = m->l3 + make_ip(s, frame + m->l3, *id);
	m->payload = m->l4 + make_l4(s, frame + m->l4, *seq, payload);
	for (uint32_t i = 0; i < payload; i++)
		frame[m->payload + i] = (uint8_t)((*seq + i) * 31 + *id * 7u);
	end = m->payload + payload;
	m->len = end + s->padding;
	memset(frame + end, 0, s->padding);
	*seq += payload;
	*id = (uint16_t)(*id + 1);
	set_ip_length(m, frame, end);
	make_checksums(m, frame, end);
	m->frame = malloc(m->len);
	memcpy(m->frame, frame, m->len);
}

static struct world *world_new(enum sm_mode mode, bool tcp, bool udp)
{
	struct world *w = calloc(1, sizeof(*w));

	w->mode = mode;
	w->tcp = tcp;
	w->udp = udp;
	for (uint32_t i = 0; i < KINDS * FLOWS; i++) {
		w->seq[i / FLOWS][i % FLOWS] = UINT32_MAX - 250 * i; /* both run over */
		w->id[i / FLOWS][i % FLOWS] = (uint16_t)(0xffff - i);
	}
	/* Nothing may hang on what was there before. */
	memset(&w->coalesce, 0xa5, sizeof(w->coalesce));
	sm_coalesce_init(&w->coalesce, mode, tcp, udp);
	return w;
}

static void world_free(struct world *w)
{
	for (uint32_t i = 0; i < w->made_count; i++) {
		free(w->made[i].frame);
		free(w->made[i].finished);
	}
	free(w);
}

/* Return: which frame the memory at @data is in */
static uint32_t index_of(const struct world *w, const uint8_t *data)
{
	for (uint32_t i = 0; i < w->made_count; i++) {
		uintptr_t start = (uintptr_t)w->made[i].frame, at = (uintptr_t)data;

		if (at >= start && at < start + w->made[i].len)
			return i;
	}
	fail_msg("a run holds memory that was not offered");
	return 0;
}

/* Each frame comes once, and later than all before it of its flow. */
static void note_order(struct world *w, uint32_t index)
{
	const struct spec *s = &w->made[index].spec;
	uint32_t *last = &w->last_of[s->kind][s->flow];

	assert_true(index + 1 > *last);
	*last = index + 1;
	w->seen++;
}

static void check_lone(struct world *w, const struct sm_run *run)
{
	uint32_t index = index_of(w, run->head);
	const struct made *m = &w->made[index];

	note_order(w, index);
	assert_ptr_equal(run->head, m->frame);
	assert_int_equal(run->head_len, m->len);
	assert_memory_equal(&run->vnet, &m->vnet, sizeof(m->vnet));
	if (m->spec.start_off || m->spec.offset_off)
		return;
	if (m->spec.partial)
		slow_finish(m, m->frame, m->len - m->spec.padding);
	assert_memory_equal(m->frame, m->finished, m->len);
}

/* The headers, as a kernel reads them before it cuts */
static void check_head(const struct made *m, const struct sm_run *run)
{
	const struct sm_vnet *v = &run->vnet;
	const uint8_t *ip = run->head + m->l3, *l4 = run->head + m->l4;
	uint32_t total = run->head_len + run->payload_len, csum = csum_at(m->spec.kind);
	bool cwr = is_tcp(m->spec.kind) && (l4[13] & SM_TCP_CWR) != 0;
	uint8_t type = m->spec.kind == TCP4   ? SM_VNET_GSO_TCPV4
		       : m->spec.kind == TCP6 ? SM_VNET_GSO_TCPV6
					      : SM_VNET_GSO_UDP;

	assert_int_equal(run->head_len, m->payload);
	assert_true(total <= SM_FRAME_MAX);
	assert_int_equal(v->flags, SM_VNET_NEEDS_CSUM);
	assert_int_equal(v->gso_type, type | (cwr ? SM_VNET_GSO_ECN : 0));
	assert_int_equal(v->hdr_len, m->payload);
	assert_int_equal(v->gso_size, run->gso_size);
	assert_int_equal(v->csum_start, m->l4);
	assert_int_equal(v->csum_offset, csum);
	assert_int_equal(get16(l4 + csum), slow_pseudo(m->spec.kind, ip, total - m->l4));
	if (is_v4(m->spec.kind)) {
		assert_int_equal(get16(ip + 2), total - m->l3);
		assert_int_equal(slow_sum(0, ip, 20), 0xffff);
	} else {
		assert_int_equal(get16(ip + 4), total - m->l3 - 40);
	}
	if (!is_tcp(m->spec.kind))
		assert_int_equal(get16(l4 + 4), total - m->l4);
}

/* Segment @i of a run, cut as a kernel cuts */
static uint32_t cut(const struct made *first, const struct sm_run *run, uint32_t i, uint8_t *out)
{
	uint32_t len = run->head_len + run->segment[i].len;
	uint8_t *ip = out + first->l3, *l4 = out + first->l4;

	memcpy(out, run->head, run->head_len);
	memcpy(out + run->head_len, run->segment[i].data, run->segment[i].len);
	if (is_v4(first->spec.kind))
		put16(ip + 4, get16(ip + 4) + i);
	set_ip_length(first, out, len);
	if (is_tcp(first->spec.kind)) {
		put32(l4 + 4, get32(l4 + 4) + i * run->gso_size);
		if (i > 0)
			l4[13] &= (uint8_t)~SM_TCP_CWR;
		if (i + 1 < run->count)
			l4[13] &= (uint8_t) ~(SM_TCP_FIN | SM_TCP_PSH);
	} else {
		put16(l4 + 4, len - first->l4);
	}
	slow_finish(first, out, len);
	return len;
}

static void check_joined(struct world *w, const struct sm_run *run)
{
	static uint8_t out[SM_FRAME_MAX];
	const struct made *first = &w->made[index_of(w, run->head)];
	uint32_t payload_len = 0;

	assert_true(run->count <= SM_RUN_SEGMENTS_MAX);
	assert_ptr_equal(run->head, first->frame);
	assert_ptr_equal(run->segment[0].data, run->head + run->head_len);
	check_head(first, run);
	for (uint32_t i = 0; i < run->count; i++) {
		uint32_t index = index_of(w, run->segment[i].data);
		uint32_t len = cut(first, run, i, out);
		struct made *m = &w->made[index];

		note_order(w, index);
		payload_len += run->segment[i].len;
		assert_int_equal(len, m->len);
		if (is_v4(m->spec.kind) && !m->spec.no_df) {
			memcpy(out + m->l3 + 4, m->finished + m->l3 + 4, 2);
			finish_ipv4(out + m->l3);
		}
		assert_memory_equal(out, m->finished, len);
		if (i + 1 < run->count)
			assert_int_equal(run->segment[i].len, run->gso_size);
		else
			assert_in_range(run->segment[i].len, 1, run->gso_size);
	}
	assert_int_equal(payload_len, run->payload_len);
	w->joined += run->count;
}

/* Writes who is with whom to @ret_text: "01 2" for the first two joined and the third alone */
static void drain(struct world *w, char *ret_text)
{
	static const char names[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	struct sm_coalesce *c = &w->coalesce;

	sm_coalesce_finish(c);
	for (uint32_t i = 0; i < c->count; i++) {
		const struct sm_run *run = &c->run[i];

		if (ret_text && i > 0)
			*ret_text++ = ' ';
		if (ret_text && run->count == 1)
			*ret_text++ = names[index_of(w, run->head)];
		for (uint32_t j = 0; ret_text && run->count > 1 && j < run->count; j++)
			*ret_text++ = names[index_of(w, run->segment[j].data)];
		if (run->count == 1)
			check_lone(w, run);
		else
			check_joined(w, run);
	}
	if (ret_text)
		*ret_text = '\0';
	sm_coalesce_init(c, w->mode, w->tcp, w->udp);
}

static bool offer(struct world *w, uint32_t i)
{
	const struct made *m = &w->made[i];

	return sm_coalesce_add(&w->coalesce, m->frame, m->len, &m->vnet);
}

/* Joins the @n frames of one batch and compares. */
static void expect(enum sm_mode mode, const struct spec *specs, uint32_t n, const char *want)
{
	struct world *w = world_new(mode, true, true);
	char text[3 * FRAMES_MAX];

	for (uint32_t i = 0; i < n; i++) {
		make(w, &specs[i]);
		assert_true(offer(w, i));
	}
	drain(w, text);
	assert_int_equal(w->seen, n);
	assert_string_equal(text, want);
	world_free(w);
}

#define CASE_FRAMES 8

struct joining {
	const char *want;
	struct spec frame[CASE_FRAMES];
};

/* Each case in every kind that @kinds names, over TAP with no, one and two tags, and over TUN */
static void expect_all(const struct joining *cases, size_t n, uint32_t kinds)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t count = 0;

		for (const char *p = cases[i].want; *p; p++)
			count += *p != ' ';
		for (uint32_t kind = 0; kind < KINDS; kind++) {
			struct spec specs[CASE_FRAMES];

			if (!(kinds & 1u << kind))
				continue;
			for (uint32_t j = 0; j < CASE_FRAMES; j++) {
				specs[j] = cases[i].frame[j];
				specs[j].kind = (enum kind)((specs[j].kind + kind) % KINDS);
			}
			expect(SM_MODE_TUN, specs, count, cases[i].want);
			for (uint8_t tags = 0; tags < 3; tags++) {
				for (uint32_t j = 0; j < CASE_FRAMES; j++)
					specs[j].tags = tags;
				expect(SM_MODE_TAP, specs, count, cases[i].want);
			}
		}
	}
}

#define ALL  0xfu
#define TCP  (1u << TCP4 | 1u << TCP6)
#define UDP  (1u << UDP4 | 1u << UDP6)
#define IPV4 (1u << TCP4 | 1u << UDP4)
#define IPV6 (1u << TCP6 | 1u << UDP6)
#define N(a) (a), SM_ARRAY_SIZE(a)
#define USUAL     \
	{         \
		0 \
	}
#define OTHER             \
	{                 \
		.flow = 1 \
	}

static void test_any(void **state)
{
	static const struct joining cases[] = {
		{"0", {USUAL}},
		{"01", {USUAL, USUAL}},
		{"01234567", {USUAL, USUAL, USUAL, USUAL, USUAL, USUAL, USUAL, USUAL}},
		{"0246 1357", {USUAL, OTHER, USUAL, OTHER, USUAL, OTHER, USUAL, OTHER}},
		{"02 1 3", {USUAL, OTHER, USUAL, {.flow = 2}}},
		/* Only the last may be shorter; a longer one begins anew. */
		{"012 3", {USUAL, USUAL, {.payload = 99}, {.payload = 99}}},
		{"01 23", {USUAL, {.payload = 1}, {.payload = 1}, {.payload = 1}}},
		{"0 12", {{.payload = 99}, USUAL, USUAL}},
		{"01 2", {USUAL, USUAL, {.payload = 101}}},
		{"012", {{.payload = 1}, {.payload = 1}, {.payload = 1}}},
		{"0 1 23", {USUAL, {.payload = EMPTY}, USUAL, USUAL}},
		{"0 1 2", {{.payload = EMPTY}, {.payload = EMPTY}, {.payload = EMPTY}}},
		/* Type of service or traffic class, congestion marks in it, hops */
		{"01 2 34", {USUAL, USUAL, {.tos = 8}, USUAL, USUAL}},
		{"0 12", {USUAL, {.tos = 3}, {.tos = 3}}},
		{"0 12", {USUAL, {.tos = 0x80}, {.tos = 0x80}}},
		{"0 1 2", {{.hops = 0}, {.hops = 1}, {.hops = 0}}},
		/* Damage: neither joined nor joined with */
		{"0 1 23", {USUAL, {.bad_csum = true}, USUAL, USUAL}},
		{"01 2 34", {USUAL, USUAL, {.bad_csum = true}, USUAL, USUAL}},
		{"0 12", {{.bad_csum = true}, USUAL, USUAL}},
		{"0 1 2", {{.bad_csum = true}, {.bad_csum = true}, {.bad_csum = true}}},
		/* Checksums left to be finished: known to be sound */
		{"012", {{.partial = true}, {.partial = true}, {.partial = true}}},
		{"0123", {USUAL, {.partial = true}, USUAL, {.partial = true}}},
		{"0 1 23", {USUAL, {.partial = true, .start_off = true}, USUAL, USUAL}},
		{"0 1 23", {USUAL, {.partial = true, .offset_off = true}, USUAL, USUAL}},
		/* Padding could not be given back */
		{"0 1 23", {USUAL, {.padding = 6}, USUAL, USUAL}},
		{"0 12", {{.padding = 1}, USUAL, USUAL}},
		/* Fragments end all */
		{"0 1 23", {USUAL, {.first_fragment = true}, USUAL, USUAL}},
		{"02 13 4 56", {USUAL, OTHER, USUAL, OTHER, {.fragment = true}, USUAL, USUAL}},
		/* The kinds go round: four flows that differ in nothing else */
		{"04 15 26 37",
		 {{.kind = 0},
		  {.kind = 1},
		  {.kind = 2},
		  {.kind = 3},
		  {.kind = 0},
		  {.kind = 1},
		  {.kind = 2},
		  {.kind = 3}}},
	};

	(void)state;
	expect_all(N(cases), ALL);
}

static void test_tcp(void **state)
{
	static const struct joining cases[] = {
		/* Sequence */
		{"01 23", {USUAL, USUAL, {.skip = 1}, USUAL}},
		{"0 12", {USUAL, {.skip = -1}, USUAL}},
		{"0 1 2", {USUAL, {.skip = -100}, {.skip = -100}}},
		{"01 2", {USUAL, USUAL, {.skip = -200}}},
		/* PSH and FIN end a run and are the last's. */
		{"01 23", {USUAL, {.flags = PSH}, USUAL, USUAL}},
		{"01 23", {USUAL, {.flags = FIN}, USUAL, USUAL}},
		{"01", {USUAL, {.flags = PSH | SM_TCP_FIN, .payload = 7}}},
		{"0 12", {{.flags = PSH}, USUAL, USUAL}},
		{"0 12", {{.flags = FIN}, USUAL, USUAL}},
		{"0 1 2", {{.flags = PSH}, {.flags = PSH}, {.flags = PSH}}},
		/* Others are never joined and end what there is. */
		{"0 1 23", {USUAL, {.flags = ACK | SM_TCP_SYN}, USUAL, USUAL}},
		{"0 1 23", {USUAL, {.flags = ACK | SM_TCP_RST}, USUAL, USUAL}},
		{"0 1 23", {USUAL, {.flags = ACK | SM_TCP_URG}, USUAL, USUAL}},
		{"0 1 23", {USUAL, {.flags = SM_TCP_PSH}, USUAL, USUAL}},
		{"0 1 2", {{.flags = ACK | SM_TCP_SYN}, {.flags = ACK | SM_TCP_SYN}, USUAL}},
		{"0 1", {{.flags = ACK | SM_TCP_RST}, {.flags = ACK | SM_TCP_RST}}},
		{"0 1", {{.flags = ACK | SM_TCP_URG}, {.flags = ACK | SM_TCP_URG}}},
		{"0 1", {{.flags = SM_TCP_FIN}, {.flags = SM_TCP_FIN}}},
		{"01 2 34",
		 {USUAL, USUAL, {.flags = ACK | SM_TCP_SYN, .payload = EMPTY}, USUAL, USUAL}},
		/* ECE is all's, CWR the first's alone. */
		{"01", {{.flags = ACK | SM_TCP_ECE}, {.flags = ACK | SM_TCP_ECE}}},
		{"0 1", {USUAL, {.flags = ACK | SM_TCP_ECE}}},
		{"0 12", {{.flags = ACK | SM_TCP_ECE}, USUAL, USUAL}},
		{"012", {{.flags = ACK | SM_TCP_CWR}, USUAL, USUAL}},
		{"01 23", {USUAL, USUAL, {.flags = ACK | SM_TCP_CWR}, USUAL}},
		{"0 12", {{.flags = ACK | SM_TCP_CWR}, {.flags = ACK | SM_TCP_CWR}, USUAL}},
		{"012",
		 {{.flags = ACK | SM_TCP_CWR | SM_TCP_ECE},
		  {.flags = ACK | SM_TCP_ECE},
		  {.flags = PSH | SM_TCP_ECE}}},
		{"0 1", {{.flags = PSH | SM_TCP_CWR}, USUAL}},
		/* Reserved bits, acknowledgement, window, urgent pointer */
		{"0 12", {USUAL, {.reserved = 1}, {.reserved = 1}}},
		{"0 12", {{.reserved = 8}, USUAL, USUAL}},
		{"01 23", {USUAL, USUAL, {.ack = 1}, {.ack = 1}}},
		{"0 1 2", {USUAL, {.window = 1}, USUAL}},
		{"0 12", {USUAL, {.urgent = 1}, {.urgent = 1}}},
		/* Options */
		{"012", {{.stamp = 5}, {.stamp = 5}, {.stamp = 5}}},
		{"01 2", {{.stamp = 5}, {.stamp = 5}, {.stamp = 6}}},
		{"0 1 2", {USUAL, {.stamp = 5}, USUAL}},
		/* Acknowledgements alone pass each other and data of other flows. */
		{"0 1 2 3",
		 {{.payload = EMPTY},
		  {.payload = EMPTY, .ack = 1},
		  {.payload = EMPTY, .ack = 2},
		  USUAL}},
		{"02 1 3", {USUAL, {.flow = 1, .payload = EMPTY}, USUAL, {.payload = EMPTY}}},
	};

	(void)state;
	expect_all(N(cases), TCP);
}

static void test_udp(void **state)
{
	static const struct joining cases[] = {
		{"0 1 2", {{.no_csum = true}, {.no_csum = true}, {.no_csum = true}}},
		{"0 1 23", {USUAL, {.no_csum = true}, USUAL, USUAL}},
		{"01", {{.payload = 1400}, {.payload = 1400}}},
		{"01 2", {{.payload = 1400}, {.payload = 1399}, {.payload = 1399}}},
		/* What would be a flag or a sequence number of TCP's says nothing. */
		{"012", {USUAL, {.skip = 5, .flags = SM_TCP_SYN}, {.skip = -10, .window = 1}}},
	};

	(void)state;
	expect_all(N(cases), UDP);
}

static void test_ipv4(void **state)
{
	static const struct joining cases[] = {
		/* Identification says something only without DF (RFC 6864). */
		{"012", {USUAL, {.id_skip = 9}, {.id_skip = -1}}},
		{"012", {{.no_df = true}, {.no_df = true}, {.no_df = true}}},
		{"01 23",
		 {{.no_df = true},
		  {.no_df = true},
		  {.no_df = true, .id_skip = 1},
		  {.no_df = true}}},
		{"0 1", {{.no_df = true}, {.no_df = true, .id_skip = -1}}},
		{"0 1 2", {USUAL, {.no_df = true}, USUAL}},
		{"0 1 23", {USUAL, {.ip_options = true}, USUAL, USUAL}},
		{"0 1", {{.ip_options = true}, {.ip_options = true}}},
		{"0 1 23", {USUAL, {.bad_ip_csum = true}, USUAL, USUAL}},
		{"0 12", {{.bad_ip_csum = true}, USUAL, USUAL}},
		{"0 1",
		 {{.bad_ip_csum = true, .partial = true}, {.bad_ip_csum = true, .partial = true}}},
	};

	(void)state;
	expect_all(N(cases), IPV4);
}

static void test_ipv6(void **state)
{
	static const struct joining cases[] = {
		{"01 2 3", {{.label = 1}, {.label = 1}, {.label = 0x80000}, USUAL}},
		{"0 1 23", {USUAL, {.extension = true}, USUAL, USUAL}},
		{"0 1", {{.extension = true}, {.extension = true}}},
	};

	(void)state;
	expect_all(N(cases), IPV6);
}

static void test_vlan(void **state)
{
	static const struct {
		const char *want;
		struct spec frame[4];
	} cases[] = {
		{"01", {{.tags = 1, .priority = 3}, {.tags = 1, .priority = 3}}},
		{"0 12", {{.tags = 1}, {.tags = 1, .priority = 1}, {.tags = 1, .priority = 1}}},
		{"0 12 3", {{.tags = 0}, {.tags = 1}, {.tags = 1}, {.tags = 2}}},
		/* Three tags are more than are looked behind. */
		{"0 1", {{.tags = 3}, {.tags = 3}}},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		for (uint32_t kind = 0; kind < KINDS; kind++) {
			struct spec specs[4];
			uint32_t n = 0;

			for (const char *p = cases[i].want; *p; p++)
				n += *p != ' ';
			for (uint32_t j = 0; j < n; j++) {
				specs[j] = cases[i].frame[j];
				specs[j].kind = (enum kind)kind;
			}
			expect(SM_MODE_TAP, specs, n, cases[i].want);
		}
	}
}

/* A TAP that takes no super-frames of a kind is given none. */
static void test_switched_off(void **state)
{
	(void)state;
	for (uint32_t kind = 0; kind < KINDS; kind++) {
		for (int off = 0; off < 2; off++) {
			struct world *w = world_new(SM_MODE_TAP, off != 0, off != 1);
			bool joins = is_tcp((enum kind)kind) ? w->tcp : w->udp;
			char text[16];

			for (uint32_t i = 0; i < 3; i++) {
				make(w, &(struct spec){.kind = (enum kind)kind});
				assert_true(offer(w, i));
			}
			drain(w, text);
			assert_string_equal(text, joins ? "012" : "0 1 2");
			world_free(w);
		}
	}
}

static void test_full(void **state)
{
	struct world *w = world_new(SM_MODE_TAP, true, true);

	(void)state;
	/* 64 runs; what continues one of them still fits, what needs one more does not. */
	for (uint32_t i = 0; i < SM_RUNS_MAX - 1; i++) {
		make(w, &(struct spec){.payload = EMPTY});
		assert_true(offer(w, i));
	}
	make(w, &(struct spec){.flow = 1});
	make(w, &(struct spec){.flow = 1});
	make(w, &(struct spec){.flow = 2});
	assert_true(offer(w, 63));
	assert_true(offer(w, 64));
	assert_false(offer(w, 65));
	assert_int_equal(w->coalesce.count, SM_RUNS_MAX);
	drain(w, NULL);
	assert_int_equal(w->seen, 65);
	assert_int_equal(w->joined, 2);
	assert_true(offer(w, 65));
	drain(w, NULL);
	assert_int_equal(w->seen, 66);
	world_free(w);
}

static void test_long_runs(void **state)
{
	(void)state;
	for (uint32_t kind = 0; kind < KINDS; kind++) {
		struct world *w = world_new(SM_MODE_TAP, true, true);

		/* 64 segments at most */
		for (uint32_t i = 0; i < 100; i++) {
			make(w, &(struct spec){.kind = (enum kind)kind});
			assert_true(offer(w, i));
		}
		assert_int_equal(w->coalesce.count, 2);
		assert_int_equal(w->coalesce.run[0].count, SM_RUN_SEGMENTS_MAX);
		drain(w, NULL);
		assert_int_equal(w->seen, 100);
		world_free(w);
	}
}

/* A super-frame has 65,535 bytes at most. */
static void test_size_limit(void **state)
{
	(void)state;
	for (uint32_t kind = 0; kind < KINDS; kind++) {
		for (uint32_t over = 0; over < 2; over++) {
			struct world *w = world_new(SM_MODE_TAP, true, true);
			uint32_t left = SM_FRAME_MAX - (is_v4((enum kind)kind) ? 34 : 54) -
					(is_tcp((enum kind)kind) ? 20 : 8);

			for (; left >= 9000; left -= 9000)
				make(w, &(struct spec){.kind = (enum kind)kind, .payload = 9000});
			make(w, &(struct spec){.kind = (enum kind)kind,
					       .payload = (int)(left + over)});
			for (uint32_t i = 0; i < w->made_count; i++)
				assert_true(offer(w, i));
			assert_int_equal(w->coalesce.count, 1 + over);
			drain(w, NULL);
			assert_int_equal(w->joined, w->made_count - over);
			world_free(w);
		}
	}
}

/* Frames that are neither: they end nothing unless they may be of a flow. */
static void test_strangers(void **state)
{
	static const struct {
		const char *want;
		size_t len;
		uint8_t bytes[40];
	} cases[] = {
		{"02 1", 60, {[12] = 0x08, [13] = 0x06}}, /* ARP */
		{"02 1", 60, {[12] = 0x88, [13] = 0xcc}},
		{"02 1", 60, {[12] = 0x08, [14] = 0x45, [17] = 40, [23] = 1}},    /* ICMP */
		{"02 1", 60, {[12] = 0x08, [14] = 0x45, [17] = 40, [23] = 50}},   /* ESP */
		{"02 1", 60, {[12] = 0x86, [13] = 0xdd, [14] = 0x60, [20] = 58}}, /* ICMPv6 */
		{"02 1", 20, {[12] = 0x08, [14] = 0x45}},                         /* cut off */
		{"02 1", 9, {0}},                                                 /* runts */
		{"02 1", 1, {0}},
		{"0 1 2", 60, {[12] = 0x08, [14] = 0x45, [17] = 10, [23] = 6}}, /* lengths */
		{"0 1 2", 60, {[12] = 0x08, [14] = 0x45, [17] = 40, [23] = 17, [39] = 9}},
		{"0 1 2", 60, {[12] = 0x86, [13] = 0xdd, [14] = 0x60, [20] = 44}},
		{"0 1 2", 60, {[12] = 0x86, [13] = 0xdd, [14] = 0x60, [20] = 43}},
		{"0 1 2", 60, {[12] = 0x86, [13] = 0xdd, [14] = 0x60, [20] = 0}},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct world *w = world_new(SM_MODE_TAP, true, true);
		struct made *m;
		char text[16];

		make(w, &(struct spec){0});
		assert_true(offer(w, 0));
		m = &w->made[w->made_count++];
		*m = (struct made){.spec = {.flow = 3}, .len = (uint32_t)cases[i].len};
		m->frame = calloc(1, m->len);
		m->finished = calloc(1, m->len);
		memcpy(m->frame, cases[i].bytes, SM_MIN(m->len, sizeof(cases[i].bytes)));
		memcpy(m->finished, m->frame, m->len);
		assert_true(offer(w, 1));
		make(w, &(struct spec){0});
		assert_true(offer(w, 2));
		drain(w, text);
		assert_string_equal(text, cases[i].want);
		world_free(w);
	}
}

/* A super-frame that is offered among the others goes through as it is, and in order. */
static void test_super_frame(void **state)
{
	struct world *w = world_new(SM_MODE_TAP, true, true);
	char text[16];

	(void)state;
	for (uint32_t i = 0; i < 4; i++) {
		make(w, &(struct spec){.partial = true});
		if (i == 1) {
			w->made[i].vnet.gso_type = SM_VNET_GSO_TCPV4;
			w->made[i].vnet.gso_size = 50;
		}
		assert_true(offer(w, i));
	}
	drain(w, text);
	assert_string_equal(text, "0 1 23");
	world_free(w);
}

/* Of the two zeros of a sum: not joined where cutting may give the other one. */
static void test_zero_checksum(void **state)
{
	(void)state;
	for (uint32_t kind = 0; kind < KINDS; kind++) {
		for (uint32_t zero = 0; zero <= 0xffff; zero += 0xffff) {
			struct world *w = world_new(SM_MODE_TAP, true, true);
			char text[16];

			for (uint32_t i = 0; i < 2; i++) {
				struct made *m;
				uint8_t *field;

				make(w, &(struct spec){.kind = (enum kind)kind});
				m = &w->made[i];
				field = m->frame + m->l4 + csum_at((enum kind)kind);
				/* What the sum lacks goes into the payload; then it is zero. */
				put16(m->frame + m->payload, 0);
				slow_finish(m, m->frame, m->len);
				memcpy(m->frame + m->payload, field, 2);
				put16(field, zero);
				memcpy(m->finished, m->frame, m->len);
				assert_true(offer(w, i));
			}
			drain(w, text);
			assert_string_equal(text, kind >= UDP4 && zero == 0xffff ? "01" : "0 1");
			world_free(w);
		}
	}
}

static void test_zero_ip_checksum(void **state)
{
	(void)state;
	for (uint32_t zero = 0; zero <= 0xffff; zero += 0xffff) {
		struct world *w = world_new(SM_MODE_TAP, true, true);
		char text[16];

		for (uint32_t i = 0; i < 2; i++) {
			struct made *m;

			make(w, &(struct spec){.kind = UDP4});
			m = &w->made[i];
			put16(m->frame + m->l3 + 4, 0);
			finish_ipv4(m->frame + m->l3);
			memcpy(m->frame + m->l3 + 4, m->frame + m->l3 + 10, 2);
			put16(m->frame + m->l3 + 10, zero);
			memcpy(m->finished, m->frame, m->len);
			assert_true(offer(w, i));
		}
		drain(w, text);
		assert_string_equal(text, zero == 0 ? "01" : "0 1");
		world_free(w);
	}
}

#define SEARCH 400000u

static int by_hash(const void *a, const void *b)
{
	uint64_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return x < y ? -1 : x > y;
}

/* Gives a frame other ports, or another source (and with IPv4 destination) address */
static void vary(struct made *m, bool ports, uint32_t number)
{
	uint8_t *l4 = m->frame + m->l4, *source = l4 - (is_v4(m->spec.kind) ? 8 : 32);

	put32(l4, ports ? number : 0);
	if (!ports) {
		put32(source, number);
		put32(source + 4, number * UINT32_C(0x85ebca6b));
	}
}

static void settle(struct made *m)
{
	set_ip_length(m, m->frame, m->len);
	slow_finish(m, m->frame, m->len);
	memcpy(m->finished, m->frame, m->len);
}

/* Finds two flows of one hash, whatever the hash is; they are still two. */
static void test_hash_collision(void **state)
{
	struct rng rng = rng_init("collision");
	uint64_t *found = calloc(SEARCH, sizeof(*found));
	uint32_t collisions = 0;

	(void)state;
	for (uint32_t i = 0; i < KINDS * 2; i++) {
		struct world *w = world_new(SM_MODE_TAP, true, true);
		bool ports = i % 2 == 0;
		struct made *m = w->made;

		for (uint32_t j = 0; j < 4; j++)
			make(w, &(struct spec){.kind = (enum kind)(i / 2), .flow = j & 1});
		for (uint32_t j = 0; j < SEARCH; j++) {
			uint32_t number = (uint32_t)rng_u64(&rng);

			vary(m, ports, number);
			sm_coalesce_init(&w->coalesce, w->mode, true, true);
			assert_true(offer(w, 0));
			found[j] = (uint64_t)w->coalesce.run[0].hash << 32 | number;
		}
		sm_coalesce_init(&w->coalesce, w->mode, true, true);
		qsort(found, SEARCH, sizeof(*found), by_hash);
		for (uint32_t j = 1; j < SEARCH; j++) {
			char text[16];

			if (found[j] >> 32 != found[j - 1] >> 32 || found[j] == found[j - 1])
				continue;
			for (uint32_t k = 0; k < 4; k++) {
				vary(&m[k], ports, (uint32_t)found[j - (k & 1)]);
				settle(&m[k]);
			}
			for (uint32_t k = 0; k < 4; k++)
				assert_true(offer(w, k));
			drain(w, text);
			assert_string_equal(text, "02 13");
			collisions++;
			break;
		}
		world_free(w);
	}
	free(found);
	assert_int_equal(collisions, 2 * KINDS);
}

static struct spec random_spec(struct rng *rng)
{
	static const uint8_t flags[] = {PSH,
					FIN,
					ACK | SM_TCP_CWR,
					ACK | SM_TCP_ECE,
					ACK | SM_TCP_SYN,
					ACK | SM_TCP_URG,
					SM_TCP_RST};
	struct spec s = {.kind = (enum kind)rng_below(rng, KINDS),
			 .flow = (uint8_t)rng_below(rng, FLOWS)};

	s.stamp = s.flow & 1;
	s.no_df = (s.flow & 2) != 0;
	s.tags = s.flow % 3;
	s.partial = rng_below(rng, 3) == 0;
	if (rng_below(rng, 3) != 0)
		return s;
	switch (rng_below(rng, 20)) {
	case 0:
		s.skip = (int)rng_below(rng, 400) - 200;
		break;
	case 1:
		s.id_skip = (int)rng_below(rng, 5) - 2;
		break;
	case 2:
	case 3:
		s.payload = 1 + (int)rng_below(rng, 200);
		break;
	case 4:
		s.payload = EMPTY;
		break;
	case 5:
	case 6:
		s.flags = flags[rng_below(rng, SM_ARRAY_SIZE(flags))];
		break;
	case 7:
		s.tos = (uint8_t)rng_below(rng, 4);
		break;
	case 8:
		s.hops = (uint8_t)rng_below(rng, 3);
		break;
	case 9:
		s.reserved = (uint8_t)rng_below(rng, 16);
		break;
	case 10:
		s.window = (uint16_t)rng_below(rng, 3);
		break;
	case 11:
		s.label = rng_below(rng, 3);
		break;
	case 12:
		s.ack = rng_below(rng, 3);
		break;
	case 13:
		s.stamp = rng_below(rng, 3);
		break;
	case 14:
		s.padding = (uint8_t)rng_below(rng, 8);
		break;
	case 15:
		s.fragment = true;
		s.partial = false;
		break;
	case 16:
		s.ip_options = s.extension = true;
		break;
	case 17:
		s.bad_csum = !s.partial;
		break;
	case 18:
		s.bad_ip_csum = true;
		break;
	default:
		s.no_csum = !s.partial;
		s.no_df = !s.no_df;
		break;
	}
	return s;
}

/* Whatever comes, cutting gives it back (checked as the runs are drained). */
static void test_property(void **state)
{
	struct rng rng = rng_init("coalesce");
	uint32_t joined = 0, frames = 0;

	(void)state;
	for (int round = 0; round < 3000; round++) {
		enum sm_mode mode = rng_below(&rng, 2) ? SM_MODE_TAP : SM_MODE_TUN;
		struct world *w = world_new(mode, rng_below(&rng, 8) != 0, rng_below(&rng, 8) != 0);
		uint32_t n = 1 + rng_below(&rng, FRAMES_MAX);

		for (uint32_t i = 0; i < n; i++) {
			struct spec s = random_spec(&rng);

			make(w, &s);
			if (offer(w, i))
				continue;
			assert_int_equal(w->coalesce.count, SM_RUNS_MAX);
			drain(w, NULL);
			assert_true(offer(w, i));
		}
		drain(w, NULL);
		assert_int_equal(w->seen, n);
		joined += w->joined;
		frames += n;
		world_free(w);
	}
	assert_true(joined > frames / 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any),
		cmocka_unit_test(test_tcp),
		cmocka_unit_test(test_udp),
		cmocka_unit_test(test_ipv4),
		cmocka_unit_test(test_ipv6),
		cmocka_unit_test(test_vlan),
		cmocka_unit_test(test_switched_off),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_long_runs),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_super_frame),
		cmocka_unit_test(test_zero_checksum),
		cmocka_unit_test(test_zero_ip_checksum),
		cmocka_unit_test(test_hash_collision),
		cmocka_unit_test(test_size_limit),
		cmocka_unit_test(test_property),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
