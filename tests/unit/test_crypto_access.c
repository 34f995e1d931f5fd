// SPDX-License-Identifier: MIT
/*
 * The access key's proof, made here with OpenSSL alone after RFC 8446, sections 4.2.11.2 and 7.1: who is
 * let in, at which time, how often.
 */
#include "crypto/access.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#define NOW_S    INT64_C(1800000000)
#define MSG_LEN  300u
#define HASH_LEN SM_SHA384_LEN

static const uint8_t key[SM_ACCESS_KEY_LEN] = {1, 2, 3}, other_key[SM_ACCESS_KEY_LEN] = {1, 2, 4};
static const uint8_t net[SM_NETWORK_ID_LEN] = {9}, other_net[SM_NETWORK_ID_LEN] = {8};

static void hmac(const uint8_t k[HASH_LEN], const void *data, size_t len, uint8_t ret[HASH_LEN])
{
	unsigned n = HASH_LEN;

	assert_non_null(HMAC(EVP_sha384(), k, HASH_LEN, data, len, ret, &n));
}

/* HKDF-Expand-Label with the hash's length, one block of it */
static void expand_label(uint8_t secret[HASH_LEN], const char *label, const uint8_t *context,
			 uint8_t context_len)
{
	uint8_t info[128];
	const int n = snprintf((char *)info + 3, 64, "tls13 %s", label);
	size_t len = 3 + (size_t)n;

	info[0] = 0;
	info[1] = HASH_LEN;
	info[2] = (uint8_t)n;
	info[len++] = context_len;
	if (context_len)
		memcpy(info + len, context, context_len);
	len += context_len;
	info[len++] = 1;
	hmac(secret, info, len, secret);
}

static void make_binder(const uint8_t psk[SM_ACCESS_PSK_LEN], const uint8_t *msg, size_t covered,
			uint8_t ret_binder[HASH_LEN])
{
	static const uint8_t zeros[HASH_LEN];
	uint8_t secret[HASH_LEN], digest[HASH_LEN];

	hmac(zeros, psk, SM_ACCESS_PSK_LEN, secret); /* early secret */
	assert_int_equal(EVP_Digest("", 0, digest, NULL, EVP_sha384(), NULL), 1);
	expand_label(secret, "ext binder", digest, HASH_LEN);
	expand_label(secret, "finished", NULL, 0);
	assert_int_equal(EVP_Digest(msg, covered, digest, NULL, EVP_sha384(), NULL), 1);
	hmac(secret, digest, HASH_LEN, ret_binder);
}

/* A greeting of someone who has a key, offered at @then_s; @number makes it another one each time */
struct greeting {
	uint8_t msg[MSG_LEN], identity[SM_ACCESS_IDENTITY_LEN], binder[HASH_LEN];
	struct sm_hello hello;
};

static void greet(struct greeting *g, const uint8_t *with, const uint8_t *network, int64_t then_s,
		  uint32_t number)
{
	struct sm_access *client;

	assert_int_equal(sm_access_new(with, network, &client), 0);
	memset(g, 0, sizeof(*g));
	memcpy(g->msg, &number, sizeof(number));
	assert_int_equal(sm_access_offer(client, then_s, g->identity), 0);
	g->hello = (struct sm_hello){.identity = g->identity,
				     .identity_len = sizeof(g->identity),
				     .binder = g->binder,
				     .binder_len = sizeof(g->binder),
				     .covered = MSG_LEN - 51};
	make_binder(sm_access_psk(client), g->msg, g->hello.covered, g->binder);
	sm_access_free(client);
}

static struct sm_access *server(void)
{
	struct sm_access *access;

	assert_int_equal(sm_access_new(key, net, &access), 0);
	return access;
}

static void expect(struct sm_access *access, const struct greeting *g, int64_t now_s,
		   const char *why)
{
	const char *got = NULL;
	const int err = sm_access_check(access, g->msg, &g->hello, now_s, &got);

	assert_int_equal(err, why ? -EACCES : 0);
	if (why && !strstr(got, why))
		fail_msg("'%s', not '%s'", got, why);
}

static void test_offer(void **state)
{
	struct sm_access *a = server(), *b = server(), *c;
	uint8_t first[SM_ACCESS_IDENTITY_LEN], second[SM_ACCESS_IDENTITY_LEN];

	(void)state;
	assert_int_equal(sm_access_offer(a, 0x0102030405060708, first), 0);
	assert_int_equal(sm_access_offer(a, 0x0102030405060708, second), 0);
	assert_memory_equal(first, "\1\2\3\4\5\6\7\10", 8);
	assert_memory_not_equal(first + 8, second + 8, 16);
	/* the key of the offer depends on both, and on nothing else */
	assert_memory_equal(sm_access_psk(a), sm_access_psk(b), SM_ACCESS_PSK_LEN);
	assert_int_equal(sm_access_new(other_key, net, &c), 0);
	assert_memory_not_equal(sm_access_psk(a), sm_access_psk(c), SM_ACCESS_PSK_LEN);
	sm_access_free(c);
	assert_int_equal(sm_access_new(key, other_net, &c), 0);
	assert_memory_not_equal(sm_access_psk(a), sm_access_psk(c), SM_ACCESS_PSK_LEN);
	sm_access_free(c);
	sm_access_free(a);
	sm_access_free(b);
	sm_access_free(NULL);
}

static void test_who(void **state)
{
	struct sm_access *access = server();
	struct greeting g;

	(void)state;
	greet(&g, key, net, NOW_S, 1);
	expect(access, &g, NOW_S, NULL);
	greet(&g, other_key, net, NOW_S, 2);
	expect(access, &g, NOW_S, "is another one");
	greet(&g, key, other_net, NOW_S, 3);
	expect(access, &g, NOW_S, "is another one");
	greet(&g, key, net, NOW_S, 4);
	g.hello.identity = NULL;
	expect(access, &g, NOW_S, "has no access key");
	for (size_t i = 0; i < 4; i++) { /* lengths that are one off */
		greet(&g, key, net, NOW_S, 5);
		*(i / 2 ? &g.hello.identity_len : &g.hello.binder_len) += i % 2 ? 1 : SIZE_MAX;
		expect(access, &g, NOW_S, "not an access key's proof");
	}
	sm_access_free(access);
}

/* Every bit that the proof covers counts, and of those behind none. */
static void test_tampered(void **state)
{
	struct sm_access *access = server();
	struct greeting g;

	(void)state;
	greet(&g, key, net, NOW_S, 1);
	for (size_t i = 0; i < g.hello.covered; i++) {
		g.msg[i] ^= 0x10;
		expect(access, &g, NOW_S, "is another one");
		g.msg[i] ^= 0x10;
	}
	for (size_t i = 0; i < HASH_LEN * 8; i++) {
		g.binder[i / 8] ^= (uint8_t)(1u << i % 8);
		expect(access, &g, NOW_S, "is another one");
		g.binder[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	g.msg[g.hello.covered] ^= 1;
	expect(access, &g, NOW_S, NULL); /* none of that was remembered as seen */
	sm_access_free(access);
}

static void test_time(void **state)
{
	static const struct {
		int64_t then_s, now_s;
		bool good;
	} rows[] = {
		{NOW_S, NOW_S, true},
		{NOW_S - (int64_t)SM_ACCESS_WINDOW_S, NOW_S, true},
		{NOW_S + (int64_t)SM_ACCESS_WINDOW_S, NOW_S, true},
		{NOW_S - (int64_t)SM_ACCESS_WINDOW_S - 1, NOW_S, false},
		{NOW_S + (int64_t)SM_ACCESS_WINDOW_S + 1, NOW_S, false},
		{0, NOW_S, false},
		{-1, NOW_S, false}, /* the largest number there is */
		{NOW_S, 0, false},
		{0, 0, true},
	};

	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		struct sm_access *access = server();
		struct greeting g;

		greet(&g, key, net, rows[i].then_s, i);
		expect(access, &g, rows[i].now_s, rows[i].good ? NULL : "two days apart");
		sm_access_free(access);
	}
}

static void test_replay(void **state)
{
	struct sm_access *access = server(), *fresh = server();
	static struct greeting g[200];

	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(g); i++) {
		greet(&g[i], key, net, NOW_S, i);
		expect(access, &g[i], NOW_S, NULL);
		expect(access, &g[i], NOW_S, "replayed");
	}
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(g); i++)
		expect(access, &g[i], NOW_S + 3600, "replayed");
	/* remembered by who saw it, not by the key */
	expect(fresh, &g[0], NOW_S, NULL);
	sm_access_free(access);
	sm_access_free(fresh);
}

static int set_up(void **state)
{
	(void)state;
	return sm_crypto_init();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_offer),    cmocka_unit_test(test_who),
		cmocka_unit_test(test_tampered), cmocka_unit_test(test_time),
		cmocka_unit_test(test_replay),
	};

	return cmocka_run_group_tests_name("access", tests, set_up, NULL);
}
