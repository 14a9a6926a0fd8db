/* A cache in GitHub Actions' cache service (version 2 of its protocol; version 1 was switched off in 2025).
 *
 *  1. Entries never change. A layer is the entry "buildkit-blob-1-<digest>"; the document is "index-<scope>-1-<hash of the
 *     token's scope>#<number>", the highest number counts.
 *  2. The service is asked by JSON (twirp); bytes go to and come from URLs that it signs.
 * Sources: BuildKit cache/remotecache/gha; tonistiigi/go-actions-cache (the protocol). */
#include "remote/place.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#define _cleanup_json_ _cleanup_(json_decrefp)
enum { ANSWER_MAX = 32 << 10, SCOPES_MAX = 16, PERMISSION_WRITE = 2, BLOCKED_TRIES = 8, INDEX_TRIES = 50 };
struct gha {
	char *scope, *url, *token;
	struct strvec scopes; /* that the token may read */
	char *write_scope;
};

static void fini(struct remote_place *p)
{
	struct gha *g = take_ptr(p->own);
	if (!g) return;
	free(g->scope);
	free(g->url);
	free(g->token);
	free(g->write_scope);
	strvec_fini(&g->scopes);
	free(g);
}

/* ---- the token: a JWT whose claims say which scopes it may use; its signature is the service's business ---- */

static int read_scopes(struct gha *g, const char *text, struct err *e)
{
	_cleanup_json_ json_t *list = json_loads(text, 0, NULL);
	if (!json_is_array(list)) return err_set(e, CODE_UNKNOWN, "failed to parse token access controls");
	for (size_t i = 0; i < min_of(json_array_size(list), (size_t)SCOPES_MAX); i++) {
		const json_t *s = json_array_get(list, i);
		const char *name = json_string_value(json_object_get(s, "Scope"));
		if (!name) continue;
		strvec_add(&g->scopes, name);
		if (!(json_integer_value(json_object_get(s, "Permission")) & PERMISSION_WRITE)) continue;
		free(g->write_scope);
		g->write_scope = xstrdup(name);
	}
	return 0;
}

static int read_token(struct gha *g, struct err *e)
{
	_cleanup_buf_ struct buf claims = BUF_MAX(64 << 10);
	const char *dot = strchr(g->token, '.'), *end = dot ? strchr(dot + 1, '.') : NULL;
	if (!end || base64_decode(dot + 1, (size_t)(end - dot - 1), &claims, NULL) < 0)
		return err_set(e, CODE_UNKNOWN, "the github actions cache's token is no JWT");
	_cleanup_json_ json_t *j = json_loadb((const char *)claims.p, claims.n, 0, NULL);
	const char *ac = json_string_value(json_object_get(j, "ac"));
	const json_t *expires = json_object_get(j, "exp");
	if (!ac) return err_set(e, CODE_UNKNOWN, "invalid token without access controls");
	if (!json_is_number(expires)) return err_set(e, CODE_UNKNOWN, "invalid token without expiration time");
	if (json_number_value(expires) < (double)time_now().tv_sec) return err_set(e, CODE_UNKNOWN, "cache token expired");
	return read_scopes(g, ac, e);
}

static int init(struct remote_place *p, bool import, struct err *e)
{
	const char *token = remote_attr(p, "token"), *url = remote_attr(p, "url_v2"), *version = remote_attr(p, "version"),
		   *scope = remote_attr(p, "scope");
	if (!token) return err_set(e, CODE_UNKNOWN, "token not set for github actions cache");
	if (str_eq(version, "1"))
		return err_set(e, CODE_UNIMPLEMENTED,
			       "github actions cache: version 1 of the service is not supported, GitHub has switched it off");
	if (str_empty(url)) url = remote_attr(p, "url");
	if (str_empty(url)) return err_set(e, CODE_UNKNOWN, "url not set for github actions cache");
	struct gha *g = p->own = xnew(struct gha);
	size_t n = strlen(url);
	while (n && url[n - 1] == '/') n--;
	g->url = xstrndup(url, n);
	g->token = xstrdup(token);
	g->scope = xstrdup(scope ? scope : "buildkit");
	return read_token(g, e);
}

/* ---- calls ---- */

static int to_buf(void *ctx, const void *p, size_t n, struct err *e)
{
	return buf_add(ctx, p, n) < 0 ? err_set(e, CODE_RESOURCE_EXHAUSTED, "github actions cache: the answer is too large")
				      : 0;
}

static int pause_for(struct remote_place *p, int64_t ms, struct err *e)
{
	for (; ms > 0; ms -= 100) {
		if (atomic_load(&p->cancelled)) return err_set(e, CODE_CANCELLED, "context canceled");
		nanosleep(&(struct timespec){0, 100000000}, NULL);
	}
	return 0;
}

/* One request, again where it may pass. Any other status is an answer. */
static int http(struct remote_place *p, const struct reg_http_req *rq, struct reg_http_res *ret, struct err *e)
{
	for (int i = 1;; i++) {
		_cleanup_err_ struct err why = ERR_INIT;
		int r = reg_http_do(&p->io, rq, ret, &why);
		bool again =
			r < 0 ? why.code != CODE_CANCELLED && why.code != CODE_DATA_LOSS && why.code != CODE_RESOURCE_EXHAUSTED
			      : ret->status >= 500 || ret->status == 429;
		if (r >= 0 && !again) return 0;
		if (i >= 4)
			return r < 0 ? err_move(e, &why)
				     : err_set(e, CODE_UNAVAILABLE, "github actions cache: %s", ret->reason);
		if (r < 0 && !again) return err_move(e, &why);
		reg_http_res_fini(ret);
		*ret = (struct reg_http_res){0};
		if (rq->sink && rq->sink->rewind && rq->sink->rewind(rq->sink->ctx, e) < 0) return -1;
		if (pause_for(p, 250 << i, e) < 0) return -1;
	}
}

static int rewind_text(void *ctx, struct err *e)
{
	buf_reset(ctx);
	return 0;
}

/* 1: *ret is the answer; 0: refused (not there, or there already). */
static int ask(struct remote_place *p, const char *method, const struct buf *body, json_t **ret, struct err *e)
{
	const struct gha *g = p->own;
	_cleanup_buf_ struct buf answer = BUF_MAX(ANSWER_MAX);
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_strvec_ struct strvec headers = {0};
	_cleanup_free_ char *url = xasprintf("%s/twirp/github.actions.results.api.v1.CacheService/%s", g->url, method);
	struct reg_sink sink = {to_buf, rewind_text, &answer};
	strvec_addf(&headers, "Authorization: Bearer %s", g->token);
	strvec_add(&headers, "Content-Type: application/json");
	struct reg_http_req rq = {.method = "POST",
				  .url = url,
				  .headers = &headers,
				  .body = body->p,
				  .body_bytes = body->n,
				  .sink = &sink,
				  .max_bytes = ANSWER_MAX};
	if (http(p, &rq, &res, e) < 0) return -1;
	if (res.status == 404 || res.status == 409) return 0;
	if (res.status != 200) return err_set(e, CODE_UNKNOWN, "github actions cache: %s: %s", method, res.reason);
	*ret = json_loadb((const char *)answer.p, answer.n, 0, NULL);
	if (!json_is_object(*ret)) {
		json_decref(*ret);
		return err_set(e, CODE_UNKNOWN, "github actions cache: %s: the answer is no JSON object", method);
	}
	if (json_is_true(json_object_get(*ret, "ok"))) return 1;
	json_decref(*ret);
	return 0;
}

static void entry_version(char out[static 65])
{
	static const char salt[] = "|go-actionscache-1.0"; /* what BuildKit's entries have */
	struct digest d = digest_of(salt, sizeof salt - 1);
	digest_hex(&d, out);
}

static void begin_body(struct json_w *w, const char *key)
{
	char version[65];
	entry_version(version);
	json_obj(w);
	json_kstr(w, "key", key);
	json_kstr(w, "version", version);
}

/* An entry whose key is this or begins so: 1, 0 none. */
static int find(struct remote_place *p, const char *key, char **ret_url, char **ret_key, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct json_w w = JSON_W(&b);
	json_t *answer;
	begin_body(&w, key);
	json_key(&w, "restore_keys");
	json_arr(&w);
	json_str(&w, key);
	json_arr_end(&w);
	json_obj_end(&w);
	int r = ask(p, "GetCacheEntryDownloadURL", &b, &answer, e);
	if (r <= 0) return r;
	const char *url = json_string_value(json_object_get(answer, "signed_download_url")),
		   *matched = json_string_value(json_object_get(answer, "matched_key"));
	if (ret_url) *ret_url = xstrdup(url ? url : "");
	if (ret_key) *ret_key = xstrdup(matched ? matched : "");
	json_decref(answer);
	return 1;
}

static int download(struct remote_place *p, const char *url, const struct reg_sink *sink, uint64_t max, struct err *e)
{
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	struct reg_http_req rq = {.url = url, .sink = sink, .max_bytes = max};
	if (http(p, &rq, &res, e) < 0) return -1;
	if (res.status == 200) return 0;
	return err_set(e, res.status == 404 ? CODE_NOT_FOUND : CODE_UNKNOWN, "github actions cache: download: %s", res.reason);
}

static int upload(struct remote_place *p, const char *url, const void *bytes, size_t n, struct err *e)
{
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_strvec_ struct strvec headers = {0};
	strvec_add(&headers, "x-ms-blob-type: BlockBlob");
	strvec_add(&headers, "Content-Type: application/octet-stream");
	struct reg_http_req rq = {.method = "PUT", .url = url, .headers = &headers, .body = n ? bytes : "", .body_bytes = n};
	if (http(p, &rq, &res, e) < 0) return -1;
	return res.status >= 200 && res.status <= 299
		       ? 0
		       : err_set(e, CODE_UNKNOWN, "github actions cache: upload: %s", res.reason);
}

/* 1: made; 0: the key is taken. */
static int save(struct remote_place *p, const char *key, const void *bytes, size_t n, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT, c = BUF_INIT;
	struct json_w w = JSON_W(&b), v = JSON_W(&c);
	json_t *answer;
	begin_body(&w, key);
	json_obj_end(&w);
	int r = ask(p, "CreateCacheEntry", &b, &answer, e);
	if (r <= 0) return r;
	const char *url = json_string_value(json_object_get(answer, "signed_upload_url"));
	r = upload(p, url ? url : "", bytes, n, e);
	json_decref(answer);
	if (r < 0) return -1;
	begin_body(&v, key);
	json_kint(&v, "size_bytes", (int64_t)n);
	json_obj_end(&v);
	r = ask(p, "FinalizeCacheEntryUpload", &c, &answer, e);
	if (r == 0) return err_set(e, CODE_UNKNOWN, "github actions cache: the entry %s could not be finished", key);
	if (r > 0) json_decref(answer);
	return r;
}

/* ---- layers ---- */

static char *blob_key(const char *digest) { return xasprintf("buildkit-blob-1-%s", digest); }

static int have(struct remote_place *p, const struct cache_blob *b, struct err *e)
{
	_cleanup_free_ char *key = blob_key(b->digest), *matched = NULL;
	int r = find(p, key, NULL, &matched, e);
	return r > 0 ? !strcmp(matched, key) : r;
}

static int sink_ingest(void *ctx, const void *p, size_t n, struct err *e) { return blob_ingest_write(ctx, p, n, e); }
static int rewind_ingest(void *ctx, struct err *e) { return blob_ingest_reset(ctx, e); }

static int fetch(struct remote_place *p, const struct cache_blob *b, struct blob_ingest *to, struct err *e)
{
	_cleanup_free_ char *key = blob_key(b->digest), *url = NULL;
	int r = find(p, key, &url, NULL, e);
	if (r == 0) return err_set(e, CODE_NOT_FOUND, "%s: not found", key);
	struct reg_sink sink = {sink_ingest, rewind_ingest, to};
	return r < 0 ? -1 : download(p, url, &sink, 0, e);
}

static int put(struct remote_place *p, const struct cache_blob *b, struct err *e)
{
	_cleanup_free_ char *key = blob_key(b->digest);
	struct stat st;
	int there = have(p, b, e);
	if (there) return there < 0 ? -1 : 0;
	_cleanup_close_ int fd = blob_open(p->blobs, b->digest, e);
	if (fd < 0) return -1;
	if (fstat(fd, &st) < 0 || st.st_size != b->size)
		return err_set(e, CODE_DATA_LOSS, "blob %s has not its size", b->digest);
	size_t mapped = (size_t)max_of(st.st_size, (off_t)1);
	void *bytes = mmap(NULL, mapped, PROT_READ, MAP_PRIVATE, fd, 0);
	if (bytes == MAP_FAILED) return err_set(e, CODE_INTERNAL, "blob %s cannot be mapped", b->digest);
	int r = save(p, key, bytes, (size_t)st.st_size, e);
	munmap(bytes, mapped);
	return r < 0 ? -1 : 0; /* taken: another one has just made it */
}

/* ---- the document ---- */

static char *index_key(const struct gha *g, const char *scope)
{
	char hex[65];
	struct digest d = digest_of(scope, strlen(scope));
	digest_hex(&d, hex);
	return xasprintf("index-%s-1-%.8s", g->scope, hex);
}

static int read_cache(struct remote_place *p, struct cache_graph *graph, struct err *e)
{
	const struct gha *g = p->own;
	for (size_t i = 0; i < g->scopes.n; i++) {
		_cleanup_free_ char *key = index_key(g, g->scopes.v[i]), *url = NULL;
		_cleanup_buf_ struct buf b = BUF_MAX(CACHE_CONFIG_MAX);
		struct reg_sink sink = {to_buf, rewind_text, &b};
		int r = find(p, key, &url, NULL, e);
		if (r < 0) return -1;
		if (r == 0) continue;
		if (download(p, url, &sink, CACHE_CONFIG_MAX, e) < 0 || cache_config_parse(b.p, b.n, NULL, graph, e) < 0)
			return -1;
	}
	return 0;
}

static long number_of(const char *key)
{
	const char *hash = strrchr(key, '#');
	return hash ? strtol(hash + 1, NULL, 10) : 0;
}

static int finish(struct remote_place *p, struct cache_graph *graph, struct strvec *response, struct err *e)
{
	const struct gha *g = p->own;
	_cleanup_buf_ struct buf doc = BUF_INIT;
	size_t *blobs, n;
	cache_config_write(graph, true, &doc, &blobs, &n);
	free(blobs);
	_cleanup_free_ char *base = index_key(g, g->write_scope ? g->write_scope : ""), *prefix = xasprintf("%s#", base),
			    *newest = NULL;
	int r = find(p, prefix, NULL, &newest, e);
	if (r < 0) return -1;
	long at = r > 0 ? number_of(newest) : 0;
	for (int i = 0; i < INDEX_TRIES; i++) { /* a number that is taken: someone is writing, or was killed while writing */
		_cleanup_free_ char *key = xasprintf("%s%ld", prefix, ++at);
		r = save(p, key, doc.p, doc.n, e);
		if (r) return r < 0 ? -1 : 0;
		if (i < BLOCKED_TRIES && pause_for(p, 500, e) < 0) return -1;
	}
	return err_set(e, CODE_UNAVAILABLE, "github actions cache: no free index for %s", base);
}

const struct remote_kind remote_gha = {.type = "gha",
				       .vertex = "exporting to GitHub Actions Cache",
				       .init = init,
				       .read = read_cache,
				       .have = have,
				       .fetch = fetch,
				       .put = put,
				       .finish = finish,
				       .fini = fini};
