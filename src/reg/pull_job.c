/* From the registry: names to digests, manifests, blobs. Blocks.
 *
 *  1. What arrives is compared with its descriptor (size, digest) before it counts; a resolved name's digest is the one thing
 *     that a registry is believed.
 *  2. A blob goes to its sink in order and once; after a broken transfer the rest is asked for by Range, from the same host
 *     or the next. Only wrong bytes make the sink start again, and only if it can (rewind).
 * Source: containerd core/remotes/docker/{resolver,fetcher,httpreadseeker}.go; OCI distribution-spec, "Pull". */
#include "reg/internal.h"
#include "spec/media.h"
#include <string.h>

#define ACCEPT_MANIFESTS \
	"Accept: " SPEC_DOCKER_MANIFEST ", " SPEC_DOCKER_INDEX ", " SPEC_OCI_MANIFEST ", " SPEC_OCI_INDEX ", */*"

void reg_desc_fini(struct reg_desc *d)
{
	free(d->digest);
	free(d->media_type);
	*d = (struct reg_desc){0};
}

static int to_buf(void *ctx, const void *p, size_t n, struct err *e)
{
	struct buf *b = ctx;
	return buf_add(b, p, n) < 0 ? err_set(e, CODE_RESOURCE_EXHAUSTED, "more than %zu bytes were sent", b->max) : 0;
}

struct reg_sink reg_sink_buf(struct buf *b) { return (struct reg_sink){.write = to_buf, .ctx = b}; }

static char *media_type_of(const struct reg_http_res *r)
{
	const char *v = reg_http_header(r, "content-type");
	size_t n = v ? strcspn(v, "; \t") : 0;
	return xstrndup(v ? v : "", n);
}

static bool is_ok(const struct reg_http_res *r) { return r->status >= 200 && r->status <= 299; }

static int not_found_at(const struct reg_http_res *r, struct reg_fail *f, struct err *e)
{
	_cleanup_free_ char *url = reg_url_show(r->url);
	*f = (struct reg_fail){.kind = FAIL_STATUS, .status = 404};
	return err_set(e, CODE_NOT_FOUND, "content at %s not found: not found", url);
}

/* ---- resolve ---- */

struct resolve {
	const char *kind; /* "manifests", "blobs" */
	const char *name; /* as the user has it, for the error */
	struct reg_desc desc;
	struct buf body;
};

static int denied(struct reg_fail *f, struct err *e)
{
	return f->kind == FAIL_AUTH ? err_wrap(e, "pull access denied, repository does not exist or may require authorization")
				    : -1;
}

static int too_large(struct resolve *s, int64_t size, struct reg_fail *f, struct err *e)
{
	f->kind = FAIL_CONTENT;
	return err_set(e, CODE_RESOURCE_EXHAUSTED, "rejecting %lld byte manifest for %s: not found", (long long)size, s->name);
}

static int resolve_status(struct resolve *s, const struct reg_request *rq, const struct reg_http_res *r, struct reg_fail *f,
			  struct err *e)
{
	if (r->status != 404) return reg_status_err(rq, r, f, e);
	*f = (struct reg_fail){.kind = FAIL_STATUS, .status = 404};
	return err_set(e, CODE_NOT_FOUND, "%s: not found", s->name);
}

/* What a HEAD says: 1 it is enough, 0 it is not, -1. */
static int read_head(struct reg_op *op, const struct reg_http_res *r, struct reg_fail *f, struct err *e)
{
	struct resolve *s = op->ctx;
	const char *digest = op->ref->digest ? op->ref->digest : reg_http_header(r, "docker-content-digest");
	if (str_empty(digest) || r->content_length < 0) return 0;
	f->kind = FAIL_CONTENT;
	if (!digest_valid(digest))
		return err_set(e, CODE_INVALID_ARGUMENT, "\"%s\" in header not a valid digest: invalid checksum digest format",
			       digest);
	if (r->content_length > REG_MANIFEST_MAX && str_eq(s->kind, "manifests")) return too_large(s, r->content_length, f, e);
	s->desc = (struct reg_desc){xstrdup(digest), media_type_of(r), r->content_length};
	return 1;
}

static int resolve_get(struct reg_op *op, struct reg_request *rq, struct reg_fail *f, struct err *e)
{
	struct resolve *s = op->ctx;
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	char digest[DIGEST_STR];
	rq->method = "GET";
	rq->on_data = to_buf;
	rq->ctx = &s->body;
	buf_reset(&s->body);
	s->body.overflow = false;
	if (reg_request(rq, &res, f, e) < 0) return s->body.overflow ? too_large(s, REG_MANIFEST_MAX + 1, f, e) : denied(f, e);
	if (!is_ok(&res)) return resolve_status(s, rq, &res, f, e);
	digest_str_of(s->body.p, s->body.n, digest);
	if (op->ref->digest && !str_eq(op->ref->digest, digest)) {
		f->kind = FAIL_CONTENT;
		return err_set(e, CODE_DATA_LOSS, "%s: unexpected digest %s", s->name, digest);
	}
	s->desc = (struct reg_desc){xstrdup(digest), media_type_of(&res), (int64_t)s->body.n};
	return 0;
}

static int resolve_host(struct reg_op *op, const struct reg_host *h, struct reg_fail *f, struct err *e)
{
	struct resolve *s = op->ctx;
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_free_ char *url = reg_host_url(op->io, h, op->ref, s->kind, op->ref->digest ? op->ref->digest : op->ref->tag);
	char *accept[] = {(char *)ACCEPT_MANIFESTS};
	struct strvec headers = {accept, 1, 1};
	struct reg_request rq = {
		.io = op->io, .method = "HEAD", .url = url, .host = h, .scopes = &op->scopes, .headers = &headers};
	if (reg_request(&rq, &res, f, e) < 0) return denied(f, e);
	if (is_ok(&res)) {
		int r = read_head(op, &res, f, e);
		if (r) return r;
	} else if (res.status != 405 && res.status != 501) {
		return resolve_status(s, &rq, &res, f, e);
	}
	if (str_eq(s->kind, "blobs")) return resolve_status(s, &rq, &res, f, e);
	rq.decode = true;
	return resolve_get(op, &rq, f, e);
}

int reg_resolve(struct reg_io *io, const struct spec_ref *ref, struct reg_desc *ret, struct buf *ret_body, struct err *e)
{
	_cleanup_free_ char *name = spec_ref_format(ref);
	struct resolve s = {.kind = "manifests", .name = name, .body = BUF_MAX(REG_MANIFEST_MAX)};
	_cleanup_reg_op_ struct reg_op op;
	if (reg_op_init(&op, io, ref, false, e) < 0) return -1;
	if (ref->digest && reg_digest_check(ref->digest, e) < 0) return -1;
	if (!ref->digest && str_empty(ref->tag)) return err_set(e, CODE_INVALID_ARGUMENT, "%s: object required", name);
	op.ctx = &s;
	op.try_host = resolve_host;
	op.ranked = true;
	int r = reg_op_run(&op, e);
	if (r < 0 && ref->digest && e &&
	    e->code == CODE_NOT_FOUND) { /* old registries keep what is no manifest among the blobs */
		_cleanup_err_ struct err ignored = ERR_INIT;
		s.kind = "blobs";
		r = reg_op_run(&op, &ignored);
		if (r >= 0) err_fini(e);
	}
	if (r < 0) {
		buf_fini(&s.body);
		return -1;
	}
	*ret = s.desc;
	if (ret_body) buf_add(ret_body, s.body.p, s.body.n);
	buf_fini(&s.body);
	return 0;
}

/* ---- manifests ---- */

struct manifest {
	const struct reg_desc *desc;
	struct buf body;
	char *media_type;
};

static int manifest_host(struct reg_op *op, const struct reg_host *h, struct reg_fail *f, struct err *e)
{
	struct manifest *s = op->ctx;
	const struct reg_desc *d = s->desc;
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_free_ char *url = reg_host_url(op->io, h, op->ref, "manifests", d->digest);
	_cleanup_strvec_ struct strvec headers = {0};
	char digest[DIGEST_STR];
	if (str_empty(d->media_type))
		strvec_add(&headers, ACCEPT_MANIFESTS);
	else
		strvec_addf(&headers, "Accept: %s, */*", d->media_type);
	struct reg_request rq = {.io = op->io,
				 .method = "GET",
				 .url = url,
				 .host = h,
				 .scopes = &op->scopes,
				 .headers = &headers,
				 .decode = true,
				 .on_data = to_buf,
				 .ctx = &s->body};
	buf_reset(&s->body);
	s->body.overflow = false;
	if (reg_request(&rq, &res, f, e) < 0) {
		if (s->body.overflow) f->kind = FAIL_CONTENT;
		return denied(f, e);
	}
	if (res.status == 404) return not_found_at(&res, f, e);
	if (!is_ok(&res)) return reg_status_err(&rq, &res, f, e);
	f->kind = FAIL_CONTENT;
	if (d->size >= 0 && (int64_t)s->body.n != d->size)
		return err_set(e, CODE_DATA_LOSS, "%s: failed size validation: %zu != %lld: failed precondition", url,
			       s->body.n, (long long)d->size);
	digest_str_of(s->body.p, s->body.n, digest);
	if (!str_eq(digest, d->digest))
		return err_set(e, CODE_DATA_LOSS, "%s: unexpected commit digest %s, expected %s: failed precondition", url,
			       digest, d->digest);
	s->media_type = media_type_of(&res);
	return 0;
}

int reg_fetch_manifest(struct reg_io *io, const struct spec_ref *ref, const struct reg_desc *d, struct buf *ret_body,
		       char **ret_media_type, struct err *e)
{
	_cleanup_reg_op_ struct reg_op op;
	_cleanup_buf_ struct buf unused = BUF_INIT;
	if (reg_op_init(&op, io, ref, false, e) < 0 || reg_digest_check(d->digest, e) < 0) return -1;
	if (d->size > REG_MANIFEST_MAX)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "manifest %s of %lld bytes is larger than %d", d->digest,
			       (long long)d->size, REG_MANIFEST_MAX);
	struct manifest s = {.desc = d, .body = BUF_MAX(d->size >= 0 ? (size_t)d->size + 1 : REG_MANIFEST_MAX)};
	op.ctx = &s;
	op.try_host = manifest_host;
	int r = reg_op_run(&op, e);
	if (r >= 0 && buf_add(ret_body, s.body.p, s.body.n) < 0)
		r = err_set(e, CODE_RESOURCE_EXHAUSTED, "manifest %s of %zu bytes is larger than is allowed here", d->digest,
			    s.body.n);
	if (r >= 0 && ret_media_type) {
		*ret_media_type = str_empty(s.media_type) && d->media_type ? xstrdup(d->media_type) : take_ptr(s.media_type);
	}
	free(s.media_type);
	buf_fini(&s.body);
	return r;
}

/* ---- blobs ---- */

struct fetch {
	const struct reg_desc *desc;
	const struct reg_sink *sink;
	uint64_t start, at; /* at: what the sink has, from the blob's begin */
	uint64_t reported;  /* at, when progress was last asked */
	uint64_t skip;      /* of the coming bytes: a server that knows no Range */
	struct hasher hash;
	enum reg_fail_kind kind; /* of a callback's error; FAIL_NONE: FINAL */
};

static bool knows_size(const struct fetch *s) { return s->desc->size >= 0; }

/* Wrong bytes. Other hosts may have the right ones, if the sink can forget. Keeps *e. */
static int wrong(struct fetch *s, struct reg_fail *f, struct err *e)
{
	f->kind = FAIL_CONTENT;
	if (s->at == s->start) return -1;
	if (!s->sink->rewind) {
		f->kind = FAIL_FINAL;
		return -1;
	}
	_cleanup_err_ struct err cannot = ERR_INIT;
	if (s->sink->rewind(s->sink->ctx, &cannot) < 0) {
		f->kind = FAIL_FINAL;
		return err_move(e, &cannot);
	}
	s->at = s->reported = s->start;
	hasher_fini(&s->hash);
	hasher_init(&s->hash);
	return -1;
}

static int fetch_head(void *ctx, const struct reg_http_res *r, struct err *e)
{
	struct fetch *s = ctx;
	const char *range = reg_http_header(r, "content-range");
	s->skip = 0;
	s->kind = FAIL_CONTENT;
	if (s->at && r->status == 206) {
		_cleanup_free_ char *want = xasprintf("bytes %llu-", (unsigned long long)s->at);
		if (!range || !str_starts(range, want))
			return err_set(e, CODE_UNKNOWN, "unhandled content range in response: %s", range ? range : "(none)");
	} else if (r->status != 200) {
		return err_set(e, CODE_UNKNOWN, "%s: unexpected status: %s", r->url, r->reason);
	} else {
		s->skip = s->at;
	}
	uint64_t before = s->skip ? 0 : s->at;
	if (knows_size(s) && r->content_length >= 0 && before + (uint64_t)r->content_length != (uint64_t)s->desc->size)
		return err_set(e, CODE_DATA_LOSS, "%s: failed size validation: %llu != %lld: failed precondition",
			       s->desc->digest, (unsigned long long)(before + (uint64_t)r->content_length),
			       (long long)s->desc->size);
	s->kind = FAIL_NONE;
	return 1;
}

static int fetch_data(void *ctx, const void *p, size_t n, struct err *e)
{
	struct fetch *s = ctx;
	if (s->skip) {
		size_t drop = min_of((uint64_t)n, s->skip);
		s->skip -= drop;
		p = (const char *)p + drop;
		n -= drop;
		if (!n) return 0;
	}
	if (knows_size(s) && n > (uint64_t)s->desc->size - s->at) {
		s->kind = FAIL_CONTENT;
		return err_set(e, CODE_DATA_LOSS, "%s: more than the expected %lld bytes were sent", s->desc->digest,
			       (long long)s->desc->size);
	}
	hasher_update(&s->hash, p, n);
	if (s->sink->write(s->sink->ctx, p, n, e) < 0) return -1;
	s->at += n;
	return 0;
}

/* All bytes have come: are they the right ones? */
static int fetch_verify(struct fetch *s, struct reg_fail *f, struct err *e)
{
	struct digest got;
	char text[DIGEST_STR];
	if (knows_size(s) && s->at != (uint64_t)s->desc->size) {
		err_set(e, CODE_DATA_LOSS, "%s: failed size validation: %llu != %lld: failed precondition", s->desc->digest,
			(unsigned long long)s->at, (long long)s->desc->size);
		return wrong(s, f, e);
	}
	if (s->start) return 0;
	hasher_final(&s->hash, &got);
	hasher_init(&s->hash);
	digest_format(&got, text);
	if (str_eq(text, s->desc->digest)) return 0;
	err_set(e, CODE_DATA_LOSS, "unexpected commit digest %s, expected %s: failed precondition", text, s->desc->digest);
	return wrong(s, f, e);
}

static int fetch_host(struct reg_op *op, const struct reg_host *h, struct reg_fail *f, struct err *e)
{
	struct fetch *s = op->ctx;
	const struct reg_desc *d = s->desc;
	const char *type = d->media_type ? d->media_type : "";
	bool manifest = spec_media_is_manifest(type) || spec_media_is_index(type);
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_free_ char *url = reg_host_url(op->io, h, op->ref, manifest ? "manifests" : "blobs", d->digest);
	_cleanup_strvec_ struct strvec headers = {0};
	strvec_addf(&headers, *type ? "Accept: %s, */*" : "Accept: */*", type);
	if (s->at) strvec_addf(&headers, "Range: bytes=%llu-", (unsigned long long)s->at);
	struct reg_request rq = {.io = op->io,
				 .method = "GET",
				 .url = url,
				 .host = h,
				 .scopes = &op->scopes,
				 .headers = &headers,
				 .kind = manifest || str_ends(type, "+json") ? REG_LANE_DOC : REG_LANE_BLOB,
				 .on_head = fetch_head,
				 .on_data = fetch_data,
				 .ctx = s};
	s->kind = FAIL_NONE;
	if (reg_request(&rq, &res, f, e) < 0) {
		if (s->kind == FAIL_CONTENT) return wrong(s, f, e);
		return denied(f, e);
	}
	if (res.status == 404) return not_found_at(&res, f, e);
	if (!is_ok(&res)) return reg_status_err(&rq, &res, f, e);
	return fetch_verify(s, f, e);
}

static uint64_t fetch_progressed(struct reg_op *op)
{
	struct fetch *s = op->ctx;
	uint64_t moved = s->at - s->reported;
	s->reported = s->at;
	return moved;
}

int reg_fetch_blob(struct reg_io *io, const struct spec_ref *ref, const struct reg_desc *d, uint64_t offset,
		   const struct reg_sink *sink, struct err *e)
{
	struct fetch s = {.desc = d, .sink = sink, .start = offset, .at = offset, .reported = offset};
	_cleanup_reg_op_ struct reg_op op;
	if (reg_op_init(&op, io, ref, false, e) < 0 || reg_digest_check(d->digest, e) < 0) return -1;
	if (knows_size(&s) && offset > (uint64_t)d->size)
		return err_set(e, CODE_OUT_OF_RANGE, "offset %llu is behind the end of %s (%lld bytes)",
			       (unsigned long long)offset, d->digest, (long long)d->size);
	if (knows_size(&s) && offset && offset == (uint64_t)d->size) return 0;
	op.ctx = &s;
	op.try_host = fetch_host;
	op.progressed = fetch_progressed;
	hasher_init(&s.hash);
	int r = reg_op_run(&op, e);
	hasher_fini(&s.hash);
	if (r < 0 && e && e->code == CODE_NOT_FOUND)
		return err_set(e, CODE_NOT_FOUND, "could not fetch content descriptor %s (%s) from remote: not found",
			       d->digest, d->media_type ? d->media_type : "");
	return r;
}

static int buf_rewind(void *ctx, struct err *e)
{
	buf_reset(ctx);
	return 0;
}

int reg_fetch_bytes(struct reg_io *io, const struct spec_ref *ref, const struct reg_desc *d, size_t max_bytes, struct buf *ret,
		    struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_MAX(max_bytes);
	struct reg_sink sink = {to_buf, buf_rewind, &b};
	if (d->size >= 0 && (uint64_t)d->size > max_bytes)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "%s has %lld bytes, more than the %zu allowed", d->digest,
			       (long long)d->size, max_bytes);
	if (reg_fetch_blob(io, ref, d, 0, &sink, e) < 0) return -1;
	if (buf_add(ret, b.p, b.n) < 0) return err_set(e, CODE_RESOURCE_EXHAUSTED, "%s: too many bytes", d->digest);
	return 0;
}
