// SPDX-License-Identifier: MIT
/*
 * Super-frames: many TCP or UDP segments under one set of headers, carried through the tunnel as they are.
 *
 * Theory of operation: the sender's kernel hands over up to 64 kB with one set of headers and the size of a
 * segment. The payload is cut into chunks; each travels in a datagram of its own with the headers (the
 * template) and a descriptor behind it, so that every datagram can be delivered alone. The receiver joins
 * chunks whose numbers are consecutive and rebuilds one super-frame, or a shorter one, or a plain frame; its
 * kernel finishes the checksums, since the payload is known to be what was sent.
 *
 * Everything that goes to a kernel is derived here from headers that were parsed and checked; nothing that a
 * peer says about offloads is passed on.
 *
 * Spec: PROTOCOL.md, "Chunks"
 */
#ifndef SM_CORE_SUPER_H
#define SM_CORE_SUPER_H

#include "wire/data.h"
#include "wire/inet.h"
#include "wire/vnet.h"

/**
 * struct sm_super - A super-frame (gso_size > 0), or a frame whose checksum is not finished (gso_size 0)
 * @header_len: bytes of the template: all up to the payload; at most SM_TEMPLATE_MAX if gso_size > 0
 * @gso_size:   payload bytes of each segment but the last
 * @payload_len: bytes behind the template
 */
struct sm_super {
	struct sm_inet inet;
	uint32_t header_len, gso_size, payload_len;
};

/**
 * sm_super_classify() - What did the kernel hand over?
 * @vnet:  the header that came with the frame
 * @frame, @len: the whole frame
 *
 * Return: 0 it can travel as chunks; -EOPNOTSUPP it is sound, but only software (core/segment.h) can deal
 *         with it: headers or flags out of the ordinary; -EBADMSG it contradicts itself
 */
SM_MUST_CHECK int sm_super_classify(enum sm_mode mode, const struct sm_vnet *vnet,
				    const uint8_t *frame, size_t len, struct sm_super *ret_super);

/**
 * sm_super_plan() - Into how many chunks?
 * @room:   bytes of payload, template and descriptor that one datagram carries
 * @ret_piece: payload bytes of each chunk but the last: gso_size, or for TCP what fits if that is less
 * Return: chunks, 1 to SM_CHUNK_COUNT_MAX; 0 if it cannot be cut so: UDP segments do not fit, too many chunks,
 *         or too little room for any
 */
uint32_t sm_super_plan(const struct sm_super *super, uint32_t room, uint32_t *ret_piece);

/**
 * sm_chunk_check() - Receiver: is this chunk sound in itself?
 * @chunk:    its descriptor
 * @payload_len: bytes in front of the template
 * @template: its chunk->header_len bytes (for a lone frame, gso_size 0: the whole frame, payload_len 0)
 * @frame_max: longest frame that the TAP takes
 * @ret_inet: where the template's headers stand
 *
 * Return: 0; -EBADMSG: headers that are not TCP's or UDP's, of another length than header_len, flags that
 *         segments do not have (SYN, RST, URG), a payload that is not gso_size long (last: 1 to gso_size),
 *         index not below count, a segment longer than @frame_max, a total beyond 65,535 bytes of IP
 */
SM_MUST_CHECK int sm_chunk_check(enum sm_mode mode, const struct sm_chunk *chunk,
				 uint32_t payload_len, const uint8_t *template, uint32_t frame_max,
				 struct sm_inet *ret_inet);

/**
 * sm_super_rebuild() - Receiver: headers and vnet header for a run of chunks of one super-frame
 * @first:    descriptor of the run's first chunk; all of the run passed sm_chunk_check() and agree in
 *            count, gso_size, header_len
 * @n:        chunks in the run, consecutive
 * @payload_len: bytes of all of them
 * @template: changed in place: sequence number, identification, lengths, IP checksum, flags (FIN and PSH with
 *            the last chunk only, CWR with the first only), the pseudo header's sum as TCP's or UDP's checksum
 * @ret_vnet: for the TAP: GSO_NONE for a single segment
 */
void sm_super_rebuild(const struct sm_inet *inet, const struct sm_chunk *first, uint32_t n,
		      uint32_t payload_len, uint8_t *template, struct sm_vnet *ret_vnet);

/**
 * sm_super_clamp_mss() - Lower the MSS option of a TCP SYN that passes
 * @mss_max: largest MSS to let pass (RFC 9293: payload without options)
 * Return: true if @frame was changed (its checksum too, incrementally; right also when unfinished)
 *
 * Only ever lowers; a SYN without the option, or with one already small, is left alone.
 */
bool sm_super_clamp_mss(enum sm_mode mode, uint8_t *frame, size_t len, uint32_t mss_max);

#endif
