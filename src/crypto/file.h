// SPDX-License-Identifier: MIT
/*
 * Files of keys, certificates and lists: read with a limit, written whole or not at all.
 */
#ifndef SM_CRYPTO_FILE_H
#define SM_CRYPTO_FILE_H

#include "base/base.h"

#include <sys/types.h>

/**
 * sm_file_read() - Read a whole file
 * @max: bytes; a longer file is refused
 * @secret: refuse a regular file that group or others may touch
 * @ret_data: allocated, a NUL stands behind the last byte; free with sm_file_release()
 * @error: SM_CERT_ERROR_MAX bytes for a sentence that names cause and cure; may be NULL
 * Return: 0; -EPERM the mode of a secret file; -EFBIG longer than @max; what open() and read() say
 */
SM_MUST_CHECK int sm_file_read(const char *path, size_t max, bool secret, char **ret_data,
			       size_t *ret_len, char *error);

/** sm_file_release() - Wipe and free what sm_file_read() gave; NULL is fine */
void sm_file_release(char *data, size_t len);

/**
 * sm_file_write() - Write a file so that it appears whole, and is on the disk, or not at all
 * @mode: of the new file, whatever the umask
 * @replace: an existing file may be replaced, else it is refused; an existing device or pipe is
 *           written to in either case
 * Return: 0; -EEXIST; what the system says, ENOSPC among it; then nothing is left behind
 */
SM_MUST_CHECK int sm_file_write(const char *path, mode_t mode, bool replace, const void *data,
				size_t len, char *error);

#endif
