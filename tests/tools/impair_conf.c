// SPDX-License-Identifier: MIT
/*
 * Settings of the impaired wire: one table of keys, human units in and out.
 */
#include "impair.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define UINT_MAX_SANE (1ull << 40)
#define TIME_MAX_NS   (3600 * IMPAIR_NS_PER_S)
#define RATE_MAX_BPS  1e12

enum kind {
	KIND_TIME,
	KIND_CHANCE,
	KIND_RATE,
	KIND_BYTES,
	KIND_UINT,
	KIND_BOOL,
	KIND_BURST,
	KIND_QUEUE
};

struct key {
	const char *name;
	enum kind kind;
	size_t offset;
	uint64_t min, max; /* KIND_UINT */
};

#define FIELD(f) offsetof(struct impair_conf, f)

static const struct key keys[] = {
	{"delay", KIND_TIME, FIELD(delay_ns), 0, 0},
	{"jitter", KIND_TIME, FIELD(jitter_ns), 0, 0},
	{"jitter-reorders", KIND_BOOL, FIELD(jitter_reorders), 0, 0},
	{"loss", KIND_CHANCE, FIELD(loss), 0, 0},
	{"burst", KIND_BURST, FIELD(burst_enter), 0, 0},
	{"duplicate", KIND_CHANCE, FIELD(duplicate), 0, 0},
	{"corrupt", KIND_CHANCE, FIELD(corrupt), 0, 0},
	{"corrupt-bits", KIND_UINT, FIELD(corrupt_bits), 1, 1000},
	{"reorder", KIND_CHANCE, FIELD(reorder), 0, 0},
	{"reorder-gap", KIND_UINT, FIELD(reorder_gap), 0, 1000000},
	{"reorder-delay", KIND_TIME, FIELD(reorder_delay_ns), 0, 0},
	{"rate", KIND_RATE, FIELD(rate_bps), 0, 0},
	{"bucket", KIND_BYTES, FIELD(bucket_bytes), 0, 0},
	{"queue", KIND_QUEUE, FIELD(queue_frames), 0, 0},
};

#define KEY_COUNT (sizeof(keys) / sizeof(keys[0]))

struct unit {
	const char *name;
	double factor;
};

static const struct unit time_units[] = {
	{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {NULL, 0}};
static const struct unit chance_units[] = {{"%", 0.01}, {NULL, 0}};
static const struct unit rate_units[] = {
	{"bit", 1}, {"kbit", 1e3}, {"Mbit", 1e6}, {"Gbit", 1e9}, {NULL, 0}};
static const struct unit byte_units[] = {
	{"", 1},       {"B", 1},         {"kB", 1e3},         {"MB", 1e6}, {"GB", 1e9},
	{"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}, {NULL, 0}};

static int refuse(char *err, const char *what, const char *val, const char *cure)
{
	snprintf(err, IMPAIR_ERR_LEN, "\"%.40s\" is not %s: %s", val, what, cure);
	return -EINVAL;
}

/* digits with at most one point, then one of the units; "0" and "off" need none */
static int parse_scaled(const char *val, const struct unit *units, double *ret_x)
{
	size_t digits = strspn(val, "0123456789.");
	char *end;
	double x;

	if (strcmp(val, "off") == 0 || strcmp(val, "0") == 0) {
		*ret_x = 0;
		return 0;
	}
	if (digits == 0 || digits > 20)
		return -EINVAL;
	x = strtod(val, &end);
	if (end != val + digits)
		return -EINVAL;
	for (; units->name; units++) {
		if (strcasecmp(end, units->name) == 0) {
			*ret_x = x * units->factor;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_time(const char *val, uint64_t *ret_ns, char *err)
{
	double x;

	if (parse_scaled(val, time_units, &x) < 0 || x > (double)TIME_MAX_NS)
		return refuse(err, "a time", val, "write e.g. 10ms, 250us, 1.5s (at most 3600s)");
	*ret_ns = (uint64_t)(x + 0.5);
	return 0;
}

static int parse_chance(const char *val, double *ret_p, char *err)
{
	double x;

	if (parse_scaled(val, chance_units, &x) < 0 || x > 1)
		return refuse(err, "a probability", val, "write 0% to 100%, e.g. 1% or 0.05%");
	*ret_p = x;
	return 0;
}

static int parse_rate(const char *val, uint64_t *ret_bps, char *err)
{
	double x;

	if (parse_scaled(val, rate_units, &x) < 0 || x > RATE_MAX_BPS || (x > 0 && x < 1))
		return refuse(err, "a rate", val,
			      "write e.g. 512kbit, 100Mbit, 1Gbit (bits per second), or off");
	*ret_bps = (uint64_t)(x + 0.5);
	return 0;
}

int impair_parse_bytes(const char *val, uint64_t *ret_bytes, char *err)
{
	double x;

	if (parse_scaled(val, byte_units, &x) < 0 || x > (double)UINT_MAX_SANE)
		return refuse(err, "a number of bytes", val,
			      "write e.g. 1500, 256KB (1000s) or 256KiB (1024s)");
	*ret_bytes = (uint64_t)(x + 0.5);
	return 0;
}

int impair_parse_uint(const char *val, uint64_t max, uint64_t *ret_n, char *err)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(val, &end, strncasecmp(val, "0x", 2) == 0 ? 16 : 10);
	if (!isdigit((unsigned char)val[0]) || *end || errno || n > max) {
		snprintf(err, IMPAIR_ERR_LEN, "\"%.40s\" is not a whole number from 0 to %" PRIu64,
			 val, max);
		return -EINVAL;
	}
	*ret_n = n;
	return 0;
}

/* ENTER/LEAVE[/BAD[/GOOD]] */
static int parse_burst(struct impair_conf *conf, const char *val, char *err)
{
	double p[4] = {0, 0, 1, 0};
	char copy[80], *next = copy, *word;
	size_t n = 0;

	if (strcmp(val, "off") == 0 || strcmp(val, "0") == 0) {
		conf->burst_enter = 0;
		conf->burst_leave = 1;
		conf->burst_loss_bad = 1;
		conf->burst_loss_good = 0;
		return 0;
	}
	if (strlen(val) >= sizeof(copy))
		goto bad;
	strcpy(copy, val);
	while ((word = strsep(&next, "/"))) {
		if (n == 4)
			goto bad;
		if (parse_chance(word, &p[n++], err) < 0)
			return -EINVAL;
	}
	if (n < 2)
		goto bad;
	if (p[0] > 0 && p[1] <= 0) {
		snprintf(err, IMPAIR_ERR_LEN,
			 "burst %.40s never leaves the bad state: make the second number above 0%%",
			 val);
		return -EINVAL;
	}
	conf->burst_enter = p[0];
	conf->burst_leave = p[1];
	conf->burst_loss_bad = p[2];
	conf->burst_loss_good = p[3];
	return 0;
bad:
	return refuse(err, "a burst model", val,
		      "write ENTER/LEAVE[/LOSS_BAD[/LOSS_GOOD]], e.g. 0.5%/20%");
}

static int parse_queue(struct impair_conf *conf, const char *val, char *err)
{
	size_t len = strlen(val);
	uint64_t frames = 0, bytes = 0;
	char digits[24];

	if (strcmp(val, "off") == 0 || strcmp(val, "0") == 0) {
		conf->queue_frames = conf->queue_bytes = 0;
		return 0;
	}
	if (len > 1 && len < sizeof(digits) && val[len - 1] == 'p') {
		memcpy(digits, val, len - 1);
		digits[len - 1] = '\0';
		if (impair_parse_uint(digits, UINT32_MAX, &frames, err) < 0 || !frames)
			goto bad;
	} else if (!isalpha((unsigned char)val[len ? len - 1 : 0]) ||
		   impair_parse_bytes(val, &bytes, err) < 0 || !bytes) {
		goto bad;
	}
	conf->queue_frames = frames;
	conf->queue_bytes = bytes;
	return 0;
bad:
	return refuse(err, "a queue length", val,
		      "write frames as 100p, or bytes as 256KB, or off");
}

static int parse_bool(const char *val, uint64_t *ret, char *err)
{
	if (strcmp(val, "on") != 0 && strcmp(val, "off") != 0)
		return refuse(err, "a switch", val, "write on or off");
	*ret = strcmp(val, "on") == 0;
	return 0;
}

static const struct key *find_key(const char *name)
{
	for (size_t i = 0; i < KEY_COUNT; i++)
		if (strcmp(keys[i].name, name) == 0)
			return &keys[i];
	return NULL;
}

const char *impair_conf_key(size_t i)
{
	return i < KEY_COUNT ? keys[i].name : NULL;
}

static int unknown_key(const char *name, char *err)
{
	size_t at = (size_t)snprintf(err, IMPAIR_ERR_LEN, "unknown setting \"%.30s\": there are",
				     name);

	for (size_t i = 0; i < KEY_COUNT && at < IMPAIR_ERR_LEN; i++)
		at += (size_t)snprintf(err + at, IMPAIR_ERR_LEN - at, "%s %s", i ? "," : "",
				       keys[i].name);
	return -EINVAL;
}

static int parse_one(struct impair_conf *conf, const struct key *key, const char *val, char *err)
{
	void *field = (char *)conf + key->offset;

	switch (key->kind) {
	case KIND_TIME:
		return parse_time(val, field, err);
	case KIND_CHANCE:
		return parse_chance(val, field, err);
	case KIND_RATE:
		return parse_rate(val, field, err);
	case KIND_BYTES:
		return impair_parse_bytes(val, field, err);
	case KIND_BOOL:
		return parse_bool(val, field, err);
	case KIND_BURST:
		return parse_burst(conf, val, err);
	case KIND_QUEUE:
		return parse_queue(conf, val, err);
	case KIND_UINT:
		break;
	}
	if (impair_parse_uint(val, key->max, field, err) < 0)
		return -EINVAL;
	if (*(uint64_t *)field < key->min) {
		snprintf(err, IMPAIR_ERR_LEN, "\"%.40s\" is too small: at least %" PRIu64, val,
			 key->min);
		return -EINVAL;
	}
	return 0;
}

int impair_conf_set(struct impair_conf *conf, const char *name, const char *val, char *err)
{
	const struct key *key = find_key(name);
	struct impair_conf tmp = *conf;
	char why[IMPAIR_ERR_LEN];

	if (!key)
		return unknown_key(name, err);
	if (parse_one(&tmp, key, val, why) < 0) {
		snprintf(err, IMPAIR_ERR_LEN, "%s: %.220s", name, why);
		return -EINVAL;
	}
	*conf = tmp;
	return 0;
}

int impair_conf_check(const struct impair_conf *conf, char *err)
{
	const char *why = NULL;

	if (conf->jitter_ns > conf->delay_ns)
		why = "jitter is larger than delay, and no frame arrives before it was sent: "
		      "raise delay to at least the jitter";
	else if (conf->reorder > 0 && conf->reorder_delay_ns == 0)
		why = "reorder needs a reorder-delay above 0, the longest a frame is held back";
	else if (conf->bucket_bytes && !conf->rate_bps)
		why = "bucket needs a rate: set e.g. rate 100Mbit, or leave bucket out";
	if (!why)
		return 0;
	snprintf(err, IMPAIR_ERR_LEN, "%s", why);
	return -EINVAL;
}

void impair_conf_init(struct impair_conf *conf)
{
	*conf = (struct impair_conf){
		.burst_leave = 1,
		.burst_loss_bad = 1,
		.corrupt_bits = 1,
		.reorder_gap = 3,
		.reorder_delay_ns = 10000000,
		.queue_frames = 1000,
	};
}

static void print_one(const struct impair_conf *conf, const struct key *key, FILE *out)
{
	const void *field = (const char *)conf + key->offset;
	uint64_t n = 0;

	if (key->kind != KIND_CHANCE && key->kind != KIND_BURST)
		memcpy(&n, field, sizeof(n));
	switch (key->kind) {
	case KIND_TIME:
		fprintf(out, "%s %.15gms", key->name, (double)n / 1e6);
		break;
	case KIND_CHANCE:
		fprintf(out, "%s %.15g%%", key->name, *(const double *)field * 100);
		break;
	case KIND_RATE:
		fprintf(out, "%s %" PRIu64 "bit", key->name, n);
		break;
	case KIND_BYTES:
	case KIND_UINT:
		fprintf(out, "%s %" PRIu64, key->name, n);
		break;
	case KIND_BOOL:
		fprintf(out, "%s %s", key->name, n ? "on" : "off");
		break;
	case KIND_BURST:
		fprintf(out, "%s %.15g%%/%.15g%%/%.15g%%/%.15g%%", key->name,
			conf->burst_enter * 100, conf->burst_leave * 100,
			conf->burst_loss_bad * 100, conf->burst_loss_good * 100);
		break;
	case KIND_QUEUE:
		if (conf->queue_frames)
			fprintf(out, "%s %" PRIu64 "p", key->name, conf->queue_frames);
		else if (conf->queue_bytes)
			fprintf(out, "%s %" PRIu64 "B", key->name, conf->queue_bytes);
		else
			fprintf(out, "%s off", key->name);
		break;
	}
}

static bool is_default(const struct impair_conf *conf, const struct key *key)
{
	struct impair_conf def;
	size_t len = sizeof(uint64_t);

	impair_conf_init(&def);
	if (key->kind == KIND_BURST)
		len = 4 * sizeof(double);
	else if (key->kind == KIND_QUEUE)
		len = 2 * sizeof(uint64_t);
	return memcmp((const char *)conf + key->offset, (const char *)&def + key->offset, len) == 0;
}

void impair_conf_print(const struct impair_conf *conf, FILE *out)
{
	const char *sep = "";

	for (size_t i = 0; i < KEY_COUNT; i++) {
		if (is_default(conf, &keys[i]))
			continue;
		fputs(sep, out);
		print_one(conf, &keys[i], out);
		sep = " ";
	}
}
