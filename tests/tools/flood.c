// SPDX-License-Identifier: MIT
/*
 * Flood: UDP datagrams at a rate, and how many arrive. Cheaper than iperf3, which takes two whole cores for
 * what is to be measured of a tunnel that shares them: many datagrams a system call on both sides.
 *
 *   flood receive PORT                          counts until standard input ends, then until it is quiet
 *   flood send ADDRESS PORT SIZE RATE SECONDS   SIZE bytes of payload, RATE datagrams a second
 *
 * Datagrams leave in small bursts, one each TICK_NS. Each carries a number. Both print JSON.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TICK_NS       100000ull /* between two bursts */
#define BATCH         64u       /* datagrams of one system call */
#define SIZE_MAX_UDP  65507u
#define SLOT_LEN      2048u /* bytes of a datagram that the receiver reads: the number is enough */
#define BUFFER_BYTES  (16 << 20)
#define QUIET_MS      200
#define NS_PER_S      1000000000ull
#define RATE_MAX      50000000.0
#define SECONDS_MAX   3600.0
#define BEHIND_MAX_NS (20 * 1000000ull) /* what a halt of the machine left out is not made up for */

static uint8_t memory[BATCH][SLOT_LEN];
static uint8_t payload[BATCH][sizeof(uint64_t)];
static uint8_t filler[SIZE_MAX_UDP];

static void die(const char *what)
{
	(void)fprintf(stderr, "flood: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* As large as it may be: with privileges, beyond the system's limit */
static void grow_buffer(int fd, int forced, int usual)
{
	int bytes = BUFFER_BYTES;

	if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof(bytes)) < 0 &&
	    setsockopt(fd, SOL_SOCKET, usual, &bytes, sizeof(bytes)) < 0)
		die("socket buffer");
}

static struct sockaddr_in address(const char *ip, const char *port)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	char *end;
	unsigned long n = strtoul(port, &end, 10);

	errno = EINVAL;
	if (*end || n == 0 || n > UINT16_MAX || inet_pton(AF_INET, ip, &to.sin_addr) != 1)
		die("address or port");
	to.sin_port = htons((uint16_t)n);
	return to;
}

static double number(const char *text, double least, double most, const char *what)
{
	char *end;
	double value = strtod(text, &end);

	errno = ERANGE;
	if (*end || !(value >= least && value <= most))
		die(what);
	return value;
}

/**
 * struct count - What arrived
 * @late: datagrams behind one with a higher number
 */
struct count {
	uint64_t packets, late, next;
};

static void receive_batch(int fd, struct count *c)
{
	struct mmsghdr msgs[BATCH];
	struct iovec iov[BATCH];
	int n;

	for (uint32_t i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){.iov_base = memory[i], .iov_len = SLOT_LEN};
		msgs[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1}};
	}
	n = recvmmsg(fd, msgs, BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++) {
		uint64_t seq;

		if (msgs[i].msg_len < sizeof(seq))
			continue;
		memcpy(&seq, memory[i], sizeof(seq));
		c->packets++;
		if (seq < c->next)
			c->late++;
		else
			c->next = seq + 1;
	}
}

static int receive(const char *port)
{
	struct sockaddr_in here = address("0.0.0.0", port);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct pollfd polls[2] = {{.fd = fd, .events = POLLIN},
				  {.fd = STDIN_FILENO, .events = POLLIN}};
	struct count c = {0};

	if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof(here)) < 0)
		die("socket");
	grow_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF);
	(void)puts("ready");
	(void)fflush(stdout);
	for (bool ending = false;;) {
		/* poll() skips the input once it is negative */
		int n = poll(polls, 2, ending ? QUIET_MS : -1);

		if (n < 0)
			die("poll");
		if (n == 0)
			break;
		if (polls[1].revents) {
			ending = true;
			polls[1].fd = -1;
			polls[1].revents = 0;
		}
		if (polls[0].revents)
			receive_batch(fd, &c);
	}
	(void)printf("{\"packets\": %llu, \"late\": %llu}\n", (unsigned long long)c.packets,
		     (unsigned long long)c.late);
	close(fd);
	return 0;
}

/**
 * struct sender - Where to, and how far it is
 * @refused: datagrams that the kernel did not take
 */
struct sender {
	int fd;
	size_t size;
	uint64_t sent, refused;
};

static void send_batch(struct sender *s, uint32_t n)
{
	struct mmsghdr msgs[BATCH];
	struct iovec iov[BATCH][2];
	uint32_t done = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t seq = s->sent + i;

		memcpy(payload[i], &seq, sizeof(seq));
		iov[i][0] = (struct iovec){.iov_base = payload[i], .iov_len = sizeof(seq)};
		iov[i][1] = (struct iovec){.iov_base = filler, .iov_len = s->size - sizeof(seq)};
		msgs[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = iov[i], .msg_iovlen = 2}};
	}
	while (done < n) {
		int r = sendmmsg(s->fd, msgs + done, n - done, 0);

		if (r > 0) {
			done += (uint32_t)r;
		} else if (errno == ENOBUFS || errno == ECONNREFUSED) {
			s->refused++;
			done++;
		} else if (errno != EINTR) {
			die("send");
		}
	}
	s->sent += n;
}

/* What is due by now goes; then it sleeps until the next tick. */
static uint64_t run_sender(struct sender *s, double rate, uint64_t duration_ns)
{
	uint64_t begin = now_ns(), origin = begin, due = 0, now;

	for (uint64_t tick = begin; (now = now_ns()) - begin < duration_ns; tick += TICK_NS) {
		uint64_t wanted;

		if (now > tick + BEHIND_MAX_NS) {
			origin += now - tick;
			tick = now;
		}
		wanted = (uint64_t)((double)(tick + TICK_NS - origin) * rate / NS_PER_S);
		for (; due < wanted && now_ns() - begin < duration_ns;) {
			uint64_t n = wanted - due < BATCH ? wanted - due : BATCH;

			send_batch(s, (uint32_t)n);
			due += n;
		}
		now = tick + TICK_NS;
		if (now > now_ns()) {
			struct timespec until = {.tv_sec = (time_t)(now / NS_PER_S),
						 .tv_nsec = (long)(now % NS_PER_S)};

			(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		}
	}
	return now_ns() - begin;
}

static int send_flood(char **argv)
{
	struct sockaddr_in to = address(argv[0], argv[1]);
	struct sender s = {.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0),
			   .size = (size_t)number(argv[2], sizeof(uint64_t), SIZE_MAX_UDP, "size")};
	double rate = number(argv[3], 1, RATE_MAX, "rate");
	double seconds = number(argv[4], 0.01, SECONDS_MAX, "seconds");
	uint64_t took_ns;

	if (s.fd < 0 || connect(s.fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		die("socket");
	grow_buffer(s.fd, SO_SNDBUFFORCE, SO_SNDBUF);
	(void)prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
	took_ns = run_sender(&s, rate, (uint64_t)(seconds * NS_PER_S));
	(void)printf("{\"packets\": %llu, \"refused\": %llu, \"seconds\": %.6f}\n",
		     (unsigned long long)s.sent, (unsigned long long)s.refused,
		     (double)took_ns / NS_PER_S);
	close(s.fd);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "receive") == 0)
		return receive(argv[2]);
	if (argc == 7 && strcmp(argv[1], "send") == 0)
		return send_flood(argv + 2);
	(void)fputs("usage: flood receive PORT\n"
		    "       flood send ADDRESS PORT SIZE RATE SECONDS\n",
		    stderr);
	return 2;
}
