/* To the registry: blobs and manifests. Blocks. Only the origin is pushed to, never a mirror.
 *
 *  1. Nothing is sent that the registry says it has: HEAD first, then a mount from another repository where one is known.
 *  2. A blob is sent in one PUT to the place that POST named; where that is another origin, without authorization. A registry
 *     that will not take it so (413, 405, 501) gets it in pieces by PATCH, closed by an empty PUT.
 *  3. After a broken attempt and a pause the registry is asked how much it kept (GET of the upload), and gets the rest by
 * PATCH; one that does not tell, or has dropped the upload, gets all of it again, beginning at HEAD. Source: containerd
 * core/remotes/docker/pusher.go; OCI distribution-spec, "Push"; reference 06 §5. */
#include "reg/internal.h"
#include <errno.h>
#include <string.h>

struct push {
	const struct reg_desc *desc;
	const struct reg_body *body;
	const char *mount_from;
	const char *object; /* of a manifest: tag or digest */
	enum reg_pushed result;
	char *upload;        /* where a broken attempt was sent to; NULL: none */
	uint64_t chunk;      /* bytes a PATCH; 0: all that is left */
	bool pieces;         /* one PUT is not taken */
	uint64_t kept, told; /* what the registry has; of that, reported as progress */
};
enum { CHUNK_FIRST = 4 << 20, CHUNK_LEAST = 64 << 10 };

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

/* The place that an answer names for what comes next; NULL: it names none that is a URL. */
static char *location_of(const struct reg_http_res *r)
{
	const char *location = reg_http_header(r, "location");
	if (str_empty(location)) return NULL;
	_cleanup_free_ char *absolute = NULL;
	if (*location != '/' && !strstr(location, "://")) { /* "host/path", as some send it */
		absolute = xasprintf("%.*s%s", (int)(strstr(r->url, "://") + 3 - r->url), r->url, location);
		location = absolute;
	}
	return reg_url_join(r->url, location);
}

static char *with_digest(const char *url, const char *digest)
{
	return xasprintf("%s%cdigest=sha256%%3A%s", url, strchr(url, '?') ? '&' : '?', digest + strlen("sha256:"));
}

struct rest {
	const struct reg_body *body;
	uint64_t from;
};

static ssize_t read_rest(void *ctx, uint64_t offset, void *buf, size_t n, struct err *e)
{
	const struct rest *r = ctx;
	return r->body->read(r->body->ctx, r->from + offset, buf, n, e);
}

/* One PUT or PATCH of bytes [from, from + n) to the upload's place. A broken one leaves the place in s->upload. */
static int send_part(struct reg_op *op, const struct reg_host *h, const char *method, const char *url, uint64_t from,
		     uint64_t n, struct reg_http_res *ret, struct reg_fail *f, struct err *e)
{
	struct push *s = op->ctx;
	_cleanup_strvec_ struct strvec headers = {0};
	_cleanup_free_ char *registry = xasprintf("%s://%s", str_starts(url, "https:") ? "https" : "http", h->host);
	_cleanup_free_ char *to = reg_url_origin(url), *own = reg_url_origin(registry);
	struct rest rest = {s->body, from};
	struct reg_body body = {read_rest, &rest};
	strvec_add(&headers, "Content-Type: application/octet-stream");
	if (strcmp(method, "PATCH") == 0)
		strvec_addf(&headers, "Content-Range: %llu-%llu", (unsigned long long)from, (unsigned long long)(from + n - 1));
	struct reg_request rq = {.io = op->io,
				 .method = method,
				 .url = url,
				 .host = h,
				 .kind = REG_LANE_BLOB,
				 .scopes = str_eq(own, to) ? &op->scopes : NULL,
				 .headers = &headers,
				 .body = n ? &body : NULL,
				 .body_bytes = n};
	return reg_request(&rq, ret, f, e) < 0 ? denied(f, e) : 0;
}

static bool was_taken(const struct reg_http_res *r) { return r->status >= 200 && r->status <= 204; }

static int refused(const struct reg_op *op, const char *method, const char *url, const struct reg_http_res *r,
		   struct reg_fail *f, struct err *e)
{
	struct reg_request rq = {.io = op->io, .method = method, .url = url};
	return reg_status_err(&rq, r, f, e);
}

/* The last step of an upload: all that is left in one PUT. 1 taken, 0 it wants pieces, -1. */
static int put_all(struct reg_op *op, const struct reg_host *h, const char *upload, uint64_t from, struct reg_fail *f,
		   struct err *e)
{
	struct push *s = op->ctx;
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_free_ char *url = with_digest(upload, s->desc->digest);
	uint64_t n = (uint64_t)s->desc->size - from;
	if (send_part(op, h, "PUT", url, from, n, &res, f, e) < 0) return -1;
	if (was_taken(&res)) return 1;
	if (n && (res.status == 413 || res.status == 405 || res.status == 501)) return 0;
	return refused(op, "PUT", url, &res, f, e);
}

/* By PATCH from `from` on, in pieces of s->chunk or in one; *upload follows what the registry says. */
static int patch_all(struct reg_op *op, const struct reg_host *h, char **upload, uint64_t from, struct reg_fail *f,
		     struct err *e)
{
	struct push *s = op->ctx;
	uint64_t size = (uint64_t)s->desc->size;
	while (from < size) {
		_cleanup_reg_http_res_ struct reg_http_res res = {0};
		uint64_t n = s->chunk ? min_of(s->chunk, size - from) : size - from;
		if (send_part(op, h, "PATCH", *upload, from, n, &res, f, e) < 0) return -1;
		if (res.status == 413 && n > CHUNK_LEAST) { /* smaller pieces, in the same upload */
			s->chunk = max_of(n > CHUNK_FIRST ? (uint64_t)CHUNK_FIRST : n / 2, (uint64_t)CHUNK_LEAST);
			continue;
		}
		if (!was_taken(&res)) return refused(op, "PATCH", *upload, &res, f, e);
		char *next = location_of(&res);
		if (next) {
			free(*upload);
			*upload = next;
		}
		from += n;
		s->kept = from;
	}
	return 0;
}

static void forget_upload(struct push *s)
{
	free(s->upload);
	s->upload = NULL;
	s->kept = 0;
}

/* Send from `from` on and close the upload. When the connection breaks the place is kept for the next attempt. */
static int send_from(struct reg_op *op, const struct reg_host *h, char *upload /* taken */, uint64_t from, struct reg_fail *f,
		     struct err *e)
{
	struct push *s = op->ctx;
	int r = 0;
	if (from || s->pieces) {
		r = patch_all(op, h, &upload, from, f, e);
		from = (uint64_t)s->desc->size;
	}
	if (r == 0) r = put_all(op, h, upload, from, f, e);
	if (r == 0) { /* in pieces then, in this upload */
		s->pieces = true;
		if (!s->chunk) s->chunk = CHUNK_FIRST;
		r = patch_all(op, h, &upload, 0, f, e);
		if (r == 0) r = put_all(op, h, upload, (uint64_t)s->desc->size, f, e);
	}
	forget_upload(s);
	if (r < 0 && (f->kind == FAIL_BROKEN || f->kind == FAIL_TIMEOUT ||
		      (f->kind == FAIL_STATUS && (f->status >= 500 || f->status == 429))))
		s->upload = take_ptr(upload);
	free(upload);
	if (r > 0) s->result = REG_PUSHED;
	return r > 0 ? 0 : -1;
}

/* Ask how much was kept of a broken upload and go on. 1 done, 0 it is gone, -1. */
static int resume(struct reg_op *op, const struct reg_host *h, struct reg_fail *f, struct err *e)
{
	struct push *s = op->ctx;
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_err_ struct err ignored = ERR_INIT;
	_cleanup_free_ char *upload = take_ptr(s->upload);
	struct reg_request rq = {.io = op->io, .method = "GET", .url = upload, .host = h, .scopes = &op->scopes};
	if (reg_request(&rq, &res, f, &ignored) < 0 || (res.status != 204 && res.status != 202 && res.status != 200)) return 0;
	const char *range = reg_http_header(&res, "range");
	const char *to = range && str_starts(range, "0-")         ? range + 2
			 : range && str_starts(range, "bytes=0-") ? range + 8
								  : NULL;
	if (!to) return 0;
	uint64_t last = strtoull(to, NULL, 10);
	if (!last || last + 1 > (uint64_t)s->desc->size) return 0;
	char *next = location_of(&res);
	s->kept = last + 1;
	return send_from(op, h, next ? next : take_ptr(upload), last + 1, f, e) < 0 ? -1 : 1;
}

static uint64_t push_progressed(struct reg_op *op)
{
	struct push *s = op->ctx;
	uint64_t moved = s->kept > s->told ? s->kept - s->told : 0;
	s->told = max_of(s->told, s->kept);
	return moved;
}

static int put_blob(struct reg_op *op, const struct reg_host *h, const struct reg_http_res *post, struct reg_fail *f,
		    struct err *e)
{
	struct push *s = op->ctx;
	const char *least = reg_http_header(post, "oci-chunk-min-length");
	char *upload = location_of(post);
	f->kind = FAIL_NETWORK;
	if (!upload)
		return err_set(e, CODE_UNAVAILABLE, "unable to parse location %s",
			       reg_http_header(post, "location") ? reg_http_header(post, "location") : "(none)");
	if (least && s->chunk) s->chunk = max_of(s->chunk, (uint64_t)strtoull(least, NULL, 10));
	return send_from(op, h, upload, 0, f, e);
}

static int blob_host(struct reg_op *op, const struct reg_host *h, struct reg_fail *f, struct err *e)
{
	struct push *s = op->ctx;
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	int r = s->upload ? resume(op, h, f, e) : 0;
	if (r) return r < 0 ? -1 : 0;
	r = exists(op, h, "blobs", s->desc->digest, f, e);
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
	op.progressed = push_progressed;
	int r = reg_op_run(&op, e);
	forget_upload(&s);
	if (r < 0) return -1;
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
