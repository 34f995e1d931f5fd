// SPDX-License-Identifier: MIT
/*
 * The access key's proof: offered, checked, remembered.
 */
#include "crypto/access.h"

#include "base/cursor.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>

#define SEEN_LEN  16u
#define SEEN_WAYS 4u
#define SEEN_SETS (SM_ACCESS_SEEN_MAX / SEEN_WAYS)
static_assert((SEEN_SETS & (SEEN_SETS - 1)) == 0, "used as a mask");

/* Binders that were accepted: random to whoever lacks the key, so their own bytes choose the set. */
struct seen_set {
	uint8_t binder[SEEN_WAYS][SEEN_LEN];
	uint8_t used, next;
};

struct sm_access {
	uint8_t psk[SM_ACCESS_PSK_LEN];
	uint8_t binder_key[SM_SHA384_LEN];
	pthread_mutex_t lock; /* for what follows */
	struct seen_set seen[SEEN_SETS];
};

/* HKDF-Expand-Label of RFC 8446, section 7.1 */
static int expand_label(const uint8_t secret[SM_SHA384_LEN], const char *label,
			struct sm_bytes context, uint8_t ret_key[SM_SHA384_LEN])
{
	static const char prefix[] = "tls13 ";
	uint8_t head[3] = {0, SM_SHA384_LEN, (uint8_t)(strlen(prefix) + strlen(label))};
	uint8_t context_len = (uint8_t)context.len;
	const struct sm_bytes info[] = {
		{head, sizeof(head)},
		{prefix, strlen(prefix)},
		{label, strlen(label)},
		{&context_len, 1},
		context,
	};

	return sm_hkdf_expand(secret, info, SM_ARRAY_SIZE(info), ret_key, SM_SHA384_LEN);
}

static int hash(const void *data, size_t len, uint8_t ret_digest[SM_SHA384_LEN])
{
	size_t n = SM_SHA384_LEN;

	return EVP_Q_digest(NULL, "SHA384", NULL, data, len, ret_digest, &n) == 1 ? 0 : -EIO;
}

/* The finished key under which binders of this pre-shared key are made */
static int derive(struct sm_access *access, const uint8_t *key, const uint8_t *network_id)
{
	static const char salt[] = "shadowmesh/1 access";
	static const uint8_t zeros[SM_SHA384_LEN];
	const struct sm_bytes info = {network_id, SM_NETWORK_ID_LEN};
	uint8_t secret[SM_SHA384_LEN], empty[SM_SHA384_LEN];
	int err;

	err = sm_hkdf_extract(salt, strlen(salt), key, SM_ACCESS_KEY_LEN, secret);
	if (!err)
		err = sm_hkdf_expand(secret, &info, 1, access->psk, sizeof(access->psk));
	if (!err)
		err = sm_hkdf_extract(zeros, sizeof(zeros), access->psk, sizeof(access->psk),
				      secret);
	if (!err)
		err = hash("", 0, empty);
	if (!err)
		err = expand_label(secret, "ext binder", (struct sm_bytes){empty, sizeof(empty)},
				   secret);
	if (!err)
		err = expand_label(secret, "finished", (struct sm_bytes){"", 0},
				   access->binder_key);
	sm_wipe(secret, sizeof(secret));
	return err;
}

int sm_access_new(const uint8_t key[SM_ACCESS_KEY_LEN], const uint8_t network_id[SM_NETWORK_ID_LEN],
		  struct sm_access **ret_access)
{
	struct sm_access *access = calloc(1, sizeof(*access));
	int err;

	if (!access)
		return -ENOMEM;
	err = -pthread_mutex_init(&access->lock, NULL);
	if (err) {
		free(access);
		return err;
	}
	err = derive(access, key, network_id);
	if (err) {
		sm_access_free(access);
		return err;
	}
	*ret_access = access;
	return 0;
}

void sm_access_free(struct sm_access *access)
{
	if (!access)
		return;
	pthread_mutex_destroy(&access->lock);
	sm_wipe(access, sizeof(*access));
	free(access);
}

int sm_access_offer(const struct sm_access *access, int64_t now_s,
		    uint8_t ret_identity[SM_ACCESS_IDENTITY_LEN])
{
	uint8_t identity[SM_ACCESS_IDENTITY_LEN];
	struct sm_writer w = sm_writer_init(identity, sizeof(identity));
	int err;

	(void)access;
	sm_write_u64(&w, (uint64_t)now_s);
	err = sm_crypto_random(w.pos, (size_t)(w.end - w.pos));
	if (!err)
		memcpy(ret_identity, identity, sizeof(identity));
	return err;
}

const uint8_t *sm_access_psk(const struct sm_access *access)
{
	return access->psk;
}

/* Return: true if the binder was seen before; remembered else */
static bool seen_before(struct sm_access *access, const uint8_t *binder)
{
	struct seen_set *set =
		&access->seen[((size_t)binder[0] << 8 | binder[1]) & (SEEN_SETS - 1)];
	bool found = false;

	pthread_mutex_lock(&access->lock);
	for (unsigned i = 0; i < set->used; i++)
		found |= memcmp(set->binder[i], binder, SEEN_LEN) == 0;
	if (!found) {
		memcpy(set->binder[set->next], binder, SEEN_LEN);
		set->next = (uint8_t)((set->next + 1) % SEEN_WAYS);
		if (set->used < SEEN_WAYS)
			set->used++;
	}
	pthread_mutex_unlock(&access->lock);
	return found;
}

static bool time_fits(const uint8_t *identity, int64_t now_s)
{
	struct sm_reader r = sm_reader_init(identity, SM_ACCESS_IDENTITY_LEN);
	uint64_t then = sm_read_u64(&r), now = (uint64_t)now_s;

	return (then > now ? then - now : now - then) <= SM_ACCESS_WINDOW_S;
}

int sm_access_check(struct sm_access *access, const uint8_t *msg, const struct sm_hello *hello,
		    int64_t now_s, const char **ret_why)
{
	uint8_t digest[SM_SHA384_LEN], binder[SM_SHA384_LEN];
	int err;

	if (!hello->identity) {
		*ret_why = "the peer has no access key";
		return -EACCES;
	}
	if (hello->identity_len != SM_ACCESS_IDENTITY_LEN || hello->binder_len != SM_SHA384_LEN) {
		*ret_why = "what the peer offers is not an access key's proof";
		return -EACCES;
	}
	err = hash(msg, hello->covered, digest);
	if (!err) /* extracting is HMAC-SHA384 with the salt as its key */
		err = sm_hkdf_extract(access->binder_key, sizeof(access->binder_key), digest,
				      sizeof(digest), binder);
	if (err)
		return err;
	if (!sm_equal_ct(binder, hello->binder, sizeof(binder))) {
		*ret_why = "the peer's access key is another one";
		return -EACCES;
	}
	if (!time_fits(hello->identity, now_s)) {
		*ret_why = "the peer's access key is right, but its clock and ours are more than "
			   "two days apart";
		return -EACCES;
	}
	if (seen_before(access, binder)) {
		*ret_why = "a greeting was replayed";
		return -EACCES;
	}
	return 0;
}
