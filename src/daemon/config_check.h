// SPDX-License-Identifier: MIT
/*
 * Complaints about a configuration, and the checks that look at more than one key.
 */
#ifndef SM_DAEMON_CONFIG_CHECK_H
#define SM_DAEMON_CONFIG_CHECK_H

#include "daemon/config_key.h"

#include <stdarg.h>

/**
 * struct sm_config_places - Where in the file each thing was said
 * @row: line of each key that was given outside [Peer], 0 if it was not
 */
struct sm_config_places {
	const char *file;
	uint32_t row[SM_CONFIG_ROW_MAX];
	struct sm_config_errors *errors;
};

/** sm_config_complain() - Add an error; @line 0: the file as a whole */
void sm_config_complain(const struct sm_config_places *at, uint32_t line, const char *fmt, ...)
	SM_PRINTF(3, 4);
/** sm_config_warn() - The same, of what may stay */
void sm_config_warn(const struct sm_config_places *at, uint32_t line, const char *fmt, ...)
	SM_PRINTF(3, 4);
void sm_config_vcomplain(const struct sm_config_places *at, uint32_t line, bool warning,
			 const char *fmt, va_list ap) SM_PRINTF(4, 0);

/** sm_config_check() - Do all keys that have good values agree with each other? */
void sm_config_check(const struct sm_config *cfg, const struct sm_config_places *at);

#endif
