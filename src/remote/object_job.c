#include "remote/object.h"

#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

void object_hmac(const void *key, size_t n_key, const void *data, size_t n, uint8_t out[static 32])
{
	unsigned len = 32;
	ensure(HMAC(EVP_sha256(), key, (int)n_key, data, n, out, &len));
}

char *object_escape(const char *s)
{
	struct buf b = BUF_INIT;
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-_.~/", c);
		if (plain)
			buf_addc(&b, (char)c);
		else
			buf_addf(&b, "%%%02X", c);
	}
	return buf_take_str(&b);
}

/* ---- the place ---- */

static char *attr_or(const struct remote_place *p, const char *key, const char *otherwise)
{
	const char *v = remote_attr(p, key);
	return xstrdup(v ? v : otherwise);
}

struct object_place *object_place_new(struct remote_place *p, const struct object_kind *kind, const char *manifests,
				      const char *blobs)
{
	struct object_place *o = xnew(struct object_place);
	_cleanup_free_ char *names = attr_or(p, "name", "buildkit");
	p->own = o;
	o->kind = kind;
	o->prefix = attr_or(p, "prefix", "");
	o->manifests = attr_or(p, "manifests_prefix", manifests);
	o->blobs = attr_or(p, "blobs_prefix", blobs);
	o->attempts = 3;
	for (char *save, *s = strtok_r(names, ";", &save); s; s = strtok_r(NULL, ";", &save)) strvec_add(&o->names, s);
	if (!o->names.n) strvec_add(&o->names, "buildkit");
	return o;
}

void object_place_fini(struct remote_place *p)
{
	struct object_place *o = take_ptr(p->own);
	if (!o) return;
	char *texts[] = {o->base,    o->path_prefix, o->host,  o->prefix, o->manifests, o->blobs,
			 o->account, o->secret,      o->token, o->region, o->bucket};
	for (size_t i = 0; i < array_len(texts); i++) free(texts[i]);
	strvec_fini(&o->names);
	free(o);
}

int object_set_base(struct object_place *o, const char *url, struct err *e)
{
	const char *at = strstr(url, "://");
	if (!at || (strncmp(url, "http://", 7) && strncmp(url, "https://", 8)) || !at[3] || at[3] == '/')
		return err_set(e, CODE_INVALID_ARGUMENT, "\"%s\" is not an http or https URL", url);
	size_t n = strlen(url);
	while (n && url[n - 1] == '/') n--;
	o->base = xstrndup(url, n);
	const char *host = o->base + (at - url) + 3, *path = strchr(host, '/');
	o->host = path ? xstrndup(host, (size_t)(path - host)) : xstrdup(host);
	o->path_prefix = xstrdup(path ? path : "");
	bool tls = !strncmp(url, "https:", 6);
	char *port = strrchr(o->host, ':');
	if (port && !strcmp(port, tls ? ":443" : ":80")) *port = 0; /* as curl writes the Host header */
	return 0;
}

static char *join(const struct object_place *o, const char *folder, const char *name)
{
	if (!*o->kind->separator) return xasprintf("%s%s%s", o->prefix, folder, name);
	_cleanup_free_ char *a = *o->prefix ? path_join(o->prefix, folder) : xstrdup(folder);
	return *a ? path_join(a, name) : xstrdup(name);
}

static char *blob_key(const struct object_place *o, const char *digest) { return join(o, o->blobs, digest); }

/* ---- requests ---- */

static int wait_ms(struct remote_place *p, int64_t ms, struct err *e)
{
	for (; ms > 0; ms -= 100) {
		if (atomic_load(&p->cancelled)) return err_set(e, CODE_CANCELLED, "context canceled");
		nanosleep(&(struct timespec){0, 100000000}, NULL);
	}
	return 0;
}

int object_status(const struct object_call *c, const struct reg_http_res *r, struct err *e)
{
	_cleanup_free_ char *text = xstrndup(buf_str(&r->error_body), min_of(r->error_body.n, (size_t)300));
	enum code code = r->status == 404                       ? CODE_NOT_FOUND
			 : r->status == 403 || r->status == 401 ? CODE_PERMISSION_DENIED
								: CODE_UNKNOWN;
	return err_set(e, code, "%s %s: %s%s%s", c->method, *c->key ? c->key : c->query, r->reason ? r->reason : "no answer",
		       text && *text ? ": " : "", text ? text : "");
}

static int try_once(struct remote_place *p, const struct object_call *c, struct reg_http_res *ret, struct err *e)
{
	struct object_place *o = p->own;
	_cleanup_free_ char *url = NULL;
	_cleanup_strvec_ struct strvec headers = {0};
	if (o->kind->prepare(p, c, &url, &headers, e) < 0) return -1;
	struct reg_http_req rq = {.method = c->method,
				  .url = url,
				  .headers = &headers,
				  .body = c->body,
				  .body_bytes = c->n,
				  .sink = c->sink,
				  .max_bytes = c->max_bytes};
	return reg_http_do(&p->io, &rq, ret, e);
}

static bool may_pass(const struct reg_http_res *r) { return r->status >= 500 || r->status == 429; }

static bool final_error(const struct err *e)
{
	return e->code == CODE_CANCELLED || e->code == CODE_DATA_LOSS || e->code == CODE_RESOURCE_EXHAUSTED;
}

int object_do(struct remote_place *p, const struct object_call *c, struct reg_http_res *ret, struct err *e)
{
	struct object_place *o = p->own;
	for (unsigned i = 1;; i++) {
		_cleanup_err_ struct err why = ERR_INIT;
		int r = try_once(p, c, ret, &why);
		bool last = i >= o->attempts;
		if (r >= 0 && !may_pass(ret)) return 0;
		if (r >= 0 && last) return object_status(c, ret, e);
		if (r < 0 && (last || final_error(&why))) return err_move(e, &why);
		reg_http_res_fini(ret);
		*ret = (struct reg_http_res){0};
		if (c->sink && c->sink->rewind && c->sink->rewind(c->sink->ctx, e) < 0) return -1;
		if (wait_ms(p, 200 << i, e) < 0) return -1;
	}
}

static bool is_ok(const struct reg_http_res *r) { return r->status >= 200 && r->status <= 299; }

/* 1: it was there; 0: not; -1. */
static int get(struct remote_place *p, const char *key, const struct reg_sink *sink, uint64_t max, struct err *e)
{
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	struct object_call c = {.method = "GET", .key = key, .sink = sink, .max_bytes = max};
	if (object_do(p, &c, &res, e) < 0) return -1;
	if (res.status == 404) return 0;
	return is_ok(&res) ? 1 : object_status(&c, &res, e);
}

static int put_bytes(struct remote_place *p, const char *key, const void *bytes, size_t n, const char *hex, struct err *e)
{
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	struct object_call c = {.method = "PUT", .key = key, .body = n ? bytes : "", .n = n};
	struct digest d;
	if (hex) {
		snprintf(c.body_digest, sizeof c.body_digest, "%s", hex);
	} else {
		d = digest_of(bytes, n);
		digest_hex(&d, c.body_digest);
	}
	if (object_do(p, &c, &res, e) < 0) return -1;
	return is_ok(&res) ? 0 : object_status(&c, &res, e);
}

static int begin(struct remote_place *p, struct err *e)
{
	struct object_place *o = p->own;
	if (o->begun || !o->kind->begin) return 0;
	if (o->kind->begin(p, e) < 0) return -1;
	o->begun = true;
	return 0;
}

/* ---- reading ---- */

static int sink_buf(void *ctx, const void *p, size_t n, struct err *e)
{
	return buf_add(ctx, p, n) < 0
		       ? err_set(e, CODE_RESOURCE_EXHAUSTED, "the cache config is too large (> %d)", CACHE_CONFIG_MAX)
		       : 0;
}

static int rewind_buf(void *ctx, struct err *e)
{
	buf_reset(ctx);
	return 0;
}

int object_read(struct remote_place *p, struct cache_graph *g, struct err *e)
{
	const struct object_place *o = p->own;
	for (size_t i = 0; i < o->names.n; i++) {
		_cleanup_buf_ struct buf b = BUF_MAX(CACHE_CONFIG_MAX);
		_cleanup_free_ char *key = join(o, o->manifests, o->names.v[i]);
		struct reg_sink sink = {sink_buf, rewind_buf, &b};
		int r = get(p, key, &sink, CACHE_CONFIG_MAX, e);
		if (r < 0) return -1;
		if (r == 0) continue; /* there is none yet */
		if (cache_config_parse(b.p, b.n, NULL, g, e) < 0) return err_wrap(e, "%s", key);
		remote_note(p, true, "found %zu layers in cache", cache_graph_blobs(g));
	}
	return 0;
}

static int sink_ingest(void *ctx, const void *p, size_t n, struct err *e) { return blob_ingest_write(ctx, p, n, e); }
static int rewind_ingest(void *ctx, struct err *e) { return blob_ingest_reset(ctx, e); }

int object_fetch(struct remote_place *p, const struct cache_blob *b, struct blob_ingest *to, struct err *e)
{
	_cleanup_free_ char *key = blob_key(p->own, b->digest);
	struct reg_sink sink = {sink_ingest, rewind_ingest, to};
	int r = get(p, key, &sink, 0, e);
	if (r == 0) return err_set(e, CODE_NOT_FOUND, "%s: not found", key);
	return r < 0 ? -1 : 0;
}

/* ---- writing ---- */

static int64_t age_ns(const struct reg_http_res *r)
{
	int64_t at;
	const char *text = reg_http_header(r, "last-modified");
	if (!text || !ops_http_date(text, &at)) return 0;
	return (time_now().tv_sec - at) * 1000000000;
}

int object_have(struct remote_place *p, const struct cache_blob *b, struct err *e)
{
	const struct object_place *o = p->own;
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_free_ char *key = blob_key(o, b->digest);
	struct object_call c = {.method = "HEAD", .key = key};
	if (begin(p, e) < 0 || object_do(p, &c, &res, e) < 0) return -1;
	if (res.status == 404) return 0;
	if (!is_ok(&res)) return object_status(&c, &res, e);
	if (o->kind->touch && age_ns(&res) > o->touch_ns && o->kind->touch(p, key, e) < 0)
		return err_wrap(e, "failed to touch file");
	return 1;
}

int object_put(struct remote_place *p, const struct cache_blob *b, struct err *e)
{
	_cleanup_free_ char *key = blob_key(p->own, b->digest);
	struct stat st;
	if (!b->diff_id) return err_set(e, CODE_INTERNAL, "layer %s has no diff ID", b->digest);
	int there = object_have(p, b, e);
	if (there) return there < 0 ? -1 : 0;
	_cleanup_close_ int fd = blob_open(p->blobs, b->digest, e);
	if (fd < 0) return -1;
	if (fstat(fd, &st) < 0 || st.st_size != b->size)
		return err_set(e, CODE_DATA_LOSS, "blob %s has not its size", b->digest);
	void *bytes = mmap(NULL, (size_t)max_of(st.st_size, (off_t)1), PROT_READ, MAP_PRIVATE, fd, 0);
	if (bytes == MAP_FAILED) return err_set(e, CODE_INTERNAL, "blob %s cannot be mapped", b->digest);
	int r = put_bytes(p, key, bytes, (size_t)st.st_size, b->digest + strlen("sha256:"), e);
	munmap(bytes, (size_t)max_of(st.st_size, (off_t)1));
	return r;
}

int object_finish(struct remote_place *p, struct cache_graph *g, struct strvec *response, struct err *e)
{
	const struct object_place *o = p->own;
	_cleanup_buf_ struct buf doc = BUF_INIT;
	size_t *blobs, n;
	cache_config_write(g, true, &doc, &blobs, &n);
	free(blobs);
	if (begin(p, e) < 0) return -1;
	for (size_t i = 0; i < o->names.n; i++) {
		_cleanup_free_ char *key = join(o, o->manifests, o->names.v[i]);
		if (put_bytes(p, key, doc.p, doc.n, NULL, e) < 0)
			return err_wrap(e, "error writing manifest: %s", o->names.v[i]);
	}
	return 0;
}
