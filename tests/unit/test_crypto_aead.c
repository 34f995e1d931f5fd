// SPDX-License-Identifier: MIT
/*
 * Sealing and opening against published vectors, and everything that must not open.
 */
#include "crypto/aead.h"
#include "crypto_fixture.h"

/*
 * McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13 to 16; RFC 8439, section 2.8.2
 */
static const struct {
	enum sm_cipher cipher;
	const char *key, *iv, *ad, *plain, *sealed;
} vectors[] = {
	{SM_CIPHER_AES256GCM, "0000000000000000000000000000000000000000000000000000000000000000",
	 "000000000000000000000000", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
	{SM_CIPHER_AES256GCM, "0000000000000000000000000000000000000000000000000000000000000000",
	 "000000000000000000000000", "", "00000000000000000000000000000000",
	 "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"},
	{SM_CIPHER_AES256GCM, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
	 "cafebabefacedbaddecaf888", "",
	 "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
	 "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
	 "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
	 "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
	 "b094dac5d93471bdec1a502270e3cc6c"},
	{SM_CIPHER_AES256GCM, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
	 "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
	 "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
	 "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
	 "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
	 "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
	 "76fc6ece0f4e1768cddf8853bb2d551b"},
	{SM_CIPHER_CHACHA20POLY1305,
	 "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
	 "070000004041424344454647", "50515253c0c1c2c3c4c5c6c7",
	 "4c616469657320616e642047656e746c656d656e206f662074686520636c6173"
	 "73206f66202739393a204966204920636f756c64206f6666657220796f75206f"
	 "6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73"
	 "637265656e20776f756c642062652069742e",
	 "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
	 "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
	 "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
	 "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691"},
};

static struct sm_aead *make(enum sm_cipher cipher, const uint8_t *key, const uint8_t *iv,
			    bool sealing)
{
	struct sm_aead *aead;

	assert_int_equal(sm_aead_new(cipher, key, iv, sealing, &aead), 0);
	return aead;
}

/* The same nonce may come from any split between IV and packet number. */
static void test_vectors(void **state)
{
	static const uint64_t numbers[] = {0, 1, UINT64_C(0x0123456789abcdef), UINT64_MAX};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(vectors); i++)
		for (size_t k = 0; k < SM_ARRAY_SIZE(numbers); k++) {
			uint8_t key[32], iv[12], ad[32], data[160];
			size_t ad_len = unhex(vectors[i].ad, ad, sizeof(ad));
			size_t len = unhex(vectors[i].plain, data, sizeof(data));

			unhex(vectors[i].key, key, sizeof(key));
			unhex(vectors[i].iv, iv, sizeof(iv));
			for (unsigned b = 0; b < 8; b++)
				iv[4 + b] ^= (uint8_t)(numbers[k] >> (56 - 8 * b));

			struct sm_aead *seal = make(vectors[i].cipher, key, iv, true);
			struct sm_aead *open = make(vectors[i].cipher, key, iv, false);

			assert_int_equal(
				sm_aead_seal(seal, numbers[k], ad, ad_len, data, len, data), 0);
			assert_hex(data, len + SM_TAG_LEN, vectors[i].sealed);
			assert_int_equal(
				sm_aead_open(open, numbers[k], ad, ad_len, data, len, data), 0);
			assert_hex(data, len, vectors[i].plain);
			sm_aead_free(seal);
			sm_aead_free(open);
		}
}

static const uint8_t test_key[32] = {1, 2, 3}, test_iv[12] = {9, 8, 7};

/* A context serves packet after packet, in any order of numbers, and recovers from forged ones. */
static void test_reuse(void **state)
{
	(void)state;
	for (unsigned cipher = 0; cipher < SM_CIPHER_COUNT; cipher++) {
		struct sm_aead *seal = make(cipher, test_key, test_iv, true);
		struct sm_aead *open = make(cipher, test_key, test_iv, false);

		for (unsigned i = 0; i < 200; i++) {
			uint64_t number = i % 3 ? i : UINT64_MAX - i;
			uint8_t data[300 + SM_TAG_LEN], plain[300];
			uint8_t ad[16] = {(uint8_t)i};
			size_t len = i % 7 ? i : 0;

			memset(plain, (int)i, sizeof(plain));
			memcpy(data, plain, sizeof(plain));
			assert_int_equal(sm_aead_seal(seal, number, ad, 16, data, len, data), 0);
			if (len)
				assert_memory_not_equal(data, plain, SM_MAX(len, 8));
			if (i % 5 == 0) {
				uint8_t forged[sizeof(data)];

				memcpy(forged, data, sizeof(data));
				forged[len] ^= 1;
				assert_int_equal(sm_aead_open(open, number, ad, 16, forged, len,
							      forged),
						 -EBADMSG);
			}
			assert_int_equal(sm_aead_open(open, number, ad, 16, data, len, data), 0);
			assert_memory_equal(data, plain, len);
		}
		sm_aead_free(seal);
		sm_aead_free(open);
	}
}

/* Each single bit of tag, ciphertext and header counts; so do number, key, IV, lengths, cipher. */
static void test_forgeries(void **state)
{
	(void)state;
	for (unsigned cipher = 0; cipher < SM_CIPHER_COUNT; cipher++) {
		struct sm_aead *seal = make(cipher, test_key, test_iv, true);
		struct sm_aead *open = make(cipher, test_key, test_iv, false);
		uint8_t sealed[20 + SM_TAG_LEN] = "0123456789abcdefghi", ad[16] = "header";
		uint8_t copy[sizeof(sealed)];

		assert_int_equal(sm_aead_seal(seal, 5, ad, 16, sealed, 20, sealed), 0);
		for (size_t bit = 0; bit < 8 * sizeof(sealed); bit++) {
			memcpy(copy, sealed, sizeof(copy));
			copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_int_equal(sm_aead_open(open, 5, ad, 16, copy, 20, copy), -EBADMSG);
		}
		for (size_t bit = 0; bit < 8 * sizeof(ad); bit++) {
			memcpy(copy, sealed, sizeof(copy));
			ad[bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_int_equal(sm_aead_open(open, 5, ad, 16, copy, 20, copy), -EBADMSG);
			ad[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		for (unsigned bit = 0; bit < 64; bit++) {
			memcpy(copy, sealed, sizeof(copy));
			assert_int_equal(sm_aead_open(open, 5 ^ UINT64_C(1) << bit, ad, 16, copy,
						      20, copy),
					 -EBADMSG);
		}
		memcpy(copy, sealed, sizeof(copy));
		assert_int_equal(sm_aead_open(open, 5, ad, 15, copy, 20, copy), -EBADMSG);
		memcpy(copy, sealed, sizeof(copy));
		assert_int_equal(sm_aead_open(open, 5, ad, 16, copy, 19, copy), -EBADMSG);

		struct sm_aead *other = make(!cipher, test_key, test_iv, false);

		memcpy(copy, sealed, sizeof(copy));
		assert_int_equal(sm_aead_open(other, 5, ad, 16, copy, 20, copy), -EBADMSG);
		memcpy(copy, sealed, sizeof(copy));
		assert_int_equal(sm_aead_open(open, 5, ad, 16, copy, 20, copy), 0);
		sm_aead_free(other);
		sm_aead_free(seal);
		sm_aead_free(open);
	}
}

static void test_bounds(void **state)
{
	struct sm_aead *aead = NULL;
	uint8_t data[16 + SM_TAG_LEN] = {0};

	(void)state;
	assert_int_equal(sm_aead_new(SM_CIPHER_COUNT, test_key, test_iv, true, &aead), -EIO);
	assert_null(aead);
	sm_aead_free(NULL);
	aead = make(SM_CIPHER_AES256GCM, test_key, test_iv, true);
	assert_int_equal(sm_aead_seal(aead, 0, data, (size_t)INT32_MAX + 1, data, 0, data), -EIO);
	assert_int_equal(sm_aead_seal(aead, 0, NULL, 0, data, 16, data), 0);
	sm_aead_free(aead);
}

/* Two libraries, one result: all lengths around the blocks, in place and apart. */
static void test_libraries_agree(void **state)
{
	static const uint8_t key[SM_AEAD_KEY_LEN] = {7, 1, 2}, iv[SM_AEAD_IV_LEN] = {3, 9};
	static uint8_t plain[66000], here[66000 + SM_TAG_LEN], there[66000 + SM_TAG_LEN];
	static const size_t large[] = {4095, 4096, 4097, 9000, 16384, 65535, 66000};
	struct sm_aead *fast, *portable, *opener;

	(void)state;
	for (size_t i = 0; i < sizeof(plain); i++)
		plain[i] = (uint8_t)(i * 31 + i / 255);
	assert_int_equal(sm_aead_new(SM_CIPHER_AES256GCM, key, iv, true, &fast), 0);
	assert_int_equal(sm_aead_new(SM_CIPHER_AES256GCM, key, iv, false, &opener), 0);
	sm_aead_set_portable(true);
	assert_int_equal(sm_aead_new(SM_CIPHER_AES256GCM, key, iv, true, &portable), 0);
	sm_aead_set_portable(false);
	for (size_t i = 0; i < 1700 + SM_ARRAY_SIZE(large); i++) {
		size_t len = i < 1700 ? i : large[i - 1700], at = i % 7, ad_len = i % 33;

		if (at + len > sizeof(plain))
			at = 0;
		assert_int_equal(sm_aead_seal(portable, i, plain, ad_len, plain + at, len, there),
				 0);
		assert_int_equal(sm_aead_seal(fast, i, plain, ad_len, plain + at, len, here), 0);
		assert_memory_equal(here, there, len + SM_TAG_LEN);
		memcpy(there, plain + at, len);
		assert_int_equal(sm_aead_seal(fast, i, plain, ad_len, there, len, there), 0);
		assert_memory_equal(here, there, len + SM_TAG_LEN);
		assert_int_equal(sm_aead_open(opener, i, plain, ad_len, here, len, there), 0);
		assert_memory_equal(there, plain + at, len);
		assert_int_equal(sm_aead_open(opener, i, plain, ad_len, here, len, here), 0);
		assert_memory_equal(here, plain + at, len);
	}
	sm_aead_free(fast);
	sm_aead_free(opener);
	sm_aead_free(portable);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),         cmocka_unit_test(test_reuse),
		cmocka_unit_test(test_forgeries),       cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_libraries_agree),
	};

	return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
