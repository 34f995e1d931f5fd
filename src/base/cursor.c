// SPDX-License-Identifier: MIT
/*
 * The sticky cursors. Once marked, a cursor neither moves nor touches memory again.
 */
#include "base/cursor.h"

static uint64_t load_be(const uint8_t *p, size_t len)
{
	uint64_t v = 0;

	for (size_t i = 0; i < len; i++)
		v = v << 8 | p[i];
	return v;
}

const uint8_t *sm_read_view(struct sm_reader *r, size_t len)
{
	const uint8_t *view = r->pos;

	if (r->failed || sm_reader_left(r) < len) {
		r->failed = true;
		return NULL;
	}
	r->pos += len;
	return view;
}

static uint64_t read_be(struct sm_reader *r, size_t len)
{
	const uint8_t *p = sm_read_view(r, len);

	return p ? load_be(p, len) : 0;
}

int sm_reader_done(const struct sm_reader *r)
{
	return r->failed || r->pos != r->end ? -EBADMSG : 0;
}

uint8_t sm_read_u8(struct sm_reader *r)
{
	return (uint8_t)read_be(r, 1);
}

uint16_t sm_read_u16(struct sm_reader *r)
{
	return (uint16_t)read_be(r, 2);
}

uint32_t sm_read_u32(struct sm_reader *r)
{
	return (uint32_t)read_be(r, 4);
}

uint64_t sm_read_u64(struct sm_reader *r)
{
	return read_be(r, 8);
}

void sm_read_bytes(struct sm_reader *r, void *dst, size_t len)
{
	const uint8_t *p = sm_read_view(r, len);

	if (len == 0)
		return;
	if (p)
		memcpy(dst, p, len);
	else
		memset(dst, 0, len);
}

/* Takes @len bytes; Return: the first of them, NULL (and the mark) when fewer are left */
static uint8_t *take(struct sm_writer *w, size_t len)
{
	uint8_t *p = w->pos;

	if (w->failed || (size_t)(w->end - w->pos) < len) {
		w->failed = true;
		return NULL;
	}
	w->pos += len;
	return p;
}

static void write_be(struct sm_writer *w, uint64_t v, size_t len)
{
	uint8_t *p = take(w, len);

	if (!p)
		return;
	for (size_t i = len; i > 0; i--) {
		p[i - 1] = (uint8_t)v;
		v >>= 8;
	}
}

int sm_writer_done(const struct sm_writer *w)
{
	return w->failed ? -ENOSPC : (int)sm_writer_len(w);
}

void sm_write_u8(struct sm_writer *w, uint8_t v)
{
	write_be(w, v, 1);
}

void sm_write_u16(struct sm_writer *w, uint16_t v)
{
	write_be(w, v, 2);
}

void sm_write_u32(struct sm_writer *w, uint32_t v)
{
	write_be(w, v, 4);
}

void sm_write_u64(struct sm_writer *w, uint64_t v)
{
	write_be(w, v, 8);
}

void sm_write_bytes(struct sm_writer *w, const void *src, size_t len)
{
	uint8_t *p = take(w, len);

	if (p && len > 0)
		memcpy(p, src, len);
}
