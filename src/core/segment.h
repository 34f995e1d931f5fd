// SPDX-License-Identifier: MIT
/*
 * Segmentation in software: what a kernel left undone, done here, for a peer or a TAP that takes no
 * super-frames.
 */
#ifndef SM_CORE_SEGMENT_H
#define SM_CORE_SEGMENT_H

#include "wire/inet.h"
#include "wire/vnet.h"

/**
 * sm_segment_finish() - Compute the checksum that @vnet says is missing (any protocol), in place
 * Return: 0 (also when none is missing); -EBADMSG if it does not lie within the frame
 */
SM_MUST_CHECK int sm_segment_finish(const struct sm_vnet *vnet, uint8_t *frame, size_t len);

/**
 * struct sm_segmenter - Cuts one super-frame into plain frames, one after another
 * @inet:     of the super-frame
 * @at:       payload bytes that were cut; @index: frames that were
 * @pseudo:   the pseudo header's sum, without a length
 *
 * Does not change the super-frame. FIN, PSH and RST go with the last segment, SYN and CWR with the first, URG
 * with those that its pointer reaches beyond.
 */
struct sm_segmenter {
	const uint8_t *frame;
	struct sm_inet inet;
	uint32_t gso_size, payload_len, at, index;
	uint64_t pseudo;
};

/**
 * sm_segmenter_init() - @frame stays the caller's and must not change until the last one is cut
 * @vnet: of a super-frame (gso_type is not GSO_NONE); one with a single segment is cut into that
 * Return: 0; -EBADMSG if vnet and headers contradict each other, or it is none
 */
SM_MUST_CHECK int sm_segmenter_init(struct sm_segmenter *s, enum sm_mode mode,
				    const struct sm_vnet *vnet, const uint8_t *frame, size_t len);

/** sm_segmenter_frame_len() - Return: bytes of the next frame, 0 after the last */
uint32_t sm_segmenter_frame_len(const struct sm_segmenter *s);

/** sm_segmenter_next() - Write the next frame, checksums complete, to @out (sm_segmenter_frame_len() bytes) */
void sm_segmenter_next(struct sm_segmenter *s, uint8_t *out);

#endif
