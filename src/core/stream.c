// SPDX-License-Identifier: MIT
/*
 * The control stream: see stream.h.
 */
#include "core/stream.h"

#include <stdlib.h>

void sm_stream_done(struct sm_stream *s)
{
	if (s->buf)
		sm_wipe(s->buf, s->cap);
	free(s->buf);
	*s = (struct sm_stream){0};
}

int sm_stream_write(struct sm_stream *s, const void *data, size_t len)
{
	if (len > SM_STREAM_WINDOW - s->len)
		return -ENOBUFS;
	if (s->len + len > s->cap) {
		uint32_t cap = s->cap ? s->cap : 2048;
		uint8_t *grown;

		while (cap < s->len + len)
			cap *= 2;
		grown = realloc(s->buf, cap);
		if (!grown)
			return -ENOMEM;
		s->buf = grown;
		s->cap = cap;
	}
	memcpy(s->buf + s->len, data, len);
	s->len += (uint32_t)len;
	return 0;
}

/* The oldest unacknowledged byte is sent again, and all behind it. */
static void go_back(struct sm_stream *s)
{
	s->sent = 0;
	s->timed_us = 0; /* Karn: no round-trip time from what was sent twice */
	s->repeated_acks = 0;
}

bool sm_stream_next(struct sm_stream *s, uint64_t now_us, struct sm_segment *ret_segment)
{
	uint32_t n;

	if (s->deadline_us && now_us >= s->deadline_us) {
		go_back(s);
		s->rto_us = SM_MIN(s->rto_us * 2, SM_STREAM_RTO_MAX_US);
		s->deadline_us = 0;
	}
	n = SM_MIN(s->len - s->sent, SM_STREAM_SEGMENT_MAX);
	if (s->sent >= SM_STREAM_FLIGHT * SM_STREAM_SEGMENT_MAX)
		n = 0;
	if (!n && !s->ack_due)
		return false;
	*ret_segment = (struct sm_segment){
		.offset = s->acked + s->sent,
		.acked = s->rx_next,
		.data = n ? s->buf + s->sent : NULL,
		.len = n,
	};
	s->ack_due = false;
	if (n) {
		s->sent += n;
		s->top = SM_MAX(s->top, s->sent);
		if (!s->rto_us)
			s->rto_us = SM_STREAM_RTO_MIN_US;
		if (!s->deadline_us)
			s->deadline_us = now_us + s->rto_us;
		if (!s->timed_us) {
			s->timed_us = now_us;
			s->timed_end = s->acked + s->sent;
		}
	}
	return true;
}

static void measure(struct sm_stream *s, uint64_t now_us)
{
	uint64_t rtt_us = now_us - s->timed_us;

	s->srtt_us = s->srtt_us ? (7 * s->srtt_us + rtt_us) / 8 : rtt_us;
	s->timed_us = 0;
}

/*
 * The third acknowledgement of the same byte: something was lost. Once a flight, since what is sent
 * twice is acknowledged twice, and that must not be taken for another loss.
 */
static void on_repeated_ack(struct sm_stream *s)
{
	if (!s->sent || s->recovering || ++s->repeated_acks < 3)
		return;
	s->recovering = true;
	s->recover_end = s->acked + s->top;
	go_back(s);
}

static int on_ack(struct sm_stream *s, uint32_t acked, bool carries_data, uint64_t now_us)
{
	uint32_t n = acked - s->acked;

	if (n > UINT32_MAX / 2)
		return 0; /* an old one, overtaken by a newer */
	if (n > s->top)
		return -EPROTO;
	if (!n) {
		if (!carries_data)
			on_repeated_ack(s);
		return 0;
	}
	if (s->recovering && (int32_t)(acked - s->recover_end) >= 0)
		s->recovering = false;
	if (s->timed_us && (int32_t)(acked - s->timed_end) >= 0)
		measure(s, now_us);
	memmove(s->buf, s->buf + n, s->len - n);
	s->len -= n;
	s->acked = acked;
	s->sent = s->sent > n ? s->sent - n : 0;
	s->top -= n;
	s->repeated_acks = 0;
	s->rto_us = SM_MIN(SM_MAX(2 * s->srtt_us, SM_STREAM_RTO_MIN_US), SM_STREAM_RTO_MAX_US);
	s->deadline_us = s->sent ? now_us + s->rto_us : 0;
	if (!s->len) { /* an idle stream holds no memory */
		free(s->buf);
		s->buf = NULL;
		s->cap = 0;
	}
	return 0;
}

int sm_stream_receive(struct sm_stream *s, const struct sm_segment *segment, uint64_t now_us,
		      const uint8_t **ret_data, size_t *ret_len)
{
	uint32_t skip = s->rx_next - segment->offset;
	int err;

	err = on_ack(s, segment->acked, segment->len > 0, now_us);
	if (err)
		return err;
	*ret_data = NULL;
	*ret_len = 0;
	if (!segment->len)
		return 0;
	s->ack_due = true;
	if (skip >= segment->len) /* all known, or a gap before it */
		return 0;
	*ret_data = segment->data + skip;
	*ret_len = segment->len - skip;
	s->rx_next += (uint32_t)*ret_len;
	return 0;
}

uint64_t sm_stream_deadline(const struct sm_stream *s)
{
	if (s->ack_due || (s->sent < s->len && s->sent < SM_STREAM_FLIGHT * SM_STREAM_SEGMENT_MAX))
		return 0;
	return s->deadline_us ? s->deadline_us : SM_NEVER;
}
