#ifndef SIG_SIG_H
#define SIG_SIG_H
/* Signatures of http content and git objects: OpenPGP (RFC 4880, v4) and OpenSSH (PROTOCOL.sshsig). Pure but for reading
 * `fd`; job. Fails closed: what is not understood does not verify.
 * Source of the rules: moby/buildkit util/pgpsign, util/gitutil/gitsign. */
#include "base/base.h"
#include <openssl/evp.h>

struct sig_data { /* what was signed */
	const void *p;
	size_t n;
	int fd; /* p NULL: the file from its beginning; borrowed */
};
/* An armored detached signature by one of the armored keys. reject_expired: the keys must be valid now; otherwise they must
 * have been when the signature was made. */
int pgp_verify(const struct sig_data *d, const char *signature, const char *keys, bool reject_expired, struct err *e);
/* An armored signature ("SSH SIGNATURE") of that namespace by the key, a line as in authorized_keys. */
int sshsig_verify(const struct sig_data *d, const char *signature, const char *key, const char *name_space, struct err *e);

/* ---- shared by both: keys and one check each ---- */
struct sig_bytes {
	const uint8_t *p;
	size_t n;
};
EVP_PKEY *sig_rsa_key(struct sig_bytes n, struct sig_bytes e); /* NULL: bad */
EVP_PKEY *sig_ec_key(const char *group, struct sig_bytes point);
EVP_PKEY *sig_ed25519_key(struct sig_bytes raw);
bool sig_rsa_ok(EVP_PKEY *k, const EVP_MD *md, struct sig_bytes digest, struct sig_bytes sig); /* PKCS #1 v1.5 */
bool sig_ecdsa_ok(EVP_PKEY *k, struct sig_bytes digest, struct sig_bytes r, struct sig_bytes s);
bool sig_ed25519_ok(EVP_PKEY *k, struct sig_bytes message, struct sig_bytes sig);
/* Base64 between "-----BEGIN <type>-----" and its end line; header lines and a checksum line are skipped. *at moves behind
 * the block. 1; 0: no further block; -1. */
int sig_armor(const char **at, const char *type, struct buf *out, struct err *e);
/* Feed what was signed into h. text: line ends as CRLF. */
int sig_feed(const struct sig_data *d, bool text, EVP_MD_CTX *h, struct err *e);
static inline void sig_md_free(EVP_MD_CTX **h) { EVP_MD_CTX_free(*h); }
static inline void sig_key_free(EVP_PKEY **k) { EVP_PKEY_free(*k); }
#define _cleanup_md_ _cleanup_(sig_md_free)
#define _cleanup_key_ _cleanup_(sig_key_free)
#endif
