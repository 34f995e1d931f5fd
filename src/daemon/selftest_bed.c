// SPDX-License-Identifier: MIT
/*
 * The self-test's bed: see selftest_bed.h.
 *
 *    socket A 192.0.2.1 -> 192.0.2.2       socket B 192.0.2.1, sees 192.0.2.2
 *         |                                     ^
 *       card: a super-frame                   card: a super-frame, addresses exchanged
 *         |                                     |
 *      classify, cut --- UDP_SEGMENT, loopback, UDP_GRO --- join, rebuild
 *
 * Exchanging the addresses changes no checksum.
 */
#include "daemon/selftest_bed.h"

#include "base/clock.h"
#include "core/segment.h"
#include "core/super.h"
#include "io/netlink.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#define CARD_NAME   "smtest0"
#define CARD_MTU    1500u
#define PATIENCE_US (3 * SM_SEC_US)
#define TCP_BYTES   300000u
#define TCP_PIECE   65536u
#define UDP_SIZE    1200u
#define UDP_COUNT   12u
#define BUFFER      (1u << 20)
#define LOOPBACK    1 /* the index of every namespace's first interface */
/* What a datagram of a path with MTU 1500 carries, and what takes any frame that is not a super-frame */
#define ROOM_PATH  (1500u - 40u - 8u - SM_DATA_OVERHEAD)
#define ROOM_FRAME 4096u

static const struct sm_prefix own[] = {
	{.family = 4, .len = 24, .ip = {192, 0, 2, 1}},
	{.family = 6, .len = 64, .ip = {0xfd, 0x53, 0x4d, [15] = 1}},
};

static int SM_PRINTF(3, 4) fail(int err, struct sm_bed_fault *fault, const char *fmt, ...)
{
	va_list ap;

	if (fault->text[0])
		return err; /* the first one tells most */
	va_start(ap, fmt);
	vsnprintf(fault->text, sizeof(fault->text), fmt, ap);
	va_end(ap);
	return err;
}

/* -- the namespace and the card -- */

static int leave(struct sm_bed_fault *fault)
{
	if (unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0)
		return 0;
	return fail(-errno, fault, "no network namespace can be made: %s", strerror(errno));
}

static int open_card(struct sm_bed *bed, struct sm_bed_fault *fault)
{
	static const int vnet_len = SM_VNET_HDR_LEN;
	struct ifreq request = {.ifr_flags = IFF_NO_PI | IFF_VNET_HDR};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return fail(-errno, fault, "/dev/net/tun: %s", strerror(errno));
	bed->card = (struct sm_tun){.mode = bed->mode, .queues = 1, .fd = {fd}, .lock_fd = -1};
	snprintf(request.ifr_name, sizeof(request.ifr_name), CARD_NAME);
	request.ifr_flags |= bed->mode == SM_MODE_TAP ? IFF_TAP : IFF_TUN;
	if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &vnet_len) < 0)
		return fail(-errno, fault, "no card can be made: %s", strerror(errno));
	if (sm_tun_set_offload(&bed->card, true, true, &bed->tso, &bed->uso))
		bed->tso = bed->uso = false;
	bed->card.ifindex = (int)if_nametoindex(CARD_NAME);
	return bed->card.ifindex ? 0 : fail(-errno, fault, "the card is not there");
}

/* There is nobody behind it who would answer for an address. */
static int set_noarp(struct sm_bed_fault *fault)
{
	struct ifreq request = {.ifr_name = CARD_NAME};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;

	if (fd < 0)
		return fail(-errno, fault, "socket: %s", strerror(errno));
	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		err = -errno;
	request.ifr_flags |= IFF_NOARP;
	if (!err && ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		err = -errno;
	close(fd);
	return err ? fail(err, fault, "the card keeps ARP: %s", strerror(-err)) : 0;
}

static int configure(struct sm_bed *bed, struct sm_bed_fault *fault)
{
	struct sm_netlink *nl;
	int err = sm_netlink_open(&nl);

	if (err)
		return fail(err, fault, "rtnetlink: %s", strerror(-err));
	err = set_noarp(fault);
	if (!err)
		err = sm_netlink_set_up(nl, LOOPBACK, true);
	if (!err)
		err = sm_netlink_set_mtu(nl, bed->card.ifindex, CARD_MTU);
	if (!err)
		err = sm_netlink_set_up(nl, bed->card.ifindex, true);
	if (!err)
		err = sm_netlink_add_address(nl, bed->card.ifindex, &own[0]);
	if (err)
		(void)fail(err, fault, "the card cannot be configured: %s", sm_netlink_error(nl));
	else
		bed->ipv6 = !sm_netlink_add_address(nl, bed->card.ifindex, &own[1]);
	sm_netlink_close(nl);
	return err;
}

int sm_bed_new(enum sm_mode mode, struct sm_bed **ret_bed, struct sm_bed_fault *fault)
{
	struct sm_bed *bed = calloc(1, sizeof(*bed));
	int err;

	if (!bed)
		return fail(-ENOMEM, fault, "out of memory");
	bed->mode = mode;
	bed->card = (struct sm_tun){.lock_fd = -1};
	bed->udp[0] = bed->udp[1] = -1;
	bed->frame = malloc(SM_BED_ROOM);
	bed->out = malloc((size_t)2 * SM_BED_ROOM);
	bed->in = malloc((size_t)SM_BED_MESSAGES * SM_BED_ROOM);
	bed->joined = malloc((size_t)2 * SM_BED_ROOM);
	err = bed->frame && bed->out && bed->in && bed->joined
		      ? leave(fault)
		      : fail(-ENOMEM, fault, "out of memory");
	if (!err)
		err = open_card(bed, fault);
	if (!err)
		err = configure(bed, fault);
	if (err) {
		sm_bed_free(bed);
		return err;
	}
	*ret_bed = bed;
	return 0;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void sm_bed_free(struct sm_bed *bed)
{
	if (!bed)
		return;
	sm_tun_close(&bed->card);
	close_fd(&bed->udp[0]);
	close_fd(&bed->udp[1]);
	free(bed->frame);
	free(bed->out);
	free(bed->in);
	free(bed->joined);
	free(bed);
}

static uint16_t bound_port(int fd)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct sm_addr addr = {0};

	if (getsockname(fd, (struct sockaddr *)&sa, &len) == 0)
		(void)!sm_addr_from_sockaddr((const struct sockaddr *)&sa, &addr);
	return addr.port;
}

static struct sm_addr loopback(int family)
{
	struct sm_addr a = {.family = (uint8_t)family};

	if (family == 4)
		memcpy(a.ip, (const uint8_t[]){127, 0, 0, 1}, 4);
	else
		a.ip[15] = 1;
	return a;
}

/* @last: of the address; 1 is ours, 2 is behind the card */
static struct sm_addr behind(int family, uint8_t last)
{
	const struct sm_prefix *p = &own[family == 6];
	struct sm_addr a = {.family = (uint8_t)family};

	memcpy(a.ip, p->ip, sizeof(a.ip));
	a.ip[family == 4 ? 3 : 15] = last;
	return a;
}

/* -- the pair -- */

int sm_bed_open_pair(struct sm_bed *bed, int family, struct sm_bed_fault *fault)
{
	bool mapped;

	bed->to = loopback(family);
	for (int i = 0; i < 2; i++) {
		close_fd(&bed->udp[i]);
		bed->udp[i] = sm_udp_open(&bed->to, 0, false, BUFFER, &mapped);
		if (bed->udp[i] < 0)
			return fail(bed->udp[i], fault, "socket: %s", strerror(-bed->udp[i]));
	}
	bed->to.port = bound_port(bed->udp[1]);
	return 0;
}

void sm_bed_set_gro(struct sm_bed *bed, bool on)
{
	(void)!sm_udp_set_gro(bed->udp[1], on);
}

/* Bytes that repeat so late that no mistake of a segment's size meets the same ones */
static uint8_t pattern(uint32_t at)
{
	const uint32_t x = at * 2654435761u;

	return (uint8_t)(x >> 24 ^ x >> 13);
}

static bool is_pattern(const uint8_t *data, uint32_t len, uint32_t at)
{
	for (uint32_t i = 0; i < len; i++)
		if (data[i] != pattern(at + i))
			return false;
	return true;
}

static void fill_pattern(uint8_t *data, uint32_t len, uint32_t at)
{
	for (uint32_t i = 0; i < len; i++)
		data[i] = pattern(at + i);
}

/* Return: messages that @fd gave before @until_us, -errno, 0: none came */
static int receive(struct sm_bed *bed, int fd, struct sm_udp_message msgs[SM_BED_MESSAGES],
		   uint64_t until_us)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	const uint64_t now_us = sm_clock_now_us();
	int n;

	for (uint32_t i = 0; i < SM_BED_MESSAGES; i++)
		msgs[i] = (struct sm_udp_message){.data = bed->in + (size_t)i * SM_BED_ROOM,
						  .room = SM_BED_ROOM};
	n = sm_udp_receive(fd, msgs, SM_BED_MESSAGES);
	if (n || now_us >= until_us)
		return n;
	(void)poll(&p, 1, (int)((until_us - now_us) / SM_MSEC_US) + 1);
	return sm_udp_receive(fd, msgs, SM_BED_MESSAGES);
}

/* Does @fd give datagrams of @size bytes, the last one shorter, that are @len bytes of the pattern? */
static void expect(struct sm_bed *bed, int fd, uint32_t size, uint32_t len, bool *ret_joined,
		   struct sm_bed_fault *fault)
{
	const uint64_t until_us = sm_clock_now_us() + PATIENCE_US;
	struct sm_udp_message msgs[SM_BED_MESSAGES];
	uint32_t at = 0;
	int n;

	*ret_joined = false;
	while (at < len) {
		n = receive(bed, fd, msgs, until_us);
		if (n <= 0) {
			(void)fail(-ETIMEDOUT, fault, "%u of %u bytes did not arrive", len - at,
				   len);
			return;
		}
		for (int i = 0; i < n; i++) {
			const uint32_t step = msgs[i].segment ? msgs[i].segment : msgs[i].len;

			if ((step != size && at + step != len) || at + msgs[i].len > len) {
				(void)fail(-EBADMSG, fault, "datagrams of %u bytes came as %u",
					   size, step);
				return;
			}
			if (!is_pattern(msgs[i].data, msgs[i].len, at)) {
				(void)fail(-EBADMSG, fault, "bytes arrived changed");
				return;
			}
			*ret_joined |= msgs[i].len > step;
			at += msgs[i].len;
		}
	}
}

/* One message of the pattern */
static int send_pattern(struct sm_bed *bed, int fd, const struct sm_addr *to, uint32_t size,
			uint32_t len, struct sm_bed_fault *fault)
{
	struct sm_udp_message msg = {.peer = *to, .data = bed->frame, .len = len, .segment = size};
	int err = 0;

	fill_pattern(bed->frame, len, 0);
	if (sm_udp_send(fd, false, &msg, 1, &err) != 1)
		return fail(err ? err : -EIO, fault, "sending: %s", strerror(-err));
	return 0;
}

void sm_bed_try_pair(struct sm_bed *bed, uint32_t size, uint32_t count, bool gro,
		     struct sm_bed_fault *fault)
{
	const uint32_t len = size * count - size / 3;
	int err = sm_udp_set_gro(bed->udp[1], gro);
	bool joined = false;

	if (err && gro) {
		(void)fail(err, fault, "the kernel does not have it: %s", strerror(-err));
		return;
	}
	if (send_pattern(bed, bed->udp[0], &bed->to, size, len, fault))
		return;
	expect(bed, bed->udp[1], size, len, &joined, fault);
	if (gro && !joined)
		(void)fail(-EOPNOTSUPP, fault, "nothing was joined");
}

/* -- from the card to the card -- */

static void exchange(enum sm_mode mode, const struct sm_inet *inet, uint8_t *frame)
{
	const uint32_t len = inet->version == 4 ? 4 : 16;
	uint8_t *source = frame + inet->l3 + (inet->version == 4 ? 12 : 8), *target = source + len;
	uint8_t saved[16];

	memcpy(saved, source, len);
	memcpy(source, target, len);
	memcpy(target, saved, len);
	if (mode == SM_MODE_TUN)
		return;
	memcpy(saved, frame, 6);
	memcpy(frame, frame + 6, 6);
	memcpy(frame + 6, saved, 6);
}

static int write_card(struct sm_bed *bed, const struct sm_vnet *vnet, uint8_t *frame, uint32_t len,
		      struct sm_bed_fault *fault)
{
	uint8_t head[SM_VNET_HDR_LEN];
	const struct iovec views[] = {
		{.iov_base = head, .iov_len = sizeof(head)},
		{.iov_base = frame, .iov_len = len},
	};

	sm_vnet_encode(vnet, head);
	if (writev(bed->card.fd[0], views, SM_ARRAY_SIZE(views)) >= 0)
		return 0;
	return fail(-errno, fault, "the card takes no %s: %s",
		    vnet->gso_type == SM_VNET_GSO_NONE ? "frame" : "super-frame", strerror(errno));
}

/* Whole, or in segments whose checksums the kernel will verify */
static int give_back(struct sm_bed *bed, const struct sm_vnet *vnet, uint8_t *frame, uint32_t len,
		     struct sm_bed_fault *fault)
{
	static const struct sm_vnet complete = {0};
	struct sm_segmenter segmenter;
	uint32_t n;
	int err = 0;

	if (vnet->gso_type == SM_VNET_GSO_NONE || ++bed->supers % 2)
		return write_card(bed, vnet, frame, len, fault);
	if (sm_segmenter_init(&segmenter, bed->mode, vnet, frame, len))
		return fail(-EBADMSG, fault, "a super-frame came that contradicts itself");
	while (!err && (n = sm_segmenter_frame_len(&segmenter)) > 0) {
		sm_segmenter_next(&segmenter, bed->frame);
		err = write_card(bed, &complete, bed->frame, n, fault);
	}
	return err;
}

/* Cuts what stands in @frame into datagrams one behind another in @out; Return: bytes of each but the last */
static uint32_t cut(struct sm_bed *bed, const struct sm_super *super, uint32_t len,
		    struct sm_chunk *ret_chunk, uint32_t *ret_len)
{
	const uint32_t template_len = super->gso_size ? super->header_len : 0;
	uint32_t piece = 0, at = 0, body = len - template_len;

	*ret_chunk = (struct sm_chunk){.header_len = (uint8_t)template_len};
	ret_chunk->count = (uint16_t)sm_super_plan(super, super->gso_size ? ROOM_PATH : ROOM_FRAME,
						   &piece);
	ret_chunk->gso_size = (uint16_t)(super->gso_size ? piece : 0);
	for (uint32_t i = 0; i < ret_chunk->count; i++) {
		const uint32_t n = SM_MIN(piece, body - i * piece);

		memcpy(bed->out + at, bed->frame + template_len + (size_t)i * piece, n);
		memcpy(bed->out + at + n, bed->frame, template_len);
		ret_chunk->index = (uint16_t)i;
		sm_chunk_encode(ret_chunk, bed->out + at + n + template_len);
		at += n + template_len + SM_CHUNK_LEN;
	}
	*ret_len = at;
	return SM_MIN(piece, body) + template_len + SM_CHUNK_LEN;
}

static int send_out(struct sm_bed *bed, uint32_t segment, uint32_t len, struct sm_bed_fault *fault)
{
	const uint32_t most = bed->segment ? SM_MIN(SM_UDP_SEGMENTS_MAX, SM_UDP_BYTES_MAX / segment)
					   : 1;
	int err = 0;

	for (uint32_t at = 0; at < len; at += most * segment) {
		const struct sm_udp_message msg = {.peer = bed->to,
						   .data = bed->out + at,
						   .len = SM_MIN(most * segment, len - at),
						   .segment = segment};

		if (sm_udp_send(bed->udp[0], false, &msg, 1, &err) != 1)
			return fail(err ? err : -EIO, fault, "sending the chunks: %s",
				    strerror(-err));
	}
	return 0;
}

/** struct joining - What has come of a super-frame; its payload stands in @joined behind room for the headers */
struct joining {
	struct sm_chunk first;
	struct sm_inet inet;
	uint32_t count, len;
	uint8_t template[SM_TEMPLATE_MAX];
};

static int join(struct sm_bed *bed, struct joining *j, const uint8_t *datagram, uint32_t len,
		struct sm_bed_fault *fault)
{
	const uint32_t frame_max = CARD_MTU + 22;
	struct sm_chunk chunk;
	const uint8_t *template;
	uint32_t payload;

	if (len <= SM_CHUNK_LEN || sm_chunk_decode(datagram + len - SM_CHUNK_LEN, &chunk) ||
	    chunk.index != j->count || chunk.header_len + SM_CHUNK_LEN >= len)
		return fail(-EBADMSG, fault, "chunks arrived changed");
	payload = len - SM_CHUNK_LEN - chunk.header_len;
	template = chunk.gso_size ? datagram + payload : datagram;
	if (sm_chunk_check(bed->mode, &chunk, payload, template, frame_max, &j->inet))
		return fail(-EBADMSG, fault, "chunks arrived changed");
	if (!j->count) {
		j->first = chunk;
		memcpy(j->template, template, chunk.header_len);
	}
	memcpy(bed->joined + SM_TEMPLATE_MAX + j->len, datagram, payload);
	j->len += payload;
	j->count++;
	return 0;
}

static int receive_in(struct sm_bed *bed, uint32_t count, struct joining *j,
		      struct sm_bed_fault *fault)
{
	const uint64_t until_us = sm_clock_now_us() + PATIENCE_US;
	struct sm_udp_message msgs[SM_BED_MESSAGES];
	int err = 0;

	while (j->count < count) {
		const int n = receive(bed, bed->udp[1], msgs, until_us);

		if (n <= 0)
			return fail(n ? n : -ETIMEDOUT, fault, "%u of %u chunks did not arrive",
				    count - j->count, count);
		for (int i = 0; i < n && !err; i++) {
			const uint32_t step = msgs[i].segment ? msgs[i].segment : msgs[i].len;

			for (uint32_t at = 0; at < msgs[i].len && !err; at += step)
				err = join(bed, j, msgs[i].data + at,
					   SM_MIN(step, msgs[i].len - at), fault);
		}
		if (err)
			return err;
	}
	return 0;
}

static int carry(struct sm_bed *bed, const struct sm_super *super, uint32_t len,
		 struct sm_bed_fault *fault)
{
	uint8_t *frame = bed->joined + SM_TEMPLATE_MAX;
	struct joining j = {0};
	struct sm_chunk chunk;
	struct sm_vnet vnet;
	uint32_t out_len;
	const uint32_t segment = cut(bed, super, len, &chunk, &out_len);
	int err = chunk.count ? send_out(bed, segment, out_len, fault)
			      : fail(-EBADMSG, fault, "a super-frame came that cannot be cut");

	if (!err)
		err = receive_in(bed, chunk.count, &j, fault);
	if (err)
		return err;
	if (super->gso_size) {
		sm_super_rebuild(&j.inet, &j.first, j.count, j.len, j.template, &vnet);
		frame -= j.first.header_len;
		memcpy(frame, j.template, j.first.header_len);
	} else {
		sm_super_rebuild(&j.inet, &j.first, 1, j.len - j.inet.payload, frame, &vnet);
	}
	exchange(bed->mode, &j.inet, frame);
	return give_back(bed, &vnet, frame, j.first.header_len + j.len, fault);
}

/* Return: 1 a frame was carried, 0 none waits, -errno */
static int turn(struct sm_bed *bed, struct sm_bed_fault *fault)
{
	const ssize_t got = read(bed->card.fd[0], bed->out, SM_BED_ROOM);
	struct sm_super super;
	struct sm_inet inet;
	struct sm_vnet vnet;
	uint32_t len;
	int err;

	if (got < 0)
		return errno == EAGAIN ? 0 : fail(-errno, fault, "the card: %s", strerror(errno));
	if (got <= (ssize_t)SM_VNET_HDR_LEN)
		return 1;
	len = (uint32_t)got - SM_VNET_HDR_LEN;
	sm_vnet_decode(bed->out, &vnet);
	memcpy(bed->frame, bed->out + SM_VNET_HDR_LEN, len);
	if (sm_inet_parse(bed->mode, bed->frame, len, &inet))
		return 1; /* the kernel's own: router solicitations, reports */
	if (!(vnet.flags & SM_VNET_NEEDS_CSUM) && vnet.gso_type == SM_VNET_GSO_NONE) {
		exchange(bed->mode, &inet, bed->frame);
		err = write_card(bed, &vnet, bed->frame, len, fault);
	} else if (sm_super_classify(bed->mode, &vnet, bed->frame, len, &super)) {
		err = fail(-EBADMSG, fault, "a super-frame came that contradicts itself");
	} else {
		err = carry(bed, &super, len, fault);
	}
	return err ? err : 1;
}

/* Carries what waits, then waits for @fd or the card; Return: 0, -errno */
static int carry_on(struct sm_bed *bed, int fd, short events, uint64_t until_us,
		    struct sm_bed_fault *fault)
{
	struct pollfd fds[] = {
		{.fd = bed->card.fd[0], .events = POLLIN},
		{.fd = fd, .events = events},
	};
	int r;

	do {
		r = turn(bed, fault);
	} while (r > 0);
	if (r < 0)
		return r;
	if (sm_clock_now_us() >= until_us)
		return fail(-ETIMEDOUT, fault, "no answer for %llu s",
			    (unsigned long long)(PATIENCE_US / SM_SEC_US));
	(void)poll(fds, SM_ARRAY_SIZE(fds), (int)(PATIENCE_US / SM_MSEC_US));
	return 0;
}

/* -- TCP -- */

struct connection {
	int listener, client, server;
	uint32_t sent, received;
};

static int tcp_socket(const struct sm_addr *at, struct sm_bed_fault *fault)
{
	struct sockaddr_storage sa;
	const socklen_t len = sm_addr_to_sockaddr(at, false, &sa);
	int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd >= 0 && bind(fd, (const struct sockaddr *)&sa, len) == 0)
		return fd;
	(void)fail(-errno, fault, "socket: %s", strerror(errno));
	close_fd(&fd);
	return -1;
}

static int connect_to(struct connection *c, int family, struct sm_bed_fault *fault)
{
	const struct sm_addr self = behind(family, 1);
	struct sm_addr other = behind(family, 2);
	struct sockaddr_storage sa;
	socklen_t len;

	c->listener = tcp_socket(&self, fault);
	c->client = tcp_socket(&self, fault);
	if (c->listener < 0 || c->client < 0)
		return -EIO;
	if (listen(c->listener, 1) < 0)
		return fail(-errno, fault, "listen: %s", strerror(errno));
	other.port = bound_port(c->listener);
	len = sm_addr_to_sockaddr(&other, false, &sa);
	if (connect(c->client, (const struct sockaddr *)&sa, len) < 0 && errno != EINPROGRESS)
		return fail(-errno, fault, "connect: %s", strerror(errno));
	return 0;
}

/* Return: 0 as far as it goes at present, -errno */
static int move_bytes(struct sm_bed *bed, struct connection *c, struct sm_bed_fault *fault)
{
	ssize_t n;

	if (c->server < 0)
		c->server = accept4(c->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (c->server < 0)
		return 0;
	while (c->sent < TCP_BYTES) {
		const uint32_t len = SM_MIN(TCP_PIECE, TCP_BYTES - c->sent);

		fill_pattern(bed->in, len, c->sent);
		n = send(c->client, bed->in, len, MSG_NOSIGNAL);
		if (n < 0)
			break;
		c->sent += (uint32_t)n;
	}
	while ((n = recv(c->server, bed->in, TCP_PIECE, 0)) > 0) {
		if (!is_pattern(bed->in, (uint32_t)n, c->received))
			return fail(-EBADMSG, fault, "bytes arrived changed");
		c->received += (uint32_t)n;
	}
	if (n == 0 || (n < 0 && errno != EAGAIN))
		return fail(-EPIPE, fault, "the connection broke");
	return 0;
}

void sm_bed_try_tcp(struct sm_bed *bed, int family, struct sm_bed_fault *fault)
{
	struct connection c = {.listener = -1, .client = -1, .server = -1};
	const uint64_t until_us = sm_clock_now_us() + PATIENCE_US;
	int err = connect_to(&c, family, fault);

	bed->supers = 0;
	while (!err && c.received < TCP_BYTES) {
		err = carry_on(bed, c.server >= 0 ? c.server : c.listener, POLLIN, until_us, fault);
		if (!err)
			err = move_bytes(bed, &c, fault);
	}
	if (!err && bed->supers < 2)
		(void)fail(-EOPNOTSUPP, fault, "no super-frame came out of the card");
	close_fd(&c.server);
	close_fd(&c.client);
	close_fd(&c.listener);
}

/* -- UDP -- */

void sm_bed_try_udp(struct sm_bed *bed, int family, struct sm_bed_fault *fault)
{
	const uint64_t until_us = sm_clock_now_us() + PATIENCE_US;
	const struct sm_addr self = behind(family, 1);
	struct sm_addr other = behind(family, 2);
	int from, to, err = 0;
	bool mapped, joined;

	from = sm_udp_open(&self, 0, false, BUFFER, &mapped);
	to = sm_udp_open(&self, 0, false, BUFFER, &mapped);
	if (from < 0 || to < 0)
		err = fail(SM_MIN(from, to), fault, "socket: %s", strerror(-SM_MIN(from, to)));
	other.port = err ? 0 : bound_port(to);
	bed->supers = 0;
	/* one that goes back whole, one that goes back in segments */
	for (uint32_t i = 0; !err && i < 2; i++) {
		const uint32_t len = UDP_SIZE * UDP_COUNT - 100;

		err = send_pattern(bed, from, &other, UDP_SIZE, len, fault);
		while (!err && bed->supers <= i)
			err = carry_on(bed, to, POLLIN, until_us, fault);
		if (!err)
			expect(bed, to, UDP_SIZE, len, &joined, fault);
		err = fault->text[0] ? -EIO : 0;
	}
	close_fd(&from);
	close_fd(&to);
}
