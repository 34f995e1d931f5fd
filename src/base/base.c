// SPDX-License-Identifier: MIT
/*
 * Handling of secrets in memory: wiping that stays, comparing that takes the same time for all.
 */
#include "base/base.h"

#include <string.h>

void sm_wipe(void *mem, size_t len)
{
	if (len > 0)
		explicit_bzero(mem, len);
}

bool sm_equal_ct(const void *a, const void *b, size_t len)
{
	const uint8_t *x = a, *y = b;
	uint32_t diff = 0;

	for (size_t i = 0; i < len; i++) {
		diff |= (uint32_t)(x[i] ^ y[i]);
		/* The compiler must not know that the rest cannot matter any more. */
		__asm__("" : "+r"(diff));
	}
	return diff == 0;
}
