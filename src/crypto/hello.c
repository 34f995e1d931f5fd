// SPDX-License-Identifier: MIT
/*
 * ClientHello: found in its records, and read as far as we need it.
 */
#include "crypto/hello.h"

#include "base/cursor.h"
#include "wire/const.h"

#define RECORD_HEADER_LEN    5u
#define RECORD_HANDSHAKE     22
#define RECORD_BODY_MAX      16384u
#define MESSAGE_HEADER_LEN   4u
#define MESSAGE_CLIENT_HELLO 1

#define RANDOM_LEN     32u
#define SESSION_ID_MAX 32u

#define EXTENSION_ALPN               16
#define EXTENSION_PRE_SHARED_KEY     41
#define EXTENSION_SUPPORTED_VERSIONS 43
#define VERSION_TLS13                0x0304

size_t sm_hello_len(const struct sm_hello_scan *scan)
{
	return MESSAGE_HEADER_LEN +
	       ((size_t)scan->head[1] << 16 | (size_t)scan->head[2] << 8 | scan->head[3]);
}

/* What is there of a record's header is checked before the rest arrives: a stranger who speaks
 * something else is not waited for. */
static bool record_start_fits(const struct sm_hello_scan *scan, const uint8_t *record, size_t len)
{
	if (len >= 1 && record[0] != RECORD_HANDSHAKE)
		return false;
	if (len >= 2 && record[1] != 3)
		return false;
	if (len > RECORD_HEADER_LEN && scan->have == 0 &&
	    record[RECORD_HEADER_LEN] != MESSAGE_CLIENT_HELLO)
		return false;
	return true;
}

int sm_hello_scan(struct sm_hello_scan *scan, const uint8_t *data, size_t len)
{
	for (;;) {
		const uint8_t *record = data + scan->pos;
		size_t left = len - scan->pos, body;

		if (scan->have >= MESSAGE_HEADER_LEN && scan->have >= sm_hello_len(scan))
			return 1;
		if (!record_start_fits(scan, record, left))
			return -EBADMSG;
		if (left < RECORD_HEADER_LEN)
			break;
		body = (size_t)record[3] << 8 | record[4];
		if (body == 0 || body > RECORD_BODY_MAX)
			return -EBADMSG;
		if (scan->pos + RECORD_HEADER_LEN + body > SM_HELLO_MAX)
			return -EMSGSIZE;
		if (left < RECORD_HEADER_LEN + body)
			break;
		for (size_t i = 0; i < body && scan->have + i < MESSAGE_HEADER_LEN; i++)
			scan->head[scan->have + i] = record[RECORD_HEADER_LEN + i];
		scan->have += body;
		scan->pos += RECORD_HEADER_LEN + body;
		if (scan->have >= MESSAGE_HEADER_LEN && sm_hello_len(scan) > SM_HELLO_MAX)
			return -EMSGSIZE;
	}
	return len >= SM_HELLO_MAX ? -EMSGSIZE : 0;
}

void sm_hello_collect(const struct sm_hello_scan *scan, const uint8_t *data, size_t len,
		      uint8_t *ret_msg)
{
	struct sm_reader r = sm_reader_init(data, len);
	size_t left = sm_hello_len(scan);

	while (left > 0 && !r.failed) {
		size_t body, take;

		sm_read_view(&r, 3);
		body = sm_read_u16(&r);
		take = SM_MIN(body, left);
		sm_read_bytes(&r, ret_msg, take);
		sm_read_view(&r, body - take);
		ret_msg += take;
		left -= take;
	}
}

/* A list with a length of @width bytes before it, as a reader of its own */
static struct sm_reader read_list(struct sm_reader *r, unsigned width)
{
	size_t len = width == 1 ? sm_read_u8(r) : sm_read_u16(r);
	const uint8_t *p = sm_read_view(r, len);

	return sm_reader_init(p ? p : r->end, p ? len : 0);
}

static int parse_versions(struct sm_reader ext, struct sm_hello *hello)
{
	struct sm_reader list = read_list(&ext, 1);

	while (sm_reader_left(&list) > 0 && !list.failed)
		if (sm_read_u16(&list) == VERSION_TLS13)
			hello->tls13 = true;
	return list.failed ? -EBADMSG : sm_reader_done(&ext);
}

static int parse_alpn(struct sm_reader ext, struct sm_hello *hello)
{
	struct sm_reader list = read_list(&ext, 2);

	hello->alpn = true;
	while (sm_reader_left(&list) > 0 && !list.failed) {
		struct sm_reader name = read_list(&list, 1);

		if (sm_reader_left(&name) == strlen(SM_ALPN) &&
		    memcmp(name.pos, SM_ALPN, strlen(SM_ALPN)) == 0)
			hello->alpn_ours = true;
	}
	return list.failed ? -EBADMSG : sm_reader_done(&ext);
}

static int parse_pre_shared_key(struct sm_reader ext, const uint8_t *msg, struct sm_hello *hello)
{
	struct sm_reader identities = read_list(&ext, 2), identity, binders, binder;
	size_t covered = (size_t)(ext.pos - msg);

	binders = read_list(&ext, 2);
	identity = read_list(&identities, 2);
	sm_read_u32(&identities); /* the ticket's age */
	binder = read_list(&binders, 1);
	if (identities.failed || binders.failed || sm_reader_done(&ext) != 0)
		return -EBADMSG;
	if (sm_reader_left(&identities) > 0 || sm_reader_left(&binders) > 0)
		return 0; /* several: not from us, yet not malformed */
	hello->identity = identity.pos;
	hello->identity_len = sm_reader_left(&identity);
	hello->binder = binder.pos;
	hello->binder_len = sm_reader_left(&binder);
	hello->covered = covered;
	return 0;
}

static int parse_extensions(struct sm_reader *r, const uint8_t *msg, struct sm_hello *hello)
{
	bool seen[3] = {false, false, false};

	while (sm_reader_left(r) > 0) {
		unsigned type = sm_read_u16(r), slot;
		struct sm_reader ext = read_list(r, 2);
		int err;

		if (r->failed)
			return -EBADMSG;
		if (type == EXTENSION_SUPPORTED_VERSIONS)
			slot = 0;
		else if (type == EXTENSION_ALPN)
			slot = 1;
		else if (type == EXTENSION_PRE_SHARED_KEY)
			slot = 2;
		else
			continue;
		if (seen[slot])
			return -EBADMSG;
		seen[slot] = true;
		if (slot == 0)
			err = parse_versions(ext, hello);
		else if (slot == 1)
			err = parse_alpn(ext, hello);
		else
			err = sm_reader_left(r) > 0 ? -EBADMSG /* it must be the last */
						    : parse_pre_shared_key(ext, msg, hello);
		if (err)
			return err;
	}
	return 0;
}

int sm_hello_parse(const uint8_t *msg, size_t len, struct sm_hello *ret_hello)
{
	struct sm_reader r = sm_reader_init(msg, len), extensions;
	struct sm_hello hello = {0};
	size_t body;
	int err;

	if (sm_read_u8(&r) != MESSAGE_CLIENT_HELLO)
		return -EBADMSG;
	body = (size_t)sm_read_u8(&r) << 16;
	body |= sm_read_u16(&r);
	if (body != sm_reader_left(&r))
		return -EBADMSG;
	sm_read_u16(&r); /* legacy version */
	sm_read_view(&r, RANDOM_LEN);
	extensions = read_list(&r, 1); /* session id */
	if (sm_reader_left(&extensions) > SESSION_ID_MAX)
		return -EBADMSG;
	(void)read_list(&r, 2); /* ciphers */
	(void)read_list(&r, 1); /* compression */
	if (r.failed)
		return -EBADMSG;
	if (sm_reader_left(&r) > 0) { /* clients of old may have no extensions */
		extensions = read_list(&r, 2);
		err = sm_reader_done(&r);
		if (!err)
			err = parse_extensions(&extensions, msg, &hello);
		if (err)
			return err;
	}
	*ret_hello = hello;
	return 0;
}
