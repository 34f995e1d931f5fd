// SPDX-License-Identifier: MIT
/*
 * The control stream: an ordered, reliable stream of bytes inside sealed packets, the second carrier of
 * control messages.
 *
 * Theory of operation: go-back-N with cumulative acknowledgements. The receiver keeps nothing that is out
 * of order; the sender repeats from the oldest unacknowledged byte after a time-out or three repeated
 * acknowledgements. At most SM_STREAM_WINDOW bytes wait; a flight is at most SM_STREAM_FLIGHT segments, so
 * a lost path costs little. No clock, no socket: segments come in, segments go out.
 *
 * Spec: PROTOCOL.md, "Control stream"
 */
#ifndef SM_CORE_STREAM_H
#define SM_CORE_STREAM_H

#include "wire/data.h"

#define SM_STREAM_FLIGHT     16u
#define SM_STREAM_RTO_MIN_US (200 * SM_MSEC_US)
#define SM_STREAM_RTO_MAX_US (2 * SM_SEC_US)

/**
 * struct sm_stream - Both directions (zero-initialise)
 * @buf:      unacknowledged and unsent bytes, @len of them, from stream offset @acked
 * @sent:     bytes of @buf that were sent since the last going back
 * @top:      bytes of @buf that were ever sent: no more than that can be acknowledged
 * @rx_next:  offset of the next byte wanted
 * @recovering: went back for repeated acknowledgements; not again before @recover_end is acknowledged
 */
struct sm_stream {
	uint8_t *buf;
	uint32_t cap, len, acked, sent, top;
	uint32_t rx_next;
	uint64_t srtt_us, rto_us, deadline_us; /* deadline 0: nothing in flight */
	uint32_t timed_end;                    /* an RTT is measured on this offset */
	uint64_t timed_us;
	uint32_t recover_end;
	uint8_t repeated_acks;
	bool recovering;
	bool ack_due;
};

void sm_stream_done(struct sm_stream *s);

/** sm_stream_write() - Queue bytes; Return: 0, -ENOBUFS (nothing taken), -ENOMEM */
SM_MUST_CHECK int sm_stream_write(struct sm_stream *s, const void *data, size_t len);

/**
 * sm_stream_next() - The next segment that should go out now
 * Return: true and @ret_segment (its data stays valid until the next call on @s), false if there is none
 */
bool sm_stream_next(struct sm_stream *s, uint64_t now_us, struct sm_segment *ret_segment);

/**
 * sm_stream_receive() - Take a segment
 * @ret_data, @ret_len: new bytes in order, a view into the segment; len 0 if it brought none
 * Return: 0; -EPROTO if it acknowledges what was never sent
 */
SM_MUST_CHECK int sm_stream_receive(struct sm_stream *s, const struct sm_segment *segment,
				    uint64_t now_us, const uint8_t **ret_data, size_t *ret_len);

/** sm_stream_deadline() - Return: when sm_stream_next() wants to be called, SM_NEVER */
uint64_t sm_stream_deadline(const struct sm_stream *s);

#endif
