// SPDX-License-Identifier: MIT
/*
 * Certificate requests (PKCS#10), for keys that never leave their node.
 */
#include "base/text.h"
#include "crypto/cert.h"
#include "crypto/file.h"
#include "crypto/objects.h"

#include <openssl/err.h>
#include <openssl/pem.h>

#define REQUEST_FILE_MAX 65536u

static X509_REQ *make_request(const struct sm_key *key, const char *name)
{
	X509_REQ *request = X509_REQ_new();
	X509_NAME *subject = X509_NAME_new();
	bool ok = request && subject &&
		  X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8,
					     (const unsigned char *)name, -1, -1, 0) == 1 &&
		  X509_REQ_set_version(request, X509_REQ_VERSION_1) == 1 &&
		  X509_REQ_set_subject_name(request, subject) == 1 &&
		  X509_REQ_set_pubkey(request, key->pkey) == 1 &&
		  X509_REQ_sign(request, key->pkey, NULL) > 0;

	X509_NAME_free(subject);
	if (ok)
		return request;
	X509_REQ_free(request);
	return NULL;
}

int sm_cert_request_save(const struct sm_key *key, const char *name, const char *path, char *error)
{
	X509_REQ *request;
	BIO *bio;
	char *pem;
	int err = -EIO;

	if (!sm_text_is_name(name)) {
		sm_explain(error, "'%.80s' is no node name: 1 to %d characters of a-z, 0-9 and '-'",
			   name, SM_NAME_MAX);
		return -EINVAL;
	}
	request = make_request(key, name);
	bio = BIO_new(BIO_s_mem());
	if (request && bio && PEM_write_bio_X509_REQ(bio, request) == 1) {
		long len = BIO_get_mem_data(bio, &pem);

		err = sm_file_write(path, 0644, false, pem, (size_t)len, error);
	} else {
		sm_explain(error, "%s: cannot make the request: %s", path, sm_crypto_error());
	}
	BIO_free(bio);
	X509_REQ_free(request);
	return err;
}

static int read_request(const char *path, const X509_REQ *request, struct sm_key **ret_public,
			char *ret_name, char *error)
{
	EVP_PKEY *pkey = X509_REQ_get0_pubkey(request);
	char name[SM_NAME_MAX + 2];
	int n;
	int err;

	if (!pkey || !EVP_PKEY_is_a(pkey, SM_KEY_ALGORITHM)) {
		sm_explain(error, "%s: a request for a key that is not " SM_KEY_ALGORITHM, path);
		return -ENOTSUP;
	}
	if (X509_REQ_verify((X509_REQ *)(uintptr_t)request, pkey) != 1) {
		sm_explain(error,
			   "%s: the request's signature is wrong: whoever made it does not "
			   "have the key",
			   path);
		return -EBADMSG;
	}
	n = X509_NAME_get_text_by_NID(X509_REQ_get_subject_name(request), NID_commonName, name,
				      sizeof(name));
	if (n < 0 || strlen(name) != (size_t)n || !sm_text_is_name(name)) {
		sm_explain(error, "%s: the request's common name is no node name", path);
		return -EBADMSG;
	}
	if (EVP_PKEY_up_ref(pkey) != 1)
		return -ENOMEM;
	err = sm_key_wrap(pkey, false, ret_public);
	if (!err)
		memcpy(ret_name, name, strlen(name) + 1);
	return err;
}

int sm_cert_request_load(const char *path, struct sm_key **ret_public, char *ret_name, char *error)
{
	char *data;
	size_t len;
	BIO *bio;
	X509_REQ *request;
	int err = sm_file_read(path, REQUEST_FILE_MAX, false, &data, &len, error);

	if (err)
		return err == -EFBIG ? -EBADMSG : err;
	bio = BIO_new_mem_buf(data, (int)len);
	request = bio ? PEM_read_bio_X509_REQ(bio, NULL, sm_crypto_no_passphrase, NULL) : NULL;
	if (request) {
		err = read_request(path, request, ret_public, ret_name, error);
	} else {
		sm_explain(error, "%s: holds no certificate request that can be read", path);
		err = -EBADMSG;
	}
	ERR_clear_error();
	X509_REQ_free(request);
	BIO_free(bio);
	sm_file_release(data, len);
	return err;
}
