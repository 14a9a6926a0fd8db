/* OpenSSH signatures of files. The signature carries its key: it must be the very one that is trusted.
 * Source: openssh PROTOCOL.sshsig, PROTOCOL.u2f; moby/buildkit util/gitutil/gitsign. */
#include "sig/sig.h"

#include <string.h>

static bool take_string(struct sig_bytes *b, struct sig_bytes *ret)
{
	if (b->n < 4) return false;
	uint32_t n = (uint32_t)b->p[0] << 24 | (uint32_t)b->p[1] << 16 | (uint32_t)b->p[2] << 8 | b->p[3];
	if (n > b->n - 4) return false;
	*ret = (struct sig_bytes){b->p + 4, n};
	b->p += 4 + n;
	b->n -= 4 + n;
	return true;
}

static bool is(struct sig_bytes b, const char *s) { return b.n == strlen(s) && !memcmp(b.p, s, b.n); }

static void put_string(struct buf *out, struct sig_bytes s)
{
	uint8_t n[4] = {(uint8_t)(s.n >> 24), (uint8_t)(s.n >> 16), (uint8_t)(s.n >> 8), (uint8_t)s.n};
	buf_add(out, n, 4);
	buf_add(out, s.p, s.n);
}

/* The blob of the first line of authorized_keys that holds a key: options may stand before its type. */
static int read_key(const char *text, struct buf *out, struct err *e)
{
	for (const char *line = text; *line;) {
		const char *end = line + strcspn(line, "\r\n");
		for (const char *p = line; p < end;) {
			size_t word = strcspn(p, " \t\r\n");
			const char *next = p + word + strspn(p + word, " \t");
			if (*p == '#') break;
			if (str_starts(p, "ssh-") || str_starts(p, "ecdsa-") || str_starts(p, "sk-")) {
				struct sig_bytes type, blob;
				buf_reset(out);
				if (next < end && base64_decode(next, strcspn(next, " \t\r\n"), out, NULL) >= 0) {
					blob = (struct sig_bytes){out->p, out->n};
					if (take_string(&blob, &type) && type.n == word && !memcmp(type.p, p, word)) return 0;
				}
			}
			p = next > p ? next : p + 1;
		}
		line = end + strspn(end, "\r\n");
	}
	return err_set(e, CODE_UNKNOWN, "failed to parse ssh public key: ssh: no key found");
}

static struct sig_bytes no_zeros(struct sig_bytes b)
{
	while (b.n && !*b.p) b.p++, b.n--;
	return b;
}

static void digest_of_md(const EVP_MD *md, struct sig_bytes b, uint8_t out[EVP_MAX_MD_SIZE], unsigned *n)
{
	EVP_Digest(b.p, b.n, out, n, md, NULL);
}

static bool rsa_ok(struct sig_bytes key, struct sig_bytes algo, struct sig_bytes sig, struct sig_bytes message)
{
	struct sig_bytes e, n;
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned len;
	const EVP_MD *md = is(algo, "rsa-sha2-256") ? EVP_sha256() : is(algo, "rsa-sha2-512") ? EVP_sha512() : NULL;
	if (!md || !take_string(&key, &e) || !take_string(&key, &n)) return false;
	_cleanup_key_ EVP_PKEY *k = sig_rsa_key(no_zeros(n), no_zeros(e));
	if (!k || EVP_PKEY_get_bits(k) < 2048) return false;
	digest_of_md(md, message, digest, &len);
	return sig_rsa_ok(k, md, (struct sig_bytes){digest, len}, sig);
}

static bool ecdsa_ok(struct sig_bytes key, struct sig_bytes sig, struct sig_bytes message)
{
	static const struct {
		const char *name, *group;
		const EVP_MD *(*md)(void);
	} curves[] = {{"nistp256", "P-256", EVP_sha256}, {"nistp384", "P-384", EVP_sha384}, {"nistp521", "P-521", EVP_sha512}};
	struct sig_bytes name, point, r, s;
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned len;
	if (!take_string(&key, &name) || !take_string(&key, &point) || !take_string(&sig, &r) || !take_string(&sig, &s))
		return false;
	for (size_t i = 0; i < array_len(curves); i++) {
		if (!is(name, curves[i].name)) continue;
		_cleanup_key_ EVP_PKEY *k = sig_ec_key(curves[i].group, point);
		digest_of_md(curves[i].md(), message, digest, &len);
		return k && sig_ecdsa_ok(k, (struct sig_bytes){digest, len}, no_zeros(r), no_zeros(s));
	}
	return false;
}

static bool ed25519_ok(struct sig_bytes key, struct sig_bytes sig, struct sig_bytes message)
{
	struct sig_bytes raw;
	if (!take_string(&key, &raw)) return false;
	_cleanup_key_ EVP_PKEY *k = sig_ed25519_key(raw);
	return k && sig.n == 64 && sig_ed25519_ok(k, message, sig);
}

/* A security key signs: hash of the application, flags, counter, hash of the message. */
static bool sk_ok(struct sig_bytes type, struct sig_bytes key, struct sig_bytes sig, struct sig_bytes rest,
		  struct sig_bytes message)
{
	struct sig_bytes copy = key, skip, application;
	uint8_t signed_[32 + 5 + 32];
	unsigned n;
	bool ec = is(type, "sk-ecdsa-sha2-nistp256@openssh.com");
	if (!take_string(&copy, &skip) || (ec && !take_string(&copy, &skip)) || !take_string(&copy, &application) ||
	    rest.n != 5)
		return false;
	if (!(rest.p[0] & 1)) return false; /* nobody touched it */
	EVP_Digest(application.p, application.n, signed_, &n, EVP_sha256(), NULL);
	memcpy(signed_ + 32, rest.p, 5);
	EVP_Digest(message.p, message.n, signed_ + 37, &n, EVP_sha256(), NULL);
	struct sig_bytes m = {signed_, sizeof signed_};
	return ec ? ecdsa_ok(key, sig, m) : ed25519_ok(key, sig, m);
}

static bool blob_ok(struct sig_bytes key, struct sig_bytes blob, struct sig_bytes message)
{
	struct sig_bytes type, algo, sig;
	if (!take_string(&key, &type) || !take_string(&blob, &algo) || !take_string(&blob, &sig)) return false;
	if (is(type, "ssh-rsa")) return !blob.n && rsa_ok(key, algo, sig, message);
	if (type.n != algo.n || memcmp(type.p, algo.p, type.n)) return false;
	if (type.n > 3 && !memcmp(type.p, "sk-", 3)) {
		bool known = is(type, "sk-ssh-ed25519@openssh.com") || is(type, "sk-ecdsa-sha2-nistp256@openssh.com");
		return known && sk_ok(type, key, sig, blob, message);
	}
	if (blob.n) return false;
	if (is(type, "ssh-ed25519")) return ed25519_ok(key, sig, message);
	return type.n > 11 && !memcmp(type.p, "ecdsa-sha2-", 11) && ecdsa_ok(key, sig, message);
}

struct sshsig {
	uint32_t version;
	struct sig_bytes key, name_space, reserved, hash, blob;
};

static bool read_sig(struct sig_bytes b, struct sshsig *s)
{
	if (b.n < 10 || memcmp(b.p, "SSHSIG", 6)) return false;
	s->version = (uint32_t)b.p[6] << 24 | (uint32_t)b.p[7] << 16 | (uint32_t)b.p[8] << 8 | b.p[9];
	b.p += 10;
	b.n -= 10;
	return take_string(&b, &s->key) && take_string(&b, &s->name_space) && take_string(&b, &s->reserved) &&
	       take_string(&b, &s->hash) && take_string(&b, &s->blob);
}

int sshsig_verify(const struct sig_data *d, const char *signature, const char *key, const char *name_space, struct err *e)
{
	_cleanup_buf_ struct buf raw = BUF_MAX(1 << 20), trusted = BUF_MAX(1 << 20), message = BUF_INIT;
	struct sshsig s;
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned n;
	const char *at = signature;
	if (sig_armor(&at, "SSH SIGNATURE", &raw, e) <= 0)
		return err_set(e, CODE_UNKNOWN, "failed to decode ssh signature PEM block");
	if (!read_sig((struct sig_bytes){raw.p, raw.n}, &s)) return err_set(e, CODE_UNKNOWN, "failed to parse ssh signature");
	if (s.version != 1) return err_set(e, CODE_UNKNOWN, "unsupported SSH signature version: %u", s.version);
	const EVP_MD *md = is(s.hash, "sha256") ? EVP_sha256() : is(s.hash, "sha512") ? EVP_sha512() : NULL;
	if (!md)
		return err_set(e, CODE_UNKNOWN, "unsupported SSH signature hash algorithm: %.*s",
			       (int)min_of(s.hash.n, (size_t)64), (const char *)s.hash.p);
	if (!is(s.name_space, name_space))
		return err_set(e, CODE_UNKNOWN, "unexpected SSH signature namespace: \"%.*s\"",
			       (int)min_of(s.name_space.n, (size_t)64), (const char *)s.name_space.p);
	if (read_key(key, &trusted, e) < 0) return -1;
	if (s.key.n != trusted.n || memcmp(s.key.p, trusted.p, trusted.n))
		return err_set(e, CODE_UNKNOWN, "failed to verify ssh signature: public key does not match");
	_cleanup_md_ EVP_MD_CTX *h = EVP_MD_CTX_new();
	EVP_DigestInit_ex(h, md, NULL);
	if (sig_feed(d, false, h, e) < 0) return -1;
	EVP_DigestFinal_ex(h, digest, &n);
	buf_adds(&message, "SSHSIG");
	put_string(&message, s.name_space);
	put_string(&message, s.reserved);
	put_string(&message, s.hash);
	put_string(&message, (struct sig_bytes){digest, n});
	if (blob_ok(s.key, s.blob, (struct sig_bytes){message.p, message.n})) return 0;
	return err_set(e, CODE_UNKNOWN, "failed to verify ssh signature: signature did not verify");
}
