// SPDX-License-Identifier: MIT
/*
 * UDP sockets and batches of datagrams.
 */
#ifndef SM_IO_UDP_H
#define SM_IO_UDP_H

#include "base/addr.h"

#define SM_UDP_BATCH 64u

/**
 * sm_udp_open() - One bound socket, non-blocking, with packet info on and large buffers
 * @bind_to: family 0: all addresses of both families (dual-stack, falls back to IPv4 where there is no
 *           IPv6: then *@ret_mapped is false), else that address
 * @reuse:   SO_REUSEPORT, for the sockets of one daemon's workers only; other daemons are kept away by
 *           sm_lock_take()
 * @buffer:  bytes of socket buffer wanted in each direction (SO_*BUFFORCE where allowed)
 *
 * Outer packets are never fragmented, and what the kernel believes of the path's MTU does not count
 * (IP_PMTUDISC_PROBE): a forged ICMP message changes nothing. ECN and DSCP are not copied.
 * Return: descriptor, or -EADDRINUSE, -EADDRNOTAVAIL, -errno
 */
SM_MUST_CHECK int sm_udp_open(const struct sm_addr *bind_to, uint16_t port, bool reuse,
			      uint32_t buffer, bool *ret_mapped);

/**
 * sm_udp_set_gro() - Let the kernel hand over datagrams of one sender and size together, or not
 * Return: 0, -errno where the kernel cannot
 */
SM_MUST_CHECK int sm_udp_set_gro(int fd, bool on);

/**
 * sm_udp_steer() - Give each datagram to the socket whose worker owns its lane
 * @fd:    any of the sockets that share a port, all of them bound, in the order of the workers
 * @count: how many they are
 *
 * Only a help: what comes to the wrong socket all the same is handed over. Return: 0, -errno
 */
SM_MUST_CHECK int sm_udp_steer(int fd, uint32_t count);

/**
 * struct sm_udp_message - One datagram, or several of one size to or from one address
 * @peer:    receive: source; send: destination
 * @local:   receive: our address, port 0; send: source wanted, family 0: any
 * @data, @len: the datagrams one behind another
 * @room:    receive: bytes that @data has room for
 * @segment: bytes of each datagram but the last, which may be shorter; 0 or >= @len: it is one
 */
struct sm_udp_message {
	struct sm_addr peer, local;
	uint8_t *data;
	uint32_t len, room;
	uint32_t segment;
};

#define SM_UDP_SEGMENTS_MAX 64u    /* in one message that is sent; older kernels take no more */
#define SM_UDP_BYTES_MAX    65507u /* of one message */

/**
 * sm_udp_receive() - Fill up to @n messages, SM_UDP_BATCH at most
 *
 * What is longer than its room has len 0 (to be dropped by the caller).
 * Return: messages received (0: none waits), or -errno
 */
SM_MUST_CHECK int sm_udp_receive(int fd, struct sm_udp_message *msgs, uint32_t n);

/**
 * sm_udp_send() - Send a batch in order
 * @ret_err: per message 0 or -errno (-EMSGSIZE, -EPERM, -ENOBUFS, -EAGAIN, ...); one failing message does not
 *           hold up the others. With several segments also -EIO and -EINVAL: the kernel or the card cannot
 *           cut this; one by one the datagrams may go
 * Return: messages sent
 */
SM_MUST_CHECK uint32_t sm_udp_send(int fd, bool mapped, const struct sm_udp_message *msgs,
				   uint32_t n, int *ret_err);

#endif
