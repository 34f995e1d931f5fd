// SPDX-License-Identifier: MIT
/*
 * Epoch secrets and lane keys. Spec: PROTOCOL.md, "Key schedule".
 */
#include "crypto/schedule.h"

#include "base/cursor.h"

#include <openssl/evp.h>

#define EPOCH_SALT    "shadowmesh/1 epoch"
#define KEY_LABEL     "shadowmesh/1 key"
#define IV_LABEL      "shadowmesh/1 iv"
#define LANE_INFO_LEN 7u /* direction, cipher, epoch, lane */

int sm_schedule_first(const uint8_t root[SM_ROOT_SECRET_LEN], struct sm_epoch_secret *ret_secret)
{
	return sm_hkdf_extract(EPOCH_SALT, strlen(EPOCH_SALT), root, SM_ROOT_SECRET_LEN,
			       ret_secret->b);
}

static int transcript_hash(struct sm_bytes request, struct sm_bytes reply,
			   uint8_t ret_digest[SM_SHA384_LEN])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = ctx && EVP_DigestInit_ex2(ctx, EVP_sha384(), NULL) == 1 &&
		  EVP_DigestUpdate(ctx, request.data, request.len) == 1 &&
		  EVP_DigestUpdate(ctx, reply.data, reply.len) == 1 &&
		  EVP_DigestFinal_ex(ctx, ret_digest, NULL) == 1;

	EVP_MD_CTX_free(ctx);
	return ok ? 0 : -EIO;
}

int sm_schedule_next(const struct sm_epoch_secret *previous,
		     const uint8_t kem_secret[SM_KEM_SECRET_LEN], struct sm_bytes request,
		     struct sm_bytes reply, struct sm_epoch_secret *ret_secret)
{
	uint8_t ikm[SM_KEM_SECRET_LEN + SM_SHA384_LEN];
	struct sm_epoch_secret next;
	int err;

	memcpy(ikm, kem_secret, SM_KEM_SECRET_LEN);
	err = transcript_hash(request, reply, ikm + SM_KEM_SECRET_LEN);
	if (!err)
		err = sm_hkdf_extract(previous->b, sizeof(previous->b), ikm, sizeof(ikm), next.b);
	if (!err)
		*ret_secret = next;
	sm_wipe(ikm, sizeof(ikm));
	sm_wipe(&next, sizeof(next));
	return err;
}

int sm_schedule_lane(const struct sm_epoch_secret *secret, enum sm_direction direction,
		     enum sm_cipher cipher, uint32_t epoch, uint8_t lane, bool sealing,
		     struct sm_aead **ret_aead)
{
	uint8_t tail[LANE_INFO_LEN];
	uint8_t key[SM_AEAD_KEY_LEN], iv[SM_AEAD_IV_LEN];
	struct sm_writer w = sm_writer_init(tail, sizeof(tail));
	int err;

	sm_write_u8(&w, (uint8_t)direction);
	sm_write_u8(&w, (uint8_t)cipher);
	sm_write_u32(&w, epoch);
	sm_write_u8(&w, lane);
	assert(sm_writer_len(&w) == sizeof(tail) && !w.failed);

	const struct sm_bytes key_info[] = {{KEY_LABEL, strlen(KEY_LABEL)}, {tail, sizeof(tail)}};
	const struct sm_bytes iv_info[] = {{IV_LABEL, strlen(IV_LABEL)}, {tail, sizeof(tail)}};
	err = sm_hkdf_expand(secret->b, key_info, SM_ARRAY_SIZE(key_info), key, sizeof(key));
	if (!err)
		err = sm_hkdf_expand(secret->b, iv_info, SM_ARRAY_SIZE(iv_info), iv, sizeof(iv));
	if (!err)
		err = sm_aead_new(cipher, key, iv, sealing, ret_aead);
	sm_wipe(key, sizeof(key));
	sm_wipe(iv, sizeof(iv));
	return err;
}
