// SPDX-License-Identifier: MIT
/*
 * Bursts cost nothing; a queue that stands costs one segment, and more the longer it stands.
 */
#include "core/aqm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define BEGIN_US (1000 * SM_SEC_US)

/* Return: segments lost in @us of a queue that is looked at every 100 us and never empties */
static uint32_t stand(struct sm_aqm *aqm, uint64_t *now_us, uint64_t us)
{
	uint32_t lost = 0;

	for (uint64_t end_us = *now_us + us; *now_us < end_us; *now_us += 100) {
		sm_aqm_look(aqm, false, *now_us);
		lost += sm_aqm_due(aqm, *now_us);
	}
	return lost;
}

static void test_bursts_are_free(void **state)
{
	struct sm_aqm aqm = {0};
	uint64_t now_us = BEGIN_US;

	(void)state;
	assert_false(sm_aqm_due(&aqm, now_us));
	for (uint32_t i = 0; i < 1000; i++) {
		assert_int_equal(stand(&aqm, &now_us, SM_AQM_US - 100), 0);
		sm_aqm_look(&aqm, true, now_us);
		assert_false(sm_aqm_due(&aqm, now_us + 10 * SM_SEC_US));
	}
}

/* After a halt of the whole machine nothing is known of the time between. */
static void test_a_halt_is_not_standing(void **state)
{
	struct sm_aqm aqm = {0};
	uint64_t now_us = BEGIN_US;

	(void)state;
	sm_aqm_look(&aqm, true, now_us);
	now_us += 10 * SM_SEC_US;
	assert_int_equal(stand(&aqm, &now_us, SM_AQM_US - 100), 0);
}

static void test_standing(void **state)
{
	struct sm_aqm aqm = {0};
	uint64_t now_us = BEGIN_US;
	uint32_t first, second, later;

	(void)state;
	assert_int_equal(stand(&aqm, &now_us, SM_AQM_US), 0);
	first = stand(&aqm, &now_us, 100);
	assert_int_equal(first, 1);
	first = stand(&aqm, &now_us, 200 * SM_MSEC_US);
	second = stand(&aqm, &now_us, 200 * SM_MSEC_US);
	assert_in_range(first, 10, 40);
	assert_true(second > first);
	/* never more than one a millisecond */
	(void)stand(&aqm, &now_us, 30 * SM_SEC_US);
	later = stand(&aqm, &now_us, SM_SEC_US);
	assert_in_range(later, 900, 1000);
	/* it helped: the next time begins with less */
	sm_aqm_look(&aqm, true, now_us);
	assert_int_equal(stand(&aqm, &now_us, SM_AQM_US), 0);
	assert_in_range(stand(&aqm, &now_us, 50 * SM_MSEC_US), 30, 45);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bursts_are_free),
		cmocka_unit_test(test_a_halt_is_not_standing),
		cmocka_unit_test(test_standing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
