/* The certificates of one host's configuration, loaded once for a connection's handle and given to OpenSSL by curl's hook.
 *
 * Authorities are added to the system's, not put in their place. The system's are what Go reads: the file in SSL_CERT_FILE or
 * the first bundle that is there, and all that the folders in SSL_CERT_DIR or of the system hold (no hashed names needed). They
 * are read once and again when a file or folder has changed. Of several client certificates the first is offered
 * whose chain names an issuer that the server accepts; none when the server names issuers and none fits.
 * Blocks on the disk while loading. Source: BuildKit util/resolver/resolver.go (loadTLSConfig); RFC 8446 §4.2.4. */
#include "reg/internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 4 << 20 };

struct pair {
	char *path, *expired; /* expired: when, if it has */
	X509 *cert;
	EVP_PKEY *key;
	STACK_OF(X509) * chain;
};
struct reg_tls {
	X509_STORE *store; /* NULL: nothing is verified */
	STACK_OF(X509) * cas;
	VEC(struct pair) pairs;
	char *hint; /* of the latest handshake: why the client's certificate may be refused; NULL: nothing to say */
};

void reg_tls_free(struct reg_tls *t)
{
	if (!t) return;
	for (size_t i = 0; i < t->pairs.n; i++) {
		free(t->pairs.v[i].path);
		free(t->pairs.v[i].expired);
		X509_free(t->pairs.v[i].cert);
		EVP_PKEY_free(t->pairs.v[i].key);
		sk_X509_pop_free(t->pairs.v[i].chain, X509_free);
	}
	vec_fini(&t->pairs);
	sk_X509_pop_free(t->cas, X509_free);
	X509_STORE_free(t->store);
	free(t->hint);
	free(t);
}

static void tls_freep(struct reg_tls **t) { reg_tls_free(*t); }

static void bio_freep(BIO **b) { BIO_free(*b); }

/* The file as a memory BIO that owns its bytes. */
static BIO *bio_of(const char *path, struct err *e)
{
	_cleanup_free_ uint8_t *p = NULL;
	size_t n = 0;
	if (path_read_file(AT_FDCWD, path, FILE_MAX, &p, &n, e) < 0) return NULL;
	BIO *b = BIO_new(BIO_s_mem());
	BIO_write(b, p, (int)n);
	return b;
}

static int read_certs(const char *path, STACK_OF(X509) * ret, struct err *e)
{
	_cleanup_(bio_freep) BIO *b = bio_of(path, e);
	if (!b) return -1;
	for (X509 *x; (x = PEM_read_bio_X509(b, NULL, NULL, NULL));) sk_X509_push(ret, x);
	ERR_clear_error();
	return 0;
}

static int no_password(char *buf, int size, int rwflag, void *u) { return 0; }

static EVP_PKEY *read_key(const char *path, struct err *e)
{
	_cleanup_(bio_freep) BIO *b = bio_of(path, e);
	if (!b) return NULL;
	EVP_PKEY *k = PEM_read_bio_PrivateKey(b, NULL, no_password, NULL);
	ERR_clear_error();
	if (!k) err_set(e, CODE_INVALID_ARGUMENT, "%s: no usable private key in it (PEM without a password is expected)", path);
	return k;
}

/* When a certificate expired; NULL: it has not. Heap. */
static char *expired_on(const X509 *x)
{
	struct tm tm;
	char text[32];
	if (X509_cmp_current_time(X509_get0_notAfter(x)) >= 0 || ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm) != 1) return NULL;
	strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &tm);
	return xstrdup(text);
}

static int pair_load(struct reg_tls *t, const char *cert, const char *key, struct err *e)
{
	struct pair p = {.chain = sk_X509_new_null()};
	if (read_certs(cert, p.chain, e) < 0) goto fail;
	p.cert = sk_X509_shift(p.chain);
	if (!p.cert) {
		err_set(e, CODE_INVALID_ARGUMENT, "%s: no PEM certificate in it", cert);
		goto fail;
	}
	p.key = read_key(key, e);
	if (!p.key) goto fail;
	if (X509_check_private_key(p.cert, p.key) != 1) {
		ERR_clear_error();
		err_set(e, CODE_INVALID_ARGUMENT, "the private key %s does not match", key);
		goto fail;
	}
	p.path = xstrdup(cert);
	p.expired = expired_on(p.cert);
	vec_push(&t->pairs, p);
	return 0;
fail:
	X509_free(p.cert);
	EVP_PKEY_free(p.key);
	sk_X509_pop_free(p.chain, X509_free);
	return err_wrap(e, "failed to load keypair for %s", cert);
}

static int ca_load(struct reg_tls *t, const char *path, struct err *e)
{
	return read_certs(path, t->cas, e) < 0 ? err_wrap(e, "failed to read %s", path) : 0;
}

/* *.crt are authorities, X.cert goes with X.key. A folder that is missing or closed to us counts as empty. */
static int dir_load(struct reg_tls *t, const char *dir, bool with_keys, struct err *e)
{
	struct dirent **names = NULL;
	int r = 0, n = scandir(dir, &names, NULL, alphasort);
	if (n < 0)
		return errno == ENOENT || errno == EACCES || errno == EPERM ? 0 : err_sys(e, errno, "failed to read %s", dir);
	for (int i = 0; i < n; i++) {
		const char *name = names[i]->d_name;
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
		if (r == 0 && str_ends(name, ".crt")) {
			r = ca_load(t, path, e);
		} else if (r == 0 && with_keys && str_ends(name, ".cert")) {
			_cleanup_free_ char *key = xasprintf("%.*s.key", (int)(strlen(path) - strlen(".cert")), path);
			r = pair_load(t, path, key, e);
		}
		free(names[i]);
	}
	free(names);
	return r;
}

/* ---- the system's ---- */

static const char *const bundles[] = {"/etc/ssl/certs/ca-certificates.crt",
				      "/etc/pki/tls/certs/ca-bundle.crt",
				      "/etc/ssl/ca-bundle.pem",
				      "/etc/pki/tls/cacert.pem",
				      "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
				      "/etc/ssl/cert.pem"};
static struct {
	pthread_mutex_t lock;
	char *stamp; /* the paths with their times, when read */
	STACK_OF(X509) * certs;
	X509_STORE *store;
} host = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void host_paths(struct strvec *files, struct strvec *dirs)
{
	const char *file = getenv("SSL_CERT_FILE"), *dir = getenv("SSL_CERT_DIR");
	if (!str_empty(file)) strvec_add(files, file);
	for (size_t i = 0; i < array_len(bundles) && !files->n; i++)
		if (access(bundles[i], R_OK) == 0) strvec_add(files, bundles[i]);
	for (const char *p = str_empty(dir) ? "/etc/ssl/certs:/etc/pki/tls/certs" : dir; *p;) {
		size_t n = strcspn(p, ":");
		if (n) strvec_take(dirs, xstrndup(p, n));
		p += n + (p[n] == ':');
	}
}

static void stamp_add(struct buf *b, const struct strvec *paths)
{
	for (size_t i = 0; i < paths->n; i++) {
		struct stat st = {0};
		if (stat(paths->v[i], &st) < 0) st.st_ino = 0;
		buf_addf(b, "%s %lld %lld.%ld %lld\n", paths->v[i], (long long)st.st_ino, (long long)st.st_mtim.tv_sec,
			 st.st_mtim.tv_nsec, (long long)st.st_size);
	}
}

/* Names that hashes of the same folder lead to are read once. */
static bool is_alias(const char *dir, const char *name)
{
	char to[512];
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	ssize_t n = readlink(path, to, sizeof to);
	return n > 0 && !memchr(to, '/', (size_t)n);
}

static void read_dir(const char *dir, STACK_OF(X509) * ret)
{
	struct dirent **names = NULL;
	int n = scandir(dir, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		const char *name = names[i]->d_name;
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
		struct stat st;
		if (!is_alias(dir, name) && stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= FILE_MAX)
			(void)read_certs(path, ret, NULL); /* what is no certificate is passed over */
		free(names[i]);
	}
	free(names);
}

static X509_STORE *store_of(const STACK_OF(X509) * a, const STACK_OF(X509) * b)
{
	X509_STORE *s = X509_STORE_new();
	for (int i = 0; i < sk_X509_num(a); i++) X509_STORE_add_cert(s, sk_X509_value(a, i));
	for (int i = 0; b && i < sk_X509_num(b); i++) X509_STORE_add_cert(s, sk_X509_value(b, i));
	ERR_clear_error(); /* of doubles */
	X509_STORE_set_flags(s, X509_V_FLAG_TRUSTED_FIRST | X509_V_FLAG_PARTIAL_CHAIN);
	return s;
}

/* The system's authorities and extra ones; the caller frees it. */
static X509_STORE *store_with(const STACK_OF(X509) * extra)
{
	_cleanup_strvec_ struct strvec files = {0}, dirs = {0};
	_cleanup_buf_ struct buf stamp = BUF_INIT;
	host_paths(&files, &dirs);
	stamp_add(&stamp, &files);
	stamp_add(&stamp, &dirs);
	pthread_mutex_lock(&host.lock);
	if (!str_eq(host.stamp, buf_str(&stamp))) {
		sk_X509_pop_free(host.certs, X509_free);
		X509_STORE_free(host.store);
		free(host.stamp);
		host.stamp = buf_take_str(&stamp);
		host.certs = sk_X509_new_null();
		for (size_t i = 0; i < files.n; i++) (void)read_certs(files.v[i], host.certs, NULL);
		for (size_t i = 0; i < dirs.n; i++) read_dir(dirs.v[i], host.certs);
		host.store = store_of(host.certs, NULL);
	}
	X509_STORE *s = host.store;
	if (sk_X509_num(extra) > 0)
		s = store_of(host.certs, extra);
	else
		X509_STORE_up_ref(s);
	pthread_mutex_unlock(&host.lock);
	return s;
}

int reg_tls_load(const struct reg_entry *entry, bool with_keys, bool insecure, struct reg_tls **ret, struct err *e)
{
	_cleanup_(tls_freep) struct reg_tls *t = xnew(struct reg_tls);
	t->cas = sk_X509_new_null();
	for (size_t i = 0; entry && i < entry->dirs.n; i++)
		if (dir_load(t, entry->dirs.v[i], with_keys, e) < 0) return -1;
	for (size_t i = 0; entry && i < entry->ca.n; i++)
		if (ca_load(t, entry->ca.v[i], e) < 0) return -1;
	for (size_t i = 0; entry && with_keys && i < entry->certs.n; i++)
		if (pair_load(t, entry->certs.v[i], entry->keys.v[i], e) < 0) return -1;
	if (!insecure) t->store = store_with(t->cas);
	*ret = take_ptr(t);
	return 0;
}

static bool issued_by(X509 *x, const STACK_OF(X509_NAME) * names)
{
	for (int i = 0; i < sk_X509_NAME_num(names); i++)
		if (X509_NAME_cmp(X509_get_issuer_name(x), sk_X509_NAME_value(names, i)) == 0) return true;
	return false;
}

static bool pair_fits(const struct pair *p, const STACK_OF(X509_NAME) * names)
{
	if (!names || sk_X509_NAME_num(names) <= 0 || issued_by(p->cert, names)) return true;
	for (int i = 0; i < sk_X509_num(p->chain); i++)
		if (issued_by(sk_X509_value(p->chain, i), names)) return true;
	return false;
}

static int offer(SSL *ssl, void *arg)
{
	struct reg_tls *t = arg;
	const STACK_OF(X509_NAME) *names = SSL_get0_peer_CA_list(ssl);
	for (size_t i = 0; i < t->pairs.n; i++) {
		struct pair *p = &t->pairs.v[i];
		if (!pair_fits(p, names)) continue;
		free(t->hint);
		t->hint = p->expired ? xasprintf("the client certificate %s expired on %s", p->path, p->expired) : NULL;
		return SSL_use_cert_and_key(ssl, p->cert, p->key, p->chain, 1);
	}
	free(t->hint);
	t->hint = t->pairs.n
			  ? xasprintf("the server asked for a client certificate: none of the %zu in the registry's "
				      "configuration is signed by an "
				      "authority that it accepts",
				      t->pairs.n)
			  : xstrdup("the server asked for a client certificate: the registry's configuration has no keypair");
	return 1;
}

const char *reg_tls_hint(const struct reg_tls *t) { return t ? t->hint : NULL; }

int reg_tls_apply(struct reg_tls *t, SSL_CTX *ctx)
{
	if (t->store) SSL_CTX_set1_cert_store(ctx, t->store);
	SSL_CTX_set_cert_cb(ctx, offer, t);
	return 0;
}
