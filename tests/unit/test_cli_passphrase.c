// SPDX-License-Identifier: MIT
/*
 * Passphrases from files, from standard input and from a terminal, which is a pseudo-terminal here.
 */
#include "cli/passphrase.h"

#include "capture.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>

static char dir[64], path[96];
static struct capture got;

static int set_up(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/sm-passphrase-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/p", dir);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir);
}

static const struct {
	const char *text;
	int err;
	const char *passphrase;
} rows[] = {
	{"horse\n", 0, "horse"},
	{"horse", 0, "horse"},
	{"horse\r\n", 0, "horse"},
	{"two words \n", 0, "two words "},
	{"horse\nsecond\n", 0, "horse"},
	{"\n", -ENODATA, NULL},
	{"", -ENODATA, NULL},
	{"\nhorse\n", -ENODATA, NULL},
	{"123456789012345\n", 0, "123456789012345"}, /* as long as fits */
	{"1234567890123456\n", -EMSGSIZE, NULL},
};

static void test_file(void **state)
{
	struct sm_passphrase self = {path, "the key"};
	char buf[16];

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		int read_err, choose_err;

		assert_int_equal(write(fd, rows[i].text, strlen(rows[i].text)),
				 strlen(rows[i].text));
		close(fd);
		capture_begin(&got);
		choose_err = sm_passphrase_choose(&self, buf, sizeof(buf));
		read_err = sm_passphrase_read(&self, buf, sizeof(buf));
		capture_end(&got);
		assert_int_equal(choose_err, read_err);
		assert_int_equal(read_err != 0, rows[i].err != 0);
		if (rows[i].err)
			assert_non_null(strstr(got.err, path)); /* and says which file */
		else
			assert_string_equal(buf, rows[i].passphrase);
	}
}

static void test_bad_file(void **state)
{
	struct sm_passphrase self = {path, "the key"};
	char buf[16];

	(void)state;
	unlink(path);
	capture_begin(&got);
	assert_int_equal(sm_passphrase_read(&self, buf, sizeof(buf)), -ENOENT);
	assert_int_equal(close(open(path, O_WRONLY | O_CREAT, 0600)), 0);
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(sm_passphrase_read(&self, buf, sizeof(buf)), -EPERM);
	capture_end(&got);
	assert_non_null(strstr(got.err, path));
}

static void test_standard_input(void **state)
{
	struct sm_passphrase self = {"-", "the key"};
	const int before = dup(STDIN_FILENO);
	char buf[16];

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		int ends[2];

		assert_int_equal(pipe(ends), 0);
		assert_int_equal(write(ends[1], rows[i].text, strlen(rows[i].text)),
				 strlen(rows[i].text));
		close(ends[1]);
		assert_int_equal(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
		close(ends[0]);
		assert_int_equal(sm_passphrase_read(&self, buf, sizeof(buf)), rows[i].err);
		if (!rows[i].err)
			assert_string_equal(buf, rows[i].passphrase);
	}
	assert_int_equal(dup2(before, STDIN_FILENO), STDIN_FILENO);
	close(before);
}

/* -- at a terminal of its own: a child has it, the test types -- */

static bool echoes(int fd)
{
	struct termios t;

	assert_int_equal(tcgetattr(fd, &t), 0);
	return t.c_lflag & ECHO;
}

/* Return: the master; the child has the terminal, and ends with what sm_passphrase_... returned, negated */
static int at_terminal(bool choose, const char *expected, pid_t *ret_pid)
{
	struct sm_passphrase self = {NULL, "the key"};
	const int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	char buf[16];

	assert_true(master >= 0);
	assert_int_equal(grantpt(master) | unlockpt(master), 0);
	(void)fflush(NULL);
	*ret_pid = fork();
	assert_true(*ret_pid >= 0);
	if (*ret_pid == 0) {
		int slave, err;

		if (setsid() < 0)
			_exit(200);
		slave = open(ptsname(master), O_RDWR);
		if (slave < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
			_exit(201);
		err = choose ? sm_passphrase_choose(&self, buf, sizeof(buf))
			     : sm_passphrase_read(&self, buf, sizeof(buf));
		if (!echoes(slave))
			_exit(202); /* it must be as before */
		if (!err && strcmp(buf, expected) != 0)
			_exit(203);
		_exit(-err);
	}
	return master;
}

/* Reads what the terminal shows until @prompt, then types */
static void type_at(int master, const char *prompt, const char *text)
{
	char shown[512];
	size_t len = 0;

	do {
		ssize_t n = read(master, shown + len, sizeof(shown) - 1 - len);

		assert_true(n > 0);
		len += (size_t)n;
		shown[len] = '\0';
	} while (!strstr(shown, prompt));
	assert_false(echoes(master));
	assert_null(strstr(shown, "horse")); /* nor what was typed before */
	assert_int_equal(write(master, text, strlen(text)), strlen(text));
}

static int ended(pid_t pid, int master)
{
	char rest[256];
	int status;

	while (read(master, rest, sizeof(rest)) > 0) /* EIO when the child has gone */
		;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(master);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_terminal(void **state)
{
	static const struct {
		const char *first, *second; /* NULL: it is asked once */
		int err;
	} typed[] = {
		{"horse\n", NULL, 0},
		{"horse\n", "horse\n", 0},
		{"horse\n", "house\n", EINVAL},
		{"\n", NULL, ENODATA},
		{"1234567890123456\n", NULL, EMSGSIZE},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(typed); i++) {
		pid_t pid;
		const int master = at_terminal(typed[i].second, "horse", &pid);

		if (typed[i].second) {
			type_at(master, "New passphrase of the key: ", typed[i].first);
			type_at(master, "The same again, of the key: ", typed[i].second);
		} else {
			type_at(master, "Passphrase of the key: ", typed[i].first);
		}
		assert_int_equal(ended(pid, master), typed[i].err);
	}
}

static void test_no_terminal(void **state)
{
	struct sm_passphrase self = {NULL, "the key"};
	char buf[16], said[256];
	int err[2], status;
	pid_t pid;
	ssize_t n;

	(void)state;
	assert_int_equal(pipe(err), 0);
	(void)fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (setsid() < 0 || dup2(err[1], STDERR_FILENO) < 0)
			_exit(200);
		_exit(-sm_passphrase_read(&self, buf, sizeof(buf)));
	}
	close(err[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), ENOTTY);
	n = read(err[0], said, sizeof(said) - 1);
	assert_true(n > 0);
	said[n] = '\0';
	assert_non_null(strstr(said, "no terminal to ask for the passphrase of the key"));
	close(err[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_file),        cmocka_unit_test(test_bad_file),
		cmocka_unit_test(test_terminal),    cmocka_unit_test(test_standard_input),
		cmocka_unit_test(test_no_terminal),
	};

	return cmocka_run_group_tests_name("passphrase", tests, set_up, tear_down);
}
