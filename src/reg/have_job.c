/* Does a registry have a blob? Asked of the mirrors in order, then of the origin: who could be asked to send it. */
#include "reg/internal.h"

static int have_host(struct reg_op *op, const struct reg_host *h, struct reg_fail *f, struct err *e)
{
	const char *digest = op->ctx;
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_free_ char *url = reg_host_url(op->io, h, op->ref, "blobs", digest);
	struct reg_request rq = {.io = op->io, .method = "HEAD", .url = url, .host = h, .scopes = &op->scopes};
	if (reg_request(&rq, &res, f, e) < 0) return -1;
	if (res.status >= 200 && res.status <= 299) return 0;
	if (res.status != 404) return reg_status_err(&rq, &res, f, e);
	f->kind = FAIL_STATUS;
	f->status = res.status;
	return err_set(e, CODE_NOT_FOUND, "%s: not found", digest);
}

int reg_has_blob(struct reg_io *io, const struct spec_ref *ref, const char *digest, struct err *e)
{
	_cleanup_reg_op_ struct reg_op op;
	if (reg_op_init(&op, io, ref, false, e) < 0 || reg_digest_check(digest, e) < 0) return -1;
	op.ctx = (void *)digest;
	op.try_host = have_host;
	return reg_op_run(&op, e);
}
