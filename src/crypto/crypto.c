// SPDX-License-Identifier: MIT
/*
 * Start-up of the cryptographic library, its allocator, hashes, key derivation, randomness.
 */
#include "crypto/crypto.h"

#include "crypto/aead_mb.h"
#include "crypto/objects.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define HKDF_INFO_MAX 512u

/*
 * The allocator: each block carries its size in front, so that it can be wiped whole. A prefix, and
 * not malloc_usable_size(), because only the former is certain under every libc and sanitizer.
 */
union block {
	size_t size;
	max_align_t align;
};

static void *wiping_malloc(size_t size, const char *file, int line)
{
	union block *block;

	(void)file;
	(void)line;
	if (size == 0 || size > SIZE_MAX - sizeof(*block))
		return NULL;
	block = malloc(sizeof(*block) + size);
	if (!block)
		return NULL;
	block->size = size;
	return block + 1;
}

static void wiping_free(void *mem, const char *file, int line)
{
	union block *block = mem;

	(void)file;
	(void)line;
	if (!block)
		return;
	block--;
	sm_wipe(block, sizeof(*block) + block->size);
	free(block);
}

static void *wiping_realloc(void *mem, size_t size, const char *file, int line)
{
	const union block *old = mem;
	void *bigger;

	if (!mem)
		return wiping_malloc(size, file, line);
	if (size == 0) {
		wiping_free(mem, file, line);
		return NULL;
	}
	bigger = wiping_malloc(size, file, line);
	if (!bigger)
		return NULL;
	memcpy(bigger, mem, SM_MIN(old[-1].size, size));
	wiping_free(mem, file, line);
	return bigger;
}

static bool library_has_all(void)
{
	EVP_SIGNATURE *sign = EVP_SIGNATURE_fetch(NULL, "ML-DSA-87", NULL);
	EVP_KEM *kem = EVP_KEM_fetch(NULL, "ML-KEM-1024", NULL);
	EVP_KEM *hybrid = EVP_KEM_fetch(NULL, "SecP384r1MLKEM1024", NULL);
	EVP_CIPHER *gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	EVP_CIPHER *chacha = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL);
	bool all = sign && kem && hybrid && gcm && chacha;

	EVP_SIGNATURE_free(sign);
	EVP_KEM_free(kem);
	EVP_KEM_free(hybrid);
	EVP_CIPHER_free(gcm);
	EVP_CIPHER_free(chacha);
	return all;
}

static int start_result;
static OSSL_PROVIDER *provider;

static void stop(void)
{
	OSSL_PROVIDER_unload(provider);
}

static void start(void)
{
	char formats[] = "seed-only";
	OSSL_PARAM config[] = {
		OSSL_PARAM_construct_utf8_string("ml-dsa.output_formats", formats, 0),
		OSSL_PARAM_construct_end(),
	};

	if (CRYPTO_set_mem_functions(wiping_malloc, wiping_realloc, wiping_free) != 1) {
		start_result = -EBUSY;
		return;
	}
	/* Private keys are written as their 32-byte seed; this must precede the provider's first use. */
	if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_ADD_ALL_CIPHERS |
					OPENSSL_INIT_ADD_ALL_DIGESTS,
				NULL) != 1) {
		start_result = -ENOTSUP;
		return;
	}
	provider = OSSL_PROVIDER_load_ex(NULL, "default", config);
	if (!provider || OPENSSL_atexit(stop) != 1 || !library_has_all())
		start_result = -ENOTSUP;
	ERR_clear_error();
}

int sm_crypto_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	if (pthread_once(&once, start) != 0)
		return -ENOTSUP;
	return start_result;
}

const char *sm_crypto_version(void)
{
	static char both[128];

	if (!sm_aead_mb_version())
		return OpenSSL_version(OPENSSL_VERSION);
	(void)snprintf(both, sizeof(both), "%s, intel-ipsec-mb %s",
		       OpenSSL_version(OPENSSL_VERSION), sm_aead_mb_version());
	return both;
}

bool sm_crypto_has_aes(void)
{
#if defined(__x86_64__) || defined(__i386__)
	unsigned a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_AES) && (c & bit_PCLMUL);
#elif defined(__aarch64__)
	unsigned long caps = getauxval(AT_HWCAP);

	return (caps & HWCAP_AES) && (caps & HWCAP_PMULL);
#else
	return false;
#endif
}

int sm_crypto_random(void *ret_data, size_t len)
{
	return RAND_priv_bytes_ex(NULL, ret_data, len, 0) == 1 ? 0 : -EIO;
}

int sm_sha256(const struct sm_bytes *pieces, size_t n, uint8_t ret_digest[SM_SHA256_LEN])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = ctx && EVP_DigestInit_ex2(ctx, EVP_sha256(), NULL) == 1;

	for (size_t i = 0; ok && i < n; i++)
		ok = pieces[i].len == 0 ||
		     EVP_DigestUpdate(ctx, pieces[i].data, pieces[i].len) == 1;
	ok = ok && EVP_DigestFinal_ex(ctx, ret_digest, NULL) == 1;
	EVP_MD_CTX_free(ctx);
	return ok ? 0 : -EIO;
}

int sm_hmac_sha256(const void *key, size_t key_len, const struct sm_bytes *pieces, size_t n,
		   uint8_t ret_mac[SM_SHA256_LEN])
{
	static const uint8_t no_key[1];
	char digest[] = "SHA256";
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_end(),
	};
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
	bool ok = ctx && EVP_MAC_init(ctx, key_len ? key : no_key, key_len, params) == 1;

	for (size_t i = 0; ok && i < n; i++)
		ok = pieces[i].len == 0 || EVP_MAC_update(ctx, pieces[i].data, pieces[i].len) == 1;
	ok = ok && EVP_MAC_final(ctx, ret_mac, NULL, SM_SHA256_LEN) == 1;
	EVP_MAC_CTX_free(ctx);
	EVP_MAC_free(mac);
	return ok ? 0 : -EIO;
}

static int hkdf(const OSSL_PARAM *params, void *ret_out, size_t len)
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	bool ok = ctx && EVP_KDF_derive(ctx, ret_out, len, params) == 1;

	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return ok ? 0 : -EIO;
}

/* OSSL_PARAM has no const octets; the library only reads them. */
static OSSL_PARAM octets(const char *name, const void *data, size_t len)
{
	return OSSL_PARAM_construct_octet_string(name, (void *)(uintptr_t)data, len);
}

int sm_hkdf_extract(const void *salt, size_t salt_len, const void *ikm, size_t ikm_len,
		    uint8_t ret_prk[SM_SHA384_LEN])
{
	static const uint8_t nothing[1];
	char digest[] = "SHA384";
	int mode = EVP_KDF_HKDF_MODE_EXTRACT_ONLY;
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
		octets(OSSL_KDF_PARAM_SALT, salt_len ? salt : nothing, salt_len),
		octets(OSSL_KDF_PARAM_KEY, ikm_len ? ikm : nothing, ikm_len),
		OSSL_PARAM_construct_end(),
	};

	return hkdf(params, ret_prk, SM_SHA384_LEN);
}

int sm_hkdf_expand(const uint8_t prk[SM_SHA384_LEN], const struct sm_bytes *info, size_t n,
		   void *ret_okm, size_t len)
{
	uint8_t text[HKDF_INFO_MAX];
	size_t used = 0;
	char digest[] = "SHA384";
	int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;

	if (len == 0 || len > (size_t)255 * SM_SHA384_LEN)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		if (info[i].len > sizeof(text) - used)
			return -EINVAL;
		if (info[i].len)
			memcpy(text + used, info[i].data, info[i].len);
		used += info[i].len;
	}
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
		octets(OSSL_KDF_PARAM_KEY, prk, SM_SHA384_LEN),
		octets(OSSL_KDF_PARAM_INFO, text, used),
		OSSL_PARAM_construct_end(),
	};
	return hkdf(params, ret_okm, len);
}

const char *sm_crypto_error(void)
{
	static _Thread_local char text[256];
	unsigned long code = ERR_peek_last_error();

	if (code == 0)
		snprintf(text, sizeof(text), "no details");
	else
		ERR_error_string_n(code, text, sizeof(text));
	ERR_clear_error();
	return text;
}

int sm_crypto_no_passphrase(char *buf, int size, int writing, void *arg)
{
	(void)buf;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

int sm_crypto_seconds(const ASN1_TIME *when, int64_t *ret_s)
{
	struct tm tm;

	if (ASN1_TIME_to_tm(when, &tm) != 1)
		return -EBADMSG;
	*ret_s = timegm(&tm);
	return 0;
}

void sm_explain(char *error, const char *fmt, ...)
{
	va_list args;

	if (!error)
		return;
	va_start(args, fmt);
	vsnprintf(error, SM_CERT_ERROR_MAX, fmt, args);
	va_end(args);
}
