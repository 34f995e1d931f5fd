// SPDX-License-Identifier: MIT
/*
 * The kernel hands each frame to one of a device's readers. So before a device is taken it must be
 * certain that nobody else reads it: the kernel refuses a second reader only where the device has a
 * single queue. For the others, a lock keeps our own daemons apart, and the number of open queues,
 * asked before and after, tells of strangers.
 */
#include "io/tun.h"

#include "io/lock.h"
#include "io/netlink.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Newer than Debian 12's headers */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20u
#define TUN_F_USO6 0x40u
#endif

static int fail(int err, char *error, const char *fmt, ...) SM_PRINTF(3, 4);

static int fail(int err, char *error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(error, SM_TUN_ERROR_MAX, fmt, ap);
	va_end(ap);
	return err;
}

static const char *kind_name(bool tap)
{
	return tap ? "TAP" : "TUN";
}

static int check_name(const char *name, char *error)
{
	const char *number = strchr(name, '%');
	size_t len = strlen(name);

	if (!len || len >= IFNAMSIZ)
		return fail(-EINVAL, error, "an interface name has 1 to %d bytes", IFNAMSIZ - 1);
	if (!strcmp(name, ".") || !strcmp(name, "..") || strpbrk(name, "/: \t\r\n\v\f"))
		return fail(-EINVAL, error,
			    "an interface name has no '/', ':' or white space in it");
	if (number && (strncmp(number, "%d", 2) != 0 || strchr(number + 1, '%')))
		return fail(-EINVAL, error, "an interface name has no '%%' but in one \"%%d\"");
	return 0;
}

static int open_clone(char *error)
{
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	switch (errno) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return fail(-ENOENT, error,
			    "/dev/net/tun is missing: load it with 'modprobe tun', or give the "
			    "container the device (--device /dev/net/tun --cap-add NET_ADMIN)");
	case EACCES:
	case EPERM:
		return fail(-EPERM, error,
			    "/dev/net/tun may not be opened by this user: run as root, or in a "
			    "container allow the device (--device /dev/net/tun)");
	default:
		return fail(-errno, error, "/dev/net/tun: %s", strerror(errno));
	}
}

static int refuse_busy(const char *name, const char *holder, char *error)
{
	return fail(-EBUSY, error,
		    "%s is in use by %s: two readers would steal each other's frames; end it or "
		    "choose another interface name",
		    name, holder);
}

static int take_lock(struct sm_tun *tun, char *error)
{
	char lock[IFNAMSIZ + 8], note[64], holder[SM_HOLDER_MAX];

	snprintf(lock, sizeof(lock), "tun-%s", tun->name);
	snprintf(note, sizeof(note), "shadowmesh (pid %d)", (int)getpid());
	tun->lock_fd = sm_lock_take(lock, note, holder);
	if (tun->lock_fd == -EBUSY)
		return refuse_busy(tun->name, holder, error);
	if (tun->lock_fd < 0)
		return fail(tun->lock_fd, error, "no lock for %s in %s: %s", tun->name,
			    sm_lock_runtime_dir(), strerror(-tun->lock_fd));
	return 0;
}

/* May the device that is there be taken over? */
static int check_existing(const struct sm_tun *tun, const struct sm_link_tun *info, char *error)
{
	char holder[SM_HOLDER_MAX];
	bool tap = tun->mode == SM_MODE_TAP;

	if (!info->is_tun)
		return fail(-EINVAL, error,
			    "%s exists and is neither TAP nor TUN: choose another interface name",
			    tun->name);
	if (info->is_tap != tap)
		return fail(-EINVAL, error,
			    "%s exists as a %s and a %s is wanted: delete it with 'ip link del %s' "
			    "or change the configuration",
			    tun->name, kind_name(info->is_tap), kind_name(tap), tun->name);
	/* One that does not persist is there only while somebody has it open. */
	if (info->queues || !info->persistent) {
		sm_lock_tun_holder(tun->name, holder);
		return refuse_busy(tun->name, holder, error);
	}
	if (tun->queues > 1 && !info->multi_queue)
		return fail(-EINVAL, error,
			    "%s exists without multi_queue and %u workers are wanted: delete it "
			    "with 'ip link del %s' or change the configuration",
			    tun->name, tun->queues, tun->name);
	return 0;
}

/* @ret_info stays as it is where the device is not there yet. */
static int look_at_existing(struct sm_netlink *nl, struct sm_tun *tun, struct sm_link_tun *ret_info,
			    char *error)
{
	int err, ifindex = (int)if_nametoindex(tun->name);

	if (!ifindex)
		return 0;
	err = sm_netlink_tun(nl, ifindex, ret_info);
	if (err == -ENODEV)
		return 0;
	if (err)
		return fail(err, error, "%s: %s", tun->name, sm_netlink_error(nl));
	tun->taken_over = true;
	return check_existing(tun, ret_info, error);
}

static int explain_attach(int err, const struct sm_tun *tun, char *error)
{
	char holder[SM_HOLDER_MAX];

	switch (err) {
	case -EPERM:
	case -EACCES:
		return fail(-EPERM, error,
			    "%s may not be opened: the capability CAP_NET_ADMIN is missing (run as "
			    "root, or give a container --cap-add NET_ADMIN)",
			    tun->name);
	case -EBUSY:
		sm_lock_tun_holder(tun->name, holder);
		return refuse_busy(tun->name, holder, error);
	case -EINVAL:
		return fail(-EINVAL, error,
			    "%s exists as a device of another kind: delete it with 'ip link del "
			    "%s' or change the configuration",
			    tun->name, tun->name);
	default:
		return fail(err, error, "%s: %s", tun->name, strerror(-err));
	}
}

/* Opens one more queue; the first one settles the name. */
static int attach_queue(struct sm_tun *tun, uint32_t i, bool multi_queue, char *error)
{
	const int vnet_hdr_len = SM_VNET_HDR_LEN;
	struct ifreq request = {0};
	unsigned flags = IFF_NO_PI | IFF_VNET_HDR;
	int fd = open_clone(error);

	if (fd < 0)
		return fd;
	tun->fd[i] = fd;
	flags |= tun->mode == SM_MODE_TAP ? IFF_TAP : IFF_TUN;
	if (multi_queue)
		flags |= IFF_MULTI_QUEUE;
	request.ifr_flags = (short)flags;
	memcpy(request.ifr_name, tun->name, IFNAMSIZ);
	if (ioctl(fd, TUNSETIFF, &request) < 0)
		return explain_attach(-errno, tun, error);
	memcpy(tun->name, request.ifr_name, IFNAMSIZ);
	/* A device that was there keeps the last owner's header size and offloads. */
	if (ioctl(fd, TUNSETVNETHDRSZ, &vnet_hdr_len) < 0 || ioctl(fd, TUNSETOFFLOAD, 0ul) < 0)
		return fail(-errno, error, "%s: %s", tun->name, strerror(errno));
	return 0;
}

/* Has a stranger attached to it between the check and now? */
static int check_alone(struct sm_netlink *nl, const struct sm_tun *tun, char *error)
{
	char holder[SM_HOLDER_MAX];
	struct sm_link_tun info;
	int err = sm_netlink_tun(nl, tun->ifindex, &info);

	if (err)
		return fail(err, error, "%s: %s", tun->name, sm_netlink_error(nl));
	/* Kernels before 4.17 do not count. */
	if (!info.is_tun || info.queues <= tun->queues)
		return 0;
	sm_lock_tun_holder(tun->name, holder);
	return refuse_busy(tun->name, holder, error);
}

static int open_device(struct sm_netlink *nl, struct sm_tun *tun, char *error)
{
	bool numbered = strchr(tun->name, '%') != NULL;
	struct sm_link_tun info = {0};
	int err = 0;

	if (!numbered)
		err = take_lock(tun, error);
	if (!err && !numbered)
		err = look_at_existing(nl, tun, &info, error);
	for (uint32_t i = 0; !err && i < tun->queues; i++)
		err = attach_queue(tun, i, info.multi_queue || tun->queues > 1, error);
	if (!err && numbered)
		err = take_lock(tun, error);
	if (err)
		return err;
	tun->ifindex = (int)if_nametoindex(tun->name);
	if (!tun->ifindex)
		return fail(-errno, error, "%s: %s", tun->name, strerror(errno));
	return check_alone(nl, tun, error);
}

int sm_tun_open(const char *name, enum sm_mode mode, uint32_t queues, struct sm_tun *ret_tun,
		char *error)
{
	struct sm_tun tun = {.mode = mode, .queues = queues, .lock_fd = -1};
	struct sm_netlink *nl;
	int err = check_name(name, error);

	if (err)
		return err;
	if (!queues || queues > SM_WORKER_MAX)
		return fail(-EINVAL, error, "a device has 1 to %u queues", SM_WORKER_MAX);
	for (uint32_t i = 0; i < SM_WORKER_MAX; i++)
		tun.fd[i] = -1;
	memcpy(tun.name, name, strlen(name));
	err = sm_netlink_open(&nl);
	if (err)
		return fail(err, error, "netlink: %s", strerror(-err));
	err = open_device(nl, &tun, error);
	sm_netlink_close(nl);
	if (err) {
		sm_tun_close(&tun);
		return err;
	}
	*ret_tun = tun;
	return 0;
}

int sm_tun_set_offload(const struct sm_tun *tun, bool tso, bool uso, bool *ret_tso, bool *ret_uso)
{
	const unsigned long csum = tso || uso ? TUN_F_CSUM : 0,
			    tcp = tso ? TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN : 0,
			    udp = uso ? TUN_F_USO4 | TUN_F_USO6 : 0;

	*ret_tso = *ret_uso = false;
	if (ioctl(tun->fd[0], TUNSETOFFLOAD, csum | tcp | udp) == 0) {
		*ret_tso = tso;
		*ret_uso = uso;
		return 0;
	}
	/* kernels before 6.2 do not know UDP's */
	if (errno != EINVAL || !tso || ioctl(tun->fd[0], TUNSETOFFLOAD, csum | tcp) < 0)
		return -errno;
	*ret_tso = true;
	return 0;
}

void sm_tun_close(struct sm_tun *tun)
{
	for (uint32_t i = 0; i < tun->queues; i++) {
		if (tun->fd[i] >= 0)
			close(tun->fd[i]);
		tun->fd[i] = -1;
	}
	/* Last: whoever gets the lock finds the device free. */
	sm_lock_release(tun->lock_fd);
	tun->lock_fd = -1;
	tun->queues = 0;
}
