// SPDX-License-Identifier: MIT
/*
 * One system call a batch. Message headers, addresses and control blocks of a batch lie on the
 * stack of the caller's worker; the bytes go straight from and to the packet buffers.
 */
#include "io/udp.h"

#include "wire/data.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <unistd.h>

/* Room for either family's packet info and one more integer (a segment size). */
#define CONTROL_LEN                                                                       \
	(CMSG_SPACE(sizeof(struct in_pktinfo)) + CMSG_SPACE(sizeof(struct in6_pktinfo)) + \
	 CMSG_SPACE(sizeof(int)))

/* The kernel's view of a batch. */
struct batch {
	struct mmsghdr hdr[SM_UDP_BATCH];
	struct iovec iov[SM_UDP_BATCH];
	struct sockaddr_storage addr[SM_UDP_BATCH];
	_Alignas(struct cmsghdr) uint8_t control[SM_UDP_BATCH][CONTROL_LEN];
};

static int set_int(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

/* As large as allowed: more than the system's limit needs a privilege. */
static void set_buffers(int fd, uint32_t buffer)
{
	int bytes = (int)SM_MIN(buffer, (uint32_t)INT32_MAX / 2);

	if (set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, bytes))
		(void)!set_int(fd, SOL_SOCKET, SO_RCVBUF, bytes);
	if (set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, bytes))
		(void)!set_int(fd, SOL_SOCKET, SO_SNDBUF, bytes);
}

static int set_options(int fd, bool ipv6, bool mapped, bool reuse)
{
	int err = 0;

	if (reuse)
		err = set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (!err && ipv6)
		err = set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, !mapped);
	if (!err && ipv6)
		err = set_int(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
	if (!err && ipv6)
		err = set_int(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
	if (!err && (!ipv6 || mapped))
		err = set_int(fd, IPPROTO_IP, IP_PKTINFO, 1);
	if (!err && (!ipv6 || mapped))
		err = set_int(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
	return err;
}

static int open_bound(const struct sm_addr *local, bool mapped, bool reuse, uint32_t buffer)
{
	struct sockaddr_storage sa;
	socklen_t len = sm_addr_to_sockaddr(local, false, &sa);
	int fd, err;

	fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
	if (fd < 0)
		return -errno;
	set_buffers(fd, buffer);
	err = set_options(fd, local->family == 6, mapped, reuse);
	if (!err && bind(fd, (const struct sockaddr *)&sa, len) < 0)
		err = -errno;
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

int sm_udp_open(const struct sm_addr *bind_to, uint16_t port, bool reuse, uint32_t buffer,
		bool *ret_mapped)
{
	struct sm_addr local = *bind_to;
	bool any = local.family == 0;
	int fd;

	local.port = port;
	if (any)
		local.family = 6;
	fd = open_bound(&local, any, reuse, buffer);
	if (any && (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL)) {
		local.family = 4;
		fd = open_bound(&local, false, reuse, buffer);
	}
	if (fd >= 0)
		*ret_mapped = any && local.family == 6;
	return fd;
}

int sm_udp_set_gro(int fd, bool on)
{
	return set_int(fd, IPPROTO_UDP, UDP_GRO, on);
}

int sm_udp_steer(int fd, uint32_t count)
{
	/* The program sees the UDP payload: the lane is its third byte. Express or not, it is one worker's. */
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, SM_DATA_LANE_AT),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff & ~SM_LANE_EXPRESS),
		BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, count - 1),
		BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, count),
		BPF_STMT(BPF_RET | BPF_A, 0),
	};
	const struct sock_fprog program = {.len = SM_ARRAY_SIZE(code), .filter = code};

	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)) < 0)
		return -errno;
	return 0;
}

static void local_from_v4(const struct cmsghdr *c, struct sm_addr *ret_local)
{
	struct in_pktinfo info;

	memcpy(&info, CMSG_DATA(c), sizeof(info));
	*ret_local = (struct sm_addr){.family = 4};
	memcpy(ret_local->ip, &info.ipi_spec_dst, 4);
}

static void local_from_v6(const struct cmsghdr *c, struct sm_addr *ret_local)
{
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6};
	struct in6_pktinfo info;

	memcpy(&info, CMSG_DATA(c), sizeof(info));
	sa.sin6_addr = info.ipi6_addr;
	if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
		sa.sin6_scope_id = info.ipi6_ifindex;
	(void)!sm_addr_from_sockaddr((const struct sockaddr *)&sa, ret_local);
}

static uint32_t segment_from(const struct cmsghdr *c)
{
	int size;

	memcpy(&size, CMSG_DATA(c), sizeof(size));
	return size > 0 ? (uint32_t)size : 0;
}

/* For IPv4 on a dual-stack socket both kinds come; the IPv4 one knows the address to answer from. */
static void read_control(struct msghdr *m, struct sm_addr *ret_local, uint32_t *ret_segment)
{
	*ret_local = (struct sm_addr){0};
	*ret_segment = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO)
			local_from_v4(c, ret_local);
		else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO &&
			 !ret_local->family)
			local_from_v6(c, ret_local);
		else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
			*ret_segment = segment_from(c);
	}
}

static void prepare_receive(struct batch *b, const struct sm_udp_message *msgs, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		b->iov[i] = (struct iovec){.iov_base = msgs[i].data, .iov_len = msgs[i].room};
		b->hdr[i] = (struct mmsghdr){.msg_hdr = {
						     .msg_name = &b->addr[i],
						     .msg_namelen = sizeof(b->addr[i]),
						     .msg_iov = &b->iov[i],
						     .msg_iovlen = 1,
						     .msg_control = b->control[i],
						     .msg_controllen = CONTROL_LEN,
					     }};
	}
}

int sm_udp_receive(int fd, struct sm_udp_message *msgs, uint32_t n)
{
	struct batch b;
	int count;

	n = SM_MIN(n, SM_UDP_BATCH);
	prepare_receive(&b, msgs, n);
	do {
		count = recvmmsg(fd, b.hdr, n, MSG_DONTWAIT, NULL);
	} while (count < 0 && errno == EINTR);
	if (count < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
	for (int i = 0; i < count; i++) {
		struct msghdr *m = &b.hdr[i].msg_hdr;
		bool whole = !(m->msg_flags & MSG_TRUNC);

		msgs[i].peer = (struct sm_addr){0};
		if (sm_addr_from_sockaddr((const struct sockaddr *)&b.addr[i], &msgs[i].peer))
			whole = false;
		read_control(m, &msgs[i].local, &msgs[i].segment);
		msgs[i].len = whole ? b.hdr[i].msg_len : 0;
	}
	return count;
}

/* Appends one control message to @control; Return: bytes it takes */
static size_t put_control(uint8_t *control, int level, int type, const void *data, size_t len)
{
	struct cmsghdr head = {.cmsg_level = level, .cmsg_type = type, .cmsg_len = CMSG_LEN(len)};

	memcpy(control, &head, sizeof(head));
	memcpy(control + CMSG_LEN(0), data, len);
	return CMSG_SPACE(len);
}

static size_t put_source(uint8_t *control, const struct sm_addr *local)
{
	struct in_pktinfo v4 = {0};
	struct in6_pktinfo v6 = {.ipi6_ifindex = local->scope};

	if (local->family == 4) {
		memcpy(&v4.ipi_spec_dst, local->ip, 4);
		return put_control(control, IPPROTO_IP, IP_PKTINFO, &v4, sizeof(v4));
	}
	memcpy(&v6.ipi6_addr, local->ip, 16);
	return put_control(control, IPPROTO_IPV6, IPV6_PKTINFO, &v6, sizeof(v6));
}

static void prepare_send(struct batch *b, bool mapped, const struct sm_udp_message *msgs,
			 uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct sm_udp_message *msg = &msgs[i];
		struct msghdr *m = &b->hdr[i].msg_hdr;
		size_t control = 0;

		b->iov[i] = (struct iovec){.iov_base = msg->data, .iov_len = msg->len};
		*m = (struct msghdr){.msg_iov = &b->iov[i], .msg_iovlen = 1};
		m->msg_name = &b->addr[i];
		m->msg_namelen = sm_addr_to_sockaddr(&msg->peer, mapped, &b->addr[i]);
		/* A source of the other family would be refused: the path has moved on. */
		if (msg->local.family && msg->local.family == msg->peer.family)
			control = put_source(b->control[i], &msg->local);
		if (msg->segment > 0 && msg->segment < msg->len) {
			uint16_t segment = (uint16_t)msg->segment;

			control += put_control(b->control[i] + control, IPPROTO_UDP, UDP_SEGMENT,
					       &segment, sizeof(segment));
		}
		if (control > 0) {
			m->msg_control = b->control[i];
			m->msg_controllen = control;
		}
	}
}

/* sendmmsg() stops at a failing message and tells its error only when that one comes first. */
static uint32_t send_batch(int fd, struct batch *b, uint32_t n, int *ret_err)
{
	uint32_t sent = 0, i = 0;

	while (i < n) {
		int count = sendmmsg(fd, &b->hdr[i], n - i, MSG_DONTWAIT);

		if (count > 0) {
			memset(&ret_err[i], 0, (size_t)count * sizeof(*ret_err));
			sent += (uint32_t)count;
			i += (uint32_t)count;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			/* The queue is full for all of them, and order is to be kept. */
			while (i < n)
				ret_err[i++] = -EAGAIN;
		} else if (errno != EINTR) {
			ret_err[i++] = -errno;
		}
	}
	return sent;
}

uint32_t sm_udp_send(int fd, bool mapped, const struct sm_udp_message *msgs, uint32_t n,
		     int *ret_err)
{
	uint32_t sent = 0;
	struct batch b;

	for (uint32_t done = 0; done < n;) {
		uint32_t part = SM_MIN(n - done, SM_UDP_BATCH);

		prepare_send(&b, mapped, &msgs[done], part);
		sent += send_batch(fd, &b, part, &ret_err[done]);
		done += part;
	}
	return sent;
}
