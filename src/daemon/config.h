// SPDX-License-Identifier: MIT
/*
 * The configuration file: read, checked as a whole, compared with the one before.
 *
 * Values only: numbers, names, parsed addresses and absolute paths. What the paths point to is not
 * read here, except by sm_config_check_files() and the two readers of secrets at the end.
 */
#ifndef SM_DAEMON_CONFIG_H
#define SM_DAEMON_CONFIG_H

#include "base/addr.h"
#include "base/log.h"
#include "base/text.h"
#include "wire/const.h"
#include "wire/ether.h"

#include <net/if.h>
#include <stdio.h>

#define SM_CONFIG_FILE_MAX           (4u << 20) /* bytes of one file */
#define SM_CONFIG_LINE_MAX           4000u      /* bytes of one line */
#define SM_CONFIG_PATHS_MAX          16u        /* files in one list */
#define SM_CONFIG_ADDRESSES_MAX      32u        /* Address, Listen */
#define SM_CONFIG_ENDPOINTS_MAX      8u         /* of one peer */
#define SM_CONFIG_PEER_ADDRESSES_MAX 16u
#define SM_CONFIG_PEERS_MAX          4095u /* as many as the switch has ports beside our own */
#define SM_CONFIG_HOST_MAX           253u  /* bytes of a DNS name */

enum sm_config_policy {
	SM_CONFIG_POLICY_DEFAULT,
	SM_CONFIG_POLICY_CNSA, /* only the parameter sets of CNSA 2.0 */
};

enum sm_config_cipher {
	SM_CONFIG_CIPHER_AUTO,
	SM_CONFIG_CIPHER_AES256GCM,
	SM_CONFIG_CIPHER_CHACHA20POLY1305, /* never together with SM_CONFIG_POLICY_CNSA */
};

struct sm_config_paths {
	char *path[SM_CONFIG_PATHS_MAX]; /* absolute */
	uint32_t count;
};

struct sm_config_prefixes {
	struct sm_prefix prefix[SM_CONFIG_ADDRESSES_MAX]; /* host bits kept */
	uint32_t count;
};

struct sm_config_addresses {
	struct sm_addr addr[SM_CONFIG_ADDRESSES_MAX]; /* port 0 */
	uint32_t count;
};

/** struct sm_config_endpoint - Where a peer's control port is */
struct sm_config_endpoint {
	char host[SM_CONFIG_HOST_MAX + 1]; /* DNS name, or the address without brackets */
	uint16_t port;                     /* host order */
	struct sm_addr addr;               /* family 0: @host is a name to be resolved */
};

struct sm_config_endpoints {
	struct sm_config_endpoint endpoint[SM_CONFIG_ENDPOINTS_MAX];
	uint32_t count;
};

struct sm_config_peer {
	char name[SM_NAME_MAX + 1];
	struct sm_config_endpoints endpoints; /* none: it dials us */
	struct sm_config_prefixes address;    /* pinned mode; none: those that the peer claims */
	bool has_fingerprint;
	uint8_t fingerprint[SM_FINGERPRINT_LEN];
	uint32_t line; /* of its [Peer] */
};

struct sm_config_network {
	char name[SM_NAME_MAX + 1];
	enum sm_mode mode;
	struct sm_config_paths ca; /* none: pinned mode */
	struct sm_config_paths crl;
	bool has_id; /* pinned mode; else derived from the name */
	uint8_t id[SM_NETWORK_ID_LEN];
	char *access_key; /* file, may be NULL */
	enum sm_config_policy policy;
	enum sm_config_cipher cipher;
};

struct sm_config_node {
	char name[SM_NAME_MAX + 1]; /* pinned mode; else empty, the certificate says it */
	char *certificate;
	char *private_key;
	char *passphrase_file; /* may be NULL */
};

struct sm_config_interface {
	char name[IFNAMSIZ];               /* may end in "%d" */
	struct sm_config_prefixes address; /* none: those of the certificate */
	bool ula;                          /* add the derived IPv6 ULA */
	uint32_t mtu;                      /* bytes */
	bool has_mac;                      /* tap only; else derived */
	struct sm_mac mac;
	bool routes;         /* tun only: install routes from certificates */
	uint32_t txqueuelen; /* packets; 0: leave it to the kernel */
};

struct sm_config_transport {
	struct sm_config_addresses listen; /* none: all addresses */
	uint16_t control_port;             /* 0: do not listen */
	uint16_t data_port;                /* 0: any free one */
	uint32_t workers;                  /* 0: auto */
	bool offload;                      /* super-frames, and datagrams in batches */
	uint32_t path_mtu;                 /* bytes of outer IP packet; 0: auto */
	uint32_t socket_buffer;            /* bytes, each direction */
	uint64_t keepalive_us;
	uint32_t max_handshakes;
	uint32_t max_handshakes_per_source;
	uint64_t rekey_after_us;
};

struct sm_config_control {
	char *socket; /* absolute; never NULL after loading */
	char *group;  /* may be NULL */
};

#define SM_CONFIG_ROW_MAX 64u

struct sm_config {
	char *file;
	uint32_t line[SM_CONFIG_ROW_MAX]; /* of each key outside [Peer], by its row; 0: not given */
	struct sm_config_network network;
	struct sm_config_node node;
	struct sm_config_interface interface;
	struct sm_config_transport transport;
	struct sm_config_control control;
	enum sm_log_level log_level;
	struct sm_config_peer *peers;
	uint32_t peer_count;
};

/** sm_config_is_pinned() - Return: true if peers are trusted by fingerprint, not through a CA */
static inline bool sm_config_is_pinned(const struct sm_config *cfg)
{
	return cfg->network.ca.count == 0;
}

#define SM_CONFIG_ERRORS_MAX 20u
#define SM_CONFIG_ERROR_MAX  512u

/**
 * struct sm_config_errors - What is wrong, in the order in which it was found
 * @text:    "FILE:LINE: [Section] Key: got 'x', expected ..."
 * @count:   entries of @text
 * @dropped: further errors that found no room
 * @warning, @warning_count: the same for what is odd and yet obeyed
 */
struct sm_config_errors {
	char text[SM_CONFIG_ERRORS_MAX][SM_CONFIG_ERROR_MAX];
	uint32_t count, dropped;
	char warning[SM_CONFIG_ERRORS_MAX][SM_CONFIG_ERROR_MAX];
	uint32_t warning_count;
};

/**
 * sm_config_load() - Read and check a file
 * @path:   relative paths in it are resolved against its directory
 * @errors: cleared first; has at least one entry when this fails
 *
 * Context: control thread; blocks on the file system
 * Ownership: *@ret_cfg is the caller's, for sm_config_free(); untouched on failure
 * Return: 0; -EINVAL for contents; -ENOMEM, or what open() and read() gave
 */
SM_MUST_CHECK int sm_config_load(const char *path, struct sm_config **ret_cfg,
				 struct sm_config_errors *errors);

/**
 * sm_config_parse() - The same for text in memory
 * @file: its name, for messages
 * @dir:  absolute directory against which relative paths are resolved
 *
 * Context: pure but for the environment (SHADOWMESH_RUNTIME_DIR)
 * Return: 0, -EINVAL, -ENOMEM
 */
SM_MUST_CHECK int sm_config_parse(const char *text, size_t len, const char *file, const char *dir,
				  struct sm_config **ret_cfg, struct sm_config_errors *errors);

/** sm_config_free() - NULL is fine */
void sm_config_free(struct sm_config *cfg);

/**
 * sm_config_check_files() - Are all files there, and are the secret ones nobody else's to read?
 * @errors: appended to; not cleared
 * Return: 0, or -EINVAL with at least one entry more in @errors
 */
SM_MUST_CHECK int sm_config_check_files(const struct sm_config *cfg,
					struct sm_config_errors *errors);

/** What a reload changes, as bits */
enum sm_config_change {
	SM_CONFIG_CHANGE_PEERS = 1u << 0,
	SM_CONFIG_CHANGE_LOG = 1u << 1,
	SM_CONFIG_CHANGE_TRUST = 1u << 2,    /* CA, CRL, AccessKey */
	SM_CONFIG_CHANGE_IDENTITY = 1u << 3, /* Certificate, PrivateKey, PassphraseFile */
	SM_CONFIG_CHANGE_RESTART = 1u << 4,  /* anything else: needs a restart */
};

#define SM_CONFIG_RESTART_MAX 1024u

/**
 * sm_config_diff() - What differs between two configurations?
 * @ret_restart: the keys that need a restart, as "[Interface] MTU, [Transport] DataPort"; empty if none
 *
 * Compares what the files say: the same path with other contents is no change here.
 * Return: bits of enum sm_config_change, 0 if they say the same
 */
unsigned sm_config_diff(const struct sm_config *before, const struct sm_config *after,
			char ret_restart[SM_CONFIG_RESTART_MAX]);

/**
 * sm_config_print() - Write the configuration as it is in force, defaults included, as a file again
 *
 * No secret is in it, since none is in a configuration. What it writes can be loaded and says the same.
 */
void sm_config_print(const struct sm_config *cfg, FILE *out);

/** struct sm_config_key - One row of the key table, as seen from outside */
struct sm_config_key {
	const char *section, *name;
	const char *expected; /* "a duration from 1s to 180s, as 120s" */
	const char *fallback; /* its default, or NULL */
	const char *help;     /* one sentence */
	bool required, repeated;
};

/** sm_config_key_at() - Return: row @i of the key table, false past its end */
bool sm_config_key_at(uint32_t i, struct sm_config_key *ret_key);

/**
 * sm_config_read_access_key() - Read the file of AccessKey: 64 hexadecimal digits
 * @error: SM_CONFIG_ERROR_MAX bytes: what is wrong; never anything of the contents
 *
 * The file must be a regular one of ours or root's that nobody else may read.
 * Return: 0; -EPERM mode or owner; -EINVAL contents; -errno
 */
SM_MUST_CHECK int sm_config_read_access_key(const char *path, uint8_t ret_key[32], char *error);

/**
 * sm_config_read_passphrase() - Read the first line of PassphraseFile, under the same rule
 * @len: size of @ret_text, terminator included; the caller wipes it
 * Return: 0; -EPERM; -EINVAL empty or too long; -errno
 */
SM_MUST_CHECK int sm_config_read_passphrase(const char *path, char *ret_text, size_t len,
					    char *error);

#endif
