/* What refers to a manifest: signatures and other artifacts. The registry's list of referrers, or, where it has none (404), the
 * index under the tag that the specification names for that: "sha256-<hex>". Source: OCI distribution-spec, "Listing
 * Referrers". */
#include "reg/internal.h"
#include "spec/media.h"

#include <string.h>

static int to_buf(void *ctx, const void *p, size_t n, struct err *e)
{
	struct buf *b = ctx;
	return buf_add(b, p, n) < 0 ? err_set(e, CODE_RESOURCE_EXHAUSTED, "more than %zu bytes were sent", b->max) : 0;
}

struct referrers {
	const char *digest;
	struct buf body;
	bool found;
};

static int ask_host(struct reg_op *op, const struct reg_host *h, struct reg_fail *f, struct err *e)
{
	struct referrers *s = op->ctx;
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_free_ char *url = reg_host_url(op->io, h, op->ref, "referrers", s->digest);
	char *accept[] = {(char *)"Accept: " SPEC_OCI_INDEX};
	struct strvec headers = {accept, 1, 1};
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
	if (reg_request(&rq, &res, f, e) < 0) return -1;
	if (res.status == 404) return 0;
	if (res.status < 200 || res.status > 299) return reg_status_err(&rq, &res, f, e);
	s->found = true;
	return 0;
}

/* The index under the fallback tag: 1, or 0 when there is none. */
static int by_tag(struct reg_io *io, const struct spec_ref *ref, const char *digest, struct buf *ret, struct err *e)
{
	_cleanup_spec_ref_ struct spec_ref tagged = {
		.domain = xstrdup(ref->domain), .path = xstrdup(ref->path), .tag = xstrdup(digest)};
	_cleanup_reg_desc_ struct reg_desc d = {0};
	_cleanup_buf_ struct buf body = BUF_MAX(REG_MANIFEST_MAX);
	struct err why = ERR_INIT;
	*strchr(tagged.tag, ':') = '-';
	if (reg_resolve(io, &tagged, &d, &body, &why) < 0) {
		if (why.code != CODE_NOT_FOUND) return err_move(e, &why);
		err_fini(&why);
		return 0;
	}
	if (!body.n && reg_fetch_manifest(io, &tagged, &d, &body, NULL, e) < 0) return -1;
	buf_add(ret, body.p, body.n);
	return 1;
}

int reg_fetch_referrers(struct reg_io *io, const struct spec_ref *ref, const char *digest, struct buf *ret, struct err *e)
{
	_cleanup_reg_op_ struct reg_op op;
	struct referrers s = {.digest = digest, .body = BUF_MAX(REG_MANIFEST_MAX)};
	if (reg_op_init(&op, io, ref, false, e) < 0 || reg_digest_check(digest, e) < 0) return -1;
	op.ctx = &s;
	op.try_host = ask_host;
	int rc = reg_op_run(&op, e);
	if (rc >= 0 && s.found) {
		buf_add(ret, s.body.p, s.body.n);
		rc = 1;
	} else if (rc >= 0) {
		rc = by_tag(io, ref, digest, ret, e);
	}
	buf_fini(&s.body);
	return rc;
}
