/* One build as a handful of calls that run at once; see build.h.
 *
 *  1. The Solve call's end is the build's end; its error is what the user sees. An error of the bridge alone is shown when
 * Solve does not fail within 5 s after it.
 *  2. Status is read to its end, so that the last words of a step are shown, but not longer than 5 s without a message.
 *  3. An interrupt cancels Solve; the daemon then ends the rest.
 * Source: BuildKit client/solve.go, client/build.go, frontend/gateway/grpcclient. */
#include "cli/build.h"
#include "proto/control.pb-c.h"
#include "proto/gateway.pb-c.h"
#include "proto/methods.h"

#include <string.h>

enum { PING_MS = 15000, GRACE_MS = 5000, INTERRUPTED_MS = 10000 };

struct drive {
	struct build *b;
	struct cli *cli;
	struct wire_call *solve, *status, *bridge;
	struct loop_timer tick, status_idle, bridge_failed;
	bool solve_done, status_done, bridge_done, over, interrupted;
	struct err solve_err, bridge_err, status_err;
};

static void check_over(struct drive *d) { d->over = d->solve_done && d->status_done && d->bridge_done; }

/* ---- messages ---- */
/* All generated map entries have this shape. */
struct entry {
	ProtobufCMessage base;
	const char *key, *value;
};
_Static_assert(sizeof(struct entry) == sizeof(Control__SolveRequest__FrontendAttrsEntry), "map entries");

static void *map_entries(struct arena *mem, const ProtobufCMessageDescriptor *d, const struct strvec *v, size_t *ret_n)
{
	struct entry **list = arena_alloc(mem, (v->n + 1) * sizeof *list);
	for (size_t i = 0; i < v->n; i++) {
		const char *eq = strchrnul(v->v[i], '=');
		list[i] = arena_alloc(mem, sizeof **list);
		list[i]->base.descriptor = d;
		list[i]->key = arena_strndup(mem, v->v[i], (size_t)(eq - v->v[i]));
		list[i]->value = arena_strdup(mem, *eq ? eq + 1 : "");
	}
	*ret_n = v->n;
	return list;
}

static void cache_entries(struct build *b, bool to, size_t *ret_n, Control__CacheOptionsEntry ***ret)
{
	const struct build_cache *v = to ? b->cache_to.v : b->cache_from.v;
	size_t n = to ? b->cache_to.n : b->cache_from.n;
	Control__CacheOptionsEntry **list = arena_alloc(b->mem, (n + 1) * sizeof *list);
	for (size_t i = 0; i < n; i++) {
		list[i] = arena_new_of(b->mem, Control__CacheOptionsEntry);
		control__cache_options_entry__init(list[i]);
		list[i]->type = v[i].type;
		list[i]->attrs = map_entries(b->mem, &control__cache_options_entry__attrs_entry__descriptor, &v[i].attrs,
					     &list[i]->n_attrs);
	}
	*ret = list;
	*ret_n = n;
}

static Control__SolveRequest *solve_request(struct build *b)
{
	struct arena *mem = b->mem;
	Control__SolveRequest *r = arena_new_of(mem, Control__SolveRequest);
	control__solve_request__init(r);
	r->ref = b->ref;
	r->session = sess_client_id(b->sess);
	r->frontendattrs =
		map_entries(mem, &control__solve_request__frontend_attrs_entry__descriptor, &b->attrs, &r->n_frontendattrs);
	r->entitlements = (const char **)b->entitlements.v;
	r->n_entitlements = b->entitlements.n;
	r->sourcepolicy = b->policy;
	r->proxynetwork = b->proxy_network;
	r->internal = b->internal;
	r->cache = arena_new_of(mem, Control__CacheOptions);
	control__cache_options__init(r->cache);
	cache_entries(b, true, &r->cache->n_exports, &r->cache->exports);
	cache_entries(b, false, &r->cache->n_imports, &r->cache->imports);
	r->exporters = arena_alloc(mem, (b->exports.n + 1) * sizeof *r->exporters);
	for (size_t i = 0; i < b->exports.n; i++) {
		Control__Exporter *x = r->exporters[r->n_exporters++] = arena_new_of(mem, Control__Exporter);
		control__exporter__init(x);
		x->type = b->exports.v[i].type;
		x->attrs = map_entries(mem, &control__exporter__attrs_entry__descriptor, &b->exports.v[i].attrs, &x->n_attrs);
	}
	if (b->exports.n) { /* daemons before 0.13 know one exporter */
		r->exporterdeprecated = b->exports.v[0].type;
		r->exporterattrsdeprecated =
			map_entries(mem, &control__solve_request__exporter_attrs_deprecated_entry__descriptor,
				    &b->exports.v[0].attrs, &r->n_exporterattrsdeprecated);
	}
	return r;
}

static Gateway__SolveRequest *frontend_request(struct build *b)
{
	struct arena *mem = b->mem;
	Gateway__SolveRequest *r = arena_new_of(mem, Gateway__SolveRequest);
	gateway__solve_request__init(r);
	r->frontend = b->frontend;
	r->definition = b->def;
	r->frontendopt =
		map_entries(mem, &gateway__solve_request__frontend_opt_entry__descriptor, &b->attrs, &r->n_frontendopt);
	r->allowresultreturn = true;
	r->allowresultarrayref = true;
	r->cacheimports = arena_alloc(mem, (b->cache_from.n + 1) * sizeof *r->cacheimports);
	for (size_t i = 0; i < b->cache_from.n; i++) {
		Gateway__CacheOptionsEntry *x = r->cacheimports[r->n_cacheimports++] =
			arena_new_of(mem, Gateway__CacheOptionsEntry);
		gateway__cache_options_entry__init(x);
		x->type = b->cache_from.v[i].type;
		x->attrs = map_entries(mem, &gateway__cache_options_entry__attrs_entry__descriptor, &b->cache_from.v[i].attrs,
				       &x->n_attrs);
	}
	return r;
}

/* ---- the frontend, through the bridge ---- */
static void give_up(void *arg)
{
	struct drive *d = arg;
	if (d->solve) wire_call_cancel(d->solve);
}

static void bridge_over(struct drive *d, const struct err *status)
{
	d->bridge = NULL;
	d->bridge_done = true;
	if (status && status->code && !err_is_set(&d->bridge_err)) err_copy(&d->bridge_err, status);
	if (err_is_set(&d->bridge_err) && !d->solve_done)
		loop_timer_start(d->cli->loop, &d->bridge_failed, GRACE_MS, 0, give_up, d);
	check_over(d);
}

static void bridge_call(struct drive *d, const char *method, const ProtobufCMessage *req,
			void (*done)(void *arg, const struct err *status, const uint8_t *p, size_t n), uint64_t timeout_ms)
{
	struct wire_md md = {"buildkit-controlapi-buildid", d->b->ref};
	d->bridge = wire_unary(d->cli->conn, method, &md, 1, req, done, d, timeout_ms);
}

static void returned(void *arg, const struct err *status, const uint8_t *p, size_t n) { bridge_over(arg, status); }

static void return_error(struct drive *d, const struct err *why)
{
	struct arena *mem = d->b->mem;
	Gateway__ReturnRequest req = GATEWAY__RETURN_REQUEST__INIT;
	Rpc__Status st = RPC__STATUS__INIT;
	size_t n = 0;
	err_copy(&d->bridge_err, why);
	for (const struct err_detail *x = why->details; x; x = x->next) n++;
	st.code = (int32_t)why->code;
	st.message = why->msg;
	st.details = arena_alloc(mem, (n + 1) * sizeof *st.details);
	for (const struct err_detail *x = why->details; x; x = x->next) {
		Google__Any *a = st.details[st.n_details++] = arena_new_of(mem, Google__Any);
		google__any__init(a);
		a->type_url = x->type_url;
		a->value.data = x->data;
		a->value.len = x->len;
	}
	req.error = &st;
	bridge_call(d, METHOD_BRIDGE_RETURN, &req.base, returned, 0);
}

static void keep_metadata(struct build *b, const Gateway__Result *r)
{
	for (size_t i = 0; i < r->n_metadata; i++) {
		const Gateway__Result__MetadataEntry *m = r->metadata[i];
		_cleanup_free_ char *v = m->value.len ? xstrndup((const char *)m->value.data, m->value.len) : xstrdup("");
		if (str_starts(m->key, "result.")) strvec_env_set(&b->metadata, m->key, v);
	}
}

static void frontend_done(void *arg, const struct err *status, const uint8_t *p, size_t n)
{
	struct drive *d = arg;
	_cleanup_err_ struct err e = ERR_INIT;
	Gateway__ReturnRequest req = GATEWAY__RETURN_REQUEST__INIT;
	Gateway__Result empty = GATEWAY__RESULT__INIT;
	Gateway__Ref none = GATEWAY__REF__INIT;
	if (status->code) {
		return_error(d, status);
		return;
	}
	Gateway__SolveResponse *r = wire_unpack_as(Gateway__SolveResponse, gateway__solve_response, p, n, d->b->mem, &e);
	if (!r) {
		return_error(d, &e);
		return;
	}
	req.result = r->result ? r->result : &empty;
	if (req.result->result_case == GATEWAY__RESULT__RESULT__NOT_SET) {
		req.result->result_case = GATEWAY__RESULT__RESULT_REF;
		req.result->ref = &none;
		if (*r->ref) none.id = r->ref;
	}
	if (strvec_env_get(&d->b->attrs, "requestid")) keep_metadata(d->b, req.result);
	bridge_call(d, METHOD_BRIDGE_RETURN, &req.base, returned, 0);
}

static void pong(void *arg, const struct err *status, const uint8_t *p, size_t n)
{
	struct drive *d = arg;
	if (status->code) {
		bridge_over(d, status);
		return;
	}
	bridge_call(d, METHOD_BRIDGE_SOLVE, &frontend_request(d->b)->base, frontend_done, 0);
}

/* ---- status ---- */
static void stop_status(void *arg)
{
	struct drive *d = arg;
	if (d->status) wire_call_cancel(d->status);
}

static void status_message(struct wire_call *call, const uint8_t *p, size_t n)
{
	struct drive *d = call->user;
	_cleanup_arena_ struct arena *mem = arena_new(CLI_REPLY_MAX);
	Control__StatusResponse *m = wire_unpack_as(Control__StatusResponse, control__status_response, p, n, mem, NULL);
	if (!m) return;
	if (d->solve_done) loop_timer_start(d->cli->loop, &d->status_idle, GRACE_MS, 0, stop_status, d);
	if (d->b->trace_fd >= 0) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		progress_json(m, &b);
		path_write_all(d->b->trace_fd, b.p, b.n, NULL);
	}
	progress_update(d->b->progress, m);
	loop_timer_start(d->cli->loop, &d->tick, PROGRESS_TICK_MS, PROGRESS_TICK_MS, (void (*)(void *))progress_tick,
			 d->b->progress);
}

static void status_ended(struct wire_call *call, const struct err *status)
{
	struct drive *d = call->user;
	d->status = NULL;
	d->status_done = true;
	if (status->code && status->code != CODE_CANCELLED) err_copy(&d->status_err, status);
	check_over(d);
}

/* ---- solve ---- */
static void solved(void *arg, const struct err *status, const uint8_t *p, size_t n)
{
	struct drive *d = arg;
	d->solve = NULL;
	d->solve_done = true;
	if (status->code) {
		err_copy(&d->solve_err, status);
	} else {
		Control__SolveResponse *r =
			wire_unpack_as(Control__SolveResponse, control__solve_response, p, n, d->b->mem, &d->solve_err);
		for (size_t i = 0; r && i < r->n_exporterresponse; i++)
			strvec_env_set(&d->b->response, r->exporterresponse[i]->key, r->exporterresponse[i]->value);
	}
	loop_timer_stop(&d->bridge_failed);
	sess_client_stop(d->b->sess);
	if (d->bridge) wire_call_cancel(d->bridge);
	if (!d->status_done) loop_timer_start(d->cli->loop, &d->status_idle, GRACE_MS, 0, stop_status, d);
	check_over(d);
}

static void interrupted(void *arg)
{
	struct drive *d = arg;
	d->interrupted = true;
	if (d->solve) wire_call_cancel(d->solve);
}

static void session_ended(void *arg, const struct err *e) {}

/* ---- all of it ---- */
static int result_of(struct drive *d, struct err *e)
{
	if (d->interrupted) {
		err_set(e, CODE_UNKNOWN, "failed to solve: Canceled: context canceled");
		return -1;
	}
	bool own = err_is_set(&d->bridge_err) &&
		   d->solve_err.code == CODE_CANCELLED; /* we cancelled Solve since the bridge failed */
	if (err_is_set(&d->solve_err) && !own) {
		err_move(e, &d->solve_err);
		cli_error_plain(e);
		return err_wrap(e, "failed to solve");
	}
	if (err_is_set(&d->bridge_err)) {
		err_move(e, &d->bridge_err);
		cli_error_plain(e);
		return err_wrap(e, "failed to run Build function");
	}
	if (err_is_set(&d->status_err)) {
		err_move(e, &d->status_err);
		cli_error_plain(e);
		return err_wrap(e, "failed to receive status");
	}
	return 0;
}

static int list_workers(struct build *b, struct err *e)
{
	void *ignored;
	if (cli_unary(b->cli, METHOD_CONTROL_LIST_WORKERS, NULL, &control__list_workers_response__descriptor, b->mem, &ignored,
		      e) == 0)
		return 0;
	cli_error_plain(e);
	return err_wrap(e, "listing workers for Build: failed to list workers");
}

static void offer_outputs(struct build *b);

static int drive_start(struct drive *d, struct err *e)
{
	static const struct wire_call_ops status_ops = {.message = status_message, .ended = status_ended};
	struct build *b = d->b;
	Gateway__PingRequest ping = GATEWAY__PING_REQUEST__INIT;
	Control__StatusRequest status = CONTROL__STATUS_REQUEST__INIT;
	if (build_offer_caches(b, e) < 0) return -1;
	offer_outputs(b);
	if (sess_client_start(b->sess, d->cli->conn, session_ended, d, e) < 0) return -1;
	d->solve = wire_unary(d->cli->conn, METHOD_CONTROL_SOLVE, NULL, 0, &solve_request(b)->base, solved, d, 0);
	bridge_call(d, METHOD_BRIDGE_PING, &ping.base, pong, PING_MS);
	status.ref = b->ref;
	d->status = wire_call_open(d->cli->conn, METHOD_CONTROL_STATUS, NULL, 0, 0, &status_ops, d);
	wire_call_send_msg(d->status, &status.base);
	wire_call_close_send(d->status);
	loop_timer_start(d->cli->loop, &d->tick, PROGRESS_TICK_MS, PROGRESS_TICK_MS, (void (*)(void *))progress_tick,
			 b->progress);
	return 0;
}

static void drive_fini(struct drive *d)
{
	loop_timer_stop(&d->tick);
	loop_timer_stop(&d->status_idle);
	loop_timer_stop(&d->bridge_failed);
	err_fini(&d->solve_err);
	err_fini(&d->bridge_err);
	err_fini(&d->status_err);
}

int build_run(struct build *b, struct err *e)
{
	struct drive d = {.b = b, .cli = b->cli};
	if (b->list_workers && list_workers(b, e) < 0) return -1;
	if (drive_start(&d, e) < 0) {
		drive_fini(&d);
		return -1;
	}
	b->cli->on_interrupt = interrupted;
	b->cli->on_interrupt_arg = &d;
	cli_wait(b->cli, &d.over);
	int rv = result_of(&d, e);
	if (rv == 0 && b->finish) rv = b->finish(b->finish_arg, e);
	b->cli->on_interrupt = NULL;
	loop_timer_stop(&d.tick);
	progress_done(b->progress);
	drive_fini(&d);
	return rv < 0 ? -1 : build_write_indexes(b, e);
}

/* ---- where results go ---- */
static int open_fd(void *arg, char *const *md, size_t n_md, int *ret_fd, struct err *e)
{
	struct build_export *x = arg;
	if (x->fd < 0) return err_set(e, CODE_FAILED_PRECONDITION, "the output was sent already");
	*ret_fd = take_fd(x->fd);
	return 1;
}

static void offer_outputs(struct build *b)
{
	for (size_t i = 0; i < b->exports.n; i++) {
		struct build_export *x = &b->exports.v[i];
		struct sess_client_output o = {.index = (unsigned)i, .open = open_fd, .arg = x};
		if (x->sink) {
			o = *x->sink;
			o.index = (unsigned)i;
		}
		if (x->store)
			sess_client_add_content(b->sess, "export", x->dir, true);
		else if (x->dir)
			sess_client_add_output_dir(b->sess, (unsigned)i, x->dir, x->delete_rest);
		else if (x->fd >= 0 || x->sink)
			sess_client_add_output(b->sess, &o);
	}
}

void build_init(struct build *b, struct cli *c, const char *shared_key)
{
	*b = (struct build){.cli = c, .mem = arena_new(0), .frontend = "", .trace_fd = -1};
	id_new(b->ref);
	b->sess = sess_client_new(c->loop, shared_key);
}

void build_fini(struct build *b)
{
	sess_client_free(b->sess);
	progress_free(b->progress);
	for (size_t i = 0; i < b->exports.n; i++) {
		struct build_export *x = &b->exports.v[i];
		free(x->type);
		free(x->dir);
		strvec_fini(&x->attrs);
		close_fd(&x->fd);
	}
	for (size_t i = 0; i < b->cache_to.n + b->cache_from.n; i++) {
		struct build_cache *x = i < b->cache_to.n ? &b->cache_to.v[i] : &b->cache_from.v[i - b->cache_to.n];
		free(x->type);
		strvec_fini(&x->attrs);
	}
	for (size_t i = 0; i < b->stores.n; i++) {
		free(b->stores.v[i].dir);
		free(b->stores.v[i].tag);
		free(b->stores.v[i].response_key);
	}
	vec_fini(&b->exports);
	vec_fini(&b->cache_to);
	vec_fini(&b->cache_from);
	vec_fini(&b->stores);
	strvec_fini(&b->attrs);
	strvec_fini(&b->entitlements);
	strvec_fini(&b->response);
	strvec_fini(&b->metadata);
	close_fd(&b->trace_fd);
	arena_free(b->mem);
}
