// SPDX-License-Identifier: MIT
/*
 * Ids, MAC, ULA, fingerprints. The expected values were computed with Python's hashlib from the
 * formulas in ident.h.
 */
#include "crypto/ident.h"
#include "crypto_fixture.h"

static const uint8_t network[SM_NETWORK_ID_LEN] = {0, 1, 2,  3,  4,  5,  6,  7,
						   8, 9, 10, 11, 12, 13, 14, 15};

static void test_ids(void **state)
{
	uint8_t id[16], fp[32];

	(void)state;
	assert_int_equal(sm_ident_network_from_name("home", id), 0);
	assert_hex(id, 16, "713ca712abf57514094a62c0a487d407");
	assert_int_equal(sm_ident_node_id(network, "alice", NULL, id), 0);
	assert_hex(id, 16, "f9d832d56a32c4a7594adec6f9cecf35");
	for (unsigned i = 0; i < sizeof(fp); i++)
		fp[i] = (uint8_t)i;
	assert_int_equal(sm_ident_node_id(network, "alice", fp, id), 0);
	assert_hex(id, 16, "c78d54f9cdf51918d8497b8e33f9051f");
}

static void test_mac_and_ula(void **state)
{
	uint8_t node[SM_NODE_ID_LEN];
	struct sm_mac mac;
	struct sm_prefix ula;

	(void)state;
	assert_int_equal(sm_ident_node_id(network, "alice", NULL, node), 0);
	assert_int_equal(sm_ident_mac(node, &mac), 0);
	assert_hex(mac.b, 6, "0e28f7a1230b");
	assert_int_equal(sm_ident_ula(network, node, &ula), 0);
	assert_hex(ula.ip, 16, "fda5fde7a98193a8b9a00729018474c7");
	assert_int_equal(ula.family, 6);
	assert_int_equal(ula.len, 64);
	/* Whatever the hash says, the card is local and unicast. */
	for (unsigned i = 0; i < 256; i++) {
		node[3] = (uint8_t)i;
		assert_int_equal(sm_ident_mac(node, &mac), 0);
		assert_int_equal(mac.b[0] & 3, 2);
	}
}

static void test_fingerprint(void **state)
{
	static const char hex[] =
		"07e57c4f14dbad1267f621ec3777b4e2e6c4fbc4c22fbb87510ff8e0b3c6a642";
	static const char *const bad[] = {
		"",
		"sha256:",
		"07e57c4f14dbad1267f621ec3777b4e2e6c4fbc4c22fbb87510ff8e0b3c6a6",
		"07e57c4f14dbad1267f621ec3777b4e2e6c4fbc4c22fbb87510ff8e0b3c6a6420",
		"07e57c4f14dbad1267f621ec3777b4e2e6c4fbc4c22fbb87510ff8e0b3c6a64g",
		"sha384:07e57c4f14dbad1267f621ec3777b4e2e6c4fbc4c22fbb87510ff8e0b3c6a642",
		" 07e57c4f14dbad1267f621ec3777b4e2e6c4fbc4c22fbb87510ff8e0b3c6a642",
		"07e57c4f14dbad1267f621ec3777b4e2e6c4fbc4c22fbb87510ff8e0b3c6a642:",
		"0:7e57c4f14dbad1267f621ec3777b4e2e6c4fbc4c22fbb87510ff8e0b3c6a642",
		"07::e57c4f14dbad1267f621ec3777b4e2e6c4fbc4c22fbb87510ff8e0b3c6a642",
	};
	char text[SM_FINGERPRINT_STRLEN], colons[128] = "SHA256:";
	uint8_t fp[SM_FINGERPRINT_LEN], again[SM_FINGERPRINT_LEN];

	(void)state;
	unhex(hex, fp, sizeof(fp));
	sm_ident_format_fingerprint(fp, text);
	assert_memory_equal(text, "sha256:", 7);
	assert_string_equal(text + 7, hex);
	assert_int_equal(sm_ident_parse_fingerprint(text, again), 0);
	assert_memory_equal(again, fp, sizeof(fp));
	assert_int_equal(sm_ident_parse_fingerprint(hex, again), 0);
	for (size_t i = 0; i < sizeof(fp); i++)
		snprintf(colons + strlen(colons), 4, "%s%02X", i ? ":" : "", fp[i]);
	memset(again, 0, sizeof(again));
	assert_int_equal(sm_ident_parse_fingerprint(colons, again), 0);
	assert_memory_equal(again, fp, sizeof(fp));
	for (size_t i = 0; i < SM_ARRAY_SIZE(bad); i++)
		assert_int_equal(sm_ident_parse_fingerprint(bad[i], again), -EINVAL);
}

static void test_roles(void **state)
{
	static const uint32_t roles[] = {SM_ROLE_ISSUER, SM_ROLE_RENDEZVOUS, SM_ROLE_RELAY};
	uint32_t role;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(roles); i++) {
		assert_int_equal(sm_ident_parse_role(sm_ident_role_name(roles[i]), &role), 0);
		assert_int_equal(role, roles[i]);
	}
	assert_string_equal(sm_ident_role_name(SM_ROLE_RELAY), "relay");
	assert_null(sm_ident_role_name(8));
	assert_null(sm_ident_role_name(SM_ROLE_ISSUER | SM_ROLE_RELAY));
	assert_int_equal(sm_ident_parse_role("king", &role), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_mac_and_ula),
		cmocka_unit_test(test_fingerprint),
		cmocka_unit_test(test_roles),
	};

	return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
