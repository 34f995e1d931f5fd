// SPDX-License-Identifier: MIT
/*
 * The hybrid KEM: its layout against the two components used on their own, ML-KEM-1024 against
 * published vectors, and what must be refused.
 */
#include "crypto/kem.h"
#include "crypto_fixture.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

#define POINT_LEN 97u
#define MLKEM_LEN 1568u

static void test_round_trip(void **state)
{
	uint8_t public_key[SM_KEM_PUBLIC_LEN], ciphertext[SM_KEM_CIPHERTEXT_LEN];
	uint8_t ours[SM_KEM_SECRET_LEN], theirs[SM_KEM_SECRET_LEN], again[SM_KEM_SECRET_LEN];
	struct sm_kem *kem, *other;

	(void)state;
	assert_int_equal(sm_kem_new(&kem, public_key), 0);
	assert_int_equal(sm_kem_encapsulate(public_key, ciphertext, theirs), 0);
	assert_int_equal(sm_kem_decapsulate(kem, ciphertext, ours), 0);
	assert_memory_equal(ours, theirs, sizeof(ours));

	/* Another exchange, another secret: in both halves */
	assert_int_equal(sm_kem_encapsulate(public_key, ciphertext, again), 0);
	assert_memory_not_equal(again, theirs, 48);
	assert_memory_not_equal(again + 48, theirs + 48, 32);

	assert_int_equal(sm_kem_new(&other, public_key), 0);
	assert_int_equal(sm_kem_decapsulate(other, ciphertext, ours), 0);
	assert_memory_not_equal(ours, again, 48);
	assert_memory_not_equal(ours + 48, again + 48, 32);
	sm_kem_free(kem);
	sm_kem_free(other);
	sm_kem_free(NULL);
}

/* A changed ML-KEM part gives another secret (implicit rejection), a bad point is an error. */
static void test_bad_ciphertext(void **state)
{
	uint8_t public_key[SM_KEM_PUBLIC_LEN], ciphertext[SM_KEM_CIPHERTEXT_LEN];
	uint8_t ours[SM_KEM_SECRET_LEN], theirs[SM_KEM_SECRET_LEN];
	const uint8_t untouched[SM_KEM_SECRET_LEN] = {0};
	struct sm_kem *kem;

	(void)state;
	assert_int_equal(sm_kem_new(&kem, public_key), 0);
	assert_int_equal(sm_kem_encapsulate(public_key, ciphertext, theirs), 0);

	memset(ours, 0, sizeof(ours));
	ciphertext[20] ^= 1;
	assert_int_equal(sm_kem_decapsulate(kem, ciphertext, ours), -EBADMSG);
	assert_memory_equal(ours, untouched, sizeof(ours));
	ciphertext[20] ^= 1;

	ciphertext[POINT_LEN + 700] ^= 1;
	assert_int_equal(sm_kem_decapsulate(kem, ciphertext, ours), 0);
	assert_memory_equal(ours, theirs, 48);
	assert_memory_not_equal(ours + 48, theirs + 48, 32);
	ciphertext[POINT_LEN + 700] ^= 1;

	for (unsigned form = 0; form < 256; form++) {
		if (form == 4)
			continue;
		ciphertext[0] = (uint8_t)form;
		assert_int_equal(sm_kem_decapsulate(kem, ciphertext, ours), -EBADMSG);
	}
	sm_kem_free(kem);
}

static void test_bad_public_key(void **state)
{
	uint8_t good[SM_KEM_PUBLIC_LEN], bad[SM_KEM_PUBLIC_LEN];
	uint8_t ciphertext[SM_KEM_CIPHERTEXT_LEN], secret[SM_KEM_SECRET_LEN];
	struct sm_kem *kem;

	(void)state;
	assert_int_equal(sm_kem_new(&kem, good), 0);
	sm_kem_free(kem);

	memcpy(bad, good, sizeof(bad)); /* not on the curve */
	bad[60] ^= 4;
	assert_int_equal(sm_kem_encapsulate(bad, ciphertext, secret), -EBADMSG);
	memset(bad, 0, sizeof(bad));
	assert_int_equal(sm_kem_encapsulate(bad, ciphertext, secret), -EBADMSG);
	memset(bad, 0xff, sizeof(bad));
	bad[0] = 4;
	assert_int_equal(sm_kem_encapsulate(bad, ciphertext, secret), -EBADMSG);

	/* FIPS 203, section 7.2: a coefficient above q - 1 = 3328; here 3329, in 12 bits */
	memcpy(bad, good, sizeof(bad));
	bad[POINT_LEN] = 0x01;
	bad[POINT_LEN + 1] = (uint8_t)((bad[POINT_LEN + 1] & 0xf0) | 0x0d);
	assert_int_equal(sm_kem_encapsulate(bad, ciphertext, secret), -EBADMSG);
	bad[POINT_LEN] = 0x00; /* and 3328 is one */
	assert_int_equal(sm_kem_encapsulate(bad, ciphertext, secret), 0);

	/* The library would take the hybrid form of a point. */
	memcpy(bad, good, sizeof(bad));
	bad[0] = (uint8_t)(6 | (good[POINT_LEN - 1] & 1));
	assert_int_equal(sm_kem_encapsulate(bad, ciphertext, secret), -EBADMSG);
}

static EVP_PKEY *mlkem_from_seed(const uint8_t seed[64])
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "ML-KEM-1024", NULL);
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_ML_KEM_SEED,
						  (void *)(uintptr_t)seed, 64),
		OSSL_PARAM_construct_end(),
	};
	EVP_PKEY *pkey = NULL;

	assert_int_equal(EVP_PKEY_keygen_init(ctx), 1);
	assert_int_equal(EVP_PKEY_CTX_set_params(ctx, params), 1);
	assert_int_equal(EVP_PKEY_generate(ctx, &pkey), 1);
	EVP_PKEY_CTX_free(ctx);
	return pkey;
}

static void mlkem_decapsulate(EVP_PKEY *pkey, const uint8_t *ciphertext, uint8_t secret[32])
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
	size_t len = 32;

	assert_int_equal(EVP_PKEY_decapsulate_init(ctx, NULL), 1);
	assert_int_equal(EVP_PKEY_decapsulate(ctx, secret, &len, ciphertext, MLKEM_LEN), 1);
	assert_int_equal(len, 32);
	EVP_PKEY_CTX_free(ctx);
}

/*
 * Project Wycheproof, mlkem_1024_keygen_seed_test.json tcId 1 and mlkem_1024_encaps_test.json tcId 18
 * (the same key); key and ciphertext by their SHA-256
 */
#define VECTOR_SEED                                                        \
	"7c9935a0b07694aa0c6d10e4db6b1add2fd81a25ccb148032dcd739936737f2d" \
	"8626ed79d451140800e03b59b956f8210e556067407d13dc90fa9e8b872bfb8f"
#define VECTOR_EK_SHA256 "61b95ec8c32ae85ad7a17ae5b9c2dfb083e05f767da3ba9a0a8092ea6b4cbf7a"
#define VECTOR_M         "147c03f7a5bebba406c8fae1874d7f13c80efe79a3a9a874cc09fe76f6997615"
#define VECTOR_C_SHA256  "508136a13f8a7920e3434498c6975cbbab457d809309eb2f92453e7409738210"
#define VECTOR_K         "489dd1e9c2be4af3482bdb35bb26ce760e6e414da6ecbe489985748a825f1cd6"

static void test_mlkem_vector(void **state)
{
	uint8_t seed[64], m[32], ciphertext[MLKEM_LEN], secret[32];
	size_t ciphertext_len = sizeof(ciphertext), secret_len = sizeof(secret), ek_len;
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_KEM_PARAM_IKME, m, sizeof(m)),
		OSSL_PARAM_construct_end(),
	};
	unsigned char *ek;
	EVP_PKEY *pkey;
	EVP_PKEY_CTX *ctx;

	(void)state;
	unhex(VECTOR_SEED, seed, sizeof(seed));
	unhex(VECTOR_M, m, sizeof(m));
	pkey = mlkem_from_seed(seed);
	ek_len = EVP_PKEY_get1_encoded_public_key(pkey, &ek);
	assert_int_equal(ek_len, MLKEM_LEN);
	assert_sha256(ek, ek_len, VECTOR_EK_SHA256);
	OPENSSL_free(ek);

	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
	assert_int_equal(EVP_PKEY_encapsulate_init(ctx, params), 1);
	assert_int_equal(
		EVP_PKEY_encapsulate(ctx, ciphertext, &ciphertext_len, secret, &secret_len), 1);
	EVP_PKEY_CTX_free(ctx);
	assert_sha256(ciphertext, ciphertext_len, VECTOR_C_SHA256);
	assert_hex(secret, secret_len, VECTOR_K);
	memset(secret, 0, sizeof(secret));
	mlkem_decapsulate(pkey, ciphertext, secret);
	assert_hex(secret, sizeof(secret), VECTOR_K);
	EVP_PKEY_free(pkey);
}

/*
 * A public key put together from a P-384 key and the published ML-KEM key, encapsulated to by us and
 * opened by the components: the layout of draft-ietf-tls-ecdhe-mlkem, point and its secret first.
 */
static void test_layout(void **state)
{
	uint8_t public_key[SM_KEM_PUBLIC_LEN], ciphertext[SM_KEM_CIPHERTEXT_LEN];
	uint8_t ours[SM_KEM_SECRET_LEN], seed[64], theirs[SM_KEM_SECRET_LEN];
	EVP_PKEY *ec = EVP_EC_gen("P-384"), *peer = EVP_PKEY_new(), *mlkem;
	unsigned char *part;
	size_t len = 48;
	EVP_PKEY_CTX *ctx;

	(void)state;
	unhex(VECTOR_SEED, seed, sizeof(seed));
	mlkem = mlkem_from_seed(seed);
	assert_int_equal(EVP_PKEY_get1_encoded_public_key(ec, &part), POINT_LEN);
	memcpy(public_key, part, POINT_LEN);
	OPENSSL_free(part);
	assert_int_equal(EVP_PKEY_get1_encoded_public_key(mlkem, &part), MLKEM_LEN);
	memcpy(public_key + POINT_LEN, part, MLKEM_LEN);
	OPENSSL_free(part);

	assert_int_equal(sm_kem_encapsulate(public_key, ciphertext, ours), 0);
	assert_int_equal(EVP_PKEY_copy_parameters(peer, ec), 1);
	assert_int_equal(EVP_PKEY_set1_encoded_public_key(peer, ciphertext, POINT_LEN), 1);
	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, ec, NULL);
	assert_int_equal(EVP_PKEY_derive_init(ctx), 1);
	assert_int_equal(EVP_PKEY_derive_set_peer(ctx, peer), 1);
	assert_int_equal(EVP_PKEY_derive(ctx, theirs, &len), 1);
	assert_int_equal(len, 48);
	mlkem_decapsulate(mlkem, ciphertext + POINT_LEN, theirs + 48);
	assert_memory_equal(ours, theirs, sizeof(ours));
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(peer);
	EVP_PKEY_free(ec);
	EVP_PKEY_free(mlkem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_bad_ciphertext),
		cmocka_unit_test(test_bad_public_key), cmocka_unit_test(test_mlkem_vector),
		cmocka_unit_test(test_layout),
	};

	return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
