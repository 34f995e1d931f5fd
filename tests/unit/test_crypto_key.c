// SPDX-License-Identifier: MIT
/*
 * Key pairs and their files: published seeds and signatures, modes, passphrases, damage, full disks.
 */
#include "crypto/key.h"
#include "crypto_fixture.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <signal.h>
#include <sys/resource.h>

static int give(void *arg, char *buf, size_t size)
{
	if (!arg)
		return -ECANCELED;
	snprintf(buf, size, "%s", (const char *)arg);
	return 0;
}

static int must_not_ask(void *arg, char *buf, size_t size)
{
	(void)arg;
	(void)buf;
	(void)size;
	fail_msg("asked for a passphrase of a key that has none");
	return -1;
}

/* RFC 9881, appendix C: the seed 00 01 .. 1f; SHA-256 of the SubjectPublicKeyInfo given there */
#define RFC9881_KEY                                                          \
	"-----BEGIN PRIVATE KEY-----\n"                                      \
	"MDQCAQAwCwYJYIZIAWUDBAMTBCKAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZ\n" \
	"GhscHR4f\n"                                                         \
	"-----END PRIVATE KEY-----\n"
#define RFC9881_SPKI_SHA256 "07e57c4f14dbad1267f621ec3777b4e2e6c4fbc4c22fbb87510ff8e0b3c6a642"

/* The published key gives the published public key, and is written as the very same file. */
static void test_rfc9881(void **state)
{
	const char *path = fixture_path("rfc.key"), *copy = fixture_path("copy.key");
	char error[SM_KEY_ERROR_MAX], text[1024];
	uint8_t fp[SM_FINGERPRINT_LEN];
	struct sm_key *key;

	(void)state;
	fixture_write(path, 0600, RFC9881_KEY, strlen(RFC9881_KEY));
	assert_int_equal(sm_key_load(path, must_not_ask, NULL, &key, error), 0);
	assert_int_equal(sm_key_fingerprint(key, fp), 0);
	assert_hex(fp, sizeof(fp), RFC9881_SPKI_SHA256);
	assert_int_equal(sm_key_save(key, copy, NULL, error), 0);
	fixture_read(copy, text, sizeof(text));
	assert_string_equal(text, RFC9881_KEY);
	sm_key_free(key);
	fixture_files(true);
}

/*
 * Project Wycheproof, mldsa_87_sign_seed_test.json, tcId 1: seed 2a..2a, "Hello world", deterministic;
 * public key and signature by their SHA-256
 */
static void test_signature_vector(void **state)
{
	uint8_t seed[32], signature[5000];
	size_t signature_len = sizeof(signature);
	int deterministic = 1;
	const OSSL_PARAM keygen[] = {
		OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_ML_DSA_SEED, seed, sizeof(seed)),
		OSSL_PARAM_construct_end(),
	};
	const OSSL_PARAM sign[] = {
		OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_DETERMINISTIC, &deterministic),
		OSSL_PARAM_construct_end(),
	};
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "ML-DSA-87", NULL);
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint8_t public_key[2592];
	size_t public_key_len = sizeof(public_key);
	EVP_PKEY *pkey = NULL;

	(void)state;
	memset(seed, 0x2a, sizeof(seed));
	assert_int_equal(EVP_PKEY_keygen_init(ctx), 1);
	assert_int_equal(EVP_PKEY_CTX_set_params(ctx, keygen), 1);
	assert_int_equal(EVP_PKEY_generate(ctx, &pkey), 1);
	assert_int_equal(EVP_PKEY_get_raw_public_key(pkey, public_key, &public_key_len), 1);
	assert_sha256(public_key, public_key_len,
		      "d43128fa8a8c785c1d44c9e7db538dbf9dd88fe6c8ad911a344bcec1017c6d54");
	assert_int_equal(EVP_DigestSignInit_ex(md, NULL, NULL, NULL, NULL, pkey, sign), 1);
	assert_int_equal(EVP_DigestSign(md, signature, &signature_len,
					(const uint8_t *)"Hello world", 11),
			 1);
	assert_int_equal(signature_len, 4627);
	assert_sha256(signature, signature_len,
		      "1ad45bd0419e694375bd38ec11d8e0c228ab9ffac2fce4adbe6218d9c949e293");
	EVP_MD_CTX_reset(md);
	assert_int_equal(EVP_DigestVerifyInit_ex(md, NULL, NULL, NULL, NULL, pkey, NULL), 1);
	assert_int_equal(EVP_DigestVerify(md, signature, signature_len,
					  (const uint8_t *)"Hello world", 11),
			 1);
	signature[2000] ^= 1;
	EVP_MD_CTX_reset(md);
	assert_int_equal(EVP_DigestVerifyInit_ex(md, NULL, NULL, NULL, NULL, pkey, NULL), 1);
	assert_int_not_equal(EVP_DigestVerify(md, signature, signature_len,
					      (const uint8_t *)"Hello world", 11),
			     1);
	EVP_MD_CTX_free(md);
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(pkey);
	sm_crypto_error();
}

/* Bytes of DER in a PEM file */
static long pem_der(const char *path, uint8_t *der, size_t size)
{
	FILE *f = fopen(path, "r");
	char *name, *header;
	unsigned char *data;
	long len;

	assert_non_null(f);
	assert_int_equal(PEM_read(f, &name, &header, &data, &len), 1);
	fclose(f);
	assert_true((size_t)len <= size);
	memcpy(der, data, (size_t)len);
	OPENSSL_free(name);
	OPENSSL_free(header);
	OPENSSL_free(data);
	return len;
}

static void assert_same_key(const struct sm_key *a, const struct sm_key *b)
{
	uint8_t fp_a[SM_FINGERPRINT_LEN], fp_b[SM_FINGERPRINT_LEN];

	assert_int_equal(sm_key_fingerprint(a, fp_a), 0);
	assert_int_equal(sm_key_fingerprint(b, fp_b), 0);
	assert_memory_equal(fp_a, fp_b, sizeof(fp_a));
}

static void test_save_and_load(void **state)
{
	const char *path = fixture_path("node.key");
	char error[SM_KEY_ERROR_MAX];
	struct sm_key *key, *loaded = NULL, *other;
	uint8_t der[256], fp[32], fp_other[32];
	struct stat st;
	mode_t before = umask(0);

	(void)state;
	assert_int_equal(sm_key_generate(&key), 0);
	assert_int_equal(sm_key_save(key, path, NULL, error), 0);
	umask(before);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(pem_der(path, der, sizeof(der)), 54); /* the seed and nothing else */
	assert_int_equal(fixture_files(false), 1);

	assert_int_equal(sm_key_load(path, must_not_ask, NULL, &loaded, error), 0);
	assert_same_key(key, loaded);

	assert_int_equal(sm_key_generate(&other), 0);
	assert_int_equal(sm_key_fingerprint(key, fp), 0);
	assert_int_equal(sm_key_fingerprint(other, fp_other), 0);
	assert_memory_not_equal(fp, fp_other, sizeof(fp));
	assert_int_equal(sm_key_save(other, path, NULL, error), -EEXIST);
	assert_non_null(strstr(error, "exists already"));
	sm_key_free(loaded);
	assert_int_equal(sm_key_load(path, NULL, NULL, &loaded, NULL), 0);
	assert_same_key(key, loaded);
	sm_key_free(loaded);
	sm_key_free(other);
	sm_key_free(key);
	sm_key_free(NULL);
	fixture_files(true);
}

static void test_passphrase(void **state)
{
	const char *path = fixture_path("secret.key");
	char error[SM_KEY_ERROR_MAX], text[2048], phrase[] = "correct horse",
						  wrong[] = "Correct horse";
	char empty[] = "", long_phrase[1025];
	struct sm_key *key, *loaded;

	(void)state;
	memset(long_phrase, 'x', 1024);
	long_phrase[1024] = '\0';
	assert_int_equal(sm_key_generate(&key), 0);
	assert_int_equal(sm_key_save(key, path, "", error), -EINVAL);
	assert_int_equal(sm_key_save(key, path, long_phrase, error), -EINVAL);
	assert_int_equal(fixture_files(false), 0);
	assert_int_equal(sm_key_save(key, path, phrase, error), 0);
	fixture_read(path, text, sizeof(text));
	assert_memory_equal(text, "-----BEGIN ENCRYPTED PRIVATE KEY-----", 37);

	assert_int_equal(sm_key_load(path, give, phrase, &loaded, error), 0);
	assert_same_key(key, loaded);
	sm_key_free(loaded);
	assert_int_equal(sm_key_load(path, give, wrong, &loaded, error), -EACCES);
	assert_non_null(strstr(error, "wrong passphrase"));
	assert_int_equal(sm_key_load(path, give, empty, &loaded, error), -EACCES);
	assert_int_equal(sm_key_load(path, give, NULL, &loaded, error), -EACCES);
	assert_int_equal(sm_key_load(path, NULL, NULL, &loaded, error), -EACCES);
	assert_non_null(strstr(error, "no passphrase was given"));
	sm_key_free(key);
	fixture_files(true);
}

static void test_modes(void **state)
{
	static const mode_t bad[] = {0640, 0604, 0620, 0602, 0610, 0601, 0644, 0666, 0777};
	static const mode_t good[] = {0600, 0400, 0700};
	const char *path = fixture_path("mode.key");
	char error[SM_KEY_ERROR_MAX];
	struct sm_key *key;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(bad); i++) {
		fixture_write(path, bad[i], RFC9881_KEY, strlen(RFC9881_KEY));
		assert_int_equal(sm_key_load(path, NULL, NULL, &key, error), -EPERM);
		assert_non_null(strstr(error, "chmod 600"));
		fixture_files(true);
	}
	for (size_t i = 0; i < SM_ARRAY_SIZE(good); i++) {
		fixture_write(path, good[i], RFC9881_KEY, strlen(RFC9881_KEY));
		assert_int_equal(sm_key_load(path, NULL, NULL, &key, error), 0);
		sm_key_free(key);
		fixture_files(true);
	}
}

/* Every proper beginning of a key file is refused, encrypted or not. */
static void test_truncated(void **state)
{
	const char *path = fixture_path("cut.key");
	char error[SM_KEY_ERROR_MAX], phrase[] = "phrase", text[2048];
	struct sm_key *key = NULL, *loaded;
	size_t len;

	(void)state;
	for (size_t n = 0; n + 2 < strlen(RFC9881_KEY); n++) {
		fixture_write(path, 0600, RFC9881_KEY, n);
		assert_int_equal(sm_key_load(path, must_not_ask, NULL, &loaded, error), -EBADMSG);
	}
	fixture_files(true);
	assert_int_equal(sm_key_generate(&key), 0);
	assert_int_equal(sm_key_save(key, path, phrase, error), 0);
	len = fixture_read(path, text, sizeof(text));
	for (size_t n = 0; n + 2 < len; n += 7) {
		fixture_write(path, 0600, text, n);
		assert_int_equal(sm_key_load(path, give, phrase, &loaded, error), -EBADMSG);
	}
	sm_key_free(key);
	fixture_files(true);
}

static void write_pkey(const char *path, EVP_PKEY *pkey, bool traditional)
{
	FILE *f = fopen(path, "w");

	assert_non_null(pkey);
	assert_non_null(f);
	if (traditional) {
		BIO *bio = BIO_new_fp(f, BIO_NOCLOSE);

		assert_int_equal(PEM_write_bio_PrivateKey_traditional(bio, pkey, NULL, NULL, 0,
								      NULL, NULL),
				 1);
		BIO_free(bio);
	} else {
		assert_int_equal(PEM_write_PrivateKey(f, pkey, NULL, NULL, 0, NULL, NULL), 1);
	}
	fclose(f);
	assert_int_equal(chmod(path, 0600), 0);
	EVP_PKEY_free(pkey);
}

static void test_other_content(void **state)
{
	static const char text[] = "just text\n";
	const char *path = fixture_path("other.key");
	char error[SM_KEY_ERROR_MAX];
	static char big[70000];
	struct sm_key *key;

	(void)state;
	assert_int_equal(sm_key_load(path, NULL, NULL, &key, error), -ENOENT);
	assert_non_null(strstr(error, path));
	assert_int_equal(sm_key_load(fixture_dir, NULL, NULL, &key, error), -EISDIR);
	fixture_write(path, 0600, text, strlen(text));
	assert_int_equal(sm_key_load(path, NULL, NULL, &key, error), -EBADMSG);
	fixture_write(path, 0600, big, sizeof(big));
	assert_int_equal(sm_key_load(path, NULL, NULL, &key, error), -EBADMSG);

	write_pkey(path, EVP_EC_gen("P-384"), false);
	assert_int_equal(sm_key_load(path, NULL, NULL, &key, error), -ENOTSUP);
	assert_non_null(strstr(error, "EC"));
	write_pkey(path, EVP_EC_gen("P-384"), true);
	assert_int_equal(sm_key_load(path, NULL, NULL, &key, error), -ENOTSUP);
	write_pkey(path, EVP_PKEY_Q_keygen(NULL, NULL, "ML-DSA-65"), false);
	assert_int_equal(sm_key_load(path, NULL, NULL, &key, error), -ENOTSUP);
	assert_non_null(strstr(error, "ML-DSA-65"));
	fixture_files(true);
}

/* No space, no file: neither under its name nor under a temporary one. */
static void test_full_disk(void **state)
{
	char error[SM_KEY_ERROR_MAX];
	struct rlimit old, tiny = {.rlim_cur = 40};
	struct sm_key *key;

	(void)state;
	assert_int_equal(sm_key_generate(&key), 0);
	assert_int_equal(sm_key_save(key, "/dev/full", NULL, error), -ENOSPC);
	assert_non_null(strstr(error, "No space left"));
	assert_int_equal(sm_key_save(key, fixture_path("no/such/folder.key"), NULL, error),
			 -ENOENT);
	assert_int_equal(sm_key_save(key, fixture_dir, NULL, error), -EISDIR);

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	tiny.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tiny), 0);
	int err = sm_key_save(key, fixture_path("big.key"), NULL, error);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(err, -EFBIG);
	assert_int_equal(fixture_files(false), 0);
	sm_key_free(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rfc9881),       cmocka_unit_test(test_signature_vector),
		cmocka_unit_test(test_save_and_load), cmocka_unit_test(test_passphrase),
		cmocka_unit_test(test_modes),         cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_other_content), cmocka_unit_test(test_full_disk),
	};

	return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
