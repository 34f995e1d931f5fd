// SPDX-License-Identifier: MIT
/*
 * The rows. A key that is added here is read, checked, printed, compared and explained; a test
 * wants it in man/shadowmesh.conf.5 too.
 */
#include "daemon/config_key.h"

#include <ctype.h>
#include <strings.h>

static const struct sm_config_word mode_words[] = {
	{"tap", SM_MODE_TAP},
	{"tun", SM_MODE_TUN},
	{0},
};

static const struct sm_config_word policy_words[] = {
	{"default", SM_CONFIG_POLICY_DEFAULT},
	{"cnsa", SM_CONFIG_POLICY_CNSA},
	{0},
};

static const struct sm_config_word cipher_words[] = {
	{"auto", SM_CONFIG_CIPHER_AUTO},
	{"aes-256-gcm", SM_CONFIG_CIPHER_AES256GCM},
	{"chacha20-poly1305", SM_CONFIG_CIPHER_CHACHA20POLY1305},
	{0},
};

static const struct sm_config_word level_words[] = {
	{"error", SM_LOG_ERROR}, {"warn", SM_LOG_WARN},   {"notice", SM_LOG_NOTICE},
	{"info", SM_LOG_INFO},   {"debug", SM_LOG_DEBUG}, {0},
};

#define MIB (UINT64_C(1) << 20)

#define AT(member)                                    \
	.offset = offsetof(struct sm_config, member), \
	.size = sizeof(((struct sm_config *)0)->member), .flag = SM_CONFIG_NO_FLAG
#define AT_FLAGGED(member, has)                       \
	.offset = offsetof(struct sm_config, member), \
	.size = sizeof(((struct sm_config *)0)->member), .flag = offsetof(struct sm_config, has)
#define PEER_AT(member)                                    \
	.offset = offsetof(struct sm_config_peer, member), \
	.size = sizeof(((struct sm_config_peer *)0)->member), .flag = SM_CONFIG_NO_FLAG
#define PEER_AT_FLAGGED(member, has)                          \
	.offset = offsetof(struct sm_config_peer, member),    \
	.size = sizeof(((struct sm_config_peer *)0)->member), \
	.flag = offsetof(struct sm_config_peer, has)

#define A_NAME "a name of a-z, 0-9 and '-', at most 63 bytes, with no '-' at either end"

const struct sm_config_row sm_config_rows[] = {
	{
		.section = SM_CONFIG_NETWORK,
		.name = "Name",
		.kind = SM_CONFIG_KIND_NAME,
		AT(network.name),
		.expected = A_NAME,
		.help = "Name of the network",
		.required = true,
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_NETWORK,
		.name = "Mode",
		.kind = SM_CONFIG_KIND_WORD,
		AT(network.mode),
		.words = mode_words,
		.fallback = "tap",
		.expected = "tap or tun",
		.help = "Ethernet frames (tap) or IP packets (tun); the same on every node",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_NETWORK,
		.name = "CA",
		.kind = SM_CONFIG_KIND_PATHS,
		AT(network.ca),
		.expected = "the path of a file",
		.help = "Certificate of an authority that says who is a member",
		.change = SM_CONFIG_CHANGE_TRUST,
	},
	{
		.section = SM_CONFIG_NETWORK,
		.name = "CRL",
		.kind = SM_CONFIG_KIND_PATHS,
		AT(network.crl),
		.expected = "the path of a file",
		.help = "List of revoked certificates",
		.change = SM_CONFIG_CHANGE_TRUST,
	},
	{
		.section = SM_CONFIG_NETWORK,
		.name = "NetworkId",
		.kind = SM_CONFIG_KIND_HEX,
		AT_FLAGGED(network.id, network.has_id),
		.expected = "32 hexadecimal digits",
		.help = "Id of a network without a CA; by default it follows from the name",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_NETWORK,
		.name = "AccessKey",
		.kind = SM_CONFIG_KIND_PATH,
		AT(network.access_key),
		.expected = "the path of a file with 64 hexadecimal digits",
		.help = "Secret of all members without which the control port stays silent",
		.change = SM_CONFIG_CHANGE_TRUST,
	},
	{
		.section = SM_CONFIG_NETWORK,
		.name = "Policy",
		.kind = SM_CONFIG_KIND_WORD,
		AT(network.policy),
		.words = policy_words,
		.fallback = "default",
		.expected = "default or cnsa",
		.help = "Allowed cryptography; cnsa: the parameter sets of CNSA 2.0 and no others",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_NETWORK,
		.name = "Cipher",
		.kind = SM_CONFIG_KIND_WORD,
		AT(network.cipher),
		.words = cipher_words,
		.fallback = "auto",
		.expected = "auto, aes-256-gcm or chacha20-poly1305",
		.help = "Cipher of the data packets",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_NODE,
		.name = "Certificate",
		.kind = SM_CONFIG_KIND_PATH,
		AT(node.certificate),
		.expected = "the path of a file",
		.help = "Certificate of this node, needed with a CA; pinned nodes make their own",
		.change = SM_CONFIG_CHANGE_IDENTITY,
	},
	{
		.section = SM_CONFIG_NODE,
		.name = "PrivateKey",
		.kind = SM_CONFIG_KIND_PATH,
		AT(node.private_key),
		.expected = "the path of a file",
		.help = "Private key of this node",
		.required = true,
		.change = SM_CONFIG_CHANGE_IDENTITY,
	},
	{
		.section = SM_CONFIG_NODE,
		.name = "PassphraseFile",
		.kind = SM_CONFIG_KIND_PATH,
		AT(node.passphrase_file),
		.expected = "the path of a file",
		.help = "File whose first line opens the private key",
		.change = SM_CONFIG_CHANGE_IDENTITY,
	},
	{
		.section = SM_CONFIG_NODE,
		.name = "Name",
		.kind = SM_CONFIG_KIND_NAME,
		AT(node.name),
		.expected = A_NAME,
		.help = "Name of this node in a network without a CA",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_INTERFACE,
		.name = "Name",
		.kind = SM_CONFIG_KIND_IFNAME,
		AT(interface.name),
		.fallback = "smesh0",
		.expected = "an interface name of at most 15 bytes, as smesh0 or smesh%d",
		.help = "Network card that is made, or taken over if it is there",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_INTERFACE,
		.name = "Address",
		.kind = SM_CONFIG_KIND_PREFIXES,
		AT(interface.address),
		.expected = "an address with its prefix length, as 10.7.0.1/24",
		.help = "Address of the card; by default those in the certificate",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_INTERFACE,
		.name = "ULA",
		.kind = SM_CONFIG_KIND_BOOL,
		AT(interface.ula),
		.fallback = "yes",
		.expected = "yes or no",
		.help = "Add the IPv6 address that follows from network and name",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_INTERFACE,
		.name = "MTU",
		.kind = SM_CONFIG_KIND_NUMBER,
		AT(interface.mtu),
		.min = 576,
		.max = 65500,
		.fallback = "1500",
		.expected = "a number from 576 to 65500",
		.help = "MTU of the card; larger than the path is fine",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_INTERFACE,
		.name = "MAC",
		.kind = SM_CONFIG_KIND_MAC,
		AT_FLAGGED(interface.mac, interface.has_mac),
		.expected = "a unicast MAC address, as 02:00:5e:10:00:01",
		.help = "Address of the TAP card instead of the derived one",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_INTERFACE,
		.name = "Routes",
		.kind = SM_CONFIG_KIND_BOOL,
		AT(interface.routes),
		.fallback = "yes",
		.expected = "yes or no",
		.help = "In TUN mode, install routes to the prefixes of the peers' certificates",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_INTERFACE,
		.name = "TxQueueLen",
		.kind = SM_CONFIG_KIND_NUMBER,
		AT(interface.txqueuelen),
		.min = 1,
		.max = 100000,
		.zero = "auto",
		.fallback = "4000",
		.expected = "auto or a number from 1 to 100000",
		.help = "Packets that the kernel queues in front of the card",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_TRANSPORT,
		.name = "Listen",
		.kind = SM_CONFIG_KIND_ADDRESSES,
		AT(transport.listen),
		.expected = "an IP address without a port",
		.help = "Address to listen on; by default all",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_TRANSPORT,
		.name = "ControlPort",
		.kind = SM_CONFIG_KIND_NUMBER,
		AT(transport.control_port),
		.max = 65535,
		.fallback = "8443",
		.expected = "a TCP port from 1 to 65535, or 0 to not listen",
		.help = "TCP port of the control channel",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_TRANSPORT,
		.name = "DataPort",
		.kind = SM_CONFIG_KIND_NUMBER,
		AT(transport.data_port),
		.max = 65535,
		.fallback = "9443",
		.expected = "a UDP port from 1 to 65535, or 0 for any free one",
		.help = "UDP port of the data packets",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_TRANSPORT,
		.name = "Workers",
		.kind = SM_CONFIG_KIND_NUMBER,
		AT(transport.workers),
		.min = 1,
		.max = SM_WORKER_MAX,
		.zero = "auto",
		.fallback = "auto",
		.expected = "auto or a number from 1 to 16",
		.help = "Threads that move packets",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_TRANSPORT,
		.name = "Offload",
		.kind = SM_CONFIG_KIND_BOOL,
		AT(transport.offload),
		.fallback = "yes",
		.expected = "yes or no",
		.help = "Move many segments at a time between card and network",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_TRANSPORT,
		.name = "PathMTU",
		.kind = SM_CONFIG_KIND_NUMBER,
		AT(transport.path_mtu),
		.min = SM_PATH_MTU_MIN,
		.max = 65535,
		.zero = "auto",
		.fallback = "auto",
		.expected = "auto or a number from 1280 to 65535",
		.help = "Largest IP packet that is sent to a peer",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_TRANSPORT,
		.name = "SocketBuffer",
		.kind = SM_CONFIG_KIND_SIZE,
		AT(transport.socket_buffer),
		.min = 65536,
		.max = 256 * MIB,
		.fallback = "32M",
		.expected = "a size from 64K to 256M, as 32M",
		.help = "Buffer of the UDP socket in each direction",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_TRANSPORT,
		.name = "Keepalive",
		.kind = SM_CONFIG_KIND_DURATION,
		AT(transport.keepalive_us),
		.min = SM_SEC_US,
		.max = 300 * SM_SEC_US,
		.fallback = "10s",
		.expected = "a duration from 1s to 5min, as 10s",
		.help = "Silence after which a peer is probed",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_TRANSPORT,
		.name = "MaxHandshakes",
		.kind = SM_CONFIG_KIND_NUMBER,
		AT(transport.max_handshakes),
		.min = 1,
		.max = 4096,
		.fallback = "64",
		.expected = "a number from 1 to 4096",
		.help = "Unfinished handshakes at one time",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_TRANSPORT,
		.name = "MaxHandshakesPerSource",
		.kind = SM_CONFIG_KIND_NUMBER,
		AT(transport.max_handshakes_per_source),
		.min = 1,
		.max = 4096,
		.fallback = "8",
		.expected = "a number from 1 to 4096",
		.help = "Unfinished handshakes of one source address at one time",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_TRANSPORT,
		.name = "RekeyAfter",
		.kind = SM_CONFIG_KIND_DURATION,
		AT(transport.rekey_after_us),
		.min = SM_SEC_US,
		.max = 180 * SM_SEC_US,
		.fallback = "120s",
		.expected = "a duration from 1s to 3min, as 120s",
		.help = "Time of use after which fresh keys are made",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_PEER,
		.name = "Name",
		.kind = SM_CONFIG_KIND_NAME,
		PEER_AT(name),
		.expected = A_NAME,
		.help = "Name of the peer",
		.required = true,
		.change = SM_CONFIG_CHANGE_PEERS,
	},
	{
		.section = SM_CONFIG_PEER,
		.name = "Endpoint",
		.kind = SM_CONFIG_KIND_ENDPOINTS,
		PEER_AT(endpoints),
		.expected = "host:port, as vpn.example.org:8443 or [2001:db8::1]:8443",
		.help = "Where the peer's control port can be reached",
		.change = SM_CONFIG_CHANGE_PEERS,
	},
	{
		.section = SM_CONFIG_PEER,
		.name = "Address",
		.kind = SM_CONFIG_KIND_PREFIXES,
		PEER_AT(address),
		.expected = "an address with its prefix length, as 10.7.0.2/24",
		.help = "Overlay address of a pinned peer; by default those it claims",
		.change = SM_CONFIG_CHANGE_PEERS,
	},
	{
		.section = SM_CONFIG_PEER,
		.name = "Fingerprint",
		.kind = SM_CONFIG_KIND_HEX,
		PEER_AT_FLAGGED(fingerprint, has_fingerprint),
		.expected = "64 hexadecimal digits, with or without sha256: in front",
		.help = "SHA-256 of the peer's public key; trusts it in a network without a CA",
		.change = SM_CONFIG_CHANGE_PEERS,
	},
	{
		.section = SM_CONFIG_LOG,
		.name = "Level",
		.kind = SM_CONFIG_KIND_WORD,
		AT(log_level),
		.words = level_words,
		.fallback = "info",
		.expected = "error, warn, notice, info or debug",
		.help = "Least important lines that are still written",
		.change = SM_CONFIG_CHANGE_LOG,
	},
	{
		.section = SM_CONFIG_CONTROL,
		.name = "Socket",
		.kind = SM_CONFIG_KIND_PATH,
		AT(control.socket),
		.expected = "the path of a socket, at most 107 bytes",
		.help = "Where the command line reaches the daemon",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
	{
		.section = SM_CONFIG_CONTROL,
		.name = "Group",
		.kind = SM_CONFIG_KIND_TEXT,
		AT(control.group),
		.expected = "the name of a group of users",
		.help = "Group that may use the socket besides root",
		.change = SM_CONFIG_CHANGE_RESTART,
	},
};

const uint32_t sm_config_row_count = SM_ARRAY_SIZE(sm_config_rows);
static_assert(SM_ARRAY_SIZE(sm_config_rows) <= SM_CONFIG_ROW_MAX, "a bit for each row");

static const char *const section_names[] = {
	[SM_CONFIG_NETWORK] = "Network",     [SM_CONFIG_NODE] = "Node",
	[SM_CONFIG_INTERFACE] = "Interface", [SM_CONFIG_TRANSPORT] = "Transport",
	[SM_CONFIG_PEER] = "Peer",           [SM_CONFIG_LOG] = "Log",
	[SM_CONFIG_CONTROL] = "Control",
};
static_assert(SM_ARRAY_SIZE(section_names) == SM_CONFIG_SECTION_COUNT, "a name for each");

const char *sm_config_section_name(enum sm_config_section section)
{
	return section_names[section];
}

enum sm_config_section sm_config_section_find(const char *name)
{
	enum sm_config_section s = 0;

	while (s < SM_CONFIG_SECTION_COUNT && strcasecmp(section_names[s], name) != 0)
		s++;
	return s;
}

const struct sm_config_row *sm_config_row_find(enum sm_config_section section, const char *name)
{
	for (uint32_t i = 0; i < sm_config_row_count; i++) {
		const struct sm_config_row *row = &sm_config_rows[i];

		if (row->section == section && !strcasecmp(row->name, name))
			return row;
	}
	return NULL;
}

const struct sm_config_row *sm_config_row_elsewhere(const char *name)
{
	for (uint32_t i = 0; i < sm_config_row_count; i++) {
		if (!strcasecmp(sm_config_rows[i].name, name))
			return &sm_config_rows[i];
	}
	return NULL;
}

bool sm_config_row_is_list(const struct sm_config_row *row)
{
	return row->kind == SM_CONFIG_KIND_PATHS || row->kind == SM_CONFIG_KIND_PREFIXES ||
	       row->kind == SM_CONFIG_KIND_ADDRESSES || row->kind == SM_CONFIG_KIND_ENDPOINTS;
}

#define SLIP_LEN 32u /* longer words are no slip of a key */

/* Letters to insert, delete or change to come from one word to the other, whatever the case. */
static uint32_t distance(const char *a, const char *b)
{
	size_t a_len = strlen(a), b_len = strlen(b);
	uint32_t row[SLIP_LEN + 1];

	if (a_len > SLIP_LEN || b_len > SLIP_LEN)
		return UINT32_MAX;
	for (uint32_t j = 0; j <= b_len; j++)
		row[j] = j;
	for (uint32_t i = 1; i <= a_len; i++) {
		uint32_t diagonal = row[0];

		row[0] = i;
		for (uint32_t j = 1; j <= b_len; j++) {
			bool same = tolower((unsigned char)a[i - 1]) ==
				    tolower((unsigned char)b[j - 1]);
			uint32_t best = SM_MIN(row[j], row[j - 1]) + 1;

			best = SM_MIN(best, diagonal + !same);
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[b_len];
}

/* Near enough to be meant: two slips, and no more than a third of a short word. */
static bool nearer(const char *name, const char *candidate, uint32_t *best)
{
	uint32_t d = distance(name, candidate);

	if (d >= *best || d > 2 || (size_t)3 * d > strlen(candidate))
		return false;
	*best = d;
	return true;
}

const char *sm_config_nearest_key(enum sm_config_section section, const char *name)
{
	const char *found = NULL;
	uint32_t best = UINT32_MAX;

	for (uint32_t i = 0; i < sm_config_row_count; i++) {
		const struct sm_config_row *row = &sm_config_rows[i];

		if (row->section == section && nearer(name, row->name, &best))
			found = row->name;
	}
	return found;
}

const char *sm_config_nearest_section(const char *name)
{
	const char *found = NULL;
	uint32_t best = UINT32_MAX;

	for (uint32_t i = 0; i < SM_CONFIG_SECTION_COUNT; i++) {
		if (nearer(name, section_names[i], &best))
			found = section_names[i];
	}
	return found;
}

bool sm_config_key_at(uint32_t i, struct sm_config_key *ret_key)
{
	const struct sm_config_row *row;

	if (i >= sm_config_row_count)
		return false;
	row = &sm_config_rows[i];
	*ret_key = (struct sm_config_key){
		.section = section_names[row->section],
		.name = row->name,
		.expected = row->expected,
		.fallback = row->fallback,
		.help = row->help,
		.required = row->required,
		.repeated = sm_config_row_is_list(row),
	};
	return true;
}
