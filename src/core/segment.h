// SPDX-License-Identifier: MIT
/*
 * Segmentation in software: what a kernel left undone, done here, for a peer or a TAP that takes no
 * super-frames.
 */
#ifndef SM_CORE_SEGMENT_H
#define SM_CORE_SEGMENT_H

#include "wire/const.h"
#include "wire/vnet.h"

/**
 * sm_segment_finish() - Compute the checksum that @vnet says is missing (any protocol), in place
 * Return: 0 (also when none is missing); -EBADMSG if it does not lie within the frame
 */
SM_MUST_CHECK int sm_segment_finish(const struct sm_vnet *vnet, uint8_t *frame, size_t len);

/**
 * struct sm_segmenter - Cuts one super-frame into plain frames, one after another
 * Does not change the super-frame; any flags and IPv6 extension headers are dealt with.
 */
struct sm_segmenter {
	const uint8_t *frame;
	uint32_t header_len, l3, l4, gso_size, payload_len, at, index;
	uint8_t version, proto;
};

/**
 * sm_segmenter_init() - @frame stays the caller's and must not change until the last one is cut
 * Return: 0; -EBADMSG if vnet and headers contradict each other
 */
SM_MUST_CHECK int sm_segmenter_init(struct sm_segmenter *s, enum sm_mode mode,
				    const struct sm_vnet *vnet, const uint8_t *frame, size_t len);

/** sm_segmenter_frame_len() - Return: bytes of the next frame, 0 after the last */
uint32_t sm_segmenter_frame_len(const struct sm_segmenter *s);

/** sm_segmenter_next() - Write the next frame, checksums complete, to @out (sm_segmenter_frame_len() bytes) */
void sm_segmenter_next(struct sm_segmenter *s, uint8_t *out);

#endif
