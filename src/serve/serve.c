/* Calls: find the method, unpack the request, let it be answered once.
 *
 * A serve_call has two ends: the wire call (until ended()) and whoever answers (while `pending`). It goes when both are
 * through. An answer for a client that has gone is dropped. */
#include "serve/internal.h"

#include <string.h>

static const char *const services[] = {SERVICE_CONTROL, SERVICE_BRIDGE, "grpc.health.v1.Health", "containerd.services.content.v1.Content",
				       "opentelemetry.proto.collector.trace.v1.TraceService", NULL};

static void maybe_free(struct serve_call *c)
{
	if (c->wire || c->pending) return;
	arena_free(c->arena);
	free(c->state);
	free(c);
}

void serve_done(struct serve_call *c)
{
	c->pending = false;
	maybe_free(c);
}

void serve_fail(struct serve_call *c, const struct err *e)
{
	if (!c->wire) return;
	if (e->code != CODE_CANCELLED) log_error("%s returned error: rpc error: code = %s desc = %s", c->method->path, err_code_name(e->code), e->msg);
	wire_call_finish(c->wire, e);
}

static void answered(void *arg, const ProtobufCMessage *m, const struct err *e)
{
	struct serve_call *c = arg;
	c->build = NULL;
	if (c->wire) {
		if (e)
			serve_fail(c, e);
		else
			wire_call_reply(c->wire, m);
	}
	serve_done(c);
}

struct build_reply serve_reply(struct serve_call *c)
{
	c->pending = true;
	return (struct build_reply){answered, c};
}

/* ---- a request arrives ---- */

static void bridge_found(void *arg, struct bridge *b, const struct err *e)
{
	struct serve_call *c = arg;
	c->wait = NULL;
	if (!c->wire || e) {
		if (c->wire) {
			struct err wrapped = ERR_INIT;
			err_copy(&wrapped, e);
			err_wrap(&wrapped, "forwarding %s", path_base(c->method->path));
			serve_fail(c, &wrapped);
			err_fini(&wrapped);
		}
		serve_done(c);
		return;
	}
	c->bridge = b;
	c->pending = false;
	c->method->fn(c);
}

void serve_find_bridge(struct serve_call *c)
{
	const char *id = wire_call_header(c->wire, "buildkit-controlapi-buildid");
	if (!id) {
		wire_call_fail(c->wire, CODE_UNKNOWN, "forwarding %s: no buildid found in context", path_base(c->method->path));
		return;
	}
	c->pending = true;
	c->wait = build_bridge_wait(c->serve->engine, id, bridge_found, c);
}

static void on_message(struct wire_call *w, const uint8_t *p, size_t n)
{
	struct serve_call *c = w->user;
	struct err e = ERR_INIT;
	if (c->req) {
		wire_call_fail(w, CODE_INVALID_ARGUMENT, "%s takes one message", w->path);
		return;
	}
	c->arena = arena_new(0);
	c->req = wire_unpack(c->method->req, arena_memdup(c->arena, p, n), n, c->arena, &e);
	if (!c->req) {
		err_wrap(&e, "grpc: error unmarshalling request");
		serve_fail(c, &e);
		err_fini(&e);
		return;
	}
	if (c->method->bridge && !c->bridge)
		serve_find_bridge(c);
	else
		c->method->fn(c);
}

static void on_half_closed(struct wire_call *w)
{
	struct serve_call *c = w->user;
	if (!c->req) wire_call_fail(w, CODE_INTERNAL, "the request has no message");
}

static void on_writable(struct wire_call *w)
{
	struct serve_call *c = w->user;
	if (c->reader) build_reader_pause(c->reader, false);
	if (c->writable) c->writable(c);
}

void serve_ended(struct wire_call *w, const struct err *status)
{
	struct serve_call *c = w->user;
	c->wire = NULL;
	if (c->wait) {
		build_wait_cancel(c->wait);
		c->wait = NULL;
		c->pending = false;
	}
	if (c->reader) {
		build_reader_stop(c->reader);
		c->reader = NULL;
		c->pending = false;
	}
	if (c->build) {
		struct build *b = c->build;
		c->build = NULL;
		c->pending = false;
		build_cancel(b);
	}
	if (c->stop) c->stop(c);
	maybe_free(c);
}

static const struct wire_call_ops call_ops = {
	.message = on_message, .half_closed = on_half_closed, .writable = on_writable, .ended = serve_ended};

static const struct method *find(const struct method *table, const char *path)
{
	for (; table->path; table++)
		if (!strcmp(table->path, path)) return table;
	return NULL;
}

static void open_call(struct serve *s, struct wire_call *w, const struct method *m, struct bridge *b)
{
	struct serve_call *c = xnew(struct serve_call);
	c->serve = s;
	c->wire = w;
	c->method = m;
	c->bridge = b;
	w->ops = &call_ops;
	w->user = c;
	if (!m->req) m->fn(c);
}

static void refuse(struct wire_call *w)
{
	static const struct wire_call_ops none = {0};
	w->ops = &none;
	wire_call_unimplemented(w, services);
}

static void start_control(const struct wire_handler *h, struct wire_call *w)
{
	struct serve *s = h->arg;
	const struct method *m = find(serve_control_methods, w->path);
	if (!m) m = find(serve_bridge_methods, w->path);
	if (!m) m = find(serve_content_methods, w->path);
	if (!m)
		refuse(w);
	else if (!strcmp(m->path, METHOD_CONTROL_SESSION))
		sess_accept(s->sessions, w);
	else
		open_call(s, w, m, NULL);
}

/* Only traces: any step can reach it. */
static void start_traces(const struct wire_handler *h, struct wire_call *w)
{
	if (!strcmp(w->path, METHOD_TRACE_EXPORT))
		open_call(h->arg, w, find(serve_control_methods, w->path), NULL);
	else
		refuse(w);
}

struct serve *serve_new(struct engine *g, struct sess_manager *sessions, struct blob_store *blobs)
{
	struct serve *s = xnew(struct serve);
	s->engine = g;
	s->sessions = sessions;
	s->blobs = blobs;
	s->control = (struct wire_handler){start_control, s};
	s->traces = (struct wire_handler){start_traces, s};
	return s;
}

void serve_free(struct serve *s) { free(s); }
const struct wire_handler *serve_control(struct serve *s) { return &s->control; }
const struct wire_handler *serve_traces(struct serve *s) { return &s->traces; }

/* ---- a frontend's own connection ---- */

struct frontend {
	struct wire_handler handler;
	struct serve *serve;
	struct bridge *bridge;
	void (*closed)(void *arg);
	void *arg;
};

static void start_frontend(const struct wire_handler *h, struct wire_call *w)
{
	struct frontend *f = h->arg;
	const struct method *m = find(serve_bridge_methods, w->path);
	if (!m && str_starts(w->path, "/grpc.health.v1.Health/")) m = find(serve_control_methods, w->path);
	if (m)
		open_call(f->serve, w, m, f->bridge);
	else
		refuse(w);
}

static void frontend_closed(void *arg, const struct err *why)
{
	struct frontend *f = arg;
	f->closed(f->arg);
	free(f);
}

struct wire_conn *serve_bridge(struct serve *s, struct bridge *b, int rfd, int wfd, void (*closed)(void *arg), void *arg, struct err *e)
{
	struct frontend *f = xnew(struct frontend);
	f->serve = s;
	f->bridge = b;
	f->closed = closed;
	f->arg = arg;
	f->handler = (struct wire_handler){start_frontend, f};
	struct wire_conn *conn = wire_conn_fds(engine_conf(s->engine)->env->loop, rfd, wfd, &f->handler, NULL, e);
	if (conn)
		wire_conn_on_closed(conn, frontend_closed, f);
	else
		free(f);
	return conn;
}
