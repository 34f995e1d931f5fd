// SPDX-License-Identifier: MIT
/*
 * Control messages. The first byte is the context, the rest a stream of messages as they would come
 * out of TLS. What was decoded must encode, and decode again to the same.
 */
#include "wire/ctrl.h"

#include <stdlib.h>

#define REQUIRE(condition)        \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A decoded message there and back */
static void check_round_trip(const struct sm_msg *msg, unsigned ctx)
{
	static uint8_t buf[SM_MSG_HEADER_LEN + SM_MSG_VALUE_MAX], again[sizeof(buf)];
	static struct sm_msg back;
	int len = sm_msg_encode(msg, buf, sizeof(buf));
	unsigned type;
	size_t total;

	REQUIRE(len >= (int)SM_MSG_HEADER_LEN);
	REQUIRE(sm_msg_peek(buf, (size_t)len, &type, &total) == 1);
	REQUIRE(type == (unsigned)msg->type && total == (size_t)len);
	REQUIRE(sm_msg_decode(buf, (size_t)len, ctx, &back) == 0);
	REQUIRE(memcmp(&back, msg, sizeof(back)) == 0);
	REQUIRE(sm_msg_encode(&back, again, (size_t)len) == len);
	REQUIRE(memcmp(again, buf, (size_t)len) == 0);
}

static void check_text(const struct sm_msg *msg)
{
	size_t len = strnlen(msg->close.text, sizeof(msg->close.text));

	REQUIRE(len <= SM_CLOSE_TEXT_MAX);
	for (size_t i = 0; i < len; i++)
		REQUIRE((uint8_t)msg->close.text[i] >= ' ' && msg->close.text[i] != 0x7f);
}

static void decode_one(const uint8_t *data, size_t len, unsigned ctx)
{
	static struct sm_msg msg;
	int r = sm_msg_decode(data, len, ctx, &msg);

	REQUIRE(r == 0 || r == -ENOMSG || r == -EOPNOTSUPP || r == -EPROTO || r == -EBADMSG);
	if (r < 0)
		return;
	if (msg.type == SM_MSG_CLOSE)
		check_text(&msg);
	check_round_trip(&msg, ctx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned ctx, type;
	size_t len;
	int r;

	if (size == 0)
		return 0;
	ctx = data[0] & 15u;
	data++;
	size--;
	decode_one(data, size, ctx); /* whatever the header says */
	while ((r = sm_msg_peek(data, size, &type, &len)) == 1) {
		REQUIRE(len >= SM_MSG_HEADER_LEN && len <= size);
		decode_one(data, len, ctx);
		data += len;
		size -= len;
	}
	REQUIRE(r == 0 || r == -EMSGSIZE);
	return 0;
}
