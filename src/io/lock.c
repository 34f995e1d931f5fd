// SPDX-License-Identifier: MIT
/*
 * Locks are files under flock(), which the kernel drops with the process. The file's text is for
 * people: it names the holder and decides nothing. Who holds a port or a device is read from /proc.
 */
#include "io/lock.h"

#include "base/clock.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SCAN_TIME_US  (3 * SM_SEC_US) /* of a start that has failed already */
#define LOCK_PATH_MAX 512
#define SOCKETS_MAX   64u /* sockets on one port that are looked for */

const char *sm_lock_runtime_dir(void)
{
	const char *dir = getenv("SHADOWMESH_RUNTIME_DIR");

	return dir && *dir ? dir : SM_RUNTIME_DIR;
}

/* What others wrote is shown on a terminal. */
static void make_printable(char *text)
{
	for (char *c = text; *c; c++) {
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	}
}

static int lock_path(const char *name, char path[LOCK_PATH_MAX])
{
	const char *dir = sm_lock_runtime_dir();
	struct stat ns;
	int len;

	if (!*name || strchr(name, '/'))
		return -EINVAL;
	if (stat("/proc/thread-self/ns/net", &ns) < 0)
		return -errno;
	/* Whatever the umask: users of the control socket have to get through. */
	if (mkdir(dir, 0755) == 0 ? chmod(dir, 0755) < 0 : errno != EEXIST)
		return -errno;
	len = snprintf(path, LOCK_PATH_MAX, "%s/lock-%ju-%s", dir, (uintmax_t)ns.st_ino, name);
	return len < LOCK_PATH_MAX ? 0 : -ENAMETOOLONG;
}

static void read_holder(int fd, char *ret_holder)
{
	ssize_t len = pread(fd, ret_holder, SM_HOLDER_MAX - 1, 0);

	ret_holder[len > 0 ? len : 0] = 0;
	ret_holder[strcspn(ret_holder, "\n")] = 0;
	make_printable(ret_holder);
	if (!*ret_holder)
		snprintf(ret_holder, SM_HOLDER_MAX, "another process");
}

static int write_note(int fd, const char *note)
{
	char text[SM_HOLDER_MAX];
	int len = snprintf(text, sizeof(text), "%s\n", note);
	ssize_t done;

	if (len >= (int)sizeof(text))
		len = (int)sizeof(text) - 1;
	if (ftruncate(fd, 0) < 0)
		return -errno;
	done = pwrite(fd, text, (size_t)len, 0);
	if (done < 0)
		return -errno;
	return done == len ? 0 : -ENOSPC;
}

int sm_lock_take(const char *name, const char *note, char *ret_holder)
{
	char path[LOCK_PATH_MAX];
	int fd, err = lock_path(name, path);

	if (err)
		return err;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		err = errno == EWOULDBLOCK ? -EBUSY : -errno;
		if (err == -EBUSY && ret_holder)
			read_holder(fd, ret_holder);
	} else {
		err = write_note(fd, note);
	}
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

void sm_lock_release(int fd)
{
	int ignored;

	if (fd < 0)
		return;
	/* The file stays: taking it away would let two processes lock two files of one name. */
	ignored = ftruncate(fd, 0);
	(void)ignored;
	close(fd);
}

/* What is looked for in the descriptors of all processes. */
struct quarry {
	const uint64_t *inodes; /* sockets, or */
	uint32_t inode_count;
	const char *ifname; /* a TAP or TUN device of */
	ino_t netns;        /* this network namespace */
};

static bool fd_is_socket(int fd_dir, const char *fd, const struct quarry *q)
{
	char target[64];
	static const char start[] = "socket:[";
	uint64_t inode;
	ssize_t len = readlinkat(fd_dir, fd, target, sizeof(target) - 1);

	if (len <= 0)
		return false;
	target[len] = 0;
	if (strncmp(target, start, sizeof(start) - 1) != 0)
		return false;
	inode = strtoull(target + sizeof(start) - 1, NULL, 10);
	for (uint32_t i = 0; i < q->inode_count; i++) {
		if (q->inodes[i] == inode)
			return true;
	}
	return false;
}

static bool fd_is_tun(int fd_dir, const char *fd, int info_dir, const struct quarry *q)
{
	char text[512], want[32], target[64];
	ssize_t len = readlinkat(fd_dir, fd, target, sizeof(target) - 1);
	int info;

	if (len <= 0)
		return false;
	target[len] = 0;
	if (strcmp(target, "/dev/net/tun") != 0)
		return false;
	info = openat(info_dir, fd, O_RDONLY | O_CLOEXEC);
	if (info < 0)
		return false;
	len = read(info, text, sizeof(text) - 1);
	close(info);
	text[len > 0 ? len : 0] = 0;
	snprintf(want, sizeof(want), "\niff:\t%s\n", q->ifname);
	return strstr(text, want) != NULL;
}

static bool in_netns(int proc, const char *pid, ino_t netns)
{
	char path[64];
	struct stat ns;

	snprintf(path, sizeof(path), "%.20s/ns/net", pid);
	return fstatat(proc, path, &ns, 0) == 0 && ns.st_ino == netns;
}

static bool process_has(int proc, const char *pid, const struct quarry *q, uint64_t until_us)
{
	char path[64];
	bool found = false;
	int info_dir = -1;
	DIR *fds;
	int fd_dir;

	if (q->ifname && !in_netns(proc, pid, q->netns))
		return false;
	snprintf(path, sizeof(path), "%.20s/fd", pid);
	fd_dir = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd_dir < 0)
		return false;
	fds = fdopendir(fd_dir);
	if (!fds) {
		close(fd_dir);
		return false;
	}
	if (q->ifname) {
		snprintf(path, sizeof(path), "%.20s/fdinfo", pid);
		info_dir = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	for (struct dirent *e; !found && (e = readdir(fds));) {
		if (e->d_name[0] == '.')
			continue;
		found = q->ifname ? fd_is_tun(fd_dir, e->d_name, info_dir, q)
				  : fd_is_socket(fd_dir, e->d_name, q);
		if (sm_clock_now_us() > until_us)
			break;
	}
	if (info_dir >= 0)
		close(info_dir);
	closedir(fds);
	return found;
}

static void name_process(int proc, const char *pid, char ret_holder[SM_HOLDER_MAX])
{
	char path[64], comm[64] = "";
	ssize_t len = 0;
	int fd;

	snprintf(path, sizeof(path), "%.20s/comm", pid);
	fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		len = read(fd, comm, sizeof(comm) - 1);
		close(fd);
	}
	comm[len > 0 ? len : 0] = 0;
	comm[strcspn(comm, "\n")] = 0;
	make_printable(comm);
	snprintf(ret_holder, SM_HOLDER_MAX, "%s (pid %.20s)", *comm ? comm : "a process", pid);
}

/*
 * Leaves @ret_holder at "another process" where it is nobody's that we may look at. We ourselves come last:
 * who cannot have a port of IPv6 may have taken that of IPv4 just now.
 */
static void find_holder(const struct quarry *q, char ret_holder[SM_HOLDER_MAX])
{
	uint64_t until_us = sm_clock_now_us() + SCAN_TIME_US;
	DIR *proc = opendir("/proc");
	char self[24];

	snprintf(ret_holder, SM_HOLDER_MAX, "another process");
	if (!proc)
		return;
	snprintf(self, sizeof(self), "%d", (int)getpid());
	for (struct dirent *e; (e = readdir(proc)) && sm_clock_now_us() <= until_us;) {
		if (e->d_name[0] < '0' || e->d_name[0] > '9' || strcmp(e->d_name, self) == 0)
			continue;
		if (process_has(dirfd(proc), e->d_name, q, until_us)) {
			name_process(dirfd(proc), e->d_name, ret_holder);
			goto out;
		}
	}
	if (process_has(dirfd(proc), self, q, until_us))
		name_process(dirfd(proc), self, ret_holder);
out:
	closedir(proc);
}

void sm_lock_tun_holder(const char *ifname, char ret_holder[SM_HOLDER_MAX])
{
	struct quarry q = {.ifname = ifname};
	struct stat ns;

	if (stat("/proc/thread-self/ns/net", &ns) == 0)
		q.netns = ns.st_ino;
	find_holder(&q, ret_holder);
}

/* One line of /proc/net: "0: 0100007F:20FB 00000000:0000 0A ...". Return: false for its headline */
static bool read_socket_line(char *line, uint16_t *ret_port, unsigned *ret_state,
			     uint64_t *ret_inode)
{
	enum { LOCAL = 1, STATE = 3, INODE = 9, COUNT };
	char *field[COUNT], *rest = line, *colon;

	for (int i = 0; i < COUNT; i++) {
		field[i] = strtok_r(rest, " ", &rest);
		if (!field[i])
			return false;
	}
	colon = strchr(field[LOCAL], ':');
	if (!colon)
		return false;
	*ret_port = (uint16_t)strtoul(colon + 1, NULL, 16);
	*ret_state = (unsigned)strtoul(field[STATE], NULL, 16);
	*ret_inode = strtoull(field[INODE], NULL, 10);
	return true;
}

/* Adds the sockets of one table that have @port; a TCP socket counts if it listens. */
static uint32_t collect_sockets(const char *table, bool udp, uint16_t port, uint64_t *inodes,
				uint32_t count, uint64_t until_us)
{
	const unsigned listening = 0x0a;
	char line[512];
	FILE *f = fopen(table, "re");

	if (!f)
		return count;
	while (count < SOCKETS_MAX && sm_clock_now_us() <= until_us &&
	       fgets(line, sizeof(line), f)) {
		uint16_t local_port;
		unsigned state;
		uint64_t inode;

		if (read_socket_line(line, &local_port, &state, &inode) && local_port == port &&
		    (udp || state == listening))
			inodes[count++] = inode;
	}
	fclose(f);
	return count;
}

int sm_lock_port_holder(bool udp, uint16_t port, char ret_holder[SM_HOLDER_MAX])
{
	static const char *const tables[2][2] = {
		{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"},
		{"/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"},
	};
	uint64_t until_us = sm_clock_now_us() + SCAN_TIME_US;
	uint64_t inodes[SOCKETS_MAX];
	struct quarry q = {.inodes = inodes};

	for (uint32_t i = 0; i < 2; i++)
		q.inode_count = collect_sockets(tables[udp][i], udp, port, inodes, q.inode_count,
						until_us);
	if (!q.inode_count)
		return -ENOENT;
	find_holder(&q, ret_holder);
	return 0;
}
