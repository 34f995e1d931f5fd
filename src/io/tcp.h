// SPDX-License-Identifier: MIT
/*
 * TCP through libuv, with our addresses and the options that every connection of ours has.
 */
#ifndef SM_IO_TCP_H
#define SM_IO_TCP_H

#include "base/addr.h"

#include <uv.h>

/**
 * sm_tcp_listen() - Bind and listen; an IPv6 address takes no IPv4 connections
 * @tcp: initialised with uv_tcp_init(); the caller closes it, also after a failure
 * Return: 0; -EADDRINUSE, -EADDRNOTAVAIL, -EACCES, ...
 *
 * When file descriptors run out, libuv accepts and closes what comes, because it keeps one in reserve:
 * the loop does not spin, and @on_connection does not hear of it.
 */
SM_MUST_CHECK int sm_tcp_listen(uv_tcp_t *tcp, const struct sm_addr *addr,
				uv_connection_cb on_connection);

/**
 * sm_tcp_connect() - @tcp as above
 * @mss: largest segment, in both directions; 0: what the kernel thinks
 * Return: 0 and @on_connect comes, or -errno and it does not
 */
SM_MUST_CHECK int sm_tcp_connect(uv_tcp_t *tcp, uv_connect_t *req, const struct sm_addr *addr,
				 uint32_t mss, uv_connect_cb on_connect);

/**
 * sm_tcp_tune() - Small messages at once, and a dead peer noticed within about 15 s
 *
 * Best effort: a connection without an option still works.
 */
void sm_tcp_tune(const uv_tcp_t *tcp);

/** sm_tcp_end_sending() - Send FIN once what is queued in the kernel is out; reading goes on */
void sm_tcp_end_sending(const uv_tcp_t *tcp);

/** sm_tcp_local(), sm_tcp_remote() - Return: 0, -ENOTCONN, ... */
SM_MUST_CHECK int sm_tcp_local(const uv_tcp_t *tcp, struct sm_addr *ret_addr);
SM_MUST_CHECK int sm_tcp_remote(const uv_tcp_t *tcp, struct sm_addr *ret_addr);

#endif
