/* What is wrong with certificates and keys, before a connection needs them. Blocks on the disk. */
#include "conf/internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <sys/stat.h>

static char *reason(const char *what)
{
	unsigned long code = ERR_peek_last_error();
	const char *text = code ? ERR_reason_error_string(code) : NULL;
	char *r = text ? xasprintf("%s (%s)", what, text) : xstrdup(what);
	ERR_clear_error();
	return r;
}

/* Keys with a passphrase are refused rather than asked for on the daemon's terminal. */
static int no_passphrase(char *buf, int size, int rw, void *arg) { return 0; }

static FILE *open_file(const char *path, char **ret_fault)
{
	struct stat st;
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) { /* a pipe would make us wait */
		*ret_fault = xstrdup("is no regular file");
		return NULL;
	}
	FILE *f = fopen(path, "re");
	if (!f) *ret_fault = xstrdup(strerror(errno));
	return f;
}

char *conf_cert_fault(const char *path, char **ret_warning)
{
	char *fault = NULL;
	FILE *f = open_file(path, &fault);
	if (!f) return fault;
	size_t n = 0, expired = 0;
	for (X509 *x; (x = PEM_read_X509(f, NULL, NULL, NULL)); n++) {
		if (X509_cmp_current_time(X509_get0_notAfter(x)) < 0) expired++;
		X509_free(x);
	}
	fclose(f);
	if (!n) return reason("is no PEM certificate");
	ERR_clear_error();
	if (expired && ret_warning)
		*ret_warning = n == 1 ? xstrdup("the certificate has expired")
				      : xasprintf("%zu of its %zu certificates have expired", expired, n);
	return NULL;
}

static EVP_PKEY *read_key(const char *path, char **ret_fault)
{
	FILE *f = open_file(path, ret_fault);
	if (!f) return NULL;
	EVP_PKEY *k = PEM_read_PrivateKey(f, NULL, no_passphrase, NULL);
	fclose(f);
	if (!k) *ret_fault = reason("is no PEM private key without passphrase");
	return k;
}

char *conf_key_fault(const char *path)
{
	char *fault = NULL;
	EVP_PKEY *k = read_key(path, &fault);
	EVP_PKEY_free(k);
	return fault;
}

char *conf_pair_fault(const char *cert, const char *key)
{
	char *fault = NULL;
	EVP_PKEY *k = read_key(key, &fault);
	FILE *f = k ? open_file(cert, &fault) : NULL;
	X509 *x = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
	if (x && X509_check_private_key(x, k) != 1)
		fault = xasprintf("the key %s is not that of the certificate %s", key, cert);
	ERR_clear_error();
	X509_free(x);
	EVP_PKEY_free(k);
	if (f) fclose(f);
	return fault;
}
