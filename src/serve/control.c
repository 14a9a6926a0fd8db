/* moby.buildkit.v1.Control, health, and the traces that clients push. */
#include "proto/health.pb-c.h"
#include "proto/otlp.pb-c.h"
#include "serve/internal.h"

#include <string.h>

#define REQ(T) ((const T *)c->req)

static void list_workers(struct serve_call *c) { engine_list_workers(c->serve->engine, REQ(Control__ListWorkersRequest), serve_reply(c)); }
static void info(struct serve_call *c) { engine_info(c->serve->engine, serve_reply(c)); }
static void disk_usage(struct serve_call *c) { engine_disk_usage(c->serve->engine, REQ(Control__DiskUsageRequest), serve_reply(c)); }

static void solve(struct serve_call *c)
{
	struct build_reply r = serve_reply(c);
	struct build *b = build_start(c->serve->engine, REQ(Control__SolveRequest), r);
	if (!b) return;
	c->build = b;
	build_trace(b, wire_call_header(c->wire, "traceparent"));
}

/* ---- Status ---- */

static void send_batch(void *arg, struct prog_event *const *v, size_t n)
{
	struct serve_call *c = arg;
	while (n && c->wire) {
		size_t k = build_status_cut(v, n);
		_cleanup_arena_ struct arena *a = arena_new(0);
		wire_call_send_msg(c->wire, &build_status_message(a, v, k)->base);
		v += k;
		n -= k;
	}
	if (c->wire && wire_call_congested(c->wire)) build_reader_pause(c->reader, true);
}

static void status_end(void *arg, const struct err *e)
{
	struct serve_call *c = arg;
	c->reader = NULL;
	if (c->wire) {
		if (e)
			serve_fail(c, e);
		else
			wire_call_finish(c->wire, NULL);
	}
	serve_done(c);
}

static void status(struct serve_call *c)
{
	char now[TIME_STR];
	time_rfc3339nano(time_now(), now);
	wire_call_set_header(c->wire, "buildkit-current-timestamp", now);
	wire_call_send_headers(c->wire);
	if (serve_history_replay(c, REQ(Control__StatusRequest)->ref)) return;
	c->pending = true;
	c->reader = build_read(c->serve->engine, REQ(Control__StatusRequest)->ref, send_batch, status_end, c);
}

/* ---- Prune ---- */

static void pruned_one(void *arg, const Control__UsageRecord *u)
{
	struct serve_call *c = arg;
	if (c->wire) wire_call_send_msg(c->wire, &u->base);
}

static void pruned(void *arg, const ProtobufCMessage *m, const struct err *e)
{
	struct serve_call *c = arg;
	if (c->wire) {
		if (e)
			serve_fail(c, e);
		else
			wire_call_finish(c->wire, NULL);
	}
	serve_done(c);
}

static void prune(struct serve_call *c)
{
	c->pending = true;
	engine_prune(c->serve->engine, REQ(Control__PruneRequest), pruned_one, (struct build_reply){pruned, c});
}

static void session(struct serve_call *c) {} /* taken over in serve.c */

/* ---- health ---- */

static void health_check(struct serve_call *c)
{
	Health__HealthCheckResponse m = HEALTH__HEALTH_CHECK_RESPONSE__INIT;
	if (*REQ(Health__HealthCheckRequest)->service) {
		wire_call_fail(c->wire, CODE_NOT_FOUND, "unknown service");
		return;
	}
	m.status = HEALTH__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
	wire_call_reply(c->wire, &m.base);
}

static void health_watch(struct serve_call *c)
{
	Health__HealthCheckResponse m = HEALTH__HEALTH_CHECK_RESPONSE__INIT;
	m.status = *REQ(Health__HealthCheckRequest)->service ? HEALTH__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN
							     : HEALTH__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
	wire_call_send_msg(c->wire, &m.base); /* the stream stays open: it never changes */
}

/* ---- traces of clients and of steps: on to the collector, as they are ---- */

static size_t spans_of(const Otlp__ExportTraceServiceRequest *m)
{
	size_t n = 0;
	for (size_t i = 0; i < m->n_resource_spans; i++)
		for (size_t k = 0; k < m->resource_spans[i]->n_scope_spans; k++) n += m->resource_spans[i]->scope_spans[k]->n_spans;
	return n;
}

static void trace_message(struct wire_call *w, const uint8_t *p, size_t n)
{
	struct tele_exporter *traces = w->user;
	_cleanup_arena_ struct arena *a = arena_new(0);
	struct err e = ERR_INIT;
	if (traces && tele_exporter_enabled(traces)) {
		const Otlp__ExportTraceServiceRequest *m =
			wire_unpack_as(Otlp__ExportTraceServiceRequest, otlp__export_trace_service_request, p, n, a, &e);
		if (!m) {
			wire_call_finish(w, &e);
			err_fini(&e);
			return;
		}
		tele_export(traces, p, n, spans_of(m));
	}
	wire_call_send(w, NULL, 0);
	wire_call_finish(w, NULL);
}

static void trace_ended(struct wire_call *w, const struct err *status) {}

static void trace_export(struct serve_call *c)
{
	static const struct wire_call_ops ops = {.message = trace_message, .ended = trace_ended};
	c->wire->ops = &ops;
	c->wire->user = engine_conf(c->serve->engine)->traces;
	c->wire = NULL;
	serve_done(c);
}

const struct method serve_control_methods[] = {
	{METHOD_CONTROL_LIST_WORKERS, &control__list_workers_request__descriptor, list_workers, false},
	{METHOD_CONTROL_INFO, &control__info_request__descriptor, info, false},
	{METHOD_CONTROL_SOLVE, &control__solve_request__descriptor, solve, false},
	{METHOD_CONTROL_STATUS, &control__status_request__descriptor, status, false},
	{METHOD_CONTROL_DISK_USAGE, &control__disk_usage_request__descriptor, disk_usage, false},
	{METHOD_CONTROL_PRUNE, &control__prune_request__descriptor, prune, false},
	{METHOD_CONTROL_LISTEN_BUILD_HISTORY, &control__build_history_request__descriptor, serve_history_listen, false},
	{METHOD_CONTROL_UPDATE_BUILD_HISTORY, &control__update_build_history_request__descriptor, serve_history_update, false},
	{METHOD_CONTROL_SESSION, NULL, session, false},
	{"/grpc.health.v1.Health/Check", &health__health_check_request__descriptor, health_check, false},
	{"/grpc.health.v1.Health/Watch", &health__health_check_request__descriptor, health_watch, false},
	{METHOD_TRACE_EXPORT, NULL, trace_export, false},
	{0},
};
