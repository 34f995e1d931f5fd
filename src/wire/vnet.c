// SPDX-License-Identifier: MIT
/*
 * The fields stand in the kernel's order, without padding; each is copied on its own.
 */
#include "wire/vnet.h"

enum offset {
	AT_FLAGS = 0,
	AT_GSO_TYPE = 1,
	AT_HDR_LEN = 2,
	AT_GSO_SIZE = 4,
	AT_CSUM_START = 6,
	AT_CSUM_OFFSET = 8,
};

static_assert(AT_CSUM_OFFSET + sizeof(uint16_t) == SM_VNET_HDR_LEN,
	      "the last field ends the header");

void sm_vnet_decode(const uint8_t buf[SM_VNET_HDR_LEN], struct sm_vnet *ret_vnet)
{
	ret_vnet->flags = buf[AT_FLAGS];
	ret_vnet->gso_type = buf[AT_GSO_TYPE];
	memcpy(&ret_vnet->hdr_len, buf + AT_HDR_LEN, sizeof(ret_vnet->hdr_len));
	memcpy(&ret_vnet->gso_size, buf + AT_GSO_SIZE, sizeof(ret_vnet->gso_size));
	memcpy(&ret_vnet->csum_start, buf + AT_CSUM_START, sizeof(ret_vnet->csum_start));
	memcpy(&ret_vnet->csum_offset, buf + AT_CSUM_OFFSET, sizeof(ret_vnet->csum_offset));
}

void sm_vnet_encode(const struct sm_vnet *vnet, uint8_t buf[SM_VNET_HDR_LEN])
{
	buf[AT_FLAGS] = vnet->flags;
	buf[AT_GSO_TYPE] = vnet->gso_type;
	memcpy(buf + AT_HDR_LEN, &vnet->hdr_len, sizeof(vnet->hdr_len));
	memcpy(buf + AT_GSO_SIZE, &vnet->gso_size, sizeof(vnet->gso_size));
	memcpy(buf + AT_CSUM_START, &vnet->csum_start, sizeof(vnet->csum_start));
	memcpy(buf + AT_CSUM_OFFSET, &vnet->csum_offset, sizeof(vnet->csum_offset));
}
