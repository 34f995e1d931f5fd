// SPDX-License-Identifier: MIT
/*
 * The control messages: for each a check of its values, an encoder, a decoder and a row of the table.
 * Encoding and decoding make the same check, so that nothing can be sent that a peer must refuse.
 */
#include "wire/ctrl.h"
#include "base/text.h"

#define HELLO_LEN         32u
#define HELLO_LEN_MAX     256u /* what later versions append is ignored */
#define CANDIDATE_LEN_MAX 22u
#define ENDPOINTS_LEN_MAX (1u + SM_ENDPOINTS_MAX * CANDIDATE_LEN_MAX)
#define OBSERVED_LEN_MAX  38u
#define REKEY_LEN         (4u + SM_KEM_PUBLIC_LEN)
#define CLOSE_LEN_MIN     2u

static const char *const close_reason_names[] = {
	[SM_CLOSE_NONE] = "none",
	[SM_CLOSE_SHUTDOWN] = "shutdown",
	[SM_CLOSE_DUPLICATE] = "duplicate",
	[SM_CLOSE_SUPERSEDED] = "superseded",
	[SM_CLOSE_PROTOCOL] = "protocol",
	[SM_CLOSE_VERSION] = "version",
	[SM_CLOSE_MODE] = "mode",
	[SM_CLOSE_CIPHER] = "cipher",
	[SM_CLOSE_NETWORK] = "network",
	[SM_CLOSE_REVOKED] = "revoked",
	[SM_CLOSE_EXPIRED] = "expired",
	[SM_CLOSE_NOT_TRUSTED] = "not-trusted",
	[SM_CLOSE_SELF] = "self",
	[SM_CLOSE_TIMEOUT] = "timeout",
	[SM_CLOSE_LIMIT] = "limit",
	[SM_CLOSE_CONFIG] = "config",
	[SM_CLOSE_REKEY_FAILED] = "rekey-failed",
	[SM_CLOSE_INTERNAL] = "internal",
};
static_assert(SM_ARRAY_SIZE(close_reason_names) == SM_CLOSE_REASON_COUNT, "each reason has a name");

const char *sm_close_reason_name(unsigned reason)
{
	return reason < SM_CLOSE_REASON_COUNT ? close_reason_names[reason] : "unknown";
}

/* An address as family (8), port (16), ip (4 or 16 bytes); family 0 stands alone and means none. */
static void addr_encode(struct sm_writer *w, const struct sm_addr *a)
{
	sm_write_u8(w, a->family);
	if (a->family == 0)
		return;
	sm_write_u16(w, a->port);
	sm_write_bytes(w, a->ip, sm_addr_ip_len(a->family));
}

static void addr_decode(struct sm_reader *r, struct sm_addr *ret_addr)
{
	uint8_t family = sm_read_u8(r);
	uint16_t port;
	const uint8_t *ip;

	if (family == 0)
		return;
	port = sm_read_u16(r);
	ip = sm_read_view(r, sm_addr_ip_len(family));
	if (!ip || sm_addr_from_ip(family, ip, port, ret_addr) < 0)
		r->failed = true;
}

/* Return: true if what is in @a may stand in a message */
static bool addr_valid(const struct sm_addr *a)
{
	struct sm_addr same;

	return sm_addr_from_ip(a->family, a->ip, a->port, &same) == 0;
}

static bool hello_valid(const struct sm_msg *msg)
{
	const struct sm_msg_hello *m = &msg->hello;

	return (m->mode == SM_MODE_TAP || m->mode == SM_MODE_TUN) && m->ciphers != 0 &&
	       m->preferred < 8 && m->workers >= 1 && m->workers <= SM_WORKER_MAX;
}

static void hello_encode(struct sm_writer *w, const struct sm_msg *msg)
{
	const struct sm_msg_hello *m = &msg->hello;

	sm_write_u16(w, m->version);
	sm_write_u8(w, m->mode);
	sm_write_u8(w, m->ciphers);
	sm_write_u8(w, m->preferred);
	sm_write_u8(w, m->workers);
	sm_write_u16(w, m->data_port);
	sm_write_u16(w, m->control_port);
	sm_write_u16(w, m->mtu);
	sm_write_u32(w, m->session);
	sm_write_u64(w, m->instance);
	sm_write_u64(w, m->features);
}

static void hello_decode(struct sm_reader *r, struct sm_msg *msg)
{
	struct sm_msg_hello *m = &msg->hello;

	m->version = sm_read_u16(r);
	m->mode = sm_read_u8(r);
	m->ciphers = sm_read_u8(r);
	m->preferred = sm_read_u8(r);
	m->workers = sm_read_u8(r);
	m->data_port = sm_read_u16(r);
	m->control_port = sm_read_u16(r);
	m->mtu = sm_read_u16(r);
	m->session = sm_read_u32(r);
	m->instance = sm_read_u64(r);
	m->features = sm_read_u64(r);
	(void)sm_read_view(r, sm_reader_left(r)); /* extensions */
}

static bool nothing_valid(const struct sm_msg *msg)
{
	(void)msg;
	return true;
}

static void nothing_encode(struct sm_writer *w, const struct sm_msg *msg)
{
	(void)w;
	(void)msg;
}

static void nothing_decode(struct sm_reader *r, struct sm_msg *msg)
{
	(void)r;
	(void)msg;
}

static bool endpoints_valid(const struct sm_msg *msg)
{
	const struct sm_msg_endpoints *m = &msg->endpoints;

	if (m->count > SM_ENDPOINTS_MAX)
		return false;
	for (unsigned i = 0; i < m->count; i++) {
		const struct sm_candidate *c = &m->candidate[i];

		if (c->type >= SM_CANDIDATE_TYPE_COUNT || c->data.port == 0 ||
		    !addr_valid(&c->data))
			return false;
	}
	return true;
}

static void endpoints_encode(struct sm_writer *w, const struct sm_msg *msg)
{
	const struct sm_msg_endpoints *m = &msg->endpoints;

	sm_write_u8(w, m->count);
	for (unsigned i = 0; i < m->count; i++) {
		const struct sm_candidate *c = &m->candidate[i];

		sm_write_u8(w, c->type);
		sm_write_u8(w, c->data.family);
		sm_write_u16(w, c->data.port);
		sm_write_u16(w, c->control_port);
		sm_write_bytes(w, c->data.ip, sm_addr_ip_len(c->data.family));
	}
}

static void endpoints_decode(struct sm_reader *r, struct sm_msg *msg)
{
	struct sm_msg_endpoints *m = &msg->endpoints;

	m->count = sm_read_u8(r);
	if (m->count > SM_ENDPOINTS_MAX)
		r->failed = true;
	for (unsigned i = 0; !r->failed && i < m->count; i++) {
		struct sm_candidate *c = &m->candidate[i];
		uint8_t family;
		uint16_t port;
		const uint8_t *ip;

		c->type = sm_read_u8(r);
		family = sm_read_u8(r);
		port = sm_read_u16(r);
		c->control_port = sm_read_u16(r);
		ip = sm_read_view(r, sm_addr_ip_len(family));
		if (!ip || sm_addr_from_ip(family, ip, port, &c->data) < 0)
			r->failed = true;
	}
}

static bool observed_valid(const struct sm_msg *msg)
{
	const struct sm_msg_observed *m = &msg->observed;

	return (m->control.family == 0 || addr_valid(&m->control)) &&
	       (m->data.family == 0 || addr_valid(&m->data));
}

static void observed_encode(struct sm_writer *w, const struct sm_msg *msg)
{
	addr_encode(w, &msg->observed.control);
	addr_encode(w, &msg->observed.data);
}

static void observed_decode(struct sm_reader *r, struct sm_msg *msg)
{
	addr_decode(r, &msg->observed.control);
	addr_decode(r, &msg->observed.data);
}

static void ping_encode(struct sm_writer *w, const struct sm_msg *msg)
{
	sm_write_u64(w, msg->ping.token);
}

static void ping_decode(struct sm_reader *r, struct sm_msg *msg)
{
	msg->ping.token = sm_read_u64(r);
}

static void rekey_encode(struct sm_writer *w, const struct sm_msg *msg)
{
	sm_write_u32(w, msg->rekey.epoch);
	sm_write_bytes(w, msg->rekey.kem, sizeof(msg->rekey.kem));
}

static void rekey_decode(struct sm_reader *r, struct sm_msg *msg)
{
	msg->rekey.epoch = sm_read_u32(r);
	sm_read_bytes(r, msg->rekey.kem, sizeof(msg->rekey.kem));
}

/* Copies text for a person; what is not printable becomes '?', one for each byte. */
static void copy_printable(char *dst, const char *src, size_t len)
{
	for (size_t i = 0; i < len;) {
		size_t n = sm_text_char_len(src + i, len - i);

		if (n == 0) {
			dst[i++] = '?';
			continue;
		}
		memcpy(dst + i, src + i, n);
		i += n;
	}
}

static bool close_valid(const struct sm_msg *msg)
{
	return msg->close.reason != SM_CLOSE_NONE &&
	       strnlen(msg->close.text, sizeof(msg->close.text)) <= SM_CLOSE_TEXT_MAX;
}

static void close_encode(struct sm_writer *w, const struct sm_msg *msg)
{
	size_t len = strlen(msg->close.text);
	char text[SM_CLOSE_TEXT_MAX];

	copy_printable(text, msg->close.text, len);
	sm_write_u16(w, msg->close.reason);
	sm_write_bytes(w, text, len);
}

static void close_decode(struct sm_reader *r, struct sm_msg *msg)
{
	const uint8_t *text;
	size_t len;

	msg->close.reason = sm_read_u16(r);
	len = sm_reader_left(r);
	text = sm_read_view(r, len);
	if (!text || len > SM_CLOSE_TEXT_MAX) {
		r->failed = true;
		return;
	}
	copy_printable(msg->close.text, (const char *)text, len);
}

enum sender {
	SENDER_ANY,
	SENDER_CLIENT,
	SENDER_SERVER,
};

enum order {
	ORDER_ANY,
	ORDER_IS_HELLO,
	ORDER_AFTER_HELLO,
};

/**
 * struct row - One message
 * @min, @max: bytes of the value
 * @carriers:  SM_MSG_CTX_TLS, SM_MSG_CTX_STREAM or both
 * @valid:     do the values lie in their bounds?
 * @decode:    marks the reader for what does not fit into a struct at all
 */
struct row {
	enum sm_msg_type type;
	const char *name;
	uint16_t min, max;
	unsigned carriers;
	enum order order;
	enum sender sender;
	bool (*valid)(const struct sm_msg *msg);
	void (*encode)(struct sm_writer *w, const struct sm_msg *msg);
	void (*decode)(struct sm_reader *r, struct sm_msg *msg);
};

#define BOTH (SM_MSG_CTX_TLS | SM_MSG_CTX_STREAM)

static const struct row rows[] = {
	{SM_MSG_HELLO, "HELLO", HELLO_LEN, HELLO_LEN_MAX, SM_MSG_CTX_TLS, ORDER_IS_HELLO,
	 SENDER_ANY, hello_valid, hello_encode, hello_decode},
	{SM_MSG_READY, "READY", 0, 0, SM_MSG_CTX_TLS, ORDER_AFTER_HELLO, SENDER_ANY, nothing_valid,
	 nothing_encode, nothing_decode},
	{SM_MSG_ENDPOINTS, "ENDPOINTS", 1, ENDPOINTS_LEN_MAX, BOTH, ORDER_AFTER_HELLO, SENDER_ANY,
	 endpoints_valid, endpoints_encode, endpoints_decode},
	{SM_MSG_OBSERVED, "OBSERVED", 2, OBSERVED_LEN_MAX, BOTH, ORDER_AFTER_HELLO, SENDER_ANY,
	 observed_valid, observed_encode, observed_decode},
	{SM_MSG_PING, "PING", 8, 8, BOTH, ORDER_AFTER_HELLO, SENDER_ANY, nothing_valid, ping_encode,
	 ping_decode},
	{SM_MSG_PONG, "PONG", 8, 8, BOTH, ORDER_AFTER_HELLO, SENDER_ANY, nothing_valid, ping_encode,
	 ping_decode},
	{SM_MSG_REKEY_REQUEST, "REKEY_REQUEST", REKEY_LEN, REKEY_LEN, BOTH, ORDER_AFTER_HELLO,
	 SENDER_CLIENT, nothing_valid, rekey_encode, rekey_decode},
	{SM_MSG_REKEY_REPLY, "REKEY_REPLY", REKEY_LEN, REKEY_LEN, BOTH, ORDER_AFTER_HELLO,
	 SENDER_SERVER, nothing_valid, rekey_encode, rekey_decode},
	{SM_MSG_REKEY_WANTED, "REKEY_WANTED", 0, 0, BOTH, ORDER_AFTER_HELLO, SENDER_SERVER,
	 nothing_valid, nothing_encode, nothing_decode},
	{SM_MSG_CLOSE, "CLOSE", CLOSE_LEN_MIN, CLOSE_LEN_MIN + SM_CLOSE_TEXT_MAX, BOTH, ORDER_ANY,
	 SENDER_ANY, close_valid, close_encode, close_decode},
};
static_assert(REKEY_LEN <= SM_MSG_VALUE_MAX, "the longest message");

static const struct row *row_of(unsigned type)
{
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		if ((unsigned)rows[i].type == type)
			return &rows[i];
	}
	return NULL;
}

const char *sm_msg_name(unsigned type)
{
	const struct row *row = row_of(type);

	return row ? row->name : "unknown";
}

int sm_msg_peek(const uint8_t *buf, size_t len, unsigned *ret_type, size_t *ret_len)
{
	struct sm_reader r = sm_reader_init(buf, len);
	unsigned type = sm_read_u16(&r), value_len = sm_read_u16(&r);
	const struct row *row = row_of(type);

	if (r.failed)
		return 0;
	if (value_len > (row ? row->max : SM_MSG_VALUE_MAX) || (row && value_len < row->min))
		return -EMSGSIZE;
	if (sm_reader_left(&r) < value_len)
		return 0;
	*ret_type = type;
	*ret_len = SM_MSG_HEADER_LEN + value_len;
	return 1;
}

static bool allowed(const struct row *row, unsigned ctx)
{
	bool hello_seen = (ctx & SM_MSG_CTX_HELLO_SEEN) != 0;
	bool from_client = (ctx & SM_MSG_CTX_FROM_CLIENT) != 0;

	if ((ctx & row->carriers) == 0)
		return false;
	if (row->order != ORDER_ANY && hello_seen != (row->order == ORDER_AFTER_HELLO))
		return false;
	return row->sender == SENDER_ANY || from_client == (row->sender == SENDER_CLIENT);
}

int sm_msg_decode(const uint8_t *buf, size_t len, unsigned ctx, struct sm_msg *ret_msg)
{
	struct sm_reader r = sm_reader_init(buf, len);
	unsigned type = sm_read_u16(&r), value_len = sm_read_u16(&r);
	const struct row *row = row_of(type);
	struct sm_msg msg;

	if (r.failed || sm_reader_left(&r) != value_len)
		return -EBADMSG;
	if (!row)
		return type & SM_MSG_CRITICAL ? -EOPNOTSUPP : -ENOMSG;
	if (!allowed(row, ctx))
		return -EPROTO;
	if (value_len < row->min || value_len > row->max)
		return -EBADMSG;
	memset(&msg, 0, sizeof(msg));
	msg.type = row->type;
	row->decode(&r, &msg);
	if (sm_reader_done(&r) < 0 || !row->valid(&msg))
		return -EBADMSG;
	*ret_msg = msg;
	return 0;
}

int sm_msg_encode(const struct sm_msg *msg, uint8_t *buf, size_t len)
{
	const struct row *row = row_of((unsigned)msg->type);
	struct sm_writer w = sm_writer_init(buf, len);
	size_t value_len;

	if (!row || !row->valid(msg))
		return -EINVAL;
	sm_write_u16(&w, (uint16_t)row->type);
	sm_write_u16(&w, 0);
	row->encode(&w, msg);
	if (w.failed)
		return -ENOSPC;
	value_len = sm_writer_len(&w) - SM_MSG_HEADER_LEN;
	assert(value_len >= row->min && value_len <= row->max);
	buf[2] = (uint8_t)(value_len >> 8);
	buf[3] = (uint8_t)value_len;
	return sm_writer_done(&w);
}
