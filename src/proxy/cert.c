/* An authority with one key, and under it one key for all hosts: a certificate is made for each CONNECT, which takes less than
 * the handshake. P-256: a key is made in no time. */
#include "proxy/cert.h"
#include "proxy/proxy.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>

enum { CA_DAYS = 3650, LEAF_DAYS = 1, CLOCK_SKEW_S = 3600, HOST_MAX = 253 };

struct proxy_ca {
	EVP_PKEY *key, *leaf_key;
	X509 *cert;
	char *pem;
};

static int fail(struct err *e, const char *what)
{
	char text[256];
	ERR_error_string_n(ERR_get_error(), text, sizeof text);
	ERR_clear_error();
	return err_set(e, CODE_INTERNAL, "proxy network: %s: %s", what, text);
}

static bool add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
	X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	bool ok = ext && X509_add_ext(x, ext, -1);
	X509_EXTENSION_free(ext);
	return ok;
}

static bool set_names(X509 *x, X509 *issuer, const char *name)
{
	X509_NAME *n = X509_get_subject_name(x);
	/* a common name has 64 bytes at most; the alternative name is what counts */
	char cn[65];
	snprintf(cn, sizeof cn, "%s", name);
	return X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1, 0) &&
	       X509_set_issuer_name(x, issuer ? X509_get_subject_name(issuer) : n);
}

static bool set_serial(X509 *x)
{
	uint64_t serial = 0;
	return RAND_bytes((unsigned char *)&serial, sizeof serial) == 1 &&
	       ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), serial >> 1);
}

static X509 *new_cert(EVP_PKEY *key, X509 *issuer, const char *name, int days)
{
	X509 *x = X509_new();
	if (x && X509_set_version(x, 2) && set_serial(x) && set_names(x, issuer, name) &&
	    X509_gmtime_adj(X509_getm_notBefore(x), -CLOCK_SKEW_S) && X509_time_adj_ex(X509_getm_notAfter(x), days, 0, NULL) &&
	    X509_set_pubkey(x, key))
		return x;
	X509_free(x);
	return NULL;
}

static char *pem_of(X509 *x)
{
	BIO *b = BIO_new(BIO_s_mem());
	char *p = NULL, *ret = NULL;
	if (b && PEM_write_bio_X509(b, x)) {
		long n = BIO_get_mem_data(b, &p);
		ret = xstrndup(p, (size_t)n);
	}
	BIO_free(b);
	return ret;
}

int proxy_ca_new(struct proxy_ca **ret, struct err *e)
{
	struct proxy_ca *ca = xnew(struct proxy_ca);
	ca->key = EVP_EC_gen("P-256");
	ca->leaf_key = EVP_EC_gen("P-256");
	ca->cert = ca->key ? new_cert(ca->key, NULL, "Slipway step proxy", CA_DAYS) : NULL;
	if (ca->leaf_key && ca->cert && add_extension(ca->cert, ca->cert, NID_basic_constraints, "critical,CA:TRUE") &&
	    add_extension(ca->cert, ca->cert, NID_key_usage, "critical,keyCertSign,digitalSignature") &&
	    add_extension(ca->cert, ca->cert, NID_subject_key_identifier, "hash") && X509_sign(ca->cert, ca->key, EVP_sha256()))
		ca->pem = pem_of(ca->cert);
	if (!ca->pem) {
		fail(e, "make an authority");
		proxy_ca_free(ca);
		return -1;
	}
	*ret = ca;
	return 0;
}

void proxy_ca_free(struct proxy_ca *ca)
{
	if (!ca) return;
	EVP_PKEY_free(ca->key);
	EVP_PKEY_free(ca->leaf_key);
	X509_free(ca->cert);
	free(ca->pem);
	free(ca);
}

const char *proxy_ca_pem(const struct proxy_ca *ca) { return ca->pem; }

static bool is_address(const char *host)
{
	unsigned char b[16];
	return inet_pton(AF_INET, host, b) == 1 || inet_pton(AF_INET6, host, b) == 1;
}

static bool is_host(const char *host)
{
	size_t n = strlen(host);
	return n && n <= HOST_MAX && strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == n;
}

static X509 *leaf(const struct proxy_ca *ca, const char *host)
{
	_cleanup_free_ char *alt = xasprintf("%s:%s", is_address(host) ? "IP" : "DNS", host);
	X509 *x = new_cert(ca->leaf_key, ca->cert, host, LEAF_DAYS);
	if (x && add_extension(x, ca->cert, NID_key_usage, "critical,digitalSignature") &&
	    add_extension(x, ca->cert, NID_ext_key_usage, "serverAuth") &&
	    add_extension(x, ca->cert, NID_authority_key_identifier, "keyid") &&
	    add_extension(x, ca->cert, NID_subject_alt_name, alt) && X509_sign(x, ca->key, EVP_sha256()))
		return x;
	X509_free(x);
	return NULL;
}

static int choose_http1(SSL *ssl, const unsigned char **out, unsigned char *n_out, const unsigned char *in, unsigned n,
			void *arg)
{
	static const unsigned char ours[] = "\x08http/1.1";
	if (SSL_select_next_proto((unsigned char **)out, n_out, ours, sizeof ours - 1, in, n) == OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_OK;
	return SSL_TLSEXT_ERR_NOACK;
}

SSL_CTX *proxy_ca_server(const struct proxy_ca *ca, const char *host, struct err *e)
{
	if (!is_host(host) && !is_address(host)) {
		err_set(e, CODE_INVALID_ARGUMENT, "%s is no host", host);
		return NULL;
	}
	X509 *x = leaf(ca, host);
	SSL_CTX *c = SSL_CTX_new(TLS_server_method());
	bool ok = x && c && SSL_CTX_use_certificate(c, x) && SSL_CTX_use_PrivateKey(c, ca->leaf_key);
	X509_free(x);
	if (!ok) {
		SSL_CTX_free(c);
		fail(e, "make a certificate");
		return NULL;
	}
	SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_alpn_select_cb(c, choose_http1, NULL);
	return c;
}
