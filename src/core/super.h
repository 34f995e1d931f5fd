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

/* Segments in one super-frame of UDP: older kernels refuse more, from a TAP as from a socket. */
#define SM_SUPER_UDP_MAX 64u

/**
 * struct sm_super - A super-frame (gso_size > 0), or a lone frame whose checksum is not finished (gso_size 0)
 * @header_len: bytes up to the payload; for a super-frame also of the template, at most SM_TEMPLATE_MAX
 * @gso_size:   payload bytes of each segment but the last; less than @payload_len, since a super-frame of
 *              one segment is taken for a lone frame
 * @payload_len: bytes behind the headers
 */
struct sm_super {
	struct sm_inet inet;
	uint32_t header_len, gso_size, payload_len;
};

/**
 * sm_super_classify() - What did the kernel hand over?
 * @vnet:  the header that came with the frame; hdr_len is not used
 * @frame, @len: the whole frame
 *
 * Return: 0 it can travel as chunks; -EOPNOTSUPP it is sound, but only software (core/segment.h) can deal
 *         with it: headers, flags or a partial checksum out of the ordinary, or a plain frame with nothing
 *         left to do; -EBADMSG it contradicts itself
 */
SM_MUST_CHECK int sm_super_classify(enum sm_mode mode, const struct sm_vnet *vnet,
				    const uint8_t *frame, size_t len, struct sm_super *ret_super);

/**
 * sm_super_plan() - Into how many chunks?
 * @room:   bytes of payload, template and descriptor that one datagram carries
 * @ret_piece: payload bytes of each chunk but the last, which is what the chunks' gso_size is to be: that of
 *             the super-frame, or for TCP what fits if that is less. A lone frame: all bytes of it
 * Return: chunks, 1 to SM_CHUNK_COUNT_MAX (UDP: SM_SUPER_UDP_MAX); 0 if it cannot be cut so: UDP segments or
 *         a lone frame do not fit, too many chunks, or too little room for any
 */
uint32_t sm_super_plan(const struct sm_super *super, uint32_t room, uint32_t *ret_piece);

/**
 * sm_chunk_check() - Receiver: is this chunk sound in itself?
 * @chunk:    its descriptor, as sm_chunk_decode() gave it
 * @payload_len: bytes of payload in front of the template. A lone frame (chunk->gso_size 0): all bytes in
 *            front of the descriptor, which are the whole frame
 * @template: its chunk->header_len bytes. A lone frame: the frame's first byte
 * @frame_max: longest frame that the TAP takes
 * @ret_inet: where the headers stand in @template
 *
 * Return: 0; -EBADMSG: headers that are not TCP's or UDP's, of another length than header_len, flags that
 *         segments do not have (SYN, RST, URG), a payload that is not gso_size long (last: 1 to gso_size),
 *         index not below count, a segment longer than @frame_max, a total beyond 65,535 bytes of IP,
 *         more than SM_SUPER_UDP_MAX of UDP. A lone frame: headers that are not TCP's or UDP's, longer or
 *         shorter than IP says, longer than @frame_max
 */
SM_MUST_CHECK int sm_chunk_check(enum sm_mode mode, const struct sm_chunk *chunk,
				 uint32_t payload_len, const uint8_t *template, uint32_t frame_max,
				 struct sm_inet *ret_inet);

/**
 * sm_super_rebuild() - Receiver: headers and vnet header for a run of chunks of one super-frame
 * @inet:     as sm_chunk_check() gave it for any of them
 * @first:    descriptor of the run's first chunk; all of the run passed sm_chunk_check() and agree in
 *            count, gso_size, header_len and the bytes of the template
 * @n:        chunks in the run, consecutive; 1 for a lone frame
 * @payload_len: bytes of payload of all of them; not used for a lone frame, whose headers say it
 * @template: changed in place: sequence number, identification, lengths, IP checksum, flags (FIN and PSH with
 *            the last chunk only, CWR with the first only), the pseudo header's sum as TCP's or UDP's checksum.
 *            A lone frame: this sum alone
 * @ret_vnet: for the TAP: GSO_NONE for a single segment
 */
void sm_super_rebuild(const struct sm_inet *inet, const struct sm_chunk *first, uint32_t n,
		      uint32_t payload_len, uint8_t *template, struct sm_vnet *ret_vnet);

/**
 * sm_super_clamp_mss() - Lower the MSS option of a TCP SYN that passes
 * @unfinished: the frame came with SM_VNET_NEEDS_CSUM: its checksum does not cover the options yet
 * @mss_max: largest MSS to let pass (RFC 9293: payload without options)
 * Return: true if @frame was changed (a finished checksum too, incrementally: a wrong one stays wrong)
 *
 * Only ever lowers; a SYN without the option, or with one already small, is left alone.
 */
bool sm_super_clamp_mss(enum sm_mode mode, uint8_t *frame, size_t len, bool unfinished,
			uint32_t mss_max);

#endif
