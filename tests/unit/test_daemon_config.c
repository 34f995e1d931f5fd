// SPDX-License-Identifier: MIT
/*
 * Configurations that are fine, and many that are not, with the words in which that is said.
 */
#include "core/snapshot.h"
#include "daemon/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_HEX "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define FP_A    "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
#define FP_B    "1f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"

/* Lines 1 to 6: a network with a CA to which a case adds what it is about, from line 7. */
#define CA_NET     "[Network]\nName = home\nCA = ca.pem\n[Node]\nCertificate = c\nPrivateKey = k\n"
#define PINNED_NET "[Network]\nName = home\n\n[Node]\nName = anna\nPrivateKey = k\n"

#define A_NAME "a name of a-z, 0-9 and '-', at most 63 bytes, with no '-' at either end"

static struct sm_config_errors errors;

static int parse(const char *text, struct sm_config **ret_cfg)
{
	return sm_config_parse(text, strlen(text), "f", "/etc/sm", ret_cfg, &errors);
}

static struct sm_config *good(const char *text)
{
	struct sm_config *cfg = NULL;

	if (parse(text, &cfg))
		fail_msg("%s", errors.text[0]);
	assert_int_equal(errors.count, 0);
	return cfg;
}

static void test_defaults(void **state)
{
	struct sm_config *cfg = good(CA_NET);

	(void)state;
	assert_int_equal(errors.warning_count, 0);
	assert_string_equal(cfg->file, "f");
	assert_string_equal(cfg->network.name, "home");
	assert_int_equal(cfg->network.mode, SM_MODE_TAP);
	assert_int_equal(cfg->network.ca.count, 1);
	assert_string_equal(cfg->network.ca.path[0], "/etc/sm/ca.pem");
	assert_int_equal(cfg->network.crl.count, 0);
	assert_false(cfg->network.has_id);
	assert_null(cfg->network.access_key);
	assert_int_equal(cfg->network.policy, SM_CONFIG_POLICY_DEFAULT);
	assert_int_equal(cfg->network.cipher, SM_CONFIG_CIPHER_AUTO);
	assert_string_equal(cfg->node.certificate, "/etc/sm/c");
	assert_string_equal(cfg->node.private_key, "/etc/sm/k");
	assert_null(cfg->node.passphrase_file);
	assert_string_equal(cfg->interface.name, "smesh0");
	assert_int_equal(cfg->interface.address.count, 0);
	assert_true(cfg->interface.ula);
	assert_int_equal(cfg->interface.mtu, 1500);
	assert_false(cfg->interface.has_mac);
	assert_true(cfg->interface.routes);
	assert_int_equal(cfg->interface.txqueuelen, 4000);
	assert_int_equal(cfg->transport.listen.count, 0);
	assert_int_equal(cfg->transport.control_port, SM_CONTROL_PORT);
	assert_int_equal(cfg->transport.data_port, SM_DATA_PORT);
	assert_int_equal(cfg->transport.workers, 0);
	assert_true(cfg->transport.offload);
	assert_int_equal(cfg->transport.path_mtu, 0);
	assert_int_equal(cfg->transport.socket_buffer, 32 << 20);
	assert_int_equal(cfg->transport.keepalive_us, SM_KEEPALIVE_US);
	assert_int_equal(cfg->transport.rekey_after_us, SM_REKEY_AFTER_US);
	assert_int_equal(cfg->transport.max_handshakes, 64);
	assert_int_equal(cfg->transport.max_handshakes_per_source, 8);
	assert_int_equal(cfg->log_level, SM_LOG_INFO);
	assert_string_equal(cfg->control.socket, "/run/shadowmesh/home.sock");
	assert_null(cfg->control.group);
	assert_int_equal(cfg->peer_count, 0);
	assert_false(sm_config_is_pinned(cfg));
	sm_config_free(cfg);
	sm_config_free(NULL);
}

static const char everything[] =
	"[network]\nNAME=home\nmode = TUN\nCA = /a/ca.pem, b.pem\nca = c.pem\nCRL = x.crl\n"
	"AccessKey = access.key\nPolicy = cnsa\nCipher = aes-256-gcm\n"
	"[Node]\nCertificate = c\nPrivateKey = k\nPassphraseFile = p\n"
	"[Interface]\nName = sm%d\nAddress = 10.7.0.1/24,fd00::1/64\nAddress = 10.8.0.1/32\n"
	"ULA = no\nMTU = 9000\nRoutes = off\nTxQueueLen = 500\n"
	"[Transport]\nListen = 192.0.2.1\nListen = 2001:db8::1\nControlPort = 443\nDataPort = 0\n"
	"Workers = 16\nOffload = no\nPathMTU = 1400\nSocketBuffer = 1m\nKeepalive = 1500ms\nMaxHandshakes = 9\n"
	"MaxHandshakesPerSource = 9\nRekeyAfter = 1s\n"
	"[Peer]\nName = ben\nEndpoint = vpn.example.org\nEndpoint = [2001:db8::7]:1, 10.0.0.1:65535\n"
	"[Peer]\nName = eve\n"
	"[Log]\nLevel = debug\n[Control]\nSocket = s.sock\nGroup = adm\n";

static void test_everything(void **state)
{
	struct sm_config *cfg = good(everything);
	const struct sm_config_endpoints *e;

	(void)state;
	assert_int_equal(cfg->network.mode, SM_MODE_TUN);
	assert_int_equal(cfg->network.ca.count, 3);
	assert_string_equal(cfg->network.ca.path[0], "/a/ca.pem");
	assert_string_equal(cfg->network.ca.path[1], "/etc/sm/b.pem");
	assert_string_equal(cfg->network.ca.path[2], "/etc/sm/c.pem");
	assert_string_equal(cfg->network.crl.path[0], "/etc/sm/x.crl");
	assert_string_equal(cfg->network.access_key, "/etc/sm/access.key");
	assert_int_equal(cfg->network.policy, SM_CONFIG_POLICY_CNSA);
	assert_int_equal(cfg->network.cipher, SM_CONFIG_CIPHER_AES256GCM);
	assert_string_equal(cfg->interface.name, "sm%d");
	assert_int_equal(cfg->interface.address.count, 3);
	assert_int_equal(cfg->interface.address.prefix[0].len, 24);
	assert_int_equal(cfg->interface.address.prefix[0].ip[3], 1);
	assert_int_equal(cfg->interface.address.prefix[1].family, 6);
	assert_false(cfg->interface.ula);
	assert_int_equal(cfg->interface.mtu, 9000);
	assert_false(cfg->interface.routes);
	assert_int_equal(cfg->interface.txqueuelen, 500);
	assert_int_equal(cfg->transport.listen.count, 2);
	assert_int_equal(cfg->transport.listen.addr[1].family, 6);
	assert_int_equal(cfg->transport.control_port, 443);
	assert_int_equal(cfg->transport.data_port, 0);
	assert_int_equal(cfg->transport.workers, 16);
	assert_false(cfg->transport.offload);
	assert_int_equal(cfg->transport.path_mtu, 1400);
	assert_int_equal(cfg->transport.socket_buffer, 1 << 20);
	assert_int_equal(cfg->transport.keepalive_us, 1500000);
	assert_int_equal(cfg->transport.rekey_after_us, 1000000);
	assert_int_equal(cfg->peer_count, 2);
	assert_string_equal(cfg->peers[0].name, "ben");
	assert_int_equal(cfg->peers[0].line, 35);
	e = &cfg->peers[0].endpoints;
	assert_int_equal(e->count, 3);
	assert_string_equal(e->endpoint[0].host, "vpn.example.org");
	assert_int_equal(e->endpoint[0].port, 8443);
	assert_int_equal(e->endpoint[0].addr.family, 0);
	assert_string_equal(e->endpoint[1].host, "2001:db8::7");
	assert_int_equal(e->endpoint[1].port, 1);
	assert_int_equal(e->endpoint[1].addr.family, 6);
	assert_int_equal(e->endpoint[1].addr.port, 1);
	assert_int_equal(e->endpoint[2].port, 65535);
	assert_string_equal(cfg->peers[1].name, "eve");
	assert_int_equal(cfg->peers[1].endpoints.count, 0);
	assert_int_equal(cfg->log_level, SM_LOG_DEBUG);
	assert_string_equal(cfg->control.socket, "/etc/sm/s.sock");
	assert_string_equal(cfg->control.group, "adm");
	sm_config_free(cfg);
}

static void test_pinned(void **state)
{
	struct sm_config *cfg = good(PINNED_NET "[Peer]\nName = ben\nFingerprint = " FP_A "\n"
						"[Interface]\nMAC = 02:00:00:00:00:01\n");

	(void)state;
	assert_true(sm_config_is_pinned(cfg));
	assert_string_equal(cfg->node.name, "anna");
	assert_true(cfg->peers[0].has_fingerprint);
	assert_int_equal(cfg->peers[0].fingerprint[0], 0x0f);
	assert_int_equal(cfg->peers[0].fingerprint[31], 0xf0);
	assert_true(cfg->interface.has_mac);
	assert_int_equal(cfg->interface.mac.b[5], 1);
	assert_int_equal(errors.warning_count, 1);
	assert_string_equal(errors.warning[0],
			    "f:11: [Interface] MAC: peers protect the derived address only, this "
			    "one can be taken over");
	sm_config_free(cfg);

	/* As openssl prints digests, and the id of the network by hand. */
	cfg = good("[Network]\nName = home\nNetworkId = 00:01:02:03:04:05:06:07:08:09:0A:0b:0c:0d:"
		   "0e:0f\n[Node]\nName = anna\nCertificate = c\nPrivateKey = k\n"
		   "[Peer]\nName = ben\nFingerprint = " FP_A "\n");
	assert_true(cfg->network.has_id);
	assert_int_equal(cfg->network.id[10], 0x0a);
	sm_config_free(cfg);
}

/* What one bad line in an otherwise good file says; all of it. */
static const struct {
	const char *text, *error;
} bad_values[] = {
	{CA_NET "[Interface]\nAddress = x",
	 "f:8: [Interface] Address: got 'x', expected an address "
	 "with its prefix length, as 10.7.0.1/24"},
	{CA_NET "[Interface]\nAddress = 10.7.0.1",
	 "f:8: [Interface] Address: got '10.7.0.1', expected an address with its prefix length, as "
	 "10.7.0.1/24"},
	{CA_NET "[Interface]\nAddress = 10.7.0.1/24, 10.7.0.0/24",
	 "f:8: [Interface] Address: got '10.7.0.0/24', expected an address with its prefix length, "
	 "as 10.7.0.1/24"},
	{CA_NET "[Interface]\nAddress = 10.7.0.255/24",
	 "f:8: [Interface] Address: got '10.7.0.255/24', expected an address with its prefix "
	 "length, as 10.7.0.1/24"},
	{CA_NET "[Interface]\nAddress = 10.7.0.1/24 # mine",
	 "f:8: [Interface] Address: got '10.7.0.1/24 # mine', expected an address with its prefix "
	 "length, as 10.7.0.1/24 (a comment needs a line of its own)"},
	{CA_NET "[Interface]\nAddress =",
	 "f:8: [Interface] Address: got '', expected an address with its prefix length, as "
	 "10.7.0.1/24"},
	{CA_NET "[Interface]\nMTU = 575",
	 "f:8: [Interface] MTU: got '575', expected a number from 576 to 65500"},
	{CA_NET "[Interface]\nMTU = 65501",
	 "f:8: [Interface] MTU: got '65501', expected a number from 576 to 65500"},
	{CA_NET "[Interface]\nMTU = 99999999999999999999999",
	 "f:8: [Interface] MTU: got '99999999999999999999999', expected a number from 576 to "
	 "65500"},
	{CA_NET "[Interface]\nName = sixteen-bytes-xx",
	 "f:8: [Interface] Name: got 'sixteen-bytes-xx', expected an interface name of at most 15 "
	 "bytes, as smesh0 or smesh%d"},
	{CA_NET "[Interface]\nName = a/b",
	 "f:8: [Interface] Name: got 'a/b', expected an interface name of at most 15 bytes, as "
	 "smesh0 or smesh%d"},
	{CA_NET "[Interface]\nName = sm%s",
	 "f:8: [Interface] Name: got 'sm%s', expected an interface name of at most 15 bytes, as "
	 "smesh0 or smesh%d"},
	{CA_NET "[Interface]\nMAC = 01:00:5e:00:00:01",
	 "f:8: [Interface] MAC: got '01:00:5e:00:00:01', expected a unicast MAC address, as "
	 "02:00:5e:10:00:01"},
	{CA_NET "[Interface]\nULA = maybe",
	 "f:8: [Interface] ULA: got 'maybe', expected yes or no"},
	{CA_NET "[Interface]\nTxQueueLen = 0",
	 "f:8: [Interface] TxQueueLen: got '0', expected auto or a number from 1 to 100000"},
	{CA_NET "[Transport]\nWorkers = 17",
	 "f:8: [Transport] Workers: got '17', expected auto or a number from 1 to 16"},
	{CA_NET "[Transport]\nPathMTU = 1279",
	 "f:8: [Transport] PathMTU: got '1279', expected auto or a number from 1280 to 65535"},
	{CA_NET "[Transport]\nDataPort = 65536",
	 "f:8: [Transport] DataPort: got '65536', expected a UDP port from 1 to 65535, or 0 for any "
	 "free one"},
	{CA_NET "[Transport]\nControlPort = -1",
	 "f:8: [Transport] ControlPort: got '-1', expected a TCP port from 1 to 65535, or 0 to not "
	 "listen"},
	{CA_NET "[Transport]\nListen = 192.0.2.1:8443",
	 "f:8: [Transport] Listen: got '192.0.2.1:8443', expected an IP address without a port"},
	{CA_NET "[Transport]\nListen = [::1]:0",
	 "f:8: [Transport] Listen: got '[::1]:0', expected an IP address without a port"},
	{CA_NET "[Transport]\nListen = 224.0.0.1",
	 "f:8: [Transport] Listen: got '224.0.0.1', expected an IP address without a port"},
	{CA_NET "[Transport]\nSocketBuffer = 300M",
	 "f:8: [Transport] SocketBuffer: got '300M', expected a size from 64K to 256M, as 32M"},
	{CA_NET "[Transport]\nSocketBuffer = M",
	 "f:8: [Transport] SocketBuffer: got 'M', expected a size from 64K to 256M, as 32M"},
	{CA_NET "[Transport]\nKeepalive = 999ms",
	 "f:8: [Transport] Keepalive: got '999ms', expected a duration from 1s to 5min, as 10s"},
	{CA_NET "[Transport]\nRekeyAfter = 181",
	 "f:8: [Transport] RekeyAfter: got '181', expected a duration from 1s to 3min, as 120s"},
	{CA_NET "[Transport]\nRekeyAfter = soon",
	 "f:8: [Transport] RekeyAfter: got 'soon', expected a duration from 1s to 3min, as 120s"},
	{CA_NET "[Peer]\nName = Ben", "f:8: [Peer] Name: got 'Ben', expected " A_NAME},
	{CA_NET "[Peer]\nName = b\nEndpoint = 10.0.0.300:8443",
	 "f:9: [Peer] Endpoint: got '10.0.0.300:8443', expected host:port, as "
	 "vpn.example.org:8443 or [2001:db8::1]:8443"},
	{CA_NET "[Peer]\nName = b\nEndpoint = host:0",
	 "f:9: [Peer] Endpoint: got 'host:0', expected host:port, as vpn.example.org:8443 or "
	 "[2001:db8::1]:8443"},
	{CA_NET "[Peer]\nName = b\nEndpoint = a..b:1",
	 "f:9: [Peer] Endpoint: got 'a..b:1', expected host:port, as vpn.example.org:8443 or "
	 "[2001:db8::1]:8443"},
	{CA_NET "[Peer]\nName = b\nEndpoint = 0.0.0.0:8443",
	 "f:9: [Peer] Endpoint: got '0.0.0.0:8443', expected host:port, as vpn.example.org:8443 or "
	 "[2001:db8::1]:8443"},
	{CA_NET "[Log]\nLevel = loud",
	 "f:8: [Log] Level: got 'loud', expected error, warn, notice, info or debug"},
	{CA_NET "[Control]\nGroup = a b",
	 "f:8: [Control] Group: got 'a b', expected the name of a group of users"},
	{"[Network]\nMode = bridge\nName = a\nCA = a\n[Node]\nCertificate = c\nPrivateKey = k",
	 "f:2: [Network] Mode: got 'bridge', expected tap or tun"},
	{"[Network]\nNetworkId = 0123\nName = a\n[Node]\nCertificate = c\nPrivateKey = k",
	 "f:2: [Network] NetworkId: got '0123', expected 32 hexadecimal digits"},
	{"[Network]\nPolicy = none\nName = a\nCA = a\n[Node]\nCertificate = c\nPrivateKey = k",
	 "f:2: [Network] Policy: got 'none', expected default or cnsa"},
	{"[Network]\nCipher = rot13\nName = a\nCA = a\n[Node]\nCertificate = c\nPrivateKey = k",
	 "f:2: [Network] Cipher: got 'rot13', expected auto, aes-256-gcm or chacha20-poly1305"},
	{"[Network]\nName = a_b\nCA = a\n[Node]\nCertificate = c\nPrivateKey = k",
	 "f:2: [Network] Name: got 'a_b', expected " A_NAME},
	{"[Network]\nName = aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"
	 "CA = a\n[Node]\nCertificate = c\nPrivateKey = k",
	 "f:2: [Network] Name: got 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...', "
	 "expected " A_NAME},
	{"[Network]\nName = a\nAccessKey = " KEY_HEX "\nCA = a\n[Node]\nCertificate = c\n"
	 "PrivateKey = k",
	 "f:3: [Network] AccessKey: got what looks like a key itself, expected the path of a file "
	 "with 64 hexadecimal digits"},
	/* Shape */
	{CA_NET "[Interface]\nAdress = 10.7.0.1/24",
	 "f:8: [Interface] Adress: unknown key, did you mean Address?"},
	{CA_NET "[Interface]\nDataPort = 1",
	 "f:8: [Interface] DataPort: unknown key, it belongs to [Transport]"},
	{CA_NET "[Interface]\nColour = red", "f:8: [Interface] Colour: unknown key"},
	{CA_NET "[Interfaces]\nMTU = 1",
	 "f:7: [Interfaces]: unknown section, did you mean [Interface]?"},
	{CA_NET "[Weather]\nMTU = 1", "f:7: [Weather]: unknown section"},
	{CA_NET "[Network]\n", "f:7: [Network]: a second one, the first is in line 1"},
	{CA_NET "[Interface]\nMTU = 1500\nMTU = 1400",
	 "f:9: [Interface] MTU: given twice, first in line 8"},
	{CA_NET "[Interface\nMTU = 1", "f:7: a section's line begins with '[' and ends with ']'"},
	{CA_NET "[Interface]\nMTU", "f:8: expected 'Key = value', a [Section] or a comment"},
	{CA_NET "[Interface]\n= 5", "f:8: expected 'Key = value' with a key of letters"},
	{CA_NET "[Interface]\nM:TU = 5", "f:8: expected 'Key = value' with a key of letters"},
	{CA_NET "[Interface]\nMTU = 15\a00", "f:8: there is a control character in the line"},
	{"MTU = 5\n" CA_NET, "f:1: MTU: stands before the first section"},
	/* Missing */
	{"[Network]\nCA = a\n[Node]\nCertificate = c\nPrivateKey = k",
	 "f:1: [Network] Name: missing, expected " A_NAME},
	{"[Network]\nName = home\nCA = a\n[Node]\nCertificate = c",
	 "f:4: [Node] PrivateKey: missing, expected the path of a file"},
	{CA_NET "[Peer]\nEndpoint = a:1\n[Log]\n", "f:7: [Peer] Name: missing, expected " A_NAME},
	/* Keys that do not agree */
	{CA_NET "[Peer]\nName = b\nAddress = 10.7.0.2/24",
	 "f:7: [Peer] Address: not together with [Network] CA, whose certificates say it"},
	{"[Network]\nName = home\nCA = a\n[Node]\nPrivateKey = k",
	 "f: [Node] Certificate: missing, needed with [Network] CA"},
	{PINNED_NET, "f: neither [Network] CA nor a [Peer] with its Fingerprint: nobody could be "
		     "trusted"},
	{PINNED_NET "[Peer]\nName = ben",
	 "f:7: [Peer] Fingerprint: missing, needed where there is no [Network] CA"},
	{PINNED_NET "[Peer]\nName = anna\nFingerprint = " FP_A,
	 "f:7: [Peer] Name: 'anna' is this node itself"},
	{PINNED_NET "[Peer]\nName = b\nFingerprint = " FP_A
		    "\n[Peer]\nName = b\nFingerprint = " FP_B,
	 "f:10: [Peer] Name: 'b' is a peer in line 7 already"},
	{PINNED_NET "[Peer]\nName = b\nFingerprint = " FP_A
		    "\n[Peer]\nName = c\nFingerprint = " FP_A,
	 "f:10: [Peer] Fingerprint: 'c' has that of 'b' in line 7"},
	{"[Network]\nName = h\n[Node]\nCertificate = c\nPrivateKey = k\n[Peer]\nName = b\n"
	 "Fingerprint = " FP_A,
	 "f: [Node] Name: missing, needed where there is no [Network] CA"},
	{"[Network]\nName = h\nCRL = x\n[Node]\nName = a\nCertificate = c\nPrivateKey = k\n[Peer]\n"
	 "Name = b\nFingerprint = " FP_A,
	 "f:3: [Network] CRL: not without CA, which signs it"},
	{CA_NET "[Peer]\nName = b\nFingerprint = " FP_A,
	 "f:7: [Peer] Fingerprint: not together with [Network] CA; trust is either the authority's "
	 "or the key's"},
	{"[Network]\nName = h\nCA = a\nNetworkId = 00000000000000000000000000000000\n[Node]\n"
	 "Certificate = c\nPrivateKey = k",
	 "f:4: [Network] NetworkId: not together with CA, whose certificates say it"},
	{"[Network]\nName = h\nCA = a\nCA = /etc/sm/a\n[Node]\nCertificate = c\nPrivateKey = k",
	 "f:4: [Network] CA: /etc/sm/a is given twice"},
	{"[Network]\nName = h\nCA = a\nPolicy = cnsa\nCipher = chacha20-poly1305\n[Node]\n"
	 "Certificate = c\nPrivateKey = k",
	 "f:5: [Network] Cipher: chacha20-poly1305 is not allowed by Policy = cnsa"},
	{"[Network]\nName = h\nCA = a\nMode = tun\n[Node]\nCertificate = c\nPrivateKey = k\n"
	 "[Interface]\nMAC = 02:00:00:00:00:01",
	 "f:9: [Interface] MAC: not together with [Network] Mode = tun, which has no MAC addresses"},
	{CA_NET "[Interface]\nAddress = 10.7.0.1/24\nAddress = 10.7.0.1/16",
	 "f:9: [Interface] Address: 10.7.0.1/16 is given twice"},
	{CA_NET "[Transport]\nListen = 192.0.2.1, 192.0.2.1",
	 "f:8: [Transport] Listen: 192.0.2.1 is given twice"},
	{CA_NET "[Transport]\nListen = 192.0.2.1, 0.0.0.0",
	 "f:8: [Transport] Listen: 0.0.0.0 includes 192.0.2.1, so both want one port"},
	{CA_NET "[Transport]\nMaxHandshakesPerSource = 65",
	 "f:8: [Transport] MaxHandshakesPerSource: 65 is more than MaxHandshakes, which is 64"},
};

static void test_bad_values(void **state)
{
	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(bad_values); i++) {
		struct sm_config *cfg = NULL;

		assert_int_equal(parse(bad_values[i].text, &cfg), -EINVAL);
		assert_null(cfg);
		assert_string_equal(errors.text[0], bad_values[i].error);
		if (errors.count != 1)
			fail_msg("and then: %s", errors.text[1]);
	}
}

static void test_all_errors_are_told(void **state)
{
	struct sm_config *cfg = NULL;
	char text[4096] = "[Interface]\n";

	(void)state;
	assert_int_equal(parse("x\n[Network]\nName = A\nFoo = 1\n[Node]\nCertificate = c\n", &cfg),
			 -EINVAL);
	assert_int_equal(errors.count, 4);
	assert_memory_equal(errors.text[0], "f:1: ", 5);
	assert_memory_equal(errors.text[1], "f:3: [Network] Name: ", 21);
	assert_memory_equal(errors.text[2], "f:4: [Network] Foo: ", 20);
	assert_memory_equal(errors.text[3], "f:5: [Node] PrivateKey: ", 24);

	for (int i = 0; i < 30; i++)
		strcat(text, "MTU = x\n");
	assert_int_equal(parse(text, &cfg), -EINVAL);
	assert_int_equal(errors.count, SM_CONFIG_ERRORS_MAX);
	assert_int_equal(errors.dropped, 30 + 2 - SM_CONFIG_ERRORS_MAX);
	assert_string_equal(errors.text[19], "f:21: [Interface] MTU: given twice, first in line 2");
}

static void test_warnings(void **state)
{
	struct sm_config *cfg;

	(void)state;
	cfg = good(
		"[Network]\nName = h\nCA = a\n[Node]\nName = x\nCertificate = c\nPrivateKey = k\n"
		"[Transport]\nControlPort = 0\n[Peer]\nName = b\n");
	assert_int_equal(errors.warning_count, 2);
	assert_string_equal(errors.warning[0], "f:5: [Node] Name: has no effect together with CA, "
					       "whose certificates say it");
	assert_string_equal(errors.warning[1],
			    "f:10: [Peer] Endpoint: 'b' has none and [Transport] ControlPort is 0, "
			    "so neither can reach the other");
	sm_config_free(cfg);
}

static void test_odd_files(void **state)
{
	static const char nul[] = CA_NET "[Log]\nLevel = de\0bug\n";
	static const char *const fine[] = {
		"\xef\xbb\xbf" CA_NET,
		"[Network]\r\nName = home\r\nCA = ca.pem\r\n\r\n[Node]\r\nCertificate = c\r\n"
		"PrivateKey = k",
		"# x\n; y\n\n  \t\n   [ Network ]  \n\tName\t=\thome\t\n  # z\nCA = ca.pem\n[NODE]\n"
		"certificate=c\nprivatekey=k",
	};
	const size_t megabyte = 1 << 20;
	struct sm_config *cfg = NULL;
	char *text = malloc(megabyte + 1000);
	size_t len;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(fine); i++) {
		cfg = good(fine[i]);
		assert_string_equal(cfg->network.name, "home");
		assert_string_equal(cfg->node.private_key, "/etc/sm/k");
		sm_config_free(cfg);
	}
	assert_int_equal(sm_config_parse(nul, sizeof(nul) - 1, "f", "/", &cfg, &errors), -EINVAL);
	assert_int_equal(errors.count, 1);
	assert_string_equal(errors.text[0],
			    "f:8: there is a NUL byte in the line: is this a text file?");

	len = (size_t)sprintf(text, CA_NET "[Log]\nLevel = ");
	memset(text + len, 'x', megabyte);
	len += megabyte;
	len += (size_t)sprintf(text + len, "\nLevel = x");
	assert_int_equal(sm_config_parse(text, len, "f", "/", &cfg, &errors), -EINVAL);
	assert_int_equal(errors.count, 2);
	assert_string_equal(errors.text[0], "f:8: the line is longer than 4000 bytes");
	assert_string_equal(errors.text[1], "f:9: [Log] Level: got 'x', expected error, warn, "
					    "notice, info or debug");
	/* The longest line that is taken comes through whole. */
	len = (size_t)sprintf(text, "[Network]\nName = h\nCA = ");
	memset(text + len, 'p', SM_CONFIG_LINE_MAX - 5);
	len += SM_CONFIG_LINE_MAX - 5;
	len += (size_t)sprintf(text + len, "\n[Node]\nCertificate = c\nPrivateKey = k\n");
	assert_int_equal(sm_config_parse(text, len, "f", "/", &cfg, &errors), 0);
	assert_int_equal(strlen(cfg->network.ca.path[0]), SM_CONFIG_LINE_MAX - 5 + 1);
	sm_config_free(cfg);
	assert_int_equal(
		sm_config_parse(text, len, "f",
				"/and/deeper/still"
				"/long/enough/to/be/too/long/for/the/"
				"system/long/enough/to/be/too/long/for/the/system/long/enough",
				&cfg, &errors),
		-EINVAL);
	assert_int_equal(sm_config_parse("", 0, "f", "/", &cfg, &errors), -EINVAL);
	assert_int_equal(errors.count, 2); /* a name and a key: all that every node needs */
	free(text);
}

/* What is accepted here finds a place in the node. */
static_assert(SM_CONFIG_PEERS_MAX == SM_PORT_MAX - 1,
	      "a port for each peer, and one for ourselves");

static void test_limits(void **state)
{
	const size_t room = 1 << 20;
	struct sm_config *cfg = NULL;
	char *text = malloc(room);
	size_t len;

	(void)state;
	len = (size_t)sprintf(text, CA_NET);
	for (uint32_t i = 0; i <= SM_CONFIG_PEERS_MAX + 1; i++)
		len += (size_t)sprintf(text + len, "[Peer]\nName = p%u\n", i);
	assert_int_equal(parse(text, &cfg), -EINVAL);
	assert_int_equal(errors.count, 1);
	assert_string_equal(errors.text[0], "f:8197: [Peer]: more than 4095 peers");
	len = (size_t)sprintf(text, CA_NET "[Peer]\nName = b\nEndpoint = e0");
	for (uint32_t i = 1; i <= SM_CONFIG_ENDPOINTS_MAX; i++)
		len += (size_t)sprintf(text + len, ",e%u", i);
	assert_int_equal(parse(text, &cfg), -EINVAL);
	assert_string_equal(errors.text[0], "f:9: [Peer] Endpoint: 'e8' is one too many");
	free(text);
}

static void test_socket_path(void **state)
{
	struct sm_config *cfg = NULL;
	char text[512] = CA_NET "[Control]\nSocket = /";
	size_t len = strlen(text);

	(void)state;
	memset(text + len, 's', 106);
	cfg = good(text);
	assert_int_equal(strlen(cfg->control.socket), 107);
	sm_config_free(cfg);
	text[len + 106] = 's';
	assert_int_equal(parse(text, &cfg), -EINVAL);
	assert_memory_equal(errors.text[0],
			    "f:8: [Control] Socket: the path has more than 107 bytes: ", 56);

	setenv("SHADOWMESH_RUNTIME_DIR", "/run/user/7", 1);
	cfg = good(CA_NET);
	assert_string_equal(cfg->control.socket, "/run/user/7/home.sock");
	sm_config_free(cfg);
	unsetenv("SHADOWMESH_RUNTIME_DIR");
}

static char *print(const struct sm_config *cfg)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	sm_config_print(cfg, out);
	fclose(out);
	return text;
}

static void assert_round_trip(struct sm_config *cfg)
{
	char *once = print(cfg), *twice, restart[SM_CONFIG_RESTART_MAX];
	struct sm_config *again = good(once);

	assert_int_equal(sm_config_diff(cfg, again, restart), 0);
	assert_string_equal(restart, "");
	twice = print(again);
	assert_string_equal(once, twice);
	sm_config_free(again);
	free(once);
	free(twice);
}

static void test_round_trip(void **state)
{
	static const char *const texts[] = {
		CA_NET,
		everything,
		PINNED_NET "[Peer]\nName = b\nFingerprint = " FP_A "\n[Interface]\nMAC = "
			   "02:00:00:00:00:01\n",
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(texts); i++) {
		struct sm_config *cfg = good(texts[i]);

		assert_round_trip(cfg);
		sm_config_free(cfg);
	}
}

/* A file of the checkout. Return: its path, in a buffer of this function's */
static const char *in_source(const char *name)
{
	static char path[512];
	const char *top = getenv("SM_SOURCE");

	snprintf(path, sizeof(path), "%s/%s", top ? top : ".", name);
	if (access(path, R_OK) < 0) {
		print_message("%s is not there: run in the checkout or set SM_SOURCE\n", path);
		skip();
	}
	return path;
}

static void test_examples(void **state)
{
	static const char *const names[] = {"dist/shadowmesh.conf.example",
					    "dist/shadowmesh-pinned.conf.example"};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(names); i++) {
		struct sm_config *cfg = NULL;

		if (sm_config_load(in_source(names[i]), &cfg, &errors))
			fail_msg("%s", errors.text[0]);
		assert_int_equal(errors.warning_count, 0);
		assert_round_trip(cfg);
		sm_config_free(cfg);
	}
}

static char *read_all(const char *path)
{
	char *text = calloc(1, 1 << 18);
	FILE *f = fopen(path, "re");

	assert_non_null(f);
	assert_true(fread(text, 1, (1 << 18) - 1, f) > 0);
	fclose(f);
	return text;
}

/* The commented keys of the example show the defaults: they must be the true ones. */
static void test_example_tells_defaults(void **state)
{
	char *text = read_all(in_source("dist/shadowmesh.conf.example"));
	struct sm_config_key key;
	char line[128];

	(void)state;
	for (uint32_t i = 0; sm_config_key_at(i, &key); i++) {
		snprintf(line, sizeof(line), "%s = %s\n", key.name, key.fallback);
		if (key.fallback && !strstr(text, line))
			fail_msg("the example lacks %s", line);
	}
	free(text);
}

static void test_every_key_is_documented(void **state)
{
	char *text = read_all(in_source("man/shadowmesh.conf.5"));
	struct sm_config_key key;
	char section[64], want[256];
	uint32_t count = 0;

	(void)state;
	for (uint32_t i = 0; sm_config_key_at(i, &key); i++, count++) {
		const char *from, *to, *entry;

		snprintf(section, sizeof(section), ".Ss [%s]\n", key.section);
		from = strstr(text, section);
		if (!from)
			fail_msg("the man page lacks [%s]", key.section);
		to = strstr(from + 1, "\n.Ss ");
		snprintf(want, sizeof(want), ".It Cm %s No = ", key.name);
		entry = strstr(from, want);
		if (!entry || (to && entry > to))
			fail_msg("the man page lacks [%s] %s", key.section, key.name);
		to = strstr(entry + 1, ".It ");
		snprintf(want, sizeof(want), "Default: %s", key.fallback);
		if (key.fallback && (!strstr(entry, want) || (to && strstr(entry, want) > to)))
			fail_msg("[%s] %s lacks '%s'", key.section, key.name, want);
		assert_true(strlen(key.help) > 5 && strlen(key.expected) > 5);
	}
	assert_true(count > 30);
	assert_false(sm_config_key_at(UINT32_MAX, &key));
	free(text);
}

static void test_diff(void **state)
{
	static const struct {
		const char *before, *after;
		unsigned changes;
		const char *restart;
	} cases[] = {
		{CA_NET, CA_NET "[Log]\nLevel = info\n", 0, ""},
		{CA_NET, CA_NET "[Log]\nLevel = warn\n", SM_CONFIG_CHANGE_LOG, ""},
		{CA_NET, CA_NET "[Peer]\nName = b\n", SM_CONFIG_CHANGE_PEERS, ""},
		{CA_NET "[Peer]\nName = b\nEndpoint = a:1\n",
		 CA_NET "[Peer]\nName = b\nEndpoint = a:2\n", SM_CONFIG_CHANGE_PEERS, ""},
		{CA_NET,
		 CA_NET "[Interface]\nMTU = 1400\nAddress = 10.0.0.1/8\n[Transport]\nDataPort = 1",
		 SM_CONFIG_CHANGE_RESTART,
		 "[Interface] Address, [Interface] MTU, [Transport] DataPort"},
		{"[Network]\nName = home\nCA = ca.pem, other\nCRL = l\n[Node]\nCertificate = c\n"
		 "PrivateKey = k\n",
		 CA_NET, SM_CONFIG_CHANGE_TRUST, ""},
		{CA_NET "PassphraseFile = p\n", CA_NET, SM_CONFIG_CHANGE_IDENTITY, ""},
		{CA_NET, PINNED_NET "[Peer]\nName = b\nFingerprint = " FP_A,
		 SM_CONFIG_CHANGE_PEERS | SM_CONFIG_CHANGE_IDENTITY | SM_CONFIG_CHANGE_RESTART,
		 "[Network] CA, [Node] Name"},
		{CA_NET "[Interface]\nMAC = 02:00:00:00:00:01\n", CA_NET, SM_CONFIG_CHANGE_RESTART,
		 "[Interface] MAC"},
		{CA_NET, CA_NET "[Control]\nGroup = adm\n", SM_CONFIG_CHANGE_RESTART,
		 "[Control] Group"},
	};
	char restart[SM_CONFIG_RESTART_MAX];

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct sm_config *a = good(cases[i].before), *b = good(cases[i].after);

		assert_int_equal(sm_config_diff(a, b, restart), cases[i].changes);
		assert_string_equal(restart, cases[i].restart);
		assert_int_equal(sm_config_diff(b, a, restart), cases[i].changes);
		sm_config_free(a);
		sm_config_free(b);
	}
}

/* Files of this test's own */
static char dir[] = "/tmp/shadowmesh-config-XXXXXX";

static void write_file(const char *name, const void *data, size_t len, mode_t mode)
{
	FILE *f = fopen(name, "we");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(name, mode), 0);
}

static void write_text(const char *name, const char *text, mode_t mode)
{
	write_file(name, text, strlen(text), mode);
}

static void test_load(void **state)
{
	struct sm_config *cfg = NULL;
	char want[128], absolute[128];

	(void)state;
	write_text("home.conf", CA_NET, 0644);
	assert_int_equal(sm_config_load("home.conf", &cfg, &errors), 0);
	snprintf(want, sizeof(want), "%s/ca.pem", dir);
	assert_string_equal(cfg->network.ca.path[0], want);
	assert_string_equal(cfg->file, "home.conf");
	sm_config_free(cfg);
	snprintf(absolute, sizeof(absolute), "%s/home.conf", dir);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(sm_config_load(absolute, &cfg, &errors), 0);
	assert_string_equal(cfg->network.ca.path[0], want);
	sm_config_free(cfg);
	assert_int_equal(chdir(dir), 0);

	assert_int_equal(sm_config_load(".", &cfg, &errors), -EISDIR);
	assert_string_equal(errors.text[0], ".: Is a directory");
	assert_int_equal(errors.count, 1);
	assert_int_equal(sm_config_load("none.conf", &cfg, &errors), -ENOENT);
	assert_string_equal(errors.text[0], "none.conf: No such file or directory");
	assert_int_equal(sm_config_load("/dev/zero", &cfg, &errors), -EFBIG);
}

static void test_load_pipe(void **state)
{
	struct sm_config *cfg = NULL;
	char path[64], want[128];
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(write(ends[1], CA_NET, strlen(CA_NET)), strlen(CA_NET));
	close(ends[1]);
	snprintf(path, sizeof(path), "/dev/fd/%d", ends[0]);
	assert_int_equal(sm_config_load(path, &cfg, &errors), 0);
	snprintf(want, sizeof(want), "%s/ca.pem", dir);
	assert_string_equal(cfg->network.ca.path[0], want);
	sm_config_free(cfg);
	close(ends[0]);
}

static void test_access_key(void **state)
{
	static const struct {
		const char *text, *error;
	} bad[] = {
		{"", "k: does not hold 64 hexadecimal digits and nothing else"},
		{"00", "k: does not hold 64 hexadecimal digits and nothing else"},
		{KEY_HEX "00", "k: does not hold 64 hexadecimal digits and nothing else"},
		{KEY_HEX "\n" KEY_HEX, "k: does not hold 64 hexadecimal digits and nothing else"},
	};
	char error[SM_CONFIG_ERROR_MAX];
	uint8_t key[32];

	(void)state;
	write_text("k", " " KEY_HEX "\n", 0600);
	assert_int_equal(sm_config_read_access_key("k", key, error), 0);
	for (uint8_t i = 0; i < 32; i++)
		assert_int_equal(key[i], i);
	for (size_t i = 0; i < SM_ARRAY_SIZE(bad); i++) {
		write_text("k", bad[i].text, 0600);
		assert_int_equal(sm_config_read_access_key("k", key, error), -EINVAL);
		assert_string_equal(error, bad[i].error);
	}
	write_text("k", KEY_HEX, 0640);
	assert_int_equal(sm_config_read_access_key("k", key, error), -EPERM);
	assert_string_equal(error, "k: others have access (mode 0640): 'chmod 600' it");
	assert_int_equal(sm_config_read_access_key(".", key, error), -EINVAL);
	assert_string_equal(error, ".: is not a regular file");
	assert_int_equal(sm_config_read_access_key("none", key, error), -ENOENT);
	if (geteuid() == 0) {
		write_text("k", KEY_HEX, 0600);
		assert_int_equal(chown("k", 12345, 0), 0);
		assert_int_equal(sm_config_read_access_key("k", key, error), -EPERM);
		assert_string_equal(error, "k: belongs to another user: 'chown 0' it");
		assert_int_equal(chown("k", 0, 0), 0);
	}
}

static void test_passphrase(void **state)
{
	char error[SM_CONFIG_ERROR_MAX], text[16];

	(void)state;
	write_text("p", "horse\r\nbattery staple and more\n", 0600);
	assert_int_equal(sm_config_read_passphrase("p", text, sizeof(text), error), 0);
	assert_string_equal(text, "horse");
	assert_int_equal(text[7], 0);
	write_text("p", "\nx", 0600);
	assert_int_equal(sm_config_read_passphrase("p", text, sizeof(text), error), -EINVAL);
	assert_string_equal(error, "p: the first line is empty");
	write_text("p", "0123456789abcdef", 0600);
	assert_int_equal(sm_config_read_passphrase("p", text, sizeof(text), error), -EINVAL);
	assert_string_equal(error, "p: the first line is too long");
	assert_int_equal(text[0], 0);
	write_text("p", "x", 0604);
	assert_int_equal(sm_config_read_passphrase("p", text, sizeof(text), error), -EPERM);
}

static void test_check_files(void **state)
{
	struct sm_config *cfg = NULL;
	char want[SM_CONFIG_ERROR_MAX];

	(void)state;
	write_text("home.conf",
		   "[Network]\nName = home\nCA = ca.pem\nCRL = l.crl\nAccessKey = a\n[Node]\n"
		   "Certificate = c\nPrivateKey = k\nPassphraseFile = p\n[Control]\nGroup = root\n",
		   0644);
	write_text("ca.pem", "x", 0644);
	write_text("l.crl", "x", 0644);
	write_text("a", KEY_HEX, 0600);
	write_text("c", "x", 0644);
	write_text("k", "x", 0600);
	write_text("p", "x", 0400);
	assert_int_equal(sm_config_load("home.conf", &cfg, &errors), 0);
	assert_int_equal(sm_config_check_files(cfg, &errors), 0);

	write_text("a", "x", 0600);
	write_text("k", "x", 0644);
	assert_int_equal(unlink("l.crl"), 0);
	free(cfg->control.group);
	cfg->control.group = strdup("no-such-group");
	assert_int_equal(sm_config_check_files(cfg, &errors), -EINVAL);
	assert_int_equal(errors.count, 4);
	snprintf(want, sizeof(want),
		 "home.conf:4: [Network] CRL: %s/l.crl: No such file or directory", dir);
	assert_string_equal(errors.text[0], want);
	snprintf(want, sizeof(want),
		 "home.conf:5: [Network] AccessKey: %s/a: does not hold 64 hexadecimal digits and "
		 "nothing else",
		 dir);
	assert_string_equal(errors.text[1], want);
	snprintf(
		want, sizeof(want),
		"home.conf:8: [Node] PrivateKey: %s/k: others have access (mode 0644): 'chmod 600' it",
		dir);
	assert_string_equal(errors.text[2], want);
	assert_string_equal(errors.text[3],
			    "home.conf:11: [Control] Group: there is no group 'no-such-group'");
	sm_config_free(cfg);
}

static int enter_dir(void **state)
{
	(void)state;
	return !mkdtemp(dir) || chdir(dir);
}

static int leave_dir(void **state)
{
	static const char *const names[] = {"home.conf", "ca.pem", "l.crl", "a", "c", "k", "p"};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(names); i++)
		unlink(names[i]);
	return chdir("/") || rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest texts[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_everything),
		cmocka_unit_test(test_pinned),
		cmocka_unit_test(test_bad_values),
		cmocka_unit_test(test_all_errors_are_told),
		cmocka_unit_test(test_warnings),
		cmocka_unit_test(test_odd_files),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_socket_path),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_examples),
		cmocka_unit_test(test_example_tells_defaults),
		cmocka_unit_test(test_every_key_is_documented),
		cmocka_unit_test(test_diff),
	};
	const struct CMUnitTest files[] = {
		cmocka_unit_test(test_load),        cmocka_unit_test(test_load_pipe),
		cmocka_unit_test(test_access_key),  cmocka_unit_test(test_passphrase),
		cmocka_unit_test(test_check_files),
	};
	int failed;

	unsetenv("SHADOWMESH_RUNTIME_DIR");
	failed = cmocka_run_group_tests(texts, NULL, NULL);
	return failed + cmocka_run_group_tests(files, enter_dir, leave_dir);
}
