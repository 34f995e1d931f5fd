// SPDX-License-Identifier: MIT
/*
 * The folder of a certificate authority.
 */
#include "cli/ca_store.h"

#include "cli/passphrase.h"
#include "crypto/crypto.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int sm_ca_parse_valid(const struct sm_cli_command *self, const char *text, int64_t *ret_s)
{
	uint64_t us;

	if (sm_text_parse_duration(text, &us) != 0 || us < SM_SEC_US)
		return sm_cli_usage(self, "'%s' is no duration such as 90d or 1y", text);
	*ret_s = (int64_t)(us / SM_SEC_US);
	return SM_EXIT_OK;
}

int sm_ca_parse_days(const struct sm_cli_command *self, const char *text, int64_t *ret_s)
{
	uint64_t days;

	if (sm_text_parse_u64(text, 1, 1000000, &days) != 0)
		return sm_cli_usage(self, "'%s' is no number of days", text);
	*ret_s = (int64_t)days * 86400;
	return SM_EXIT_OK;
}

int sm_ca_start_crypto(const struct sm_cli_command *self)
{
	if (sm_crypto_init() == 0)
		return SM_EXIT_OK;
	return sm_cli_fail(self, "%s lacks ML-DSA-87 or ML-KEM-1024; cure: 3.5 or newer",
			   sm_crypto_version());
}

const char *sm_ca_store_path(const struct sm_ca_store *store, const char *name, char buf[PATH_MAX])
{
	snprintf(buf, PATH_MAX, "%s/%s", store->dir, name);
	return buf;
}

static bool is_store(const char *dir)
{
	char path[PATH_MAX];

	return snprintf(path, sizeof(path), "%s/ca.pem", dir) < (int)sizeof(path) &&
	       access(path, F_OK) == 0;
}

/* The only folder here whose name ends in "-ca" and that holds a CA; Return: how many there are */
static unsigned search_here(char *ret_dir, size_t size)
{
	DIR *here = opendir(".");
	unsigned found = 0;

	if (!here)
		return 0;
	for (const struct dirent *e; (e = readdir(here));) {
		size_t len = strlen(e->d_name);

		if (len > 3 && len < size && strcmp(e->d_name + len - 3, "-ca") == 0 &&
		    is_store(e->d_name)) {
			memcpy(ret_dir, e->d_name, len + 1);
			found++;
		}
	}
	closedir(here);
	return found;
}

static int find_dir(const struct sm_cli_command *self, const char *dir, char *ret_dir, size_t size)
{
	unsigned found;

	if (!dir)
		dir = getenv("SHADOWMESH_CA");
	if (!dir && is_store("."))
		dir = ".";
	if (dir) {
		if (strlen(dir) >= size)
			return sm_cli_fail(self, "%.40s...: too long a path", dir);
		if (!is_store(dir))
			return sm_cli_fail(self,
					   "%s: holds no ca.pem; cure: shadowmesh ca init, "
					   "or the right --dir",
					   dir);
		memcpy(ret_dir, dir, strlen(dir) + 1);
		return SM_EXIT_OK;
	}
	found = search_here(ret_dir, size);
	if (found == 1)
		return SM_EXIT_OK;
	return sm_cli_fail(self, found ? "several CAs here; cure: say which with --dir"
				       : "no CA here (no folder NETWORK-ca); cure: --dir, or first "
					 "shadowmesh ca init");
}

static int lock_store(const struct sm_cli_command *self, struct sm_ca_store *store)
{
	char path[PATH_MAX];

	sm_ca_store_path(store, ".lock", path);
	store->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (store->lock < 0)
		return sm_cli_fail(self, "%s: cannot open: %s", path, strerror(errno));
	if (flock(store->lock, LOCK_EX | LOCK_NB) != 0)
		return sm_cli_fail(self,
				   "%s: another shadowmesh ca is at work there; try again "
				   "when it is done",
				   store->dir);
	return SM_EXIT_OK;
}

static int by_name_and_begin(const void *a, const void *b)
{
	const struct sm_ca_issued *x = a, *y = b;
	int order = strcmp(x->id.name, y->id.name);

	return order ? order
		     : (x->id.not_before > y->id.not_before) -
			       (x->id.not_before < y->id.not_before);
}

/* A file in issued/ that cannot be read is an error: to pass over it would lose an address's holder. */
static int read_issued(const struct sm_cli_command *self, struct sm_ca_store *store)
{
	char folder[PATH_MAX], path[PATH_MAX + NAME_MAX + 2], error[SM_CERT_ERROR_MAX];
	DIR *dir = opendir(sm_ca_store_path(store, "issued", folder));

	if (!dir)
		return errno == ENOENT ? SM_EXIT_OK
				       : sm_cli_fail(self, "%s: %s", folder, strerror(errno));
	for (const struct dirent *e; (e = readdir(dir));) {
		struct sm_ca_issued *bigger, *issued;
		size_t len = strlen(e->d_name);
		int err;

		if (e->d_name[0] == '.' || len < 5 || strcmp(e->d_name + len - 4, ".pem") != 0)
			continue;
		bigger = reallocarray(store->issued, store->count + 1, sizeof(*bigger));
		if (!bigger) {
			closedir(dir);
			return sm_cli_fail(self, "out of memory");
		}
		store->issued = bigger;
		issued = &store->issued[store->count];
		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		issued->cert = NULL;
		err = sm_cert_load(path, &issued->cert, error);
		if (!err)
			err = sm_cert_identity(issued->cert, &issued->id, error);
		if (err) {
			sm_cert_free(issued->cert);
			closedir(dir);
			return sm_cli_fail(self, "%s: %s", path, error);
		}
		store->count++;
	}
	closedir(dir);
	if (store->count)
		qsort(store->issued, store->count, sizeof(*store->issued), by_name_and_begin);
	return SM_EXIT_OK;
}

static int read_store(const struct sm_cli_command *self, struct sm_ca_store *store)
{
	char path[PATH_MAX], error[SM_CERT_ERROR_MAX];
	int err = sm_cert_load(sm_ca_store_path(store, "ca.pem", path), &store->ca, error);

	if (err)
		return sm_cli_fail(self, "%s", error);
	if (!sm_cert_is_ca(store->ca, store->network_id))
		return sm_cli_fail(self, "%s: not a CA with an ML-DSA-87 key", path);
	sm_cert_common_name(store->ca, store->network);
	err = sm_crl_load(sm_ca_store_path(store, "crl.pem", path), &store->crl, error);
	if (err && err != -ENOENT)
		return sm_cli_fail(self, "%s", error);
	return read_issued(self, store);
}

int sm_ca_store_open(const struct sm_cli_command *self, const char *dir, bool write,
		     struct sm_ca_store *ret_store)
{
	struct sm_ca_store store = {.lock = -1};
	int code = find_dir(self, dir, store.dir, sizeof(store.dir));

	if (code == SM_EXIT_OK && write)
		code = lock_store(self, &store);
	if (code == SM_EXIT_OK)
		code = read_store(self, &store);
	if (code == SM_EXIT_OK)
		*ret_store = store;
	else
		sm_ca_store_close(&store);
	return code;
}

void sm_ca_store_close(struct sm_ca_store *store)
{
	for (size_t i = 0; i < store->count; i++)
		sm_cert_free(store->issued[i].cert);
	free(store->issued);
	sm_crl_free(store->crl);
	sm_cert_free(store->ca);
	if (store->lock >= 0)
		close(store->lock);
}

int sm_ca_store_key(const struct sm_cli_command *self, const struct sm_ca_store *store,
		    const char *passphrase_file, struct sm_key **ret_key)
{
	struct sm_passphrase passphrase = {passphrase_file, "the CA's key"};
	char path[PATH_MAX], error[SM_KEY_ERROR_MAX];

	sm_ca_store_path(store, "ca.key", path);
	if (sm_key_load(path, sm_passphrase_read, &passphrase, ret_key, error) != 0)
		return sm_cli_fail(self, "%s", error);
	if (sm_cert_matches_key(store->ca, *ret_key))
		return SM_EXIT_OK;
	sm_key_free(*ret_key);
	*ret_key = NULL;
	return sm_cli_fail(self, "%s: not the key of ca.pem beside it", path);
}

int sm_ca_store_add(const struct sm_cli_command *self, const struct sm_ca_store *store,
		    const struct sm_cert *cert)
{
	char name[SM_NAME_MAX + 64], path[PATH_MAX], error[SM_CERT_ERROR_MAX], serial[41];
	struct sm_identity id;

	if (sm_cert_identity(cert, &id, error) != 0)
		return sm_cli_fail(self, "%s", error);
	if (mkdir(sm_ca_store_path(store, "issued", path), 0755) != 0 && errno != EEXIST)
		return sm_cli_fail(self, "%s: %s", path, strerror(errno));
	snprintf(name, sizeof(name), "issued/%s-%.16s.pem", id.name,
		 sm_text_hex(id.serial, id.serial_len, serial));
	if (sm_cert_save(cert, sm_ca_store_path(store, name, path), false, error) != 0)
		return sm_cli_fail(self, "%s", error);
	return SM_EXIT_OK;
}

static bool is_revoked(const struct sm_ca_store *store, const struct sm_identity *id)
{
	return store->crl &&
	       sm_crl_revokes(store->crl, id->serial, id->serial_len, id->fingerprint);
}

const char *sm_ca_store_status(const struct sm_ca_store *store, const struct sm_identity *id,
			       int64_t now_s)
{
	if (is_revoked(store, id))
		return "revoked";
	if (id->not_after < now_s)
		return "expired";
	return id->not_before > now_s ? "not yet valid" : "valid";
}

bool sm_ca_store_live(const struct sm_ca_store *store, const struct sm_identity *id, int64_t now_s)
{
	return !is_revoked(store, id) && id->not_after >= now_s;
}

int sm_ca_store_sign_list(const struct sm_cli_command *self, struct sm_ca_store *store,
			  const struct sm_key *ca_key, const struct sm_crl_entry *entries,
			  size_t count, int64_t now_s, int64_t valid_s)
{
	char path[PATH_MAX], error[SM_CERT_ERROR_MAX];
	uint64_t number = store->crl ? sm_crl_number(store->crl) + 1 : 1;
	struct sm_crl *crl;

	if (sm_crl_issue(store->ca, ca_key, number, entries, count, now_s, now_s + valid_s, &crl,
			 error) != 0)
		return sm_cli_fail(self, "%s", error);
	if (sm_crl_save(crl, sm_ca_store_path(store, "crl.pem", path), error) != 0) {
		sm_crl_free(crl);
		return sm_cli_fail(self, "%s", error);
	}
	sm_crl_free(store->crl);
	store->crl = crl;
	return SM_EXIT_OK;
}
