// SPDX-License-Identifier: MIT
/*
 * The numbers in docs/PROTOCOL.md, "Test vectors", against what the code computes: whoever writes a
 * second implementation relies on them.
 *
 * A vector stands in the document as "name = hexadecimal", continued on the lines that begin with a
 * space. Here each is computed and looked up by its name; none may be left over.
 */
#include "crypto/access.h"
#include "crypto/ident.h"
#include "crypto/schedule.h"
#include "crypto_fixture.h"
#include "wire/ctrl.h"
#include "wire/data.h"

#define DOCUMENT   "docs/PROTOCOL.md"
#define HEADING    "## Test vectors\n"
#define VECTOR_MAX 64u
#define HEX_MAX    512u

struct vector {
	char name[48];
	char hex[HEX_MAX + 1];
	bool used;
};

static struct vector vectors[VECTOR_MAX];
static size_t vector_count;

static char *read_document(void)
{
	const char *top = getenv("SM_SOURCE");
	char path[512];
	char *text = NULL;
	long len;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", top ? top : ".", DOCUMENT);
	f = fopen(path, "rb");
	if (!f) {
		print_message("%s is not there: run in the checkout or set SM_SOURCE\n", path);
		return NULL;
	}
	if (fseek(f, 0, SEEK_END) == 0 && (len = ftell(f)) > 0 && fseek(f, 0, SEEK_SET) == 0) {
		text = calloc(1, (size_t)len + 1);
		if (text && fread(text, 1, (size_t)len, f) != (size_t)len) {
			free(text);
			text = NULL;
		}
	}
	fclose(f);
	return text;
}

/* Return: false if it does not fit, or continues nothing */
static bool add_hex(struct vector *v, const char *text)
{
	size_t have = v ? strlen(v->hex) : 0, len = strlen(text);

	if (!v || have + len > HEX_MAX)
		return false;
	memcpy(v->hex + have, text, len + 1);
	return true;
}

/* Return: false for a line that is no vector */
static bool take_line(char *line)
{
	char *equals = strstr(line, " = ");
	struct vector *v;

	if (line[0] == ' ')
		return add_hex(vector_count ? &vectors[vector_count - 1] : NULL,
			       sm_text_trim(line));
	if (!equals || vector_count == VECTOR_MAX || equals - line >= (long)sizeof(v->name))
		return false;
	*equals = '\0';
	v = &vectors[vector_count++];
	snprintf(v->name, sizeof(v->name), "%s", line);
	return add_hex(v, equals + 3);
}

static int load_vectors(void **state)
{
	char *text = read_document(), *rest, *line;
	bool fenced = false, good = true;

	if (!text || fixture_setup(state) != 0) {
		free(text);
		return -1;
	}
	rest = strstr(text, HEADING);
	if (rest)
		rest += strlen(HEADING);
	while (good && rest && (line = strsep(&rest, "\n")) && strncmp(line, "## ", 3) != 0) {
		if (strncmp(line, "```", 3) == 0)
			fenced = !fenced;
		else if (fenced)
			good = take_line(line);
		if (!good)
			print_message("%s: no test vector: %s\n", DOCUMENT, line);
	}
	free(text);
	return good ? 0 : -1;
}

static const struct vector *find_vector(const char *name)
{
	for (size_t i = 0; i < vector_count; i++) {
		if (strcmp(vectors[i].name, name) != 0)
			continue;
		vectors[i].used = true;
		return &vectors[i];
	}
	return NULL;
}

/* Prints the right line where the document has another, or none. */
static void expect(const char *name, const void *data, size_t len)
{
	const struct vector *v = find_vector(name);
	char hex[HEX_MAX + 1];

	assert_true(2 * len <= HEX_MAX);
	sm_text_hex(data, len, hex);
	if (v && strcmp(v->hex, hex) == 0)
		return;
	print_message("wrong or missing in %s:\n%s = %s\n", DOCUMENT, name, hex);
	fail();
}

/* @first, @first + 1, ... as the document says of its inputs */
static void count_up(uint8_t *data, size_t len, uint8_t first)
{
	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)(first + i);
}

static void expect_identity(const char *who, const uint8_t *network_id, const uint8_t *fingerprint)
{
	uint8_t node_id[SM_NODE_ID_LEN];
	struct sm_prefix ula;
	struct sm_mac mac;
	char name[48];

	assert_int_equal(sm_ident_node_id(network_id, "alice", fingerprint, node_id), 0);
	snprintf(name, sizeof(name), "%s_node_id", who);
	expect(name, node_id, sizeof(node_id));
	assert_int_equal(sm_ident_mac(node_id, &mac), 0);
	snprintf(name, sizeof(name), "%s_mac", who);
	expect(name, mac.b, sizeof(mac.b));
	assert_int_equal(sm_ident_ula(network_id, node_id, &ula), 0);
	snprintf(name, sizeof(name), "%s_ula", who);
	expect(name, ula.ip, 16);
	assert_int_equal(ula.len, 64);
}

static void test_identity(void **state)
{
	uint8_t network_id[SM_NETWORK_ID_LEN], fingerprint[SM_FINGERPRINT_LEN];

	(void)state;
	count_up(network_id, sizeof(network_id), 0x00);
	count_up(fingerprint, sizeof(fingerprint), 0x20);
	expect_identity("certified", network_id, NULL);
	assert_int_equal(sm_ident_network_from_name("home", network_id), 0);
	expect("home_network_id", network_id, sizeof(network_id));
	expect_identity("pinned", network_id, fingerprint);
}

/* The document's binder is accepted, one with a bit changed is not. */
static void check_binder(struct sm_access *access)
{
	const struct vector *v = find_vector("access_binder");
	uint8_t covered[300], identity[SM_ACCESS_IDENTITY_LEN] = {0}, binder[SM_SHA384_LEN];
	const struct sm_hello hello = {.identity = identity,
				       .identity_len = sizeof(identity),
				       .binder = binder,
				       .binder_len = sizeof(binder),
				       .covered = sizeof(covered)};
	const char *why = NULL;

	assert_non_null(v);
	assert_int_equal(sm_text_parse_hex(v->hex, binder, sizeof(binder)), 0);
	count_up(covered, sizeof(covered), 0x00);
	binder[0] ^= 1;
	assert_int_equal(sm_access_check(access, covered, &hello, 0, &why), -EACCES);
	binder[0] ^= 1;
	assert_int_equal(sm_access_check(access, covered, &hello, 0, &why), 0);
}

static void test_access(void **state)
{
	uint8_t key[SM_ACCESS_KEY_LEN], network_id[SM_NETWORK_ID_LEN];
	struct sm_access *access;

	(void)state;
	count_up(key, sizeof(key), 0x40);
	count_up(network_id, sizeof(network_id), 0x00);
	assert_int_equal(sm_access_new(key, network_id, &access), 0);
	expect("access_psk", sm_access_psk(access), SM_ACCESS_PSK_LEN);
	check_binder(access);
	sm_access_free(access);
}

static void expect_message(const char *name, const struct sm_msg *msg)
{
	uint8_t buf[256];
	int len = sm_msg_encode(msg, buf, sizeof(buf));

	assert_true(len > 0);
	expect(name, buf, (size_t)len);
}

static void test_messages(void **state)
{
	struct sm_msg hello = {
		.type = SM_MSG_HELLO,
		.hello = {.version = SM_PROTOCOL_VERSION,
			  .mode = SM_MODE_TAP,
			  .ciphers = 3,
			  .preferred = SM_CIPHER_AES256GCM,
			  .workers = 2,
			  .data_port = SM_DATA_PORT,
			  .control_port = SM_CONTROL_PORT,
			  .mtu = 1500,
			  .session = 0xa1b20003,
			  .instance = UINT64_C(0x1122334455667788),
			  .features = SM_FEATURE_PART},
	};
	struct sm_msg endpoints = {
		.type = SM_MSG_ENDPOINTS,
		.endpoints = {.count = 2,
			      .candidate = {{.data = {.family = 4,
						      .port = SM_DATA_PORT,
						      .ip = {192, 0, 2, 1}},
					     .control_port = SM_CONTROL_PORT,
					     .type = SM_CANDIDATE_HOST},
					    {.data = {.family = 6,
						      .port = SM_DATA_PORT,
						      .ip = {0x20, 0x01, 0x0d, 0xb8, [15] = 7}},
					     .type = SM_CANDIDATE_SERVER_REFLEXIVE}}},
	};
	struct sm_msg observed = {
		.type = SM_MSG_OBSERVED,
		.observed.control = {.family = 4, .port = 40000, .ip = {198, 51, 100, 7}},
	};
	const struct sm_msg ping = {.type = SM_MSG_PING,
				    .ping.token = UINT64_C(0x0102030405060708)};
	const struct sm_msg ready = {.type = SM_MSG_READY}, wanted = {.type = SM_MSG_REKEY_WANTED};
	const struct sm_msg bye = {.type = SM_MSG_CLOSE,
				   .close = {.reason = SM_CLOSE_MODE, .text = "tap against tun"}};

	(void)state;
	expect_message("hello", &hello);
	expect_message("ready", &ready);
	expect_message("endpoints", &endpoints);
	expect_message("observed", &observed);
	expect_message("ping", &ping);
	expect_message("wanted", &wanted);
	expect_message("close", &bye);
}

static void test_bodies(void **state)
{
	const struct sm_msg ping = {.type = SM_MSG_PING,
				    .ping.token = UINT64_C(0x0102030405060708)};
	const struct sm_part part = {.index = 1, .count = 3};
	const struct sm_probe answer = {
		.op = SM_PROBE_ANSWER,
		.token = ping.ping.token,
		.observed = {.family = 6,
			     .port = SM_DATA_PORT,
			     .ip = {0x20, 0x01, 0x0d, 0xb8, [15] = 7}},
	};
	uint8_t buf[64] = "piece", message[32];
	struct sm_segment segment = {.offset = 0xfffffff0, .acked = 256, .data = message};
	size_t len = strlen("piece");
	int n;

	(void)state;
	sm_part_encode(&part, buf + len);
	len += SM_PART_TRAILER_LEN;
	buf[len++] = SM_KIND_PART;
	expect("part_content", buf, len);

	n = sm_msg_encode(&ping, message, sizeof(message));
	assert_true(n > 0);
	segment.len = (size_t)n;
	len = sm_segment_encode(&segment, buf);
	buf[len++] = SM_KIND_STREAM;
	expect("segment_content", buf, len);

	len = sm_probe_encode(&answer, buf);
	buf[len++] = SM_KIND_PROBE;
	expect("answer_content", buf, len);
}

/* Key and IV by the document's formula; the sealed packet shows that the code's are the same. */
static void expect_lane(const char *name, const char *label, const struct sm_epoch_secret *secret,
			const uint8_t *tail, size_t tail_len, size_t len)
{
	const struct sm_bytes info[] = {{label, strlen(label)}, {tail, tail_len}};
	uint8_t okm[SM_AEAD_KEY_LEN];

	assert_int_equal(sm_hkdf_expand(secret->b, info, 2, okm, len), 0);
	expect(name, okm, len);
}

struct packet {
	const char *name;
	enum sm_direction direction;
	enum sm_cipher cipher;
	uint32_t epoch, session;
	uint8_t lane, kind;
	uint64_t number;
	const uint8_t *body;
	size_t body_len;
};

static void expect_packet(const struct sm_epoch_secret *secret, const struct packet *p)
{
	const uint8_t tail[] = {
		(uint8_t)p->direction, (uint8_t)p->cipher, 0, 0, 0, (uint8_t)p->epoch, p->lane};
	const struct sm_data_header header = {.epoch = (uint8_t)p->epoch,
					      .lane = p->lane,
					      .session = p->session,
					      .number = p->number};
	uint8_t buf[128], *content = buf + SM_DATA_HEADER_LEN;
	size_t len = p->body_len + SM_KIND_LEN;
	struct sm_aead *aead;
	char name[48];

	assert_true(SM_DATA_OVERHEAD + p->body_len <= sizeof(buf));
	snprintf(name, sizeof(name), "%s_key", p->name);
	expect_lane(name, "shadowmesh/1 key", secret, tail, sizeof(tail), SM_AEAD_KEY_LEN);
	snprintf(name, sizeof(name), "%s_iv", p->name);
	expect_lane(name, "shadowmesh/1 iv", secret, tail, sizeof(tail), SM_AEAD_IV_LEN);

	sm_data_header_encode(&header, buf);
	memcpy(content, p->body, p->body_len);
	content[p->body_len] = p->kind;
	snprintf(name, sizeof(name), "%s_content", p->name);
	expect(name, content, len);
	assert_int_equal(sm_schedule_lane(secret, p->direction, p->cipher, p->epoch, p->lane, true,
					  &aead),
			 0);
	assert_int_equal(
		sm_aead_seal(aead, p->number, buf, SM_DATA_HEADER_LEN, content, len, content), 0);
	sm_aead_free(aead);
	snprintf(name, sizeof(name), "%s_datagram", p->name);
	expect(name, buf, SM_DATA_HEADER_LEN + len + SM_TAG_LEN);
}

/* A REKEY message of epoch 1 whose KEM part is one byte repeated; Return: its bytes */
static size_t rekey_message(enum sm_msg_type type, uint8_t fill, uint8_t *buf, size_t size)
{
	struct sm_msg msg = {.type = type, .rekey.epoch = 1};
	int len;

	memset(msg.rekey.kem, fill, sizeof(msg.rekey.kem));
	len = sm_msg_encode(&msg, buf, size);
	assert_int_equal(len, SM_MSG_HEADER_LEN + 4 + SM_KEM_PUBLIC_LEN);
	return (size_t)len;
}

static void test_schedule(void **state)
{
	static const uint8_t frame[] = {0x02, 0, 0, 0,    0,    0x02, 0x02, 0,
					0,    0, 0, 0x01, 0x88, 0xb5, 'h',  'i'};
	const struct packet first = {.name = "frame",
				     .direction = SM_CLIENT_TO_SERVER,
				     .cipher = SM_CIPHER_AES256GCM,
				     .epoch = 0,
				     .session = 0xa1b20003,
				     .lane = 1,
				     .kind = SM_KIND_FRAME,
				     .number = 0x0102,
				     .body = frame,
				     .body_len = sizeof(frame)};
	uint8_t root[SM_ROOT_SECRET_LEN], kem[SM_KEM_SECRET_LEN], probe[SM_PROBE_LEN_MAX] = {0};
	uint8_t request[2048], reply[2048];
	struct sm_epoch_secret secret;
	struct packet second = {.name = "probe",
				.direction = SM_SERVER_TO_CLIENT,
				.cipher = SM_CIPHER_CHACHA20POLY1305,
				.epoch = 1,
				.session = 0x0badcafe,
				.lane = SM_LANE_CONTROL,
				.kind = SM_KIND_PROBE,
				.number = 7,
				.body = probe,
				.body_len = sizeof(probe)};
	const struct sm_probe ask = {.op = SM_PROBE_REQUEST, .token = UINT64_C(0x0102030405060708)};
	struct sm_bytes in = {request, 0}, out = {reply, 0};

	(void)state;
	count_up(root, sizeof(root), 0x60);
	assert_int_equal(sm_schedule_first(root, &secret), 0);
	expect("secret_0", secret.b, sizeof(secret.b));
	expect_packet(&secret, &first);

	count_up(kem, sizeof(kem), 0x90);
	in.len = rekey_message(SM_MSG_REKEY_REQUEST, 0x11, request, sizeof(request));
	out.len = rekey_message(SM_MSG_REKEY_REPLY, 0x22, reply, sizeof(reply));
	assert_int_equal(sm_schedule_next(&secret, kem, in, out, &secret), 0);
	expect("secret_1", secret.b, sizeof(secret.b));
	(void)sm_probe_encode(&ask, probe);
	expect_packet(&secret, &second);
}

/* The last one: a vector that nobody computes proves nothing. */
static void test_none_left(void **state)
{
	(void)state;
	assert_true(vector_count > 0);
	for (size_t i = 0; i < vector_count; i++)
		if (!vectors[i].used)
			fail_msg("%s: nothing computes the vector %s", DOCUMENT, vectors[i].name);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity), cmocka_unit_test(test_access),
		cmocka_unit_test(test_messages), cmocka_unit_test(test_bodies),
		cmocka_unit_test(test_schedule), cmocka_unit_test(test_none_left),
	};

	return cmocka_run_group_tests(tests, load_vectors, fixture_teardown);
}
