// SPDX-License-Identifier: MIT
/*
 * UDP sockets and batches of datagrams.
 */
#ifndef SM_IO_UDP_H
#define SM_IO_UDP_H

#include "base/addr.h"
#include "base/pbuf.h"

#define SM_UDP_BATCH 64u

/**
 * sm_udp_open() - One bound socket, non-blocking, with packet info on and large buffers
 * @bind_to: family 0: all addresses of both families (dual-stack, falls back to IPv4 where there is no
 *           IPv6: then *@ret_mapped is false), else that address
 * @reuse:   SO_REUSEPORT, for the sockets of one daemon's workers only; other daemons are kept away by
 *           sm_lock_take()
 * @buffer:  bytes of socket buffer wanted in each direction (SO_*BUFFORCE where allowed)
 *
 * Outer packets may be fragmented by the network (IP_PMTUDISC_DONT); ECN and DSCP are not copied.
 * Return: descriptor, or -EADDRINUSE, -EADDRNOTAVAIL, -errno
 */
SM_MUST_CHECK int sm_udp_open(const struct sm_addr *bind_to, uint16_t port, bool reuse,
			      uint32_t buffer, bool *ret_mapped);

struct sm_udp_message {
	struct sm_addr peer;  /* receive: source; send: destination */
	struct sm_addr local; /* receive: our address, port 0; send: source wanted, family 0: any */
	struct sm_pbuf *pkt;
};

/**
 * sm_udp_receive() - Fill up to @n buffers, SM_UDP_BATCH at most, one datagram each
 * @msgs: pkt is an empty buffer with room for the largest datagram; its data starts where
 *        sm_pbuf_reset() put it and len becomes the datagram's length
 *
 * A datagram longer than its buffer has len 0 (to be dropped by the caller).
 * Return: datagrams received (0: none waits), or -errno
 */
SM_MUST_CHECK int sm_udp_receive(int fd, struct sm_udp_message *msgs, uint32_t n);

/**
 * sm_udp_send() - Send a batch in order
 * @ret_err: per message 0 or -errno (-EMSGSIZE, -EPERM, -ENOBUFS, -EAGAIN, ...); one failing message does not
 *           hold up the others
 * Return: messages sent
 */
SM_MUST_CHECK uint32_t sm_udp_send(int fd, bool mapped, const struct sm_udp_message *msgs,
				   uint32_t n, int *ret_err);

#endif
