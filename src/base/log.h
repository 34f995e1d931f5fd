// SPDX-License-Identifier: MIT
/*
 * Log lines to stderr, or to the journal with its priority prefixes.
 *
 * Log once, where the decision is made. Lines that a peer can trigger go through a limit.
 */
#ifndef SM_BASE_LOG_H
#define SM_BASE_LOG_H

#include "base/base.h"

enum sm_log_level {
	SM_LOG_ERROR,
	SM_LOG_WARN,
	SM_LOG_NOTICE,
	SM_LOG_INFO,
	SM_LOG_DEBUG,
	SM_LOG_LEVEL_COUNT,
};

/** sm_log_level_name() - Return: "error" ... "debug" */
const char *sm_log_level_name(enum sm_log_level level);

/** sm_log_level_parse() - Return: 0, -EINVAL */
SM_MUST_CHECK int sm_log_level_parse(const char *name, enum sm_log_level *ret_level);

/** sm_log_set_level() - Lines above @level are dropped; the default is SM_LOG_INFO */
void sm_log_set_level(enum sm_log_level level);
enum sm_log_level sm_log_get_level(void);

/**
 * sm_log_set_sink() - Send finished lines somewhere else (tests)
 * @sink: gets the level and the text without line feed; NULL restores stderr
 *
 * stderr lines carry "<N>" priorities when JOURNAL_STREAM is set, else a local time stamp.
 */
void sm_log_set_sink(void (*sink)(void *arg, enum sm_log_level level, const char *text), void *arg);

/** sm_log() - One line, thread-safe, control characters in it are escaped */
void sm_log(enum sm_log_level level, const char *fmt, ...) SM_PRINTF(2, 3);

#define sm_error(...)  sm_log(SM_LOG_ERROR, __VA_ARGS__)
#define sm_warn(...)   sm_log(SM_LOG_WARN, __VA_ARGS__)
#define sm_notice(...) sm_log(SM_LOG_NOTICE, __VA_ARGS__)
#define sm_info(...)   sm_log(SM_LOG_INFO, __VA_ARGS__)
#define sm_debug(...)  sm_log(SM_LOG_DEBUG, __VA_ARGS__)

/**
 * struct sm_log_limit - Token bucket for one kind of line (zero-initialise)
 * @tokens_milli: what is left, in thousandths of a line
 * @suppressed:   lines swallowed since the last one that was let through
 */
struct sm_log_limit {
	uint64_t last_us;
	uint32_t tokens_milli;
	uint32_t suppressed;
	bool started;
};

/**
 * sm_log_allow() - May one more line of this kind be written?
 * @burst: lines at once; @per_minute: lines a minute after that
 * @ret_suppressed: lines swallowed since, to be mentioned; may be NULL
 * Return: true if so
 */
bool sm_log_allow(struct sm_log_limit *limit, uint64_t now_us, uint32_t burst, uint32_t per_minute,
		  uint32_t *ret_suppressed);

#endif
