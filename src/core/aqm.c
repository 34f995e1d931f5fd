// SPDX-License-Identifier: MIT
#include "core/aqm.h"

#define COUNT_MAX 400u /* one a millisecond */

static uint32_t root(uint32_t n)
{
	uint32_t r = 1;

	while ((r + 1) * (r + 1) <= n)
		r++;
	return r;
}

void sm_aqm_look(struct sm_aqm *aqm, bool empty, uint64_t now_us)
{
	if (empty) {
		if (aqm->since_us != 0)
			aqm->count /= 2;
		aqm->since_us = 0;
	} else if (aqm->since_us == 0) {
		aqm->since_us = SM_MAX(now_us, UINT64_C(1));
		aqm->next_us = now_us + SM_AQM_US;
	}
}

bool sm_aqm_due(struct sm_aqm *aqm, uint64_t now_us)
{
	if (aqm->since_us == 0 || now_us < aqm->next_us)
		return false;
	aqm->count = SM_MIN(aqm->count + 1, COUNT_MAX);
	aqm->next_us = now_us + SM_AQM_US / root(aqm->count);
	return true;
}
