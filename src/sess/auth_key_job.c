/* The client's token authority: an ed25519 key made of the daemon's salt and a seed of ours, one a host, kept in the file
 * .token_seed beside the docker config, as BuildKit's clients keep it. The file may not be writable: then the seed lives as
 * long as this process. Source: BuildKit session/auth/authprovider/{authprovider,tokenseed}.go. */
#include "sess/auth.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { SEED = 16, FILE_MAX = 1 << 20, SIGNATURE = 64 };

static void json_drop(json_t **j) { json_decref(*j); }
#define _cleanup_json_ __attribute__((cleanup(json_drop)))

static bool seed_of(const json_t *all, const char *host, struct buf *ret)
{
	const char *s = json_string_value(json_object_get(json_object_get(all, host), "Seed"));
	return s && base64_decode(s, strlen(s), ret, NULL) >= 0 && ret->n;
}

static json_t *read_seeds(const char *path)
{
	_cleanup_free_ uint8_t *p = NULL;
	size_t n = 0;
	json_t *all = path_read_file(AT_FDCWD, path, FILE_MAX, &p, &n, NULL) < 0 ? NULL : json_loadb((char *)p, n, 0, NULL);
	if (json_is_object(all)) return all;
	json_decref(all);
	return json_object(); /* also after a crash while it was written */
}

static int make_seed(json_t *all, const char *host, struct buf *ret, struct err *e)
{
	uint8_t seed[SEED];
	_cleanup_buf_ struct buf text = BUF_INIT;
	if (RAND_bytes(seed, sizeof seed) != 1) return err_set(e, CODE_INTERNAL, "no random bytes for a token seed");
	buf_add(ret, seed, sizeof seed);
	base64_encode(&text, seed, sizeof seed);
	json_object_set_new(all, host, json_pack("{s:s}", "Seed", buf_str(&text)));
	return 0;
}

static int get_seed(const char *config_path, const char *host, struct buf *ret, struct err *e)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static json_t *kept; /* those that could not be written */
	_cleanup_free_ char *dir = path_dir(config_path), *path = xasprintf("%s/.token_seed", dir),
			    *lock_path = xasprintf("%s.lock", path);
	(void)path_mkdirs(dir, 0755, NULL);
	_cleanup_close_ int fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		while (flock(fd, LOCK_EX) < 0 && errno == EINTR) continue;
	int r = 0;
	pthread_mutex_lock(&lock);
	_cleanup_json_ json_t *all = read_seeds(path);
	if (!seed_of(all, host, ret) && !seed_of(kept, host, ret)) {
		r = make_seed(all, host, ret, e);
		char *text = r < 0 ? NULL : json_dumps(all, JSON_INDENT(2) | JSON_SORT_KEYS);
		if (text && path_write_file(AT_FDCWD, path, text, strlen(text), 0600, false, NULL) < 0) {
			if (!kept) kept = json_object();
			json_object_set(kept, host, json_object_get(all, host));
		}
		free(text);
	}
	pthread_mutex_unlock(&lock);
	return r;
}

int client_authority(const char *config_path, const char *host, const void *salt, size_t n, bool with_seed,
		     struct client_key *ret, struct err *e)
{
	_cleanup_buf_ struct buf seed = BUF_MAX(4096);
	unsigned len = sizeof ret->private_key;
	size_t public_len = sizeof ret->public_key;
	if (n > 4096) return err_set(e, CODE_INVALID_ARGUMENT, "a salt of %zu bytes", n);
	if (with_seed && get_seed(config_path, host, &seed, e) < 0) return -1;
	const void *key = n ? salt : (const void *)"";
	if (!HMAC(EVP_sha256(), key, (int)n, seed.p ? seed.p : (const uint8_t *)"", seed.n, ret->private_key, &len))
		return err_set(e, CODE_INTERNAL, "HMAC failed");
	EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, ret->private_key, sizeof ret->private_key);
	int r = k ? EVP_PKEY_get_raw_public_key(k, ret->public_key, &public_len) : 0;
	EVP_PKEY_free(k);
	return r == 1 ? 0 : err_set(e, CODE_INTERNAL, "no ed25519 key can be made");
}

int client_sign(const struct client_key *k, const void *p, size_t n, struct buf *ret, struct err *e)
{
	uint8_t sig[SIGNATURE];
	size_t len = sizeof sig;
	if (n > 64 << 10) return err_set(e, CODE_INVALID_ARGUMENT, "%zu bytes to sign", n);
	EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, k->private_key, sizeof k->private_key);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = key && ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) == 1 &&
		  EVP_DigestSign(ctx, sig, &len, n ? p : "", n) == 1;
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key);
	if (!ok) return err_set(e, CODE_INTERNAL, "signing failed");
	buf_add(ret, sig, len);
	buf_add(ret, p, n);
	return 0;
}
