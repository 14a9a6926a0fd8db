/* A cache in S3 and what speaks its protocol: Signature Version 4.
 * Source: AWS "Authenticating Requests (AWS Signature Version 4)"; BuildKit cache/remotecache/s3. */
#include "remote/object.h"

#include <stdio.h>
#include <string.h>

static const char empty_sha256[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* "name:value" of what is signed, in order; and the names. */
static void signed_headers(const struct strvec *headers, const char *host, struct buf *lines, struct buf *names)
{
	_cleanup_strvec_ struct strvec v = {0};
	strvec_addf(&v, "host:%s", host);
	for (size_t i = 0; i < headers->n; i++) {
		const char *colon = strchr(headers->v[i], ':');
		if (!str_starts(headers->v[i], "x-amz-")) continue;
		strvec_addf(&v, "%.*s:%s", (int)(colon - headers->v[i]), headers->v[i], colon + 2);
	}
	qsort(v.v, v.n, sizeof *v.v, by_name);
	for (size_t i = 0; i < v.n; i++) {
		buf_addf(lines, "%s\n", v.v[i]);
		buf_addf(names, "%s%.*s", i ? ";" : "", (int)(strchr(v.v[i], ':') - v.v[i]), v.v[i]);
	}
}

static void signature(const struct object_place *o, const char *day, const char *text, char out[static 65])
{
	uint8_t k[32], next[32];
	_cleanup_free_ char *first = xasprintf("AWS4%s", o->secret);
	object_hmac(first, strlen(first), day, strlen(day), k);
	const char *steps[] = {o->region, "s3", "aws4_request", text};
	for (size_t i = 0; i < array_len(steps); i++) {
		object_hmac(k, sizeof k, steps[i], strlen(steps[i]), next);
		memcpy(k, next, sizeof k);
	}
	hex_encode(k, sizeof k, out);
}

static void sign(const struct object_place *o, const struct object_call *c, const char *path, const char *body,
		 struct strvec *headers)
{
	char stamp[32], day[16], hex[65], mac[65];
	time_t now = time_now().tv_sec;
	struct tm tm;
	gmtime_r(&now, &tm);
	strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &tm);
	strftime(day, sizeof day, "%Y%m%d", &tm);
	strvec_addf(headers, "x-amz-date: %s", stamp);
	if (o->token) strvec_addf(headers, "x-amz-security-token: %s", o->token);
	_cleanup_buf_ struct buf lines = BUF_INIT, names = BUF_INIT;
	signed_headers(headers, o->host, &lines, &names);
	_cleanup_free_ char *request = xasprintf("%s\n%s\n%s\n%s\n%s\n%s", c->method, path, c->query ? c->query : "",
						 buf_str(&lines), buf_str(&names), body);
	struct digest d = digest_of(request, strlen(request));
	digest_hex(&d, hex);
	_cleanup_free_ char *scope = xasprintf("%s/%s/s3/aws4_request", day, o->region);
	_cleanup_free_ char *text = xasprintf("AWS4-HMAC-SHA256\n%s\n%s\n%s", stamp, scope, hex);
	signature(o, day, text, mac);
	strvec_addf(headers, "Authorization: AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s", o->account,
		    scope, buf_str(&names), mac);
}

static int prepare(struct remote_place *p, const struct object_call *c, char **ret_url, struct strvec *ret_headers,
		   struct err *e)
{
	const struct object_place *o = p->own;
	_cleanup_free_ char *key = object_escape(c->key), *path = xasprintf("%s/%s", o->path_prefix, key);
	const char *body = c->body && *c->body_digest ? c->body_digest : empty_sha256;
	*ret_url = xasprintf("%s/%s%s%s", o->base, key, c->query ? "?" : "", c->query ? c->query : "");
	if (c->headers) strvec_copy(ret_headers, c->headers->v, c->headers->n);
	strvec_addf(ret_headers, "x-amz-content-sha256: %s", body);
	if (c->body) strvec_add(ret_headers, "Content-Type: application/octet-stream");
	if (o->account) sign(o, c, path, body, ret_headers);
	return 0;
}

static int touch(struct remote_place *p, const char *key, struct err *e)
{
	const struct object_place *o = p->own;
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_strvec_ struct strvec headers = {0};
	_cleanup_free_ char *from = object_escape(key);
	char now[TIME_STR];
	time_rfc3339nano(time_now(), now);
	strvec_addf(&headers, "x-amz-copy-source: %s/%s", o->bucket, from);
	strvec_add(&headers, "x-amz-metadata-directive: REPLACE");
	strvec_addf(&headers, "x-amz-meta-updated-at: %s", now);
	struct object_call c = {.method = "PUT", .key = key, .headers = &headers, .body = "", .n = 0};
	if (object_do(p, &c, &res, e) < 0) return -1;
	return res.status >= 200 && res.status <= 299 ? 0 : object_status(&c, &res, e);
}

static const struct object_kind s3 = {.separator = "", .prepare = prepare, .touch = touch};

static const char *attr_env(const struct remote_place *p, const char *attr, const char *env)
{
	const char *v = remote_attr(p, attr);
	return v ? v : getenv(env);
}

static int find_base(const struct remote_place *p, struct object_place *o, struct err *e)
{
	const char *endpoint = remote_attr(p, "endpoint_url"), *style = remote_attr(p, "use_path_style");
	bool by_path = false;
	if (style) str_bool(style, &by_path);
	_cleanup_free_ char *url = NULL;
	if (str_empty(endpoint)) {
		url = xasprintf("https://%s.s3.%s.amazonaws.com", o->bucket, o->region);
	} else if (by_path) {
		size_t n = strlen(endpoint);
		url = xasprintf("%s%s%s", endpoint, n && endpoint[n - 1] == '/' ? "" : "/", o->bucket);
	} else {
		const char *at = strstr(endpoint, "://");
		if (!at) return err_set(e, CODE_INVALID_ARGUMENT, "endpoint_url \"%s\" is not an http or https URL", endpoint);
		url = xasprintf("%.*s://%s.%s", (int)(at - endpoint), endpoint, o->bucket, at + 3);
	}
	return object_set_base(o, url, e);
}

static int positive(const struct remote_place *p, const char *key, unsigned *ret, struct err *e)
{
	const char *v = remote_attr(p, key);
	char *end;
	if (!v) return 0;
	long n = strtol(v, &end, 10);
	if (!*v || *end || n < 1 || n > 1000) return err_set(e, CODE_UNKNOWN, "%s must be a positive integer", key);
	*ret = (unsigned)n;
	return 0;
}

static int init(struct remote_place *p, bool import, struct err *e)
{
	const char *bucket = attr_env(p, "bucket", "AWS_BUCKET"), *region = attr_env(p, "region", "AWS_REGION"),
		   *mode = remote_attr(p, "retry_mode");
	const char *refresh = remote_attr(p, "touch_refresh"), *id = remote_attr(p, "access_key_id"),
		   *secret = remote_attr(p, "secret_access_key");
	unsigned parallel;
	if (!bucket) return err_set(e, CODE_UNKNOWN, "bucket ($AWS_BUCKET) not set for s3 cache");
	if (!region) return err_set(e, CODE_UNKNOWN, "region ($AWS_REGION) not set for s3 cache");
	if (mode && strcmp(mode, "standard") && strcmp(mode, "adaptive"))
		return err_set(e, CODE_UNKNOWN, "retry_mode must be \"standard\" or \"adaptive\"");
	struct object_place *o = object_place_new(p, &s3, "manifests/", "blobs/");
	o->bucket = xstrdup(bucket);
	o->region = xstrdup(region);
	o->touch_ns = 24 * 3600 * INT64_C(1000000000);
	if (refresh) duration_parse(refresh, &o->touch_ns, NULL);
	bool given = !str_empty(id) && !str_empty(secret);
	if (!given) {
		id = getenv("AWS_ACCESS_KEY_ID");
		secret = getenv("AWS_SECRET_ACCESS_KEY");
	}
	const char *token = given ? remote_attr(p, "session_token") : getenv("AWS_SESSION_TOKEN");
	if (!str_empty(id) && !str_empty(secret)) {
		o->account = xstrdup(id);
		o->secret = xstrdup(secret);
		if (!str_empty(token)) o->token = xstrdup(token);
	}
	if (positive(p, "upload_parallelism", &parallel, e) < 0 || positive(p, "retry_max_attempts", &o->attempts, e) < 0)
		return -1;
	return find_base(p, o, e);
}

const struct remote_kind remote_s3 = {.type = "s3",
				      .vertex = "exporting cache to Amazon S3",
				      .init = init,
				      .read = object_read,
				      .have = object_have,
				      .fetch = object_fetch,
				      .put = object_put,
				      .finish = object_finish,
				      .fini = object_place_fini};
