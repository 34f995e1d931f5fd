// SPDX-License-Identifier: MIT
/*
 * Certificates and requests: what is issued is read back, what is malformed is refused.
 */
#include "crypto/attributes.h"
#include "crypto/cert.h"
#include "crypto_fixture.h"

#define NOW INT64_C(1800000000)
#define DAY INT64_C(86400)

static const uint8_t network[SM_NETWORK_ID_LEN] = {0x11, 0x22, 0x33};
static struct sm_key *ca_key, *node_key;
static struct sm_cert *ca;
static char error[SM_CERT_ERROR_MAX];

static int setup(void **state)
{
	if (fixture_setup(state) != 0 || sm_key_generate(&ca_key) != 0 ||
	    sm_key_generate(&node_key) != 0)
		return -1;
	return sm_cert_new_ca(ca_key, "home", network, NOW, 3650 * DAY, &ca, error);
}

static int teardown(void **state)
{
	sm_cert_free(ca);
	sm_key_free(ca_key);
	sm_key_free(node_key);
	return fixture_teardown(state);
}

static struct sm_prefix prefix(const char *text)
{
	struct sm_prefix p;

	assert_int_equal(sm_prefix_parse(text, &p), 0);
	return p;
}

static struct sm_identity identity(const char *name)
{
	struct sm_identity id = {0};

	memcpy(id.network_id, network, sizeof(network));
	snprintf(id.name, sizeof(id.name), "%s", name);
	return id;
}

static struct sm_cert *issue(const struct sm_identity *id)
{
	struct sm_cert *cert;

	assert_int_equal(sm_cert_issue(ca, ca_key, id, node_key, NOW - SM_CERT_BACKDATE_S,
				       NOW + 365 * DAY, &cert, error),
			 0);
	return cert;
}

/* All that an identity may hold, to its limits, comes back. */
static void test_round_trip(void **state)
{
	struct sm_identity id = identity(
		"a-node-with-the-longest-possible-name-0123456789-0123456789-abc");
	struct sm_identity got;
	struct sm_cert *cert;
	uint8_t fp[SM_FINGERPRINT_LEN], node_id[SM_NODE_ID_LEN];

	(void)state;
	for (unsigned i = 0; i < SM_IDENT_ADDRESS_MAX; i++) {
		char text[64];

		snprintf(text, sizeof(text), i % 2 ? "fd00:7::%x/64" : "10.7.0.%u/24", i + 1);
		id.addresses[id.address_count++] = prefix(text);
	}
	for (unsigned i = 0; i < SM_IDENT_PREFIX_MAX; i++) {
		char text[64];

		snprintf(text, sizeof(text), i % 2 ? "fd00:%x::/48" : "10.%u.0.0/16", i + 1);
		id.prefixes[id.prefix_count++] = prefix(text);
	}
	for (unsigned i = 0; i < SM_IDENT_GROUP_MAX; i++)
		snprintf(id.groups[id.group_count++], SM_GROUP_NAME_MAX + 1,
			 "group-with-a-rather-long-name%u", i);
	id.roles = SM_ROLE_ISSUER | SM_ROLE_RENDEZVOUS | SM_ROLE_RELAY;
	assert_int_equal(strlen(id.name), SM_NAME_MAX);

	cert = issue(&id);
	assert_int_equal(sm_cert_identity(cert, &got, error), 0);
	assert_string_equal(got.name, id.name);
	assert_memory_equal(got.network_id, network, sizeof(network));
	assert_int_equal(got.address_count, id.address_count);
	assert_memory_equal(got.addresses, id.addresses, sizeof(id.addresses));
	assert_int_equal(got.prefix_count, id.prefix_count);
	assert_memory_equal(got.prefixes, id.prefixes, sizeof(id.prefixes));
	assert_int_equal(got.group_count, id.group_count);
	assert_memory_equal(got.groups, id.groups, sizeof(id.groups));
	assert_int_equal(got.roles, id.roles);
	assert_int_equal(got.not_before, NOW - SM_CERT_BACKDATE_S);
	assert_int_equal(got.not_after, NOW + 365 * DAY);
	assert_int_equal(got.serial_len, 20);
	assert_int_equal(sm_key_fingerprint(node_key, fp), 0);
	assert_memory_equal(got.fingerprint, fp, sizeof(fp));
	memset(fp, 0, sizeof(fp));
	assert_int_equal(sm_cert_fingerprint(cert, fp), 0);
	assert_memory_equal(got.fingerprint, fp, sizeof(fp));
	assert_int_equal(sm_ident_node_id(network, id.name, NULL, node_id), 0);
	assert_memory_equal(got.node_id, node_id, sizeof(node_id));
	assert_true(sm_cert_matches_key(cert, node_key));
	assert_false(sm_cert_matches_key(cert, ca_key));
	assert_false(sm_cert_is_ca(cert, NULL));
	sm_cert_free(cert);
	sm_cert_free(NULL);
}

static void test_serials_differ(void **state)
{
	struct sm_identity id = identity("alice"), a, b;
	struct sm_cert *first = issue(&id), *second = issue(&id);

	(void)state;
	assert_int_equal(sm_cert_identity(first, &a, error), 0);
	assert_int_equal(sm_cert_identity(second, &b, error), 0);
	assert_memory_not_equal(a.serial, b.serial, 20);
	assert_int_equal(a.address_count + a.prefix_count + a.group_count, 0);
	assert_int_equal(a.roles, 0);
	sm_cert_free(first);
	sm_cert_free(second);
}

static void test_ca(void **state)
{
	uint8_t id[SM_NETWORK_ID_LEN];
	char name[SM_NAME_MAX + 1];
	struct sm_identity got;
	struct sm_cert *cert = NULL;
	int64_t begin, end;

	(void)state;
	assert_true(sm_cert_is_ca(ca, id));
	assert_memory_equal(id, network, sizeof(id));
	assert_string_equal(sm_cert_common_name(ca, name), "home");
	assert_int_equal(sm_cert_times(ca, &begin, &end), 0);
	assert_int_equal(begin, NOW - SM_CERT_BACKDATE_S);
	assert_int_equal(end, NOW + 3650 * DAY);
	assert_int_equal(sm_cert_identity(ca, &got, error), -EBADMSG);
	assert_non_null(strstr(error, "no node"));
	assert_int_equal(sm_cert_new_ca(ca_key, "Home", network, NOW, DAY, &cert, error), -EINVAL);
	assert_int_equal(sm_cert_new_ca(ca_key, "home", network, NOW, -3 * DAY, &cert, error),
			 -EINVAL);
	assert_int_equal(sm_cert_new_ca(ca_key, "home", network, NOW, INT64_MAX, &cert, error),
			 -EINVAL);
	assert_null(cert);
}

static void test_issue_refuses(void **state)
{
	static const char *const bad_names[] = {"", "Alice", "a_b", "-a", "a-", "a/b", "a;b"};
	struct sm_identity id;
	struct sm_cert *cert = NULL, *node;
	struct sm_key *other;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(bad_names); i++) {
		id = identity(bad_names[i]);
		assert_int_equal(sm_cert_issue(ca, ca_key, &id, node_key, NOW, NOW + DAY, &cert,
					       error),
				 -EINVAL);
		assert_int_equal(sm_cert_self_signed(node_key, &id, &cert, error), -EINVAL);
	}
	id = identity("alice");
	assert_int_equal(sm_key_generate(&other), 0);
	assert_int_equal(sm_cert_issue(ca, other, &id, node_key, NOW, NOW + DAY, &cert, error),
			 -EINVAL);
	sm_key_free(other);
	node = issue(&id);
	assert_int_equal(sm_cert_issue(node, node_key, &id, node_key, NOW, NOW + DAY, &cert, error),
			 -EINVAL);
	sm_cert_free(node);
	assert_int_equal(sm_cert_issue(ca, ca_key, &id, node_key, NOW, NOW, &cert, error), -EINVAL);
	id.network_id[0] ^= 1;
	assert_int_equal(sm_cert_issue(ca, ca_key, &id, node_key, NOW, NOW + DAY, &cert, error),
			 -EINVAL);
	assert_non_null(strstr(error, "another network"));
	id = identity("alice");
	id.addresses[0] = prefix("224.0.0.1/24");
	id.address_count = 1;
	assert_int_equal(sm_cert_issue(ca, ca_key, &id, node_key, NOW, NOW + DAY, &cert, error),
			 -EINVAL);
	assert_null(cert);
}

static void test_self_signed(void **state)
{
	struct sm_identity id = identity("alice"), got;
	struct sm_cert *cert;

	(void)state;
	id.addresses[0] = prefix("10.7.0.2/24");
	id.address_count = 1;
	assert_int_equal(sm_cert_self_signed(node_key, &id, &cert, error), 0);
	assert_int_equal(sm_cert_identity(cert, &got, error), 0);
	assert_string_equal(got.name, "alice");
	assert_int_equal(got.not_after, INT64_C(253402300799)); /* 9999-12-31 23:59:59 */
	assert_int_equal(got.address_count, 1);
	assert_int_equal(got.addresses[0].len, 24);
	assert_true(sm_cert_matches_key(cert, node_key));
	assert_false(sm_cert_is_ca(cert, NULL));
	sm_cert_free(cert);
}

static void test_files(void **state)
{
	static char pem[65536];
	const char *path = fixture_path("node.pem");
	struct sm_identity id = identity("alice"), got;
	struct sm_cert *cert = issue(&id), *loaded = NULL;
	struct stat st;
	size_t len;

	(void)state;
	assert_int_equal(sm_cert_save(cert, path, false, error), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_int_equal(sm_cert_save(cert, path, false, error), -EEXIST);
	assert_int_equal(sm_cert_save(cert, path, true, error), 0);
	assert_int_equal(fixture_files(false), 1);
	assert_int_equal(sm_cert_save(cert, "/dev/full", true, error), -ENOSPC);
	assert_int_equal(sm_cert_load(path, &loaded, error), 0);
	assert_int_equal(sm_cert_identity(loaded, &got, error), 0);
	assert_string_equal(got.name, "alice");
	sm_cert_free(loaded);

	len = fixture_read(path, pem, sizeof(pem));
	for (size_t n = 0; n + 2 < len; n += 97)
		assert_int_equal(sm_cert_from_pem(pem, n, &loaded, error), -EBADMSG);
	assert_int_equal(sm_cert_load(fixture_path("none.pem"), &loaded, error), -ENOENT);
	fixture_write(path, 0644, "no certificate", 14);
	assert_int_equal(sm_cert_load(path, &loaded, error), -EBADMSG);
	assert_non_null(strstr(error, path));
	memset(pem, 'x', sizeof(pem));
	for (int i = 0; i < 5; i++) {
		FILE *f = fopen(path, i ? "a" : "w");

		assert_int_equal(fwrite(pem, 1, sizeof(pem), f), sizeof(pem));
		fclose(f);
	}
	assert_int_equal(sm_cert_load(path, &loaded, error), -EBADMSG);
	sm_cert_free(cert);
	fixture_files(true);
}

/* A PEM that claims to be encrypted must not make the library ask on the terminal. */
static void test_encrypted_pem(void **state)
{
	static const char pem[] = "-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\n"
				  "DEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\n"
				  "AAAAAAAAAAAAAAAAAAAAAA==\n-----END CERTIFICATE-----\n";
	struct sm_cert *cert;

	(void)state;
	assert_int_equal(sm_cert_from_pem(pem, sizeof(pem) - 1, &cert, error), -EBADMSG);
}

static void test_attributes(void **state)
{
	static const struct {
		const char *text;
		int result;
	} cases[] = {
		{"", 0},
		{"address=10.7.0.2/24", 0},
		{"color=green;shape;;=;group=db", 0},
		{"role=king;role=relay", 0},
		{"address=10.7.0.3/24", -EBADMSG}, /* not in the SAN */
		{"address=x", -EBADMSG},
		{"prefix=10.0.0.0/33", -EBADMSG},
		{"prefix=", -EBADMSG},
		{"group=", -EBADMSG},
		{"group=UPPER", -EBADMSG},
		{"group=a-name-of-thirty-two-characters0", -EBADMSG},
	};
	static char big[SM_ATTRIBUTES_MAX + 2], many[4096];

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct sm_identity id = identity("alice");

		id.addresses[0] = prefix("10.7.0.2");
		id.address_count = 1;
		assert_int_equal(sm_attributes_decode(cases[i].text, strlen(cases[i].text), &id,
						      error),
				 cases[i].result);
		assert_int_equal(id.addresses[0].len, i == 1 ? 24 : 32);
		assert_int_equal(id.group_count, i == 2);
		assert_int_equal(id.roles, i == 3 ? SM_ROLE_RELAY : 0);
	}
	struct sm_identity id = identity("alice");

	assert_int_equal(sm_attributes_decode("group=a\0b", 9, &id, error), -EBADMSG);
	memset(big, ';', sizeof(big));
	assert_int_equal(sm_attributes_decode(big, SM_ATTRIBUTES_MAX, &id, error), 0);
	assert_int_equal(sm_attributes_decode(big, SM_ATTRIBUTES_MAX + 1, &id, error), -EBADMSG);
	for (unsigned i = 0; i <= SM_IDENT_PREFIX_MAX; i++)
		snprintf(many + strlen(many), 32, "prefix=10.%u.0.0/16;", i);
	assert_int_equal(sm_attributes_decode(many, strlen(many), &id, error), -EBADMSG);
	assert_non_null(strstr(error, "more than"));
	many[0] = '\0';
	for (unsigned i = 0; i <= SM_IDENT_GROUP_MAX; i++)
		snprintf(many + strlen(many), 32, "group=g%u;", i);
	assert_int_equal(sm_attributes_decode(many, strlen(many), &id, error), -EBADMSG);
	assert_int_equal(sm_attributes_encode(&id, big, 10), -ENOSPC);
}

static void test_request(void **state)
{
	static char text[32768];
	const char *path = fixture_path("alice.req");
	char name[SM_NAME_MAX + 1] = "";
	uint8_t a[SM_FINGERPRINT_LEN], b[SM_FINGERPRINT_LEN];
	struct sm_identity id = identity("alice");
	struct sm_key *public_key = NULL;
	struct sm_cert *cert;
	size_t len;

	(void)state;
	assert_int_equal(sm_cert_request_save(node_key, "Alice", path, error), -EINVAL);
	assert_int_equal(sm_cert_request_save(node_key, "alice", path, error), 0);
	assert_int_equal(sm_cert_request_save(node_key, "alice", path, error), -EEXIST);
	assert_int_equal(sm_cert_request_load(path, &public_key, name, error), 0);
	assert_string_equal(name, "alice");
	assert_int_equal(sm_key_fingerprint(public_key, a), 0);
	assert_int_equal(sm_key_fingerprint(node_key, b), 0);
	assert_memory_equal(a, b, sizeof(a));

	/* The public half certifies, and neither signs nor is saved as a private key. */
	assert_int_equal(sm_cert_issue(ca, ca_key, &id, public_key, NOW, NOW + DAY, &cert, error),
			 0);
	assert_true(sm_cert_matches_key(cert, node_key));
	sm_cert_free(cert);
	assert_int_equal(sm_key_save(public_key, fixture_path("p.key"), NULL, error), -EINVAL);
	assert_int_equal(sm_cert_issue(ca, public_key, &id, public_key, NOW, NOW + DAY, &cert,
				       error),
			 -EINVAL);
	sm_key_free(public_key);

	/* One changed letter in the signature */
	len = fixture_read(path, text, sizeof(text));
	text[len - 400] = text[len - 400] == 'A' ? 'B' : 'A';
	fixture_write(path, 0644, text, len);
	assert_int_equal(sm_cert_request_load(path, &public_key, name, error), -EBADMSG);
	assert_non_null(strstr(error, "signature is wrong"));
	fixture_write(path, 0644, text, len / 2);
	assert_int_equal(sm_cert_request_load(path, &public_key, name, error), -EBADMSG);
	assert_int_equal(sm_cert_request_load(fixture_path("none"), &public_key, name, error),
			 -ENOENT);
	fixture_files(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_serials_differ),
		cmocka_unit_test(test_ca),
		cmocka_unit_test(test_issue_refuses),
		cmocka_unit_test(test_self_signed),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_encrypted_pem),
		cmocka_unit_test(test_attributes),
		cmocka_unit_test(test_request),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
