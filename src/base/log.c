// SPDX-License-Identifier: MIT
/*
 * Log lines. Each is formatted on the stack and leaves in one write, so that lines of several threads
 * do not mix; what a peer put into it cannot steer a terminal or fake a second line.
 */
#include "base/log.h"
#include "base/text.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define RAW_MAX      1024u /* bytes of text before escaping */
#define TEXT_MAX     2048u /* bytes of text after it */
#define LINE_MAX_LEN (TEXT_MAX + 64u)

static const char cut_mark[] = "...";

static const struct {
	const char *name;
	int priority; /* as in syslog.h */
} levels[] = {
	[SM_LOG_ERROR] = {"error", 3},   [SM_LOG_WARN] = {"warn", 4},
	[SM_LOG_NOTICE] = {"notice", 5}, [SM_LOG_INFO] = {"info", 6},
	[SM_LOG_DEBUG] = {"debug", 7},
};
static_assert(SM_ARRAY_SIZE(levels) == SM_LOG_LEVEL_COUNT, "each level has a name");

static _Atomic int level_now = SM_LOG_INFO;

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static void (*sink_fn)(void *arg, enum sm_log_level level, const char *text);
static void *sink_arg;

const char *sm_log_level_name(enum sm_log_level level)
{
	return (unsigned)level < SM_LOG_LEVEL_COUNT ? levels[level].name : "unknown";
}

int sm_log_level_parse(const char *name, enum sm_log_level *ret_level)
{
	for (unsigned i = 0; i < SM_LOG_LEVEL_COUNT; i++) {
		if (strcmp(name, levels[i].name) == 0) {
			*ret_level = (enum sm_log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

void sm_log_set_level(enum sm_log_level level)
{
	atomic_store_explicit(&level_now, (int)level, memory_order_relaxed);
}

enum sm_log_level sm_log_get_level(void)
{
	return (enum sm_log_level)atomic_load_explicit(&level_now, memory_order_relaxed);
}

void sm_log_set_sink(void (*sink)(void *arg, enum sm_log_level level, const char *text), void *arg)
{
	pthread_mutex_lock(&sink_lock);
	sink_fn = sink;
	sink_arg = arg;
	pthread_mutex_unlock(&sink_lock);
}

/*
 * Copies printable characters and escapes the others; ends with cut_mark if not all of it fits or
 * @cut says that it is a part already.
 */
static void escape(const char *raw, size_t len, bool cut, char out[TEXT_MAX])
{
	const size_t end = TEXT_MAX - sizeof(cut_mark);
	size_t pos = 0;

	for (size_t i = 0; i < len;) {
		size_t n = sm_text_char_len(raw + i, len - i);

		if (pos + SM_MAX(n, 4u) > end) {
			cut = true;
			break;
		}
		if (n > 0) {
			memcpy(out + pos, raw + i, n);
			pos += n;
			i += n;
		} else if (cut && len - i < 4 && (uint8_t)raw[i] >= 0xc0) {
			break; /* the cut went through a character */
		} else {
			pos += (size_t)snprintf(out + pos, 5, "\\x%02x", (unsigned)(uint8_t)raw[i]);
			i++;
		}
	}
	memcpy(out + pos, cut ? cut_mark : "", cut ? strlen(cut_mark) + 1 : 1);
}

static bool give_to_sink(enum sm_log_level level, const char *text)
{
	bool taken;

	pthread_mutex_lock(&sink_lock);
	taken = sink_fn != NULL;
	if (taken)
		sink_fn(sink_arg, level, text);
	pthread_mutex_unlock(&sink_lock);
	return taken;
}

static void write_line(enum sm_log_level level, const char *text)
{
	const char *journal = getenv("JOURNAL_STREAM");
	char line[LINE_MAX_LEN], stamp[32] = "";
	struct timespec now;
	struct tm tm;
	int len;

	if (journal && journal[0] != '\0') {
		len = snprintf(line, sizeof(line), "<%d>%s\n", levels[level].priority, text);
	} else {
		if (clock_gettime(CLOCK_REALTIME, &now) < 0 || !localtime_r(&now.tv_sec, &tm) ||
		    strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S", &tm) == 0)
			now.tv_nsec = 0;
		len = snprintf(line, sizeof(line), "%s.%03u %-5s %s\n", stamp,
			       (unsigned)(now.tv_nsec / 1000000) % 1000, levels[level].name, text);
	}
	if (len > 0 && write(STDERR_FILENO, line, SM_MIN((size_t)len, sizeof(line) - 1)) < 0)
		return; /* there is nobody left to tell */
}

void sm_log(enum sm_log_level level, const char *fmt, ...)
{
	char raw[RAW_MAX], text[TEXT_MAX];
	int saved = errno, len;
	va_list ap;

	if ((unsigned)level >= SM_LOG_LEVEL_COUNT || level > sm_log_get_level())
		return;
	va_start(ap, fmt);
	len = vsnprintf(raw, sizeof(raw), fmt, ap);
	va_end(ap);
	if (len >= 0) {
		escape(raw, SM_MIN((size_t)len, sizeof(raw) - 1), (size_t)len >= sizeof(raw), text);
		if (!give_to_sink(level, text))
			write_line(level, text);
	}
	errno = saved;
}

#define LINE_MILLI UINT64_C(1000)
#define MILLI_US   (60 * SM_SEC_US / LINE_MILLI) /* a milli-line takes that long at one a minute */

static void refill(struct sm_log_limit *limit, uint64_t now_us, uint64_t full, uint32_t per_minute)
{
	uint64_t elapsed = now_us > limit->last_us ? now_us - limit->last_us : 0, gained;

	if (per_minute == 0 || limit->tokens_milli >= full) {
		limit->last_us = SM_MAX(now_us, limit->last_us);
		return;
	}
	if (elapsed > full * MILLI_US / per_minute) {
		limit->tokens_milli = (uint32_t)full;
		limit->last_us = now_us;
		return;
	}
	gained = elapsed * per_minute / MILLI_US;
	limit->tokens_milli = (uint32_t)SM_MIN(limit->tokens_milli + gained, full);
	/* Only the time that was paid out, so that frequent calls lose no fractions. */
	limit->last_us += (gained * MILLI_US + per_minute - 1) / per_minute;
}

bool sm_log_allow(struct sm_log_limit *limit, uint64_t now_us, uint32_t burst, uint32_t per_minute,
		  uint32_t *ret_suppressed)
{
	uint64_t full = SM_MIN(burst * LINE_MILLI, (uint64_t)UINT32_MAX);

	if (!limit->started) {
		limit->started = true;
		limit->last_us = now_us;
		limit->tokens_milli = (uint32_t)full;
	}
	refill(limit, now_us, full, per_minute);
	if (limit->tokens_milli < LINE_MILLI) {
		if (limit->suppressed < UINT32_MAX)
			limit->suppressed++;
		return false;
	}
	limit->tokens_milli -= (uint32_t)LINE_MILLI;
	if (ret_suppressed)
		*ret_suppressed = limit->suppressed;
	limit->suppressed = 0;
	return true;
}
