/* The plain HTTP client for the http source: one request with redirects, any status is an answer. Blocks.
 * No retries and no credentials of its own: the caller brings headers, and they stay with the origin of its URL. */
#include "reg/internal.h"
#include <string.h>

struct get {
	const struct reg_http_req *req;
	uint64_t got;
};

static int too_large(const struct get *g, struct err *e)
{
	return err_set(e, CODE_RESOURCE_EXHAUSTED, "%s has more than the %llu bytes allowed", g->req->url,
		       (unsigned long long)g->req->max_bytes);
}

static int on_head(void *ctx, const struct reg_http_res *head, struct err *e)
{
	struct get *g = ctx;
	if (g->req->max_bytes && head->content_length > 0 && (uint64_t)head->content_length > g->req->max_bytes)
		return too_large(g, e);
	return 1;
}

static int on_data(void *ctx, const void *p, size_t n, struct err *e)
{
	struct get *g = ctx;
	g->got += n;
	if (g->req->max_bytes && g->got > g->req->max_bytes) return too_large(g, e);
	return g->req->sink ? g->req->sink->write(g->req->sink->ctx, p, n, e) : 0;
}

static ssize_t read_body(void *ctx, uint64_t offset, void *buf, size_t n, struct err *e)
{
	const struct reg_http_req *req = ctx;
	n = min_of((uint64_t)n, req->body_bytes - offset);
	memcpy(buf, (const char *)req->body + offset, n);
	return (ssize_t)n;
}

int reg_http_do(struct reg_io *io, const struct reg_http_req *req, struct reg_http_res *ret, struct err *e)
{
	struct get g = {.req = req};
	struct reg_body body = {read_body, (void *)req};
	struct reg_fail f;
	struct reg_request rq = {.io = io,
				 .method = req->method ? req->method : "GET",
				 .url = req->url,
				 .headers = req->headers,
				 .body = req->body ? &body : NULL,
				 .body_bytes = req->body_bytes,
				 .redirects = req->max_redirects,
				 .insecure = req->insecure,
				 .decode = req->decode,
				 .on_head = on_head,
				 .on_data = on_data,
				 .ctx = &g};
	return reg_request(&rq, ret, &f, e);
}
