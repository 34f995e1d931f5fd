// SPDX-License-Identifier: MIT
/*
 * TCP sockets: listening, connecting, options.
 */
#include "io/tcp.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG              1024  /* connections that the kernel keeps for us */
#define USER_TIMEOUT_MS      15000 /* sent and not acknowledged for that long: dead */
#define KEEPALIVE_IDLE_S     10
#define KEEPALIVE_INTERVAL_S 2
#define KEEPALIVE_COUNT      3

int sm_tcp_listen(uv_tcp_t *tcp, const struct sm_addr *addr, uv_connection_cb on_connection)
{
	struct sockaddr_storage sa;
	int err;

	sm_addr_to_sockaddr(addr, false, &sa);
	err = uv_tcp_bind(tcp, (const struct sockaddr *)&sa,
			  addr->family == 6 ? UV_TCP_IPV6ONLY : 0);
	if (!err) /* here an address in use comes to light */
		err = uv_listen((uv_stream_t *)tcp, BACKLOG, on_connection);
	return err;
}

/* The option must be there before the first segment: with that one it is told to the other side. */
static int limit_segments(uv_tcp_t *tcp, int family, uint32_t mss)
{
	const int value = (int)mss, fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &value, sizeof(value)) < 0)
		err = -errno;
	if (!err)
		err = uv_tcp_open(tcp, fd);
	if (err)
		close(fd);
	return err;
}

int sm_tcp_connect(uv_tcp_t *tcp, uv_connect_t *req, const struct sm_addr *addr, uint32_t mss,
		   uv_connect_cb on_connect)
{
	struct sockaddr_storage sa;
	int err;

	sm_addr_to_sockaddr(addr, false, &sa);
	err = mss ? limit_segments(tcp, sa.ss_family, mss) : 0;
	if (err)
		return err;
	return uv_tcp_connect(req, tcp, (const struct sockaddr *)&sa, on_connect);
}

static int descriptor(const uv_tcp_t *tcp)
{
	uv_os_fd_t fd;

	return uv_fileno((const uv_handle_t *)tcp, &fd) == 0 ? fd : -1;
}

void sm_tcp_tune(const uv_tcp_t *tcp)
{
	static const struct {
		int level, option, value;
	} options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS},
		{IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
		{IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S},
		{IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT},
		{SOL_SOCKET, SO_KEEPALIVE, 1},
	};
	int fd = descriptor(tcp);

	for (size_t i = 0; fd >= 0 && i < SM_ARRAY_SIZE(options); i++)
		(void)setsockopt(fd, options[i].level, options[i].option, &options[i].value,
				 sizeof(options[i].value));
}

void sm_tcp_end_sending(const uv_tcp_t *tcp)
{
	int fd = descriptor(tcp);

	if (fd >= 0)
		(void)shutdown(fd, SHUT_WR);
}

int sm_tcp_local(const uv_tcp_t *tcp, struct sm_addr *ret_addr)
{
	struct sockaddr_storage sa;
	int len = sizeof(sa), err;

	err = uv_tcp_getsockname(tcp, (struct sockaddr *)&sa, &len);
	return err ? err : sm_addr_from_sockaddr((const struct sockaddr *)&sa, ret_addr);
}

int sm_tcp_remote(const uv_tcp_t *tcp, struct sm_addr *ret_addr)
{
	struct sockaddr_storage sa;
	int len = sizeof(sa), err;

	err = uv_tcp_getpeername(tcp, (struct sockaddr *)&sa, &len);
	return err ? err : sm_addr_from_sockaddr((const struct sockaddr *)&sa, ret_addr);
}
