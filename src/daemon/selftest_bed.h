// SPDX-License-Identifier: MIT
/*
 * What the self-test works with: a card in a namespace of its own, a pair of UDP sockets, and the way between.
 */
#ifndef SM_DAEMON_SELFTEST_BED_H
#define SM_DAEMON_SELFTEST_BED_H

#include "base/addr.h"
#include "io/tun.h"
#include "io/udp.h"

#define SM_BED_MESSAGES 8u
#define SM_BED_ROOM     68000u /* of one message that is received, and of a frame */

/** struct sm_bed_fault - Empty: there is none so far */
struct sm_bed_fault {
	char text[100];
};

struct sm_bed {
	enum sm_mode mode;
	bool ipv6;     /* the machine has it */
	bool tso, uso; /* what the card agreed to */
	bool segment;  /* datagrams go in batches between the pair */
	struct sm_tun card;
	int udp[2]; /* from the first to the second */
	struct sm_addr to;
	uint32_t supers; /* super-frames that came out of the card */
	uint8_t *frame, *out, *in, *joined;
};

/**
 * sm_bed_new() - Leave for a namespace of its own, and make the card there
 * Return: 0, -errno with the reason in @fault
 */
SM_MUST_CHECK int sm_bed_new(enum sm_mode mode, struct sm_bed **ret_bed,
			     struct sm_bed_fault *fault);
void sm_bed_free(struct sm_bed *bed);

/** sm_bed_open_pair() - The pair of sockets, of one family; a pair that was there is closed */
SM_MUST_CHECK int sm_bed_open_pair(struct sm_bed *bed, int family, struct sm_bed_fault *fault);
void sm_bed_set_gro(struct sm_bed *bed, bool on);

/** sm_bed_try_pair() - One message of @count datagrams of @size bytes, the last one shorter, from one to the other */
void sm_bed_try_pair(struct sm_bed *bed, uint32_t size, uint32_t count, bool gro,
		     struct sm_bed_fault *fault);

/** sm_bed_try_tcp() - A connection through the card, the way, and back */
void sm_bed_try_tcp(struct sm_bed *bed, int family, struct sm_bed_fault *fault);
/** sm_bed_try_udp() - The same for a message of several datagrams */
void sm_bed_try_udp(struct sm_bed *bed, int family, struct sm_bed_fault *fault);

#endif
