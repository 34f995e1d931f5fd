// SPDX-License-Identifier: MIT
/*
 * Start-up, hashes, key derivation, randomness against published vectors.
 */
#include "crypto_fixture.h"

#include <openssl/crypto.h>
#include <openssl/pem.h>

static void test_init(void **state)
{
	(void)state;
	assert_int_equal(sm_crypto_init(), 0); /* a second time changes nothing */
	assert_memory_equal(sm_crypto_version(), "OpenSSL ", 8);
}

static void test_has_aes(void **state)
{
	char line[4096];
	bool aes = false;
	FILE *f = fopen("/proc/cpuinfo", "r");

	(void)state;
	if (!f)
		skip();
	while (fgets(line, sizeof(line), f))
		aes = aes || strstr(line, " aes");
	fclose(f);
	assert_int_equal(sm_crypto_has_aes(), aes);
}

/* The library allocates through ours, and a block keeps its content when it changes its size. */
static void test_allocator(void **state)
{
	CRYPTO_malloc_fn on_malloc;
	CRYPTO_realloc_fn on_realloc;
	CRYPTO_free_fn on_free;
	uint8_t *block;

	(void)state;
	CRYPTO_get_mem_functions(&on_malloc, &on_realloc, &on_free);
	assert_ptr_not_equal(on_malloc, CRYPTO_malloc);
	assert_ptr_not_equal(on_realloc, CRYPTO_realloc);
	assert_ptr_not_equal(on_free, CRYPTO_free);

	block = OPENSSL_malloc(5);
	assert_non_null(block);
	assert_int_equal((uintptr_t)block % _Alignof(max_align_t), 0);
	memcpy(block, "\x01\x02\x03\x04\x05", 5);
	block = OPENSSL_realloc(block, 100000);
	assert_non_null(block);
	assert_memory_equal(block, "\x01\x02\x03\x04\x05", 5);
	block = OPENSSL_realloc(block, 3);
	assert_memory_equal(block, "\x01\x02\x03", 3);
	assert_null(OPENSSL_realloc(block, 0));
	assert_null(OPENSSL_malloc(0));
	assert_null(OPENSSL_malloc(SIZE_MAX - 4));
	assert_non_null(strstr(sm_crypto_error(), "malloc"));
	block = OPENSSL_realloc(NULL, 7);
	assert_non_null(block);
	OPENSSL_free(block);
	OPENSSL_free(NULL);
}

static void test_sha256(void **state)
{
	const struct sm_bytes abc[] = {{"a", 1}, {NULL, 0}, {"bc", 2}};
	uint8_t digest[SM_SHA256_LEN];

	(void)state;
	/* FIPS 180-2, appendix B.1 */
	assert_int_equal(sm_sha256(abc, 3, digest), 0);
	assert_hex(digest, sizeof(digest),
		   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_int_equal(sm_sha256(NULL, 0, digest), 0);
	assert_hex(digest, sizeof(digest),
		   "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void test_hmac(void **state)
{
	const struct sm_bytes hi[] = {{"Hi ", 3}, {"There", 5}};
	const struct sm_bytes what[] = {{"what do ya want ", 16}, {"for nothing?", 12}};
	uint8_t key[20], mac[SM_SHA256_LEN];

	(void)state;
	/* RFC 4231, test cases 1 and 2 */
	memset(key, 0x0b, sizeof(key));
	assert_int_equal(sm_hmac_sha256(key, sizeof(key), hi, 2, mac), 0);
	assert_hex(mac, sizeof(mac),
		   "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	assert_int_equal(sm_hmac_sha256("Jefe", 4, what, 2, mac), 0);
	assert_hex(mac, sizeof(mac),
		   "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	assert_int_equal(sm_hmac_sha256(NULL, 0, NULL, 0, mac), 0);
	assert_hex(mac, sizeof(mac),
		   "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

/* Project Wycheproof, hkdf_sha384_test.json: tcId 1, 5, 7, 10, 12, 14, 18, 20 */
static const struct {
	const char *ikm, *salt, *info, *okm;
} hkdf[] = {
	{"24aeff2645e3e0f5494a9a102778c43a", "", "", "4b7045423d9156424b0b85d95a7d602fba3924b1"},
	{"c181696a19ab1a32eb6e81b2925d8990", "", "d8c8de92fe5422c9825996354db1821ba43a81ac",
	 "bd5a9b85598010069c28028bd26949d44dd8312d0fe6cb3c49b2ab968de7aef4776c492e6c502056b419"},
	{"c27718560fae2515acb17a874991d357", "4487f538b65c9058625057b4bbdd93e7", "",
	 "836712c8a9a1c2402ca222d450c20c4101a89d80"},
	{"c360e16084cfd13cb44b0dc02d8665de", "685ac7df93701d6c78babd847861bb3c",
	 "e0ddfaaaa7afb53f59a007a205c7149b5b5a72be", "00aa140387a3d43aae915c35b306533179019bab"},
	{"7a00817689a3d79001825a864c69c120", "08bc01c053a6406c7c4a667c9b9b3894",
	 "967ccd75395be6e96a67759f070487c9e2107791",
	 "bd02e16b6024f2c3b752d1c1d3047583697731915fbbb34418f479b0c9bf84a8"
	 "6bd8e715eca198da8f9b39b25a1229c311853f862340cdefe46ddf41dcf256d9"},
	{"75d085427d397b263fb3c6c8e0c40b6f",
	 "e2141b0dc65348632396a25c6d7b6ffabf55686532544c351860635b7c86", "",
	 "7c0e2af3d94a1267bfe4473c725c1e1f356bed5a97ea9aae860d1cc033194433c54a6a8e600a54ff2086"},
	{"d515f58eed428b2bac233c8538580e2f",
	 "c2a3ad9db6621fceb7498c0e6287522077acd2d47b55c09d52e114943b37",
	 "14de8cffd89e49275f69d2e1e6b43fa0c3775451",
	 "93cde84c4c867cd78c2bc028d97e2be987e1ca0803c03cd8fb643c3c60ef4da6"
	 "8cd2557a2e3f26dc08b5106f4c000927e63845b6313a793a095f902ff5279af4"},
	{"24a37db03dbcffbe9e28d582d0d8c60a",
	 "4c3d3b4f5436418713fbe2fbc4d647095ce5d5392dcfffd20327187e14fb6836"
	 "0b94c5122203292d8b648a754ab70f6d3d61e0650f06d55c4b5762cba0231e27",
	 "8cd9e7b786a74bd370bae434e31a559bdf75d65f",
	 "f96e579b4f583cce512cc410132c5b89054d952b0b6964ce8fb1d37808f43f8a7b8739a1c78c77771107"},
};

static void test_hkdf(void **state)
{
	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(hkdf); i++) {
		uint8_t ikm[64], salt[64], info[64], okm[64], prk[SM_SHA384_LEN];
		size_t ikm_len = unhex(hkdf[i].ikm, ikm, sizeof(ikm));
		size_t salt_len = unhex(hkdf[i].salt, salt, sizeof(salt));
		size_t info_len = unhex(hkdf[i].info, info, sizeof(info));
		size_t len = strlen(hkdf[i].okm) / 2;
		const struct sm_bytes pieces[] = {{info, info_len / 3},
						  {info + info_len / 3, info_len - info_len / 3}};

		assert_int_equal(sm_hkdf_extract(salt, salt_len, ikm, ikm_len, prk), 0);
		assert_int_equal(sm_hkdf_expand(prk, pieces, 2, okm, len), 0);
		assert_hex(okm, len, hkdf[i].okm);
	}
}

static void test_hkdf_limits(void **state)
{
	static uint8_t okm[255 * SM_SHA384_LEN + 1];
	static const uint8_t long_info[513];
	const struct sm_bytes info = {long_info, sizeof(long_info)};
	const uint8_t prk[SM_SHA384_LEN] = {1};

	(void)state;
	assert_int_equal(sm_hkdf_expand(prk, NULL, 0, okm, sizeof(okm) - 1), 0);
	assert_int_equal(sm_hkdf_expand(prk, NULL, 0, okm, sizeof(okm)), -EINVAL);
	assert_int_equal(sm_hkdf_expand(prk, NULL, 0, okm, 0), -EINVAL);
	assert_int_equal(sm_hkdf_expand(prk, &info, 1, okm, 32), -EINVAL);
}

static void test_random(void **state)
{
	uint8_t a[32] = {0}, b[32] = {0};

	(void)state;
	assert_int_equal(sm_crypto_random(a, sizeof(a)), 0);
	assert_int_equal(sm_crypto_random(b, sizeof(b)), 0);
	assert_memory_not_equal(a, b, sizeof(a));
	assert_int_equal(sm_crypto_random(a, 0), 0);
}

static void test_error_text(void **state)
{
	BIO *bio = BIO_new_mem_buf("nothing", 7);

	(void)state;
	assert_string_equal(sm_crypto_error(), "no details");
	assert_null(PEM_read_bio_X509(bio, NULL, NULL, NULL));
	assert_non_null(strstr(sm_crypto_error(), "no start line"));
	assert_string_equal(sm_crypto_error(), "no details");
	BIO_free(bio);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_init),        cmocka_unit_test(test_has_aes),
		cmocka_unit_test(test_allocator),   cmocka_unit_test(test_sha256),
		cmocka_unit_test(test_hmac),        cmocka_unit_test(test_hkdf),
		cmocka_unit_test(test_hkdf_limits), cmocka_unit_test(test_random),
		cmocka_unit_test(test_error_text),
	};

	return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
