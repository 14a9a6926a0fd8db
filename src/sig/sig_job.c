/* What the two signature formats share. */
#include "sig/sig.h"

#include <errno.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <string.h>

/* ---- keys ---- */

static EVP_PKEY *from_params(const char *type, OSSL_PARAM_BLD *b)
{
	OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(b);
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY *k = NULL;
	if (!params || !c || EVP_PKEY_fromdata_init(c) <= 0 || EVP_PKEY_fromdata(c, &k, EVP_PKEY_PUBLIC_KEY, params) <= 0)
		k = NULL;
	EVP_PKEY_CTX_free(c);
	OSSL_PARAM_free(params);
	return k;
}

EVP_PKEY *sig_rsa_key(struct sig_bytes n, struct sig_bytes e)
{
	BIGNUM *bn = BN_bin2bn(n.p, (int)n.n, NULL), *be = BN_bin2bn(e.p, (int)e.n, NULL);
	OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
	EVP_PKEY *k = NULL;
	if (b && bn && be && OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_N, bn) &&
	    OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_E, be))
		k = from_params("RSA", b);
	OSSL_PARAM_BLD_free(b);
	BN_free(bn);
	BN_free(be);
	return k;
}

EVP_PKEY *sig_ec_key(const char *group, struct sig_bytes point)
{
	OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
	EVP_PKEY *k = NULL;
	if (b && OSSL_PARAM_BLD_push_utf8_string(b, OSSL_PKEY_PARAM_GROUP_NAME, group, 0) &&
	    OSSL_PARAM_BLD_push_octet_string(b, OSSL_PKEY_PARAM_PUB_KEY, point.p, point.n))
		k = from_params("EC", b);
	OSSL_PARAM_BLD_free(b);
	return k;
}

EVP_PKEY *sig_ed25519_key(struct sig_bytes raw)
{
	return raw.n == 32 ? EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, raw.p, raw.n) : NULL;
}

/* ---- checks ---- */

bool sig_rsa_ok(EVP_PKEY *k, const EVP_MD *md, struct sig_bytes digest, struct sig_bytes sig)
{
	uint8_t full[1024] = {0};
	size_t size = (size_t)EVP_PKEY_get_size(k);
	if (size > sizeof full || sig.n > size) return false;
	memcpy(full + size - sig.n, sig.p, sig.n); /* leading zeros may have been left out */
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(k, NULL);
	bool ok = c && EVP_PKEY_verify_init(c) > 0 && EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_PADDING) > 0 &&
		  EVP_PKEY_CTX_set_signature_md(c, md) > 0 && EVP_PKEY_verify(c, full, size, digest.p, digest.n) == 1;
	EVP_PKEY_CTX_free(c);
	return ok;
}

bool sig_ecdsa_ok(EVP_PKEY *k, struct sig_bytes digest, struct sig_bytes r, struct sig_bytes s)
{
	ECDSA_SIG *sig = ECDSA_SIG_new();
	BIGNUM *br = BN_bin2bn(r.p, (int)r.n, NULL), *bs = BN_bin2bn(s.p, (int)s.n, NULL);
	unsigned char *der = NULL;
	bool ok = false;
	if (sig && br && bs && ECDSA_SIG_set0(sig, br, bs)) {
		br = bs = NULL; /* owned by sig now */
		int n = i2d_ECDSA_SIG(sig, &der);
		EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(k, NULL);
		ok = n > 0 && c && EVP_PKEY_verify_init(c) > 0 && EVP_PKEY_verify(c, der, (size_t)n, digest.p, digest.n) == 1;
		EVP_PKEY_CTX_free(c);
	}
	OPENSSL_free(der);
	BN_free(br);
	BN_free(bs);
	ECDSA_SIG_free(sig);
	return ok;
}

bool sig_ed25519_ok(EVP_PKEY *k, struct sig_bytes message, struct sig_bytes sig)
{
	_cleanup_md_ EVP_MD_CTX *h = EVP_MD_CTX_new();
	return h && EVP_DigestVerifyInit(h, NULL, NULL, NULL, k) > 0 &&
	       EVP_DigestVerify(h, sig.p, sig.n, message.p, message.n) == 1;
}

/* ---- texts ---- */

static const char *next_line(const char *s)
{
	const char *end = strchr(s, '\n');
	return end ? end + 1 : s + strlen(s);
}

static bool is_blank(const char *s)
{
	s += strspn(s, " \t\r");
	return !*s || *s == '\n';
}

int sig_armor(const char **at, const char *type, struct buf *out, struct err *e)
{
	_cleanup_free_ char *begin = xasprintf("-----BEGIN %s-----", type), *end = xasprintf("-----END %s-----", type);
	_cleanup_buf_ struct buf text = BUF_MAX(8 << 20);
	const char *s = strstr(*at, begin);
	if (!s) return 0;
	s = next_line(s);
	if (memchr(s, ':', (size_t)(next_line(s) - s)) || is_blank(s)) { /* headers end with a blank line */
		while (*s && !is_blank(s)) s = next_line(s);
		s = next_line(s);
	}
	for (; *s && !str_starts(s, "-----"); s = next_line(s)) {
		if (*s == '=') continue; /* checksum: of no use against anybody */
		for (const char *p = s; p < next_line(s); p++)
			if (!strchr(" \t\r\n", *p)) buf_addc(&text, *p);
	}
	if (!str_starts(s, end)) return err_set(e, CODE_INVALID_ARGUMENT, "an armored block does not end with \"%s\"", end);
	*at = next_line(s);
	return base64_decode(buf_str(&text), text.n, out, e) < 0 ? -1 : 1;
}

/* "\n" alone becomes "\r\n"; *cr: the byte before was a "\r". */
static void feed_text(const uint8_t *p, size_t n, bool *cr, EVP_MD_CTX *h)
{
	size_t from = 0;
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '\n' && !*cr) {
			EVP_DigestUpdate(h, p + from, i - from);
			EVP_DigestUpdate(h, "\r", 1);
			from = i;
		}
		*cr = p[i] == '\r';
	}
	EVP_DigestUpdate(h, p + from, n - from);
}

int sig_feed(const struct sig_data *d, bool text, EVP_MD_CTX *h, struct err *e)
{
	uint8_t chunk[64 << 10];
	bool cr = false;
	ssize_t n = 0;
	off_t at = 0;
	if (d->p && text) feed_text(d->p, d->n, &cr, h);
	if (d->p && !text) EVP_DigestUpdate(h, d->p, d->n);
	while (!d->p && (n = pread(d->fd, chunk, sizeof chunk, at)) > 0) {
		if (text)
			feed_text(chunk, (size_t)n, &cr, h);
		else
			EVP_DigestUpdate(h, chunk, (size_t)n);
		at += n;
	}
	return n < 0 ? err_sys(e, errno, "read what was signed") : 0;
}
