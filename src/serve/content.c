/* containerd's content service over the blob store, read-only: logs, errors and results that history names, and all other
 * blobs. */
#include "proto/content.pb-c.h"
#include "serve/content_job.h"
#include "serve/internal.h"

#include <string.h>

#define REQ(T) ((const T *)c->req)

static void finish(struct serve_call *c, const struct err *e)
{
	if (!c->wire) return;
	if (e)
		serve_fail(c, e);
	else
		wire_call_finish(c->wire, NULL);
}

/* ---- Info, List ---- */

struct listing {
	struct loop_job job;
	struct serve_call *call;
	struct content_list list;
	VEC(struct selectors) filters;
	struct err error;
};

static void info_message(struct arena *a, const struct content_info *i, Content__Info *m)
{
	content__info__init(m);
	m->digest = i->digest;
	m->size = i->bytes;
	m->created_at = arena_new_of(a, Google__Timestamp);
	google__timestamp__init(m->created_at);
	m->created_at->seconds = i->mtime_s;
	m->updated_at = m->created_at;
}

static const char *field(void *ctx, const struct strvec *path)
{
	const struct content_info *i = ctx;
	return !strcmp(path->v[0], "digest") ? i->digest : NULL;
}

static bool wanted(const struct listing *l, struct content_info *i)
{
	for (size_t k = 0; k < l->filters.n; k++)
		if (selectors_match(&l->filters.v[k], field, i)) return true;
	return l->filters.n == 0;
}

static void send_list(struct listing *l)
{
	enum { BLOCK = 100 };
	for (size_t at = 0; at < l->list.v.n;) {
		_cleanup_arena_ struct arena *a = arena_new(0);
		Content__ListContentResponse m = CONTENT__LIST_CONTENT_RESPONSE__INIT;
		Content__Info *v[BLOCK];
		for (m.info = v; at < l->list.v.n && m.n_info < BLOCK; at++) {
			if (!wanted(l, &l->list.v.v[at])) continue;
			v[m.n_info] = arena_new_of(a, Content__Info);
			info_message(a, &l->list.v.v[at], v[m.n_info++]);
		}
		if (m.n_info) wire_call_send_msg(l->call->wire, &m.base);
	}
	wire_call_finish(l->call->wire, NULL);
}

static void send_info(struct listing *l)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	Content__InfoResponse m = CONTENT__INFO_RESPONSE__INIT;
	Content__Info info;
	info_message(a, &l->list.v.v[0], &info);
	m.info = &info;
	wire_call_reply(l->call->wire, &m.base);
}

static void listing_free(struct listing *l)
{
	for (size_t i = 0; i < l->filters.n; i++) selectors_fini(&l->filters.v[i]);
	vec_fini(&l->filters);
	vec_fini(&l->list.v);
	err_fini(&l->error);
	free(l);
}

static void list_work(struct loop_job *j)
{
	struct listing *l = container_of(j, struct listing, job);
	content_list(&l->list, &l->error);
}

static void list_done(struct loop_job *j)
{
	struct listing *l = container_of(j, struct listing, job);
	struct serve_call *c = l->call;
	if (c->wire && err_is_set(&l->error))
		serve_fail(c, &l->error);
	else if (c->wire && l->list.digest)
		send_info(l);
	else if (c->wire)
		send_list(l);
	listing_free(l);
	serve_done(c); /* the request, which the digest points into, goes with it */
}

static void start_listing(struct listing *l)
{
	l->call->pending = true;
	l->list.blobs = l->call->serve->blobs;
	l->job.work = list_work;
	l->job.done = list_done;
	loop_job_start(engine_conf(l->call->serve->engine)->env->loop, &l->job, LOOP_DISK);
}

static void info(struct serve_call *c)
{
	struct listing *l = xnew(struct listing);
	l->call = c;
	l->list.digest = REQ(Content__InfoRequest)->digest;
	start_listing(l);
}

static void list(struct serve_call *c)
{
	struct listing *l = xnew(struct listing);
	const Content__ListContentRequest *req = REQ(Content__ListContentRequest);
	l->call = c;
	for (size_t i = 0; i < req->n_filters; i++) {
		struct selectors s;
		if (selectors_parse(req->filters[i], &s, &l->error) < 0) {
			serve_fail(c, &l->error);
			listing_free(l);
			return;
		}
		vec_push(&l->filters, s);
	}
	start_listing(l);
}

/* ---- Read ---- */

struct reading {
	struct blob_flow *flow;
	int64_t offset; /* of what comes next, from the window's start */
};

static void read_data(void *arg, const uint8_t *p, size_t n)
{
	struct serve_call *c = arg;
	struct reading *r = c->state;
	Content__ReadContentResponse m = CONTENT__READ_CONTENT_RESPONSE__INIT;
	m.offset = r->offset;
	m.data = (ProtobufCBinaryData){n, (uint8_t *)p};
	r->offset += (int64_t)n;
	wire_call_send_msg(c->wire, &m.base);
	if (wire_call_congested(c->wire)) blob_flow_pause(r->flow, true);
}

static void read_end(void *arg, const struct err *e)
{
	struct serve_call *c = arg;
	c->stop = c->writable = NULL;
	finish(c, e);
	serve_done(c);
}

static void read_writable(struct serve_call *c)
{
	struct reading *r = c->state;
	blob_flow_pause(r->flow, false);
}

static void read_stop(struct serve_call *c)
{
	struct reading *r = c->state;
	c->pending = false;
	blob_flow_stop(r->flow);
}

static void read_blob(struct serve_call *c)
{
	const Content__ReadContentRequest *req = REQ(Content__ReadContentRequest);
	struct reading *r = xnew(struct reading);
	c->state = r;
	c->pending = true;
	c->stop = read_stop;
	c->writable = read_writable;
	r->flow = blob_flow_start(engine_conf(c->serve->engine)->env->loop, c->serve->blobs, req->digest, req->offset,
				  req->size, read_data, read_end, c);
}

/* ---- the others ---- */

static void refuse(struct serve_call *c) { wire_call_fail(c->wire, CODE_UNKNOWN, "read-only content store"); }

static void status(struct serve_call *c)
{
	wire_call_fail(c->wire, CODE_NOT_FOUND, "ingest ref %s: not found", REQ(Content__StatusRequest)->ref);
}

static void list_statuses(struct serve_call *c)
{
	Content__ListStatusesResponse m = CONTENT__LIST_STATUSES_RESPONSE__INIT;
	wire_call_reply(c->wire, &m.base);
}

const struct method serve_content_methods[] = {
	{METHOD_CONTENT_INFO, &content__info_request__descriptor, info, false},
	{METHOD_CONTENT_LIST, &content__list_content_request__descriptor, list, false},
	{METHOD_CONTENT_READ, &content__read_content_request__descriptor, read_blob, false},
	{METHOD_CONTENT_STATUS, &content__status_request__descriptor, status, false},
	{METHOD_CONTENT_LIST_STATUSES, &content__list_statuses_request__descriptor, list_statuses, false},
	{METHOD_CONTENT_UPDATE, &content__update_request__descriptor, refuse, false},
	{METHOD_CONTENT_DELETE, &content__delete_content_request__descriptor, refuse, false},
	{METHOD_CONTENT_WRITE, &content__write_content_request__descriptor, refuse, false},
	{METHOD_CONTENT_ABORT, &content__abort_request__descriptor, refuse, false},
	{0},
};
