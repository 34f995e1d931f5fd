// SPDX-License-Identifier: MIT
/*
 * TAP and TUN devices: created, or taken over if persistent; one descriptor for each queue.
 */
#ifndef SM_IO_TUN_H
#define SM_IO_TUN_H

#include "base/base.h"
#include "wire/const.h"
#include "wire/vnet.h"

#include <net/if.h>

/* Each read and write carries SM_VNET_HDR_LEN bytes (wire/vnet.h) in front. */
struct sm_tun {
	char name[IFNAMSIZ];
	int ifindex;
	enum sm_mode mode;
	uint32_t queues;
	int fd[SM_WORKER_MAX];
	bool taken_over; /* it existed before */
	int lock_fd;     /* keeps a second reader away */
};

#define SM_TUN_ERROR_MAX 256

/**
 * sm_tun_open() - Open @queues descriptors, non-blocking, IFF_NO_PI | IFF_VNET_HDR, no offloads yet
 * @name: "smesh0", or with %d for the kernel to number
 * @error: SM_TUN_ERROR_MAX bytes: cause and cure in a sentence
 *
 * A device that another process reads (ours or not) is refused with the holder named: two readers would
 * steal each other's frames.
 * Return: 0; -EBUSY; -EPERM; -ENOENT no /dev/net/tun; -EINVAL persistent device of another kind
 */
SM_MUST_CHECK int sm_tun_open(const char *name, enum sm_mode mode, uint32_t queues,
			      struct sm_tun *ret_tun, char *error);

/**
 * sm_tun_set_offload() - Hand over super-frames and unfinished checksums, or not
 * @tso, @uso: of TCP, of UDP; neither: every frame is whole and complete
 * @ret_tso, @ret_uso: what the kernel agreed to
 * Return: 0, -errno
 */
SM_MUST_CHECK int sm_tun_set_offload(const struct sm_tun *tun, bool tso, bool uso, bool *ret_tso,
				     bool *ret_uso);
void sm_tun_close(struct sm_tun *tun);

#endif
