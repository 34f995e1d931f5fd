// SPDX-License-Identifier: MIT
/*
 * Files of keys, certificates and lists: read with a limit, written whole or not at all.
 */
#include "crypto/file.h"

#include "crypto/objects.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int explain_errno(char *error, const char *path, const char *what, int err)
{
	sm_explain(error, "%s: cannot %s: %s", path, what, strerror(err));
	return -err;
}

static int check_secret_mode(const char *path, const struct stat *st, char *error)
{
	if (!S_ISREG(st->st_mode) || (st->st_mode & 077) == 0)
		return 0;
	sm_explain(error, "%s: a private key that others can reach (mode %04o); cure: chmod 600 %s",
		   path, (unsigned)(st->st_mode & 07777), path);
	return -EPERM;
}

/* Read to the end of @fd; @buf holds @max + 1 bytes */
static ssize_t read_up_to(int fd, char *buf, size_t max)
{
	size_t used = 0;

	while (used <= max) {
		ssize_t n = read(fd, buf + used, max + 1 - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return (ssize_t)used;
		used += (size_t)n;
	}
	return -EFBIG;
}

int sm_file_read(const char *path, size_t max, bool secret, char **ret_data, size_t *ret_len,
		 char *error)
{
	struct stat st;
	char *buf = NULL;
	ssize_t n;
	int err;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	if (fd < 0)
		return explain_errno(error, path, "open", errno);
	err = fstat(fd, &st) == 0 ? 0 : explain_errno(error, path, "examine", errno);
	if (!err && secret)
		err = check_secret_mode(path, &st, error);
	if (err)
		goto out;
	buf = malloc(max + 1);
	if (!buf) {
		err = explain_errno(error, path, "read", ENOMEM);
		goto out;
	}
	n = read_up_to(fd, buf, max);
	if (n == -EFBIG) {
		sm_explain(error, "%s: longer than the %zu bytes that such a file may have", path,
			   max);
		err = -EFBIG;
	} else if (n < 0) {
		err = explain_errno(error, path, "read", (int)-n);
	} else {
		buf[n] = '\0';
		*ret_data = buf;
		*ret_len = (size_t)n;
		buf = NULL;
	}
out:
	sm_file_release(buf, buf ? max : 0);
	close(fd);
	return err;
}

void sm_file_release(char *data, size_t len)
{
	if (!data)
		return;
	sm_wipe(data, len);
	free(data);
}

static int write_all(int fd, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Devices and pipes: there is nothing to appear whole */
static int write_special(const char *path, const void *data, size_t len, char *error)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
	int err;

	if (fd < 0)
		return explain_errno(error, path, "open for writing", errno);
	err = write_all(fd, data, len);
	if (close(fd) != 0 && !err)
		err = -errno;
	return err ? explain_errno(error, path, "write", -err) : 0;
}

/* Its name survives a power failure only once the folder is on the disk */
static int sync_folder(const char *folder)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd) != 0 && errno != EINVAL)
		err = -errno;
	close(fd);
	return err;
}

/* Write, sync and name one file whose temporary name is @temporary */
static int finish_file(int fd, const char *temporary, const char *path, mode_t mode, bool replace,
		       const void *data, size_t len)
{
	int err = fchmod(fd, mode) == 0 ? 0 : -errno;

	if (!err)
		err = write_all(fd, data, len);
	if (!err && fsync(fd) != 0)
		err = -errno;
	if (close(fd) != 0 && !err)
		err = -errno;
	if (err)
		return err;
	if (replace)
		return rename(temporary, path) == 0 ? 0 : -errno;
	if (renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	/* A file system without that flag: a link refuses an existing name just as well. */
	if (link(temporary, path) != 0)
		return -errno;
	(void)unlink(temporary);
	return 0;
}

int sm_file_write(const char *path, mode_t mode, bool replace, const void *data, size_t len,
		  char *error)
{
	const char *slash = strrchr(path, '/');
	int folder_len = slash ? (int)(slash - path) : 1;
	const char *folder_start = !slash ? "." : slash == path ? "/" : path;
	char *temporary = NULL, *folder = NULL;
	struct stat st;
	int fd, err;

	if (stat(path, &st) == 0) {
		if (S_ISDIR(st.st_mode))
			return explain_errno(error, path, "write", EISDIR);
		if (!S_ISREG(st.st_mode))
			return write_special(path, data, len, error);
		if (!replace) {
			sm_explain(error,
				   "%s: exists already and is not overwritten; cure: another "
				   "name, or move it away",
				   path);
			return -EEXIST;
		}
	}
	if (asprintf(&folder, "%.*s", slash == path ? 1 : folder_len, folder_start) < 0)
		folder = NULL;
	if (!folder || asprintf(&temporary, "%s/.shadowmesh-XXXXXX", folder) < 0)
		temporary = NULL;
	err = -ENOMEM;
	if (!temporary)
		goto out;
	fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0) {
		err = explain_errno(error, path, "create", errno);
		goto out;
	}
	err = finish_file(fd, temporary, path, mode, replace, data, len);
	if (err) {
		(void)unlink(temporary);
		(void)explain_errno(error, path, "write", -err);
		goto out;
	}
	err = sync_folder(folder);
	if (err)
		(void)explain_errno(error, folder, "sync", -err);
out:
	free(temporary);
	free(folder);
	return err;
}
