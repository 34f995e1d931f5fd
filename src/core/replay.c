// SPDX-License-Identifier: MIT
/*
 * The replay window: a ring of 64-bit blocks as in RFC 6479, one block larger than the window, so that
 * moving on clears whole blocks and never shifts.
 */
#include "core/lane.h"

#define BLOCK_BITS 64u
#define BLOCKS     (SM_REPLAY_WINDOW / BLOCK_BITS + 1)

static_assert(SM_REPLAY_WINDOW % BLOCK_BITS == 0, "whole blocks");

int sm_replay_check(const struct sm_replay *window, uint64_t number)
{
	if (number == UINT64_MAX)
		return -ERANGE; /* @top could not stand behind it */
	if (number >= window->top)
		return 0;
	if (window->top - number > SM_REPLAY_WINDOW)
		return -ERANGE;
	if (window->bits[number / BLOCK_BITS % BLOCKS] >> number % BLOCK_BITS & 1)
		return -EALREADY;
	return 0;
}

uint64_t sm_replay_accept(struct sm_replay *window, uint64_t number)
{
	uint64_t moved = 0;

	if (number >= window->top) {
		uint64_t newest = window->top > 0 ? (window->top - 1) / BLOCK_BITS : 0;
		uint64_t ahead = SM_MIN(number / BLOCK_BITS - newest, (uint64_t)BLOCKS);

		for (uint64_t i = 1; i <= ahead; i++)
			window->bits[(newest + i) % BLOCKS] = 0;
		moved = number + 1 - window->top;
		window->top = number + 1;
	}
	window->bits[number / BLOCK_BITS % BLOCKS] |= UINT64_C(1) << number % BLOCK_BITS;
	return moved;
}
