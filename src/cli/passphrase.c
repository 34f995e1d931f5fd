// SPDX-License-Identifier: MIT
/*
 * Passphrases from a file or from the terminal, without echo.
 */
#include "cli/passphrase.h"

#include "crypto/cert.h"
#include "crypto/file.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <termios.h>
#include <unistd.h>

/* One line without its end; too long is an error, and so is nothing */
static int read_line(int fd, char *buf, size_t size)
{
	size_t used = 0;

	for (;;) {
		char c;
		ssize_t n = read(fd, &c, 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0 || c == '\n')
			break;
		if (used == size - 1)
			return -EMSGSIZE;
		buf[used++] = c;
	}
	if (used && buf[used - 1] == '\r')
		used--;
	buf[used] = '\0';
	return used ? 0 : -ENODATA;
}

static int from_file(const struct sm_passphrase *self, char *buf, size_t size)
{
	char error[SM_CERT_ERROR_MAX];
	char *data;
	size_t len, line;
	int err;

	if (strcmp(self->file, "-") == 0)
		return read_line(STDIN_FILENO, buf, size);
	err = sm_file_read(self->file, size, true, &data, &len, error);
	if (err) {
		fprintf(stderr, "shadowmesh: %s\n", error);
		return err;
	}
	line = strcspn(data, "\r\n");
	if (line == 0 || line >= size) {
		fprintf(stderr, "shadowmesh: %s: its first line is no passphrase\n", self->file);
		err = line ? -EMSGSIZE : -ENODATA;
	} else {
		memcpy(buf, data, line);
		buf[line] = '\0';
	}
	sm_file_release(data, len);
	return err;
}

/* Signals wait meanwhile, so that an interrupted prompt does not leave a silent terminal behind. */
static int ask(const char *prompt, const char *what, char *buf, size_t size)
{
	struct termios before, silent;
	sigset_t hold, old;
	int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	int err;

	if (fd < 0 || tcgetattr(fd, &before) != 0) {
		fprintf(stderr,
			"shadowmesh: no terminal to ask for the passphrase of %s; cure: "
			"--passphrase-file\n",
			what);
		if (fd >= 0)
			close(fd);
		return -ENOTTY;
	}
	silent = before;
	silent.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
	sigemptyset(&hold);
	sigaddset(&hold, SIGINT);
	sigaddset(&hold, SIGTERM);
	sigaddset(&hold, SIGTSTP);
	sigprocmask(SIG_BLOCK, &hold, &old);
	tcsetattr(fd, TCSAFLUSH, &silent);
	dprintf(fd, "%s %s: ", prompt, what);
	err = read_line(fd, buf, size);
	tcsetattr(fd, TCSAFLUSH, &before);
	dprintf(fd, "\n");
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(fd);
	return err;
}

int sm_passphrase_read(void *arg, char *buf, size_t size)
{
	const struct sm_passphrase *self = arg;

	return self->file ? from_file(self, buf, size)
			  : ask("Passphrase of", self->what, buf, size);
}

int sm_passphrase_choose(struct sm_passphrase *self, char *buf, size_t size)
{
	char again[SM_PASSPHRASE_SIZE];
	int err = self->file ? from_file(self, buf, size)
			     : ask("New passphrase of", self->what, buf, size);

	if (err || self->file)
		return err;
	err = ask("The same again, of", self->what, again, sizeof(again));
	if (!err && strcmp(buf, again) != 0) {
		fprintf(stderr, "shadowmesh: the two passphrases differ\n");
		err = -EINVAL;
	}
	sm_wipe(again, sizeof(again));
	return err;
}
