// SPDX-License-Identifier: MIT
/*
 * One end of the impaired wire: a TAP without offloads in a network namespace.
 */
#include "impair.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

__attribute__((format(printf, 3, 4))) static int fail(char *err, int rc, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, IMPAIR_ERR_LEN, fmt, ap);
	va_end(ap);
	return rc;
}

static int enter_netns(const char *netns, char *err)
{
	char path[256];
	int fd, rc;

	snprintf(path, sizeof(path), "%s%s", strchr(netns, '/') ? "" : "/run/netns/", netns);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		rc = -errno;
		return fail(err, rc,
			    "no network namespace %s (%s): make it with ip netns add, or "
			    "give a path such as /proc/PID/ns/net",
			    path, strerror(-rc));
	}
	rc = setns(fd, CLONE_NEWNET) < 0 ? -errno : 0;
	close(fd);
	if (rc < 0)
		return fail(err, rc, "cannot enter network namespace %s (%s): run as root", path,
			    strerror(-rc));
	return 0;
}

static int make_tap(struct impair_port *port, char *err)
{
	struct ifreq ifr = {0};
	int rc;

	port->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (port->fd < 0) {
		rc = -errno;
		return fail(err, rc,
			    "cannot open /dev/net/tun (%s): run as root, and check that "
			    "the kernel has TUN",
			    strerror(-rc));
	}
	ifr.ifr_flags = IFF_TAP | IFF_NO_PI;
	memcpy(ifr.ifr_name, port->name, IFNAMSIZ);
	if (ioctl(port->fd, TUNSETIFF, &ifr) == 0)
		return 0;
	rc = -errno;
	if (rc == -EBUSY)
		return fail(err, rc,
			    "interface %s is a TAP that another process holds: end that "
			    "process or choose another name",
			    port->name);
	if (rc == -EINVAL || rc == -EEXIST)
		return fail(err, rc,
			    "interface %s is no single-queue TAP or its name is not "
			    "allowed: impair makes its own TAPs, so delete it or choose another "
			    "name",
			    port->name);
	return fail(err, rc, "cannot make the TAP %s (%s): run as root or with CAP_NET_ADMIN",
		    port->name, strerror(-rc));
}

static int set_link(const struct impair_port *port, int mtu, int txqueuelen, char *err)
{
	struct ifreq ifr = {0};
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int rc = 0;

	if (sock < 0)
		return fail(err, -errno, "cannot open a socket: %s", strerror(errno));
	memcpy(ifr.ifr_name, port->name, IFNAMSIZ);
	ifr.ifr_mtu = mtu;
	if (ioctl(sock, SIOCSIFMTU, &ifr) < 0) {
		rc = fail(err, -errno, "%s: MTU %d refused (%s): use 68 to 65521", port->name, mtu,
			  strerror(errno));
		goto out;
	}
	ifr.ifr_qlen = txqueuelen;
	if (ioctl(sock, SIOCSIFTXQLEN, &ifr) < 0) {
		rc = fail(err, -errno, "%s: transmit queue of %d frames refused: %s", port->name,
			  txqueuelen, strerror(errno));
		goto out;
	}
	if (ioctl(sock, SIOCGIFFLAGS, &ifr) == 0) {
		ifr.ifr_flags |= IFF_UP;
		if (ioctl(sock, SIOCSIFFLAGS, &ifr) == 0)
			goto out;
	}
	rc = fail(err, -errno, "%s: cannot bring it up: %s", port->name, strerror(errno));
out:
	close(sock);
	return rc;
}

int impair_port_open(struct impair_port *port, int mtu, int txqueuelen, char *err)
{
	int home, rc;

	port->fd = port->dev_fd = -1;
	home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home < 0) {
		rc = -errno;
		return fail(err, rc, "cannot open /proc/thread-self/ns/net (%s): mount /proc",
			    strerror(-rc));
	}
	rc = port->netns ? enter_netns(port->netns, err) : 0;
	if (rc < 0)
		goto out;
	rc = make_tap(port, err);
	if (rc == 0)
		rc = set_link(port, mtu, txqueuelen, err);
	port->dev_fd = open("/proc/thread-self/net/dev", O_RDONLY | O_CLOEXEC);
	if (setns(home, CLONE_NEWNET) < 0 && rc == 0)
		rc = fail(err, -errno, "cannot return to the first network namespace: %s",
			  strerror(errno));
out:
	close(home);
	if (rc < 0)
		impair_port_close(port);
	return rc;
}

void impair_port_close(struct impair_port *port)
{
	if (port->fd >= 0)
		close(port->fd);
	if (port->dev_fd >= 0)
		close(port->dev_fd);
	port->fd = port->dev_fd = -1;
}

int impair_port_carrier(struct impair_port *port, bool on)
{
	int carrier = on;

	return ioctl(port->fd, TUNSETCARRIER, &carrier) < 0 ? -errno : 0;
}

/* the twelfth number of the interface's line: frames dropped on transmit, which for a TAP means
 * that its queue was full before we read it */
static uint64_t parse_missed(const char *text, const char *name)
{
	size_t len = strlen(name);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		uint64_t n[12];
		int i = 0;

		line += strspn(line, " \n");
		if (strncmp(line, name, len) != 0 || line[len] != ':')
			continue;
		line += len + 1;
		for (char *end; i < 12; i++, line = end) {
			n[i] = strtoull(line, &end, 10);
			if (end == line)
				return 0;
		}
		return n[11];
	}
	return 0;
}

uint64_t impair_port_missed(const struct impair_port *port)
{
	static char text[65536];
	size_t len = 0;
	ssize_t n;

	if (port->dev_fd < 0 || lseek(port->dev_fd, 0, SEEK_SET) < 0)
		return 0;
	while ((n = read(port->dev_fd, text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	return parse_missed(text, port->name);
}
