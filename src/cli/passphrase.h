// SPDX-License-Identifier: MIT
/*
 * Passphrases from a file or from the terminal, without echo.
 */
#ifndef SM_CLI_PASSPHRASE_H
#define SM_CLI_PASSPHRASE_H

#include "base/base.h"

#define SM_PASSPHRASE_SIZE 1024u /* bytes, NUL included */

/** struct sm_passphrase - @file: first line of it, "-" for standard input, NULL for the terminal; @what: names the key */
struct sm_passphrase {
	const char *file, *what;
};

/** sm_passphrase_read() - For sm_key_load(); @arg: struct sm_passphrase; Return: 0, -errno (told on stderr) */
SM_MUST_CHECK int sm_passphrase_read(void *arg, char *buf, size_t size);

/** sm_passphrase_choose() - For a new key: asked twice on the terminal; Return: as sm_passphrase_read() */
SM_MUST_CHECK int sm_passphrase_choose(struct sm_passphrase *self, char *buf, size_t size);

#endif
