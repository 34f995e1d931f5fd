// SPDX-License-Identifier: MIT
/*
 * Sticky cursors over bytes that came from or go to the network.
 *
 * A read past the end yields zeros and marks the cursor; a write past the end writes nothing and
 * marks it. So code reads or writes a whole structure and checks once. All integers are big-endian.
 */
#ifndef SM_BASE_CURSOR_H
#define SM_BASE_CURSOR_H

#include "base/base.h"

struct sm_reader {
	const uint8_t *pos, *end;
	bool failed;
};

struct sm_writer {
	uint8_t *start, *pos, *end;
	bool failed;
};

static inline struct sm_reader sm_reader_init(const void *data, size_t len)
{
	const uint8_t *p = data;
	return (struct sm_reader){.pos = p, .end = p + len};
}

static inline size_t sm_reader_left(const struct sm_reader *r)
{
	return (size_t)(r->end - r->pos);
}

/** sm_reader_done() - Return: 0 if all reads fitted and no byte is left, else -EBADMSG */
SM_MUST_CHECK int sm_reader_done(const struct sm_reader *r);

uint8_t sm_read_u8(struct sm_reader *r);
uint16_t sm_read_u16(struct sm_reader *r);
uint32_t sm_read_u32(struct sm_reader *r);
uint64_t sm_read_u64(struct sm_reader *r);

/** sm_read_bytes() - Copy @len bytes to @dst; zeros them when fewer are left */
void sm_read_bytes(struct sm_reader *r, void *dst, size_t len);

/** sm_read_view() - Return: the next @len bytes in place, NULL (and the mark) when fewer are left */
const uint8_t *sm_read_view(struct sm_reader *r, size_t len);

static inline struct sm_writer sm_writer_init(void *data, size_t len)
{
	uint8_t *p = data;
	return (struct sm_writer){.start = p, .pos = p, .end = p + len};
}

static inline size_t sm_writer_len(const struct sm_writer *w)
{
	return (size_t)(w->pos - w->start);
}

/** sm_writer_done() - Return: bytes written, or -ENOSPC if one write did not fit */
SM_MUST_CHECK int sm_writer_done(const struct sm_writer *w);

void sm_write_u8(struct sm_writer *w, uint8_t v);
void sm_write_u16(struct sm_writer *w, uint16_t v);
void sm_write_u32(struct sm_writer *w, uint32_t v);
void sm_write_u64(struct sm_writer *w, uint64_t v);
void sm_write_bytes(struct sm_writer *w, const void *src, size_t len);

#endif
