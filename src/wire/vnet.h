// SPDX-License-Identifier: MIT
/*
 * The header that a TAP puts in front of each frame: what of checksum and segmentation is left to do.
 *
 * The kernel's struct virtio_net_hdr, in host byte order, copied and never cast (virtio 1.2, section 5.1.6).
 */
#ifndef SM_WIRE_VNET_H
#define SM_WIRE_VNET_H

#include "base/base.h"

#define SM_VNET_HDR_LEN 10u

#define SM_VNET_NEEDS_CSUM \
	0x01u /* the sum from csum_start on is to be put at csum_start + csum_offset */
#define SM_VNET_DATA_VALID 0x02u /* somebody has verified the checksums */

#define SM_VNET_GSO_NONE  0x00u
#define SM_VNET_GSO_TCPV4 0x01u
#define SM_VNET_GSO_TCPV6 0x04u
#define SM_VNET_GSO_UDP   0x05u /* VIRTIO_NET_HDR_GSO_UDP_L4: datagrams of gso_size bytes each */
#define SM_VNET_GSO_ECN   0x80u /* with TCP: CWR belongs to the first segment only */

/**
 * struct sm_vnet - One such header, decoded
 * @hdr_len:     bytes of headers up to the payload (a hint when read)
 * @gso_size:    payload bytes of each segment but the last
 * @csum_start:  offset in the frame; @csum_offset: from there
 */
struct sm_vnet {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset;
};

void sm_vnet_decode(const uint8_t buf[SM_VNET_HDR_LEN], struct sm_vnet *ret_vnet);
void sm_vnet_encode(const struct sm_vnet *vnet, uint8_t buf[SM_VNET_HDR_LEN]);

#endif
