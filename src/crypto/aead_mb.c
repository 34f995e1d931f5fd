// SPDX-License-Identifier: MIT
/*
 * The library's manager holds nothing but its choice of functions for this processor: made once, then only
 * read, by any thread.
 */
#include "crypto/aead_mb.h"

#ifdef SM_HAVE_IPSEC_MB

#include <intel-ipsec-mb.h>
#include <pthread.h>
#include <stdlib.h>

#define KEY_ALIGN 64u

struct sm_aead_mb {
	_Alignas(KEY_ALIGN) struct gcm_key_data key;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static IMB_MGR *manager;

static void choose(void)
{
	IMB_MGR *m = alloc_mb_mgr(0);

	if (!m)
		return;
	init_mb_mgr_auto(m, NULL);
	if (imb_get_errno(m) == 0 && (m->features & IMB_FEATURE_VAES))
		manager = m;
	else
		free_mb_mgr(m);
}

static IMB_MGR *get_manager(void)
{
	(void)pthread_once(&once, choose);
	return manager;
}

const char *sm_aead_mb_version(void)
{
	return get_manager() ? imb_get_version_str() : NULL;
}

struct sm_aead_mb *sm_aead_mb_new(const uint8_t key[SM_AEAD_KEY_LEN])
{
	IMB_MGR *m = get_manager();
	struct sm_aead_mb *mb = m ? aligned_alloc(KEY_ALIGN, sizeof(*mb)) : NULL;

	if (mb)
		IMB_AES256_GCM_PRE(m, key, &mb->key);
	return mb;
}

void sm_aead_mb_free(struct sm_aead_mb *mb)
{
	if (!mb)
		return;
	sm_wipe(mb, sizeof(*mb));
	free(mb);
}

void sm_aead_mb_seal(const struct sm_aead_mb *mb, const uint8_t nonce[SM_AEAD_IV_LEN],
		     const uint8_t *ad, size_t ad_len, const uint8_t *in, size_t len, uint8_t *out)
{
	struct gcm_context_data context;

	IMB_AES256_GCM_ENC(manager, &mb->key, &context, out, in, len, nonce, ad, ad_len, out + len,
			   SM_TAG_LEN);
}

void sm_aead_mb_open(const struct sm_aead_mb *mb, const uint8_t nonce[SM_AEAD_IV_LEN],
		     const uint8_t *ad, size_t ad_len, const uint8_t *in, size_t len, uint8_t *out,
		     uint8_t ret_tag[SM_TAG_LEN])
{
	struct gcm_context_data context;

	IMB_AES256_GCM_DEC(manager, &mb->key, &context, out, in, len, nonce, ad, ad_len, ret_tag,
			   SM_TAG_LEN);
}

#else

const char *sm_aead_mb_version(void)
{
	return NULL;
}

struct sm_aead_mb *sm_aead_mb_new(const uint8_t key[SM_AEAD_KEY_LEN])
{
	(void)key;
	return NULL;
}

void sm_aead_mb_free(struct sm_aead_mb *mb)
{
	(void)mb;
}

void sm_aead_mb_seal(const struct sm_aead_mb *mb, const uint8_t nonce[SM_AEAD_IV_LEN],
		     const uint8_t *ad, size_t ad_len, const uint8_t *in, size_t len, uint8_t *out)
{
	(void)mb, (void)nonce, (void)ad, (void)ad_len, (void)in, (void)len, (void)out;
}

void sm_aead_mb_open(const struct sm_aead_mb *mb, const uint8_t nonce[SM_AEAD_IV_LEN],
		     const uint8_t *ad, size_t ad_len, const uint8_t *in, size_t len, uint8_t *out,
		     uint8_t ret_tag[SM_TAG_LEN])
{
	(void)mb, (void)nonce, (void)ad, (void)ad_len, (void)in, (void)len, (void)out;
	(void)ret_tag;
}

#endif
