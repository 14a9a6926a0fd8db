/* A cache in Azure Blob Storage, with the account's shared key.
 * Source: Azure "Authorize with Shared Key"; BuildKit cache/remotecache/azblob. */
#include "remote/object.h"

#include <stdio.h>
#include <string.h>

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void own_headers(const struct strvec *headers, struct buf *out)
{
	_cleanup_strvec_ struct strvec v = {0};
	for (size_t i = 0; i < headers->n; i++) {
		const char *colon = strchr(headers->v[i], ':');
		if (str_starts(headers->v[i], "x-ms-"))
			strvec_addf(&v, "%.*s:%s", (int)(colon - headers->v[i]), headers->v[i], colon + 2);
	}
	qsort(v.v, v.n, sizeof *v.v, by_name);
	for (size_t i = 0; i < v.n; i++) buf_addf(out, "%s\n", v.v[i]);
}

static int sign(const struct object_place *o, const struct object_call *c, const char *path, struct strvec *headers,
		struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT, key = BUF_INIT, mac = BUF_INIT;
	uint8_t sum[32];
	if (base64_decode(o->secret, strlen(o->secret), &key, NULL) < 0)
		return err_set(e, CODE_INVALID_ARGUMENT, "secret_access_key of azblob cache is not base64");
	buf_addf(&text, "%s\n\n\n", c->method);
	if (c->n) buf_addf(&text, "%zu", c->n);
	buf_addf(&text, "\n\n%s\n\n\n\n\n\n\n", c->body ? "application/octet-stream" : "");
	own_headers(headers, &text);
	buf_addf(&text, "/%s%s", o->account, path);
	if (c->query) { /* one parameter at most */
		const char *eq = strchr(c->query, '=');
		buf_addf(&text, "\n%.*s:%s", (int)(eq - c->query), c->query, eq + 1);
	}
	object_hmac(key.p, key.n, text.p, text.n, sum);
	base64_encode(&mac, sum, sizeof sum);
	strvec_addf(headers, "Authorization: SharedKey %s:%s", o->account, buf_str(&mac));
	return 0;
}

static int prepare(struct remote_place *p, const struct object_call *c, char **ret_url, struct strvec *ret_headers,
		   struct err *e)
{
	const struct object_place *o = p->own;
	char date[40];
	time_t now = time_now().tv_sec;
	struct tm tm;
	gmtime_r(&now, &tm);
	strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
	_cleanup_free_ char *key = object_escape(c->key), *path = xasprintf("%s%s%s", o->path_prefix, *key ? "/" : "", key);
	*ret_url = xasprintf("%s%s%s%s%s", o->base, *key ? "/" : "", key, c->query ? "?" : "", c->query ? c->query : "");
	if (c->headers) strvec_copy(ret_headers, c->headers->v, c->headers->n);
	strvec_addf(ret_headers, "x-ms-date: %s", date);
	strvec_add(ret_headers, "x-ms-version: 2021-12-02");
	if (c->body) strvec_add(ret_headers, "Content-Type: application/octet-stream");
	if (c->body && *key) strvec_add(ret_headers, "x-ms-blob-type: BlockBlob");
	return o->secret ? sign(o, c, path, ret_headers, e) : 0;
}

static int ensure_container(struct remote_place *p, struct err *e)
{
	_cleanup_reg_http_res_ struct reg_http_res res = {0}, made = {0};
	struct object_call look = {.method = "GET", .key = "", .query = "restype=container"};
	struct object_call make = {.method = "PUT", .key = "", .query = "restype=container", .body = "", .n = 0};
	if (object_do(p, &look, &res, e) < 0) return -1;
	if (res.status >= 200 && res.status <= 299) return 0;
	if (res.status != 404) {
		object_status(&look, &res, e);
		return err_wrap(e, "failed to get properties of cache container %s", ((struct object_place *)p->own)->bucket);
	}
	if (object_do(p, &make, &made, e) < 0) return -1;
	if ((made.status >= 200 && made.status <= 299) || made.status == 409) return 0; /* 409: another one made it */
	object_status(&make, &made, e);
	return err_wrap(e, "failed to create cache container %s", ((struct object_place *)p->own)->bucket);
}

static const struct object_kind azblob = {.separator = "/", .prepare = prepare, .begin = ensure_container};

static char *attr_env(const struct remote_place *p, const char *attr, const char *env, const char *otherwise)
{
	const char *v = remote_attr(p, attr);
	if (!v) v = getenv(env);
	return xstrdup(v ? v : otherwise);
}

static int init(struct remote_place *p, bool import, struct err *e)
{
	_cleanup_free_ char *url = attr_env(p, "account_url", "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL", NULL);
	if (!url)
		return err_set(e, CODE_UNKNOWN,
			       "failed to create azblob config: either ${BUILDKIT_AZURE_STORAGE_ACCOUNT_URL} or account_url "
			       "attribute is "
			       "required for azblob cache");
	struct object_place *o = object_place_new(p, &azblob, "manifests", "blobs");
	const char *secret = remote_attr(p, "secret_access_key"), *prefix = getenv("BUILDKIT_AZURE_STORAGE_PREFIX");
	o->bucket = attr_env(p, "container", "BUILDKIT_AZURE_STORAGE_CONTAINER", "buildkit-cache");
	o->account = attr_env(p, "account_name", "BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME", NULL);
	if (!remote_attr(p, "prefix") && prefix) {
		free(o->prefix);
		o->prefix = xstrdup(prefix);
	}
	if (str_empty(secret))
		return err_set(e, CODE_UNIMPLEMENTED,
			       "azblob cache needs secret_access_key: other ways to authorize are not supported");
	o->secret = xstrdup(secret);
	size_t n = strlen(url);
	_cleanup_free_ char *full = xasprintf("%s%s%s", url, n && url[n - 1] == '/' ? "" : "/", o->bucket);
	if (object_set_base(o, full, e) < 0) return -1;
	if (!o->account) o->account = xstrndup(o->host, strcspn(o->host, ".:"));
	return 0;
}

const struct remote_kind remote_azblob = {.type = "azblob",
					  .vertex = "exporting cache to Azure Blob Storage",
					  .init = init,
					  .read = object_read,
					  .have = object_have,
					  .fetch = object_fetch,
					  .put = object_put,
					  .finish = object_finish,
					  .fini = object_place_fini};
