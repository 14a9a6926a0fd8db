/* An HTTP answer as a file.
 *
 *  1. A server that is asked again gets a HEAD first, with the ETag known: some answer 304 to a GET wrongly, and some leave the
 *     ETag out when one was sent. Only when that does not tell, a GET with the same header.
 *  2. The bytes go to a temporary name first: the real one depends on the answer's header.
 *  3. A weak ETag counts as the strong one of that text.
 * Source: moby/buildkit source/http/source.go. */
#include "ops/http_job.h"
#include "sig/sig.h"
#include "spec/url.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- names ---- */

static bool is_control(const uint8_t *p) { return *p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0); }

static char *safe_name(const char *s)
{
	size_t n = strlen(s);
	while (n && strchr(" \t\r\n\v\f", s[n - 1])) n--;
	while (n && strchr(" \t\r\n\v\f", *s)) s++, n--;
	while (n > 1 && s[n - 1] == '/') n--;
	_cleanup_free_ char *trimmed = xstrndup(s, n);
	const char *base = path_base(trimmed);
	bool bad = !*base || !strcmp(base, ".") || !strcmp(base, "..") || strlen(base) > 255;
	for (const uint8_t *p = (const uint8_t *)base; *p; p++) bad |= is_control(p);
	return xstrdup(bad ? "download" : base);
}

static bool is_token(char c) { return c > ' ' && c < 0x7f && !strchr("()<>@,;:\\\"/[]?=", c); }

/* One parameter of a Content-Disposition: name (lower case) and value; false at the end or at what is none. */
static bool next_param(const char **at, struct buf *name, struct buf *value)
{
	const char *s = *at;
	buf_reset(name);
	buf_reset(value);
	while (*s == ' ' || *s == '\t') s++;
	if (*s++ != ';') return false;
	while (*s == ' ' || *s == '\t') s++;
	for (; is_token(*s); s++) buf_addc(name, *s >= 'A' && *s <= 'Z' ? (char)(*s + 32) : *s);
	while (*s == ' ' || *s == '\t') s++;
	if (!name->n || *s++ != '=') return false;
	while (*s == ' ' || *s == '\t') s++;
	if (*s == '"') {
		for (s++; *s && *s != '"'; s++) {
			if (*s == '\\' && (s[1] == '"' || s[1] == '\\')) s++;
			buf_addc(value, *s);
		}
		if (*s++ != '"') return false;
	} else {
		for (; is_token(*s); s++) buf_addc(value, *s);
		if (!value->n) return false;
	}
	*at = s;
	return true;
}

/* RFC 5987: charset'language'percent-encoded; UTF-8 and ASCII. NULL: something else. */
static char *extended_value(const char *v)
{
	const char *quote = strchr(v, '\''), *second = quote ? strchr(quote + 1, '\'') : NULL;
	char *text;
	if (!second) return NULL;
	size_t n = (size_t)(quote - v);
	if (!(n == 5 && !strncasecmp(v, "utf-8", 5)) && !(n == 8 && !strncasecmp(v, "us-ascii", 8))) return NULL;
	return spec_path_unescape(second + 1, &text, NULL) < 0 ? NULL : text;
}

static char *disposition_name(const char *s)
{
	_cleanup_buf_ struct buf name = BUF_MAX(1024), value = BUF_MAX(4096);
	char *plain = NULL;
	while (*s == ' ' || *s == '\t') s++;
	if (!is_token(*s)) return NULL;
	while (is_token(*s)) s++;
	while (next_param(&s, &name, &value)) {
		char *v = NULL;
		if (!strcmp(buf_str(&name), "filename")) v = xstrdup(buf_str(&value));
		if (!strcmp(buf_str(&name), "filename*")) v = extended_value(buf_str(&value));
		if (!v) continue;
		free(plain);
		plain = v;
	}
	return plain;
}

char *http_file_name(const char *url, const char *filename, const char *disposition)
{
	if (*filename) return safe_name(filename);
	_cleanup_free_ char *given = disposition ? disposition_name(disposition) : NULL;
	if (!str_empty(given) && !str_ends(given, "/")) return safe_name(given);
	_cleanup_spec_url_ struct spec_url u = {0};
	if (spec_url_parse(url, &u, NULL) < 0) return xstrdup("download");
	return safe_name(u.path);
}

/* ---- dates ---- */

bool http_date(const char *s, int64_t *ret_unix_s, char **ret_text)
{
	/* The second one's zone may have any name, as in Go: it counts as UTC all the same. */
	static const char *const form[] = {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S %Z", "%a %b %d %H:%M:%S %Y"};
	for (size_t i = 0; i < array_len(form); i++) {
		struct tm tm = {0};
		char text[64];
		const char *end = strptime(s, form[i], &tm);
		if (!end || *end) continue;
		*ret_unix_s = timegm(&tm);
		strftime(text, sizeof text, form[0], &tm);
		if (ret_text) *ret_text = xstrdup(text);
		return true;
	}
	return false;
}

/* ---- writing ---- */

struct out {
	int root, fd;
	char name[ID_STR + 16];
	struct hasher hash;
	const atomic_bool *cancelled;
};

static int out_open(struct out *o, const struct http_job *j, struct err *e)
{
	char id[ID_STR];
	id_new(id);
	snprintf(o->name, sizeof o->name, ".download-%s", id);
	o->cancelled = j->cancelled;
	o->root = snap_view_open_root(j->view, true, e);
	if (o->root < 0) return -1;
	o->fd = path_open_in(o->root, o->name, O_WRONLY | O_CREAT | O_EXCL, 0600, e);
	return o->fd < 0 ? -1 : 0;
}

static void out_fini(struct out *o)
{
	if (o->fd >= 0) close(o->fd);
	if (o->root >= 0) close(o->root);
	hasher_fini(&o->hash);
}

static int out_write(void *ctx, const void *p, size_t n, struct err *e)
{
	struct out *o = ctx;
	if (atomic_load(o->cancelled)) return err_set(e, CODE_CANCELLED, "context canceled");
	hasher_update(&o->hash, p, n);
	return path_write_all(o->fd, p, n, e);
}

static int out_close(struct out *o, struct http_job *j, struct err *e)
{
	struct digest d;
	int64_t mtime = 0;
	hasher_final(&o->hash, &d);
	digest_format(&d, j->digest);
	http_date(j->modified, &mtime, NULL);
	struct timespec times[2] = {{.tv_sec = mtime}, {.tv_sec = mtime}};
	if ((j->uid || j->gid) && fchown(o->fd, (uid_t)j->uid, (gid_t)j->gid) < 0)
		return err_sys(e, errno, "chown %s", j->name);
	if (fchmod(o->fd, j->perm ? (mode_t)(j->perm & 0777) : 0600) < 0) return err_sys(e, errno, "chmod %s", j->name);
	if (futimens(o->fd, times) < 0) return err_sys(e, errno, "utimes %s", j->name);
	if (renameat(o->root, o->name, o->root, j->name) < 0) return err_sys(e, errno, "rename to %s", j->name);
	return snap_view_seal(j->view, e);
}

/* ---- asking ---- */

static char *etag_of(const struct reg_http_res *r)
{
	const char *v = reg_http_header(r, "etag");
	if (!v) return xstrdup("");
	return xstrdup(str_starts(v, "W/") ? v + 2 : v);
}

static void take_header(struct http_job *j, const struct reg_http_res *r)
{
	const char *modified = reg_http_header(r, "last-modified");
	int64_t t;
	free(j->name);
	free(j->modified);
	free(j->etag);
	j->name = http_file_name(j->url, j->filename, reg_http_header(r, "content-disposition"));
	j->modified = NULL;
	if (!modified || !http_date(modified, &t, &j->modified)) j->modified = xstrdup("");
	j->etag = etag_of(r);
}

/* The answer says that what is known is still so. */
static bool is_known(struct http_job *j, const struct reg_http_res *r)
{
	_cleanup_free_ char *etag = etag_of(r);
	if (strcmp(*etag || r->status != 304 ? etag : j->known_etag, j->known_etag)) return false;
	take_header(j, r);
	free(j->modified);
	j->modified = xstrdup(j->known_modified);
	snprintf(j->digest, sizeof j->digest, "%s", j->known_digest);
	j->unchanged = true;
	return true;
}

static bool head_says_known(struct http_job *j, const struct strvec *headers)
{
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_err_ struct err ignored = ERR_INIT;
	struct reg_http_req req = {.method = "HEAD", .url = j->url, .headers = headers};
	if (reg_http_do(j->io, &req, &res, &ignored) < 0) return false;
	return (res.status == 200 || res.status == 304) && is_known(j, &res);
}

static int from_server(struct http_job *j, struct out *o, struct err *e)
{
	_cleanup_strvec_ struct strvec headers = {0};
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	strvec_copy(&headers, j->headers->v, j->headers->n);
	strvec_add(&headers, "Accept-Encoding: gzip");
	if (*j->known_etag) {
		strvec_addf(&headers, "If-None-Match: %s", j->known_etag);
		if (head_says_known(j, &headers)) return 0;
	}
	struct reg_sink sink = {.write = out_write, .ctx = o};
	struct reg_http_req req = {.url = j->url, .headers = &headers, .decode = true, .sink = &sink};
	if (out_open(o, j, e) < 0 || reg_http_do(j->io, &req, &res, e) < 0) return -1;
	if (res.status == 304 && *j->known_etag) {
		if (is_known(j, &res)) return 0;
		return err_set(e, CODE_UNKNOWN, "invalid not-modified ETag: %s", reg_http_header(&res, "etag"));
	}
	if (res.status < 200 || res.status > 299) return err_set(e, CODE_UNKNOWN, "invalid response status %ld", res.status);
	take_header(j, &res);
	return out_close(o, j, e);
}

static int from_client(struct http_job *j, struct out *o, struct err *e)
{
	char chunk[32 << 10];
	ssize_t n;
	if (out_open(o, j, e) < 0) return -1;
	while ((n = j->upload(j->upload_ctx, chunk, sizeof chunk, e)) > 0)
		if (out_write(o, chunk, (size_t)n, e) < 0) return -1;
	if (n < 0) return -1;
	j->name = http_file_name(j->url, j->filename, NULL);
	j->modified = xstrdup("");
	j->etag = xstrdup("");
	return out_close(o, j, e);
}

void http_job_get(struct http_job *j)
{
	struct out o = {.root = -1, .fd = -1};
	hasher_init(&o.hash);
	if (j->upload)
		from_client(j, &o, &j->error);
	else
		from_server(j, &o, &j->error);
	out_fini(&o);
}

void http_job_fini(struct http_job *j)
{
	free(j->name);
	free(j->modified);
	free(j->etag);
	err_fini(&j->error);
	j->name = j->modified = j->etag = NULL;
}

/* ---- checksums ---- */

static int hash_file(int fd, const struct http_sum_job *j, EVP_MD_CTX *h, struct err *e)
{
	char chunk[64 << 10];
	ssize_t n;
	while ((n = read(fd, chunk, sizeof chunk)) > 0) EVP_DigestUpdate(h, chunk, (size_t)n);
	if (n < 0) return err_sys(e, errno, "read %s", j->name);
	EVP_DigestUpdate(h, j->suffix, j->suffix_len);
	return 0;
}

static char *sum_text(const char *algo, EVP_MD_CTX *h)
{
	unsigned char md[EVP_MAX_MD_SIZE];
	char hex[2 * EVP_MAX_MD_SIZE + 1];
	unsigned n = 0;
	EVP_DigestFinal_ex(h, md, &n);
	hex_encode(md, n, hex);
	return xasprintf("%s:%s", algo, hex);
}

void http_job_sum(struct http_sum_job *j)
{
	struct err *e = &j->error;
	_cleanup_close_ int root = snap_view_open_root(j->view, false, e);
	_cleanup_close_ int fd = root < 0 ? -1 : path_open_in(root, j->name, O_RDONLY | O_NOFOLLOW, 0, e);
	if (fd < 0) {
		err_wrap(e, "failed to open http source payload");
		return;
	}
	struct sig_data d = {.fd = fd};
	if (*j->sig_pubkey && pgp_verify(&d, j->sig_signature, j->sig_pubkey, false, e) < 0) {
		err_wrap(e, "failed to verify pgp signature");
		return;
	}
	if (!j->algo) return;
	EVP_MD_CTX *h = EVP_MD_CTX_new();
	ensure(h && EVP_DigestInit_ex(h, EVP_get_digestbyname(j->algo), NULL));
	if (hash_file(fd, j, h, e) >= 0) j->sum = sum_text(j->algo, h);
	EVP_MD_CTX_free(h);
}
