// SPDX-License-Identifier: MIT
/*
 * Without root there is neither a namespace nor a usable /dev/net/tun: the tests are skipped then.
 */
#include "netns.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static char runtime_dir[] = "/tmp/shadowmesh-test-XXXXXX";

static void give_up(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void set_loopback_up(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		give_up("loopback");
	close(fd);
}

void netns_enter(void)
{
	if (geteuid() != 0) {
		fprintf(stderr, "skipped: not root\n");
		exit(77);
	}
	if (unshare(CLONE_NEWNET) < 0)
		give_up("unshare");
	set_loopback_up();
	if (!mkdtemp(runtime_dir) || setenv("SHADOWMESH_RUNTIME_DIR", runtime_dir, 1) < 0)
		give_up(runtime_dir);
}

void netns_leave(void)
{
	DIR *dir = opendir(runtime_dir);

	for (struct dirent *e; dir && (e = readdir(dir));) {
		if (e->d_name[0] != '.' && unlinkat(dirfd(dir), e->d_name, 0) < 0)
			give_up(e->d_name);
	}
	if (dir)
		closedir(dir);
	rmdir(runtime_dir);
}

const char *netns_runtime_dir(void)
{
	return runtime_dir;
}
