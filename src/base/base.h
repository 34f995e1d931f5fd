// SPDX-License-Identifier: MIT
/*
 * What every file may use: attributes, small arithmetic, limits of time.
 */
#ifndef SM_BASE_BASE_H
#define SM_BASE_BASE_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SM_MUST_CHECK        __attribute__((warn_unused_result))
#define SM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

#define SM_ARRAY_SIZE(a)                   (sizeof(a) / sizeof((a)[0]))
#define SM_MIN(a, b)                       ((a) < (b) ? (a) : (b))
#define SM_MAX(a, b)                       ((a) > (b) ? (a) : (b))
#define SM_CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define SM_MSEC_US UINT64_C(1000)
#define SM_SEC_US  UINT64_C(1000000)

/* A point in time that never comes; microseconds of CLOCK_BOOTTIME as everywhere. */
#define SM_NEVER UINT64_MAX

/** sm_load32() - Four bytes as they stand, for comparing and hashing; sm_load64() - eight */
static inline uint32_t sm_load32(const uint8_t *data)
{
	uint32_t word;

	memcpy(&word, data, sizeof(word));
	return word;
}

static inline uint64_t sm_load64(const uint8_t *data)
{
	uint64_t word;

	memcpy(&word, data, sizeof(word));
	return word;
}

/**
 * sm_wipe() - Overwrite a secret in a way that the compiler keeps
 * @mem: memory, may be NULL when @len is 0
 * @len: bytes
 */
void sm_wipe(void *mem, size_t len);

/**
 * sm_equal_ct() - Compare two secrets in constant time
 * Return: true if the @len bytes agree
 */
bool sm_equal_ct(const void *a, const void *b, size_t len);

#endif
