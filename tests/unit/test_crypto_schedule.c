// SPDX-License-Identifier: MIT
/*
 * The key schedule against its formulas, computed here from plain HMAC and SHA-384.
 */
#include "crypto/schedule.h"
#include "crypto_fixture.h"

#include <openssl/evp.h>

static void hmac384(const void *key, size_t key_len, const void *data, size_t len, uint8_t out[48])
{
	size_t out_len;

	assert_non_null(EVP_Q_mac(NULL, "HMAC", NULL, "SHA384", NULL, key, key_len, data, len, out,
				  48, &out_len));
	assert_int_equal(out_len, 48);
}

static void test_first(void **state)
{
	uint8_t root[SM_ROOT_SECRET_LEN], expected[48];
	struct sm_epoch_secret secret;

	(void)state;
	memset(root, 0x42, sizeof(root));
	hmac384("shadowmesh/1 epoch", 18, root, sizeof(root), expected);
	assert_int_equal(sm_schedule_first(root, &secret), 0);
	assert_memory_equal(secret.b, expected, 48);
}

static void test_next(void **state)
{
	uint8_t kem[SM_KEM_SECRET_LEN], ikm[SM_KEM_SECRET_LEN + 48], expected[48];
	const struct sm_bytes request = {"request", 7}, reply = {"reply", 5};
	struct sm_epoch_secret previous, next, in_place;

	(void)state;
	memset(kem, 7, sizeof(kem));
	memset(&previous, 9, sizeof(previous));
	memcpy(ikm, kem, sizeof(kem));
	assert_int_equal(
		EVP_Q_digest(NULL, "SHA384", NULL, "requestreply", 12, ikm + sizeof(kem), NULL), 1);
	hmac384(previous.b, 48, ikm, sizeof(ikm), expected);
	assert_int_equal(sm_schedule_next(&previous, kem, request, reply, &next), 0);
	assert_memory_equal(next.b, expected, 48);

	in_place = previous;
	assert_int_equal(sm_schedule_next(&in_place, kem, request, reply, &in_place), 0);
	assert_memory_equal(in_place.b, expected, 48);

	/* Each input counts. */
	kem[79] ^= 1;
	assert_int_equal(sm_schedule_next(&previous, kem, request, reply, &next), 0);
	assert_memory_not_equal(next.b, expected, 48);
	kem[79] ^= 1;
	assert_int_equal(sm_schedule_next(&previous, kem, reply, request, &next), 0);
	assert_memory_not_equal(next.b, expected, 48);
	previous.b[0] ^= 1;
	assert_int_equal(sm_schedule_next(&previous, kem, request, reply, &next), 0);
	assert_memory_not_equal(next.b, expected, 48);
}

static const struct sm_epoch_secret test_secret = {.b = {1, 2, 3}};

static void test_lane(void **state)
{
	/* label, direction 1, cipher 1, epoch 0x01020304, lane 5; the block counter of HKDF behind */
	static const uint8_t key_info[] = "shadowmesh/1 key\x01\x01\x01\x02\x03\x04\x05\x01";
	static const uint8_t iv_info[] = "shadowmesh/1 iv\x01\x01\x01\x02\x03\x04\x05\x01";
	uint8_t key[48], iv[48], a[8 + SM_TAG_LEN] = "message", b[8 + SM_TAG_LEN] = "message";
	struct sm_aead *derived, *expected;

	(void)state;
	hmac384(test_secret.b, 48, key_info, sizeof(key_info) - 1, key);
	hmac384(test_secret.b, 48, iv_info, sizeof(iv_info) - 1, iv);
	assert_int_equal(sm_schedule_lane(&test_secret, SM_SERVER_TO_CLIENT,
					  SM_CIPHER_CHACHA20POLY1305, 0x01020304, 5, true,
					  &derived),
			 0);
	assert_int_equal(sm_aead_new(SM_CIPHER_CHACHA20POLY1305, key, iv, true, &expected), 0);
	assert_int_equal(sm_aead_seal(derived, 77, NULL, 0, a, 8, a), 0);
	assert_int_equal(sm_aead_seal(expected, 77, NULL, 0, b, 8, b), 0);
	assert_memory_equal(a, b, sizeof(a));
	sm_aead_free(derived);
	sm_aead_free(expected);
}

/* What one lane seals, that lane opens and no other. */
static void test_separation(void **state)
{
	static const struct {
		enum sm_direction direction;
		enum sm_cipher cipher;
		uint32_t epoch;
		uint8_t lane;
	} lanes[] = {
		{SM_CLIENT_TO_SERVER, SM_CIPHER_AES256GCM, 1, 0},
		{SM_SERVER_TO_CLIENT, SM_CIPHER_AES256GCM, 1, 0},
		{SM_CLIENT_TO_SERVER, SM_CIPHER_CHACHA20POLY1305, 1, 0},
		{SM_CLIENT_TO_SERVER, SM_CIPHER_AES256GCM, 2, 0},
		{SM_CLIENT_TO_SERVER, SM_CIPHER_AES256GCM, 1, 1},
		{SM_CLIENT_TO_SERVER, SM_CIPHER_AES256GCM, 256, 0},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(lanes); i++)
		for (size_t k = 0; k < SM_ARRAY_SIZE(lanes); k++) {
			uint8_t data[8 + SM_TAG_LEN] = "message";
			struct sm_aead *seal, *open;

			assert_int_equal(sm_schedule_lane(&test_secret, lanes[i].direction,
							  lanes[i].cipher, lanes[i].epoch,
							  lanes[i].lane, true, &seal),
					 0);
			assert_int_equal(sm_schedule_lane(&test_secret, lanes[k].direction,
							  lanes[k].cipher, lanes[k].epoch,
							  lanes[k].lane, false, &open),
					 0);
			assert_int_equal(sm_aead_seal(seal, 0, NULL, 0, data, 8, data), 0);
			assert_int_equal(sm_aead_open(open, 0, NULL, 0, data, 8, data),
					 i == k ? 0 : -EBADMSG);
			sm_aead_free(seal);
			sm_aead_free(open);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first),
		cmocka_unit_test(test_next),
		cmocka_unit_test(test_lane),
		cmocka_unit_test(test_separation),
	};

	return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
