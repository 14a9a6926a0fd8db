/* To the registry: blobs and manifests. Blocks. Only the origin is pushed to, never a mirror.
 *
 *  1. Nothing is sent that the registry says it has: HEAD first, then a mount from another repository where one is known.
 *  2. A blob is sent in one PUT to the place that POST named; where that is another origin, without authorization.
 *  3. A broken or refused (5xx) attempt begins again at HEAD, after a pause.
 * Source: containerd core/remotes/docker/pusher.go; OCI distribution-spec, "Push"; reference 06 §5. */
#include "reg/internal.h"
#include <errno.h>
#include <string.h>

struct push {
	const struct reg_desc *desc;
	const struct reg_body *body;
	const char *mount_from;
	const char *object; /* of a manifest: tag or digest */
	enum reg_pushed result;
};

static bool is_ok(const struct reg_http_res *r) { return r->status >= 200 && r->status <= 299; }

static int denied(struct reg_fail *f, struct err *e)
{
	return f->kind == FAIL_AUTH ? err_wrap(e, "push access denied, repository does not exist or may require authorization")
				    : -1;
}

/* 1 it has it, 0 not (or we may not look), -1. */
static int exists(struct reg_op *op, const struct reg_host *h, const char *kind, const char *object, struct reg_fail *f,
		  struct err *e)
{
	struct push *s = op->ctx;
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_free_ char *url = reg_host_url(op->io, h, op->ref, kind, object);
	_cleanup_strvec_ struct strvec headers = {0};
	strvec_addf(&headers, "Accept: %s, */*",
		    str_empty(s->desc->media_type) ? "application/octet-stream" : s->desc->media_type);
	struct reg_request rq = {
		.io = op->io, .method = "HEAD", .url = url, .host = h, .scopes = &op->scopes, .headers = &headers};
	if (reg_request(&rq, &res, f, e) < 0) {
		if (f->kind != FAIL_AUTH) return -1;
		if (e) err_fini(e); /* some may push but not look: the push itself will tell */
		return 0;
	}
	if (res.status == 404 || res.status == 405) return 0;
	if (!is_ok(&res)) return reg_status_err(&rq, &res, f, e);
	const char *digest = reg_http_header(&res, "docker-content-digest");
	return str_eq(object, s->desc->digest) || str_eq(digest, s->desc->digest);
}

/* ---- blobs ---- */

/* POST with the repository to mount from. 1: an answer is in ret; 0: it may not be mounted, ask without; -1. */
static int post_mount(struct reg_op *op, struct reg_request *rq, const char *url, struct reg_http_res *ret, struct reg_fail *f,
		      struct err *e)
{
	struct push *s = op->ctx;
	_cleanup_strvec_ struct strvec scopes = {0};
	char *from = curl_easy_escape(NULL, s->mount_from, 0);
	_cleanup_free_ char *full = xasprintf("%s?mount=%s&from=%s", url, s->desc->digest, from ? from : "");
	_cleanup_free_ char *scope = xasprintf("repository:%s:pull", s->mount_from);
	curl_free(from);
	strvec_copy(&scopes, op->scopes.v, op->scopes.n);
	reg_scopes_add(&scopes, scope);
	struct reg_request with = *rq;
	with.url = full;
	with.scopes = &scopes;
	if (reg_request(&with, ret, f, e) < 0) {
		if (f->kind != FAIL_AUTH) return err_wrap(e, "pushing with mount from %s", s->mount_from);
		if (e) err_fini(e);
		return 0;
	}
	if (ret->status != 401 && ret->status != 403 && ret->status != 404) return 1;
	reg_http_res_fini(ret);
	return 0;
}

/* Where to send the blob; NULL: what the registry said is no URL. */
static char *upload_url(const struct reg_http_res *post, const char *digest)
{
	const char *location = reg_http_header(post, "location");
	if (str_empty(location)) return NULL;
	_cleanup_free_ char *absolute = NULL;
	if (*location != '/' && !strstr(location, "://")) { /* "host/path", as some send it */
		absolute = xasprintf("%.*s%s", (int)(strstr(post->url, "://") + 3 - post->url), post->url, location);
		location = absolute;
	}
	_cleanup_free_ char *url = reg_url_join(post->url, location);
	return url ? xasprintf("%s%cdigest=sha256%%3A%s", url, strchr(url, '?') ? '&' : '?', digest + strlen("sha256:")) : NULL;
}

static int put_blob(struct reg_op *op, const struct reg_host *h, const struct reg_http_res *post, struct reg_fail *f,
		    struct err *e)
{
	struct push *s = op->ctx;
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_free_ char *url = upload_url(post, s->desc->digest);
	char *type[] = {(char *)"Content-Type: application/octet-stream"};
	struct strvec headers = {type, 1, 1};
	f->kind = FAIL_NETWORK;
	if (!url)
		return err_set(e, CODE_UNAVAILABLE, "unable to parse location %s",
			       reg_http_header(post, "location") ? reg_http_header(post, "location") : "(none)");
	_cleanup_free_ char *asked = reg_url_origin(post->url), *to = reg_url_origin(url);
	struct reg_request rq = {.io = op->io,
				 .method = "PUT",
				 .url = url,
				 .host = h,
				 .scopes = str_eq(asked, to) ? &op->scopes : NULL,
				 .headers = &headers,
				 .body = s->body,
				 .body_bytes = (uint64_t)s->desc->size};
	if (reg_request(&rq, &res, f, e) < 0) return denied(f, e);
	if (res.status != 200 && res.status != 201 && res.status != 204) return reg_status_err(&rq, &res, f, e);
	s->result = REG_PUSHED;
	return 0;
}

static int blob_host(struct reg_op *op, const struct reg_host *h, struct reg_fail *f, struct err *e)
{
	struct push *s = op->ctx;
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	int r = exists(op, h, "blobs", s->desc->digest, f, e);
	s->result = REG_EXISTED;
	if (r) return r < 0 ? -1 : 0;
	_cleanup_free_ char *url = reg_host_url(op->io, h, op->ref, "blobs", "uploads/");
	struct reg_request rq = {.io = op->io, .method = "POST", .url = url, .host = h, .scopes = &op->scopes};
	r = s->mount_from && !str_eq(s->mount_from, op->ref->path) ? post_mount(op, &rq, url, &res, f, e) : 0;
	if (r < 0) return -1;
	bool mounting = r > 0;
	if (!mounting && reg_request(&rq, &res, f, e) < 0) return denied(f, e);
	if (res.status == 201) {
		s->result = mounting ? REG_MOUNTED : REG_EXISTED;
		return 0;
	}
	if (res.status != 200 && res.status != 202 && res.status != 204) return reg_status_err(&rq, &res, f, e);
	return put_blob(op, h, &res, f, e);
}

int reg_push_blob(struct reg_io *io, const struct spec_ref *ref, const struct reg_desc *d, const struct reg_body *body,
		  const char *mount_from, enum reg_pushed *ret, struct err *e)
{
	struct push s = {.desc = d, .body = body, .mount_from = mount_from};
	_cleanup_reg_op_ struct reg_op op;
	if (reg_op_init(&op, io, ref, true, e) < 0 || reg_digest_check(d->digest, e) < 0) return -1;
	if (d->size < 0) return err_set(e, CODE_INVALID_ARGUMENT, "%s: a blob to push needs a size", d->digest);
	op.ctx = &s;
	op.try_host = blob_host;
	if (reg_op_run(&op, e) < 0) return -1;
	if (ret) *ret = s.result;
	return 0;
}

static ssize_t read_fd(void *ctx, uint64_t offset, void *buf, size_t n, struct err *e)
{
	ssize_t r = pread(*(const int *)ctx, buf, n, (off_t)offset);
	return r < 0 ? err_sys(e, errno, "reading what is to be pushed") : r;
}

struct reg_body reg_body_fd(const int *fd) { return (struct reg_body){read_fd, (void *)fd}; }

/* ---- manifests ---- */

struct bytes {
	const uint8_t *p;
	size_t n;
};

static ssize_t read_bytes(void *ctx, uint64_t offset, void *buf, size_t n, struct err *e)
{
	const struct bytes *b = ctx;
	n = min_of((uint64_t)n, b->n - offset);
	memcpy(buf, b->p + offset, n);
	return (ssize_t)n;
}

static int manifest_host(struct reg_op *op, const struct reg_host *h, struct reg_fail *f, struct err *e)
{
	struct push *s = op->ctx;
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	int r = exists(op, h, "manifests", s->object, f, e);
	s->result = REG_EXISTED;
	if (r) return r < 0 ? -1 : 0;
	_cleanup_free_ char *url = reg_host_url(op->io, h, op->ref, "manifests", s->object);
	_cleanup_strvec_ struct strvec headers = {0};
	strvec_addf(&headers, "Content-Type: %s", s->desc->media_type);
	struct reg_request rq = {.io = op->io,
				 .method = "PUT",
				 .url = url,
				 .host = h,
				 .scopes = &op->scopes,
				 .headers = &headers,
				 .body = s->body,
				 .body_bytes = (uint64_t)s->desc->size};
	if (reg_request(&rq, &res, f, e) < 0) return denied(f, e);
	if (res.status != 200 && res.status != 201 && res.status != 204) return reg_status_err(&rq, &res, f, e);
	s->result = REG_PUSHED;
	return 0;
}

int reg_push_manifest(struct reg_io *io, const struct spec_ref *ref, const char *media_type, const void *p, size_t n,
		      enum reg_pushed *ret, char ret_digest[DIGEST_STR], struct err *e)
{
	char digest[DIGEST_STR];
	struct bytes bytes = {p, n};
	struct reg_body body = {read_bytes, &bytes};
	struct reg_desc d = {digest, (char *)media_type, (int64_t)n};
	struct push s = {.desc = &d, .body = &body, .object = str_empty(ref->tag) ? digest : ref->tag};
	_cleanup_reg_op_ struct reg_op op;
	digest_str_of(p, n, digest);
	if (reg_op_init(&op, io, ref, true, e) < 0) return -1;
	op.ctx = &s;
	op.try_host = manifest_host;
	if (reg_op_run(&op, e) < 0) return -1;
	if (ret) *ret = s.result;
	if (ret_digest) memcpy(ret_digest, digest, DIGEST_STR);
	return 0;
}
