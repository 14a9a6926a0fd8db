/* The state machine of one request. FRONT: a frontend (in process, in a container, or the client itself by way of the bridge)
 * makes a result; a definition in the request is a result at once. SOLVE: every reference is evaluated. SHIP: exporters. */
#include "build/bridge.h"
#include "build/platforms.h"
#include "build/devices.h"
#include "build/provenance.h"
#include "build/share.h"
#include "policy/policy.h"

#include <string.h>

static void advance_ship(struct build *b);

/* ---- the end ---- */

static void expire(void *arg);

static void build_destroy(struct build *b)
{
	gc_soon(b->engine->gc); /* only now is nothing held any more */
	loop_timer_stop(&b->keep);
	build_readers_drop(b);
	if (b->front) front_run_cancel(b->front);
	if (b->ship) ship_run_cancel(b->ship);
	if (b->attest) attest_cancel(b->attest);
	build_bridge_free(b->bridge);
	result_fini(&b->result);
	prov_scope_free(b->prov);
	build_checks_end(b);
	build_nested_end(b);
	solve_build_free(b->solve);
	policy_unref(b->policy);
	ops_memo_fini(&b->memo);
	for (size_t i = 0; i < b->graphs.n; i++) ops_graph_unref(b->graphs.v[i]);
	vec_fini(&b->graphs);
	for (size_t i = 0; i < b->events.n; i++) prog_unref(b->events.v[i]);
	vec_fini(&b->events);
	map_fini(&b->last_status);
	list_del(&b->all);
	arena_free(b->arena);
	strvec_fini(&b->attrs);
	strvec_fini(&b->response);
	err_fini(&b->error);
	free(b->req);
	free(b->ref);
	free(b->session);
	free(b->frontend);
	free(b);
}

static void expire(void *arg) { build_destroy(arg); }

/* What the build held is let go; its progress stays a while for late readers. */
static void let_go(struct build *b)
{
	if (b->front) front_run_cancel(b->front);
	b->front = NULL;
	if (b->attest) attest_cancel(b->attest);
	b->attest = NULL;
	if (b->ship) ship_run_cancel(b->ship);
	b->ship = NULL;
	build_bridge_free(b->bridge);
	b->bridge = NULL;
	result_fini(&b->result);
	build_checks_end(b);
	build_nested_end(b);
	share_end(b);
	solve_build_free(b->solve);
	b->solve = NULL;
	ops_memo_fini(&b->memo);
	build_events_close(b);
}

static void answer(struct build *b, const struct err *e)
{
	struct build_reply r = b->reply;
	if (!r.done) return; /* the client has gone */
	b->reply = (struct build_reply){0};
	if (e) {
		r.done(r.arg, NULL, e);
		return;
	}
	_cleanup_arena_ struct arena *a = arena_new(0);
	Control__SolveResponse m = CONTROL__SOLVE_RESPONSE__INIT;
	m.exporterresponse = arena_alloc(a, sizeof *m.exporterresponse * b->response.n);
	for (size_t i = 0; i < b->response.n; i++) {
		Control__SolveResponse__ExporterResponseEntry *en = arena_new_of(a, Control__SolveResponse__ExporterResponseEntry);
		control__solve_response__exporter_response_entry__init(en);
		const char *kv = b->response.v[i], *eq = strchr(kv, '=');
		en->key = arena_strndup(a, kv, (size_t)(eq - kv));
		en->value = arena_strdup(a, eq + 1);
		m.exporterresponse[m.n_exporterresponse++] = en;
	}
	r.done(r.arg, &m.base, NULL);
}

/* Labels as BuildKit's: never a message. */
static void count(const struct build *b)
{
	const Control__BuildHistoryRecord *r = b->record;
	if (!r) return;
	const char *status = err_is_set(&b->error) ? "failure" : "success";
	tele_count(TELE_BUILDS, 1, status, err_is_set(&b->error) ? err_code_name(b->error.code) : NULL);
	tele_count(TELE_BUILDS_STEPS, r->numcompletedsteps, "completed");
	tele_count(TELE_BUILDS_STEPS, r->numcachedsteps, "cached");
	tele_count(TELE_BUILDS_STEPS, r->numtotalsteps, "total");
	tele_count(TELE_BUILDS_STEPS, r->numwarnings, "warnings");
	if (r->createdat && r->completedat)
		tele_observe(TELE_BUILD_SECONDS,
			     (double)(r->completedat->seconds - r->createdat->seconds) + (r->completedat->nanos - r->createdat->nanos) / 1e9, status);
}

static void saved(void *arg, const struct err *e)
{
	struct build *b = arg;
	struct engine *g = b->engine;
	b->state = BUILD_DONE;
	count(b);
	db_flush(g->conf.db, NULL);
	loop_timer_start(g->conf.env->loop, &b->keep, KEEP_MS, 0, expire, b);
	answer(b, err_is_set(&b->error) ? &b->error : e);
	collect_kick(g->collect);
	gc_soon(g->gc);
	if (g->on_idle && !engine_running(g)) g->on_idle(g->idle_arg);
}

/* Where it failed, as a "stack trace" of one frame: clients show it when they debug, with our version. */
static void add_stack(const struct build *b, struct err *e)
{
	static const char *const stages[] = {[BUILD_FRONT] = "slipway/build.front", [BUILD_SOLVE] = "slipway/build.solve", [BUILD_SHIP] = "slipway/build.ship"};
	static const char type[] = "github.com/moby/buildkit/stack.Stack+json";
	_cleanup_buf_ struct buf text = BUF_INIT;
	struct json_w w = JSON_W(&text);
	if (err_detail_find(e, type)) return;
	json_obj(&w);
	json_key(&w, "frames");
	json_arr(&w);
	json_obj(&w);
	json_kstr(&w, "Name", b->state < array_len(stages) ? stages[b->state] : "slipway/build");
	json_kstr(&w, "File", "src/build/build.c");
	json_kint(&w, "Line", __LINE__);
	json_obj_end(&w);
	json_arr_end(&w);
	json_kint(&w, "pid", getpid());
	json_kstr(&w, "version", b->engine->conf.version);
	json_kstr(&w, "revision", b->engine->conf.revision);
	json_obj_end(&w);
	err_detail_push(e, type, text.p, text.n);
}

/* The client is answered once the record is stored: who asks for it then finds it. */
static void end(struct build *b, const struct strvec *response, const struct err *e)
{
	if (b->replied) return;
	b->replied = true;
	if (e) {
		err_copy(&b->error, e);
		build_error_code(&b->error);
		add_stack(b, &b->error);
	}
	if (response && response != &b->response) strvec_copy(&b->response, response->v, response->n);
	build_record_end(b, e ? &b->error : NULL);
	b->state = BUILD_SAVE;
	let_go(b);
	build_record_save(b, saved, b);
}

static void fail(struct build *b, const struct err *e) { end(b, NULL, e); }
static void reply(struct build *b, const struct strvec *response) { end(b, response, NULL); }

void build_cancel(struct build *b)
{
	struct err e = ERR_INIT;
	b->reply = (struct build_reply){0};
	err_set(&e, CODE_CANCELLED, "context canceled");
	end(b, NULL, &e);
	err_fini(&e);
}

/* ---- SHIP ---- */

static void recorded(void *arg)
{
	struct build *b = arg;
	reply(b, &b->response);
}

static void shipped(void *arg, const struct strvec *response, const struct err *e)
{
	struct build *b = arg;
	b->ship = NULL;
	if (e) {
		fail(b, e);
		return;
	}
	strvec_copy(&b->response, response->v, response->n);
	attest_record(b, recorded, b);
}

static void advance_ship(struct build *b)
{
	b->state = BUILD_SHIP;
	b->ship = ship_run_start(b, shipped, b);
}

/* ---- SOLVE ---- */

static void attested(void *arg, const struct err *e)
{
	struct build *b = arg;
	b->attest = NULL;
	if (b->replied) return;
	if (e)
		fail(b, e);
	else
		advance_ship(b);
}

static void advance_attest(struct build *b) { b->attest = attest_start(b, attested, b); }

static void ref_evaluated(void *arg, struct snap *result, const struct err *e)
{
	struct build *b = arg;
	if (b->replied) return;
	if (e) {
		fail(b, e);
		return;
	}
	if (--b->evaluating == 0) advance_attest(b);
}

static void advance_solve(struct build *b)
{
	b->state = BUILD_SOLVE;
	b->evaluating = 1; /* ours, so that it cannot end within the loop */
	for (size_t i = 0; i < b->result.refs.n; i++) {
		if (!b->result.refs.v[i].ref) continue;
		b->evaluating++;
		ref_eval(b->result.refs.v[i].ref, ref_evaluated, b);
	}
	if (--b->evaluating == 0) advance_attest(b);
}

static void have_result(struct build *b, struct result *res, const struct err *e)
{
	if (b->replied) return;
	if (e) {
		fail(b, e);
		return;
	}
	b->result = *res;
	*res = (struct result){0};
	struct err bad = ERR_INIT;
	if (result_order(&b->result, &b->engine->conf.platforms[0], &bad) < 0) {
		fail(b, &bad);
		err_fini(&bad);
		return;
	}
	advance_solve(b);
}

static void front_done(void *arg, struct result *res, const struct err *e)
{
	struct build *b = arg;
	b->front = NULL;
	if (!e) result_capture_request(res, &b->attrs);
	have_result(b, res, e);
}

struct returned {
	struct build *build;
	struct result res;
	struct err error;
	bool failed;
};

static void after_return(void *arg)
{
	struct returned *r = arg;
	/* The build may have been cancelled since, but it stays for KEEP_MS. */
	if (!r->failed) result_capture_request(&r->res, &r->build->attrs);
	have_result(r->build, &r->res, r->failed ? &r->error : NULL);
	result_fini(&r->res);
	err_fini(&r->error);
	free(r);
}

/* The frontend gets the answer to its Return before the build goes on. */
static void client_returned(struct bridge *br, struct result *res, const struct err *e)
{
	struct returned *r = xnew(struct returned);
	r->build = br->build;
	r->res = *res;
	*res = (struct result){0};
	r->failed = e != NULL;
	if (e) err_copy(&r->error, e);
	loop_post(br->build->engine->conf.env->loop, after_return, r);
}

/* ---- FRONT ---- */

static void on_event(void *user, struct prog_event *ev) { build_event(user, ev); }

size_t build_sessions(void *user, const char **ret, size_t max)
{
	const struct build *b = user;
	if (!*b->session || !max) return 0;
	ret[0] = b->session;
	return 1;
}

struct ops_memo *build_memo(void *user) { return &((struct build *)user)->memo; }

const char *build_attr(const struct build *b, const char *key)
{
	size_t n = strlen(key);
	for (size_t i = 0; i < b->attrs.n; i++)
		if (!strncmp(b->attrs.v[i], key, n) && b->attrs.v[i][n] == '=') return b->attrs.v[i] + n + 1;
	return NULL;
}

static int check_entitlements(const struct policy *c, const Control__SolveRequest *req, struct err *e)
{
	for (size_t i = 0; i < req->n_entitlements; i++) {
		const char *x = req->entitlements[i];
		bool known = true, ok = false;
		if (!strcmp(x, "network.host"))
			ok = c->network_host;
		else if (!strcmp(x, "security.insecure"))
			ok = c->insecure;
		else if (!strcmp(x, "device") || str_starts(x, "device="))
			ok = c->devices;
		else
			known = false;
		if (!known) return err_set(e, CODE_UNKNOWN, "unknown entitlement %s", x);
		if (!ok) return err_set(e, CODE_UNKNOWN, "granting entitlement %s is not allowed by build daemon configuration", x);
	}
	return devices_check(req, e);
}

static int check_version(int64_t v, struct err *e)
{
	if (v == 0 || v == 10 || v == 20 || v == 30) return 0;
	if (v > 30)
		return err_set(e, CODE_UNKNOWN, "unsupported compatibility-version %lld: upgrade buildkit (max supported: 30)", (long long)v);
	return err_set(e, CODE_UNKNOWN, "unsupported compatibility-version %lld (supported: [10 20 30])", (long long)v);
}

static int check(struct engine *g, const Control__SolveRequest *req, struct err *e)
{
	struct build *old = engine_find(g, req->ref);
	if (!*req->ref) return err_set(e, CODE_INVALID_ARGUMENT, "a build needs a ref");
	if (old && old->state != BUILD_DONE) return err_set(e, CODE_UNKNOWN, "job ID %s exists", req->ref);
	if (old) build_destroy(old);
	if (check_version(req->compatibilityversion, e) < 0 || check_entitlements(g->policy, req, e) < 0) return -1;
	if (req->definition && req->definition->n_def && *req->frontend)
		return err_set(e, CODE_UNKNOWN, "cannot solve with both Definition and Frontend specified");
	if (req->sourcepolicy && policy_validate(req->sourcepolicy, e) < 0) return -1;
	return ship_check(req, e) < 0 || share_check(req, e) < 0 || attest_check(req, e) < 0 ? -1 : 0;
}

/* A copy of the request that lives as long as the build. */
static struct build *build_new(struct engine *g, const Control__SolveRequest *req, struct build_reply r)
{
	struct build *b = xnew(struct build);
	b->engine = g;
	b->policy = policy_ref(g->policy);
	b->reply = r;
	b->ref = xstrdup(req->ref);
	b->session = xstrdup(req->session);
	b->frontend = xstrdup(req->frontend);
	b->internal = req->internal;
	b->memo.compat = req->compatibilityversion;
	build_trace_init(b);
	b->prov = prov_root_new(b);
	b->arena = arena_new(0);
	b->req_len = protobuf_c_message_get_packed_size(&req->base);
	b->req = xmalloc(b->req_len);
	protobuf_c_message_pack(&req->base, b->req);
	b->pb = wire_unpack_as(Control__SolveRequest, control__solve_request, b->req, b->req_len, b->arena, NULL);
	ensure(b->pb);
	for (size_t i = 0; i < req->n_frontendattrs; i++) strvec_addf(&b->attrs, "%s=%s", req->frontendattrs[i]->key, req->frontendattrs[i]->value);
	list_init(&b->readers);
	list_init(&b->checks);
	list_init(&b->nested);
	list_init(&b->shares);
	list_add_tail(&g->builds, &b->all);
	static const struct solve_build_ops ops = {.event = on_event};
	b->solve = solve_build_new(g->conf.env->solver, &ops, b);
	return b;
}

static void start(void *arg)
{
	struct build *b = arg;
	if (b->replied) return;
	if (b->pb->definition && b->pb->definition->n_def) {
		struct result res = {0};
		share_import_request(b);
		struct result_ref x = {NULL, ref_new(b, b->pb->definition)};
		prov_scope_ref(b->prov, x.ref);
		vec_push(&res.refs, x);
		have_result(b, &res, NULL);
	} else if (*b->frontend) {
		b->front = front_run_start(b, b->bridge, b->frontend, &b->attrs, front_done, b);
	} else if (b->pb->definition) { /* an empty graph is scratch */
		struct result res = {0};
		struct result_ref x = {NULL, ref_new(b, NULL)};
		prov_scope_ref(b->prov, x.ref);
		vec_push(&res.refs, x);
		have_result(b, &res, NULL);
	}
	/* else: the client's frontend calls by the bridge and ends with Return */
}

struct build *build_start(struct engine *g, const Control__SolveRequest *req, struct build_reply r)
{
	struct err e = ERR_INIT;
	if (check(g, req, &e) < 0) {
		r.done(r.arg, NULL, &e);
		err_fini(&e);
		return NULL;
	}
	if (g->conf.look_for_platforms) g->conf.look_for_platforms(g->conf.platforms_arg);
	struct build *b = build_new(g, req, r);
	b->bridge = build_bridge_new(b);
	b->bridge->on_return = client_returned;
	for (size_t i = 0; i < b->pb->n_frontendinputs; i++)
		if (b->pb->frontendinputs[i]->value) bridge_add_input(b->bridge, b->pb->frontendinputs[i]->key, b->pb->frontendinputs[i]->value);
	engine_build_came(g, b);
	collect_disturb(g->collect);
	build_record_start(b);
	loop_post(g->conf.env->loop, start, b);
	return b;
}

/* ---- errors ---- */

void build_error_code(struct err *e)
{
	switch (e->code) {
	case CODE_CANCELLED:
	case CODE_DEADLINE_EXCEEDED:
	case CODE_RESOURCE_EXHAUSTED:
	case CODE_UNIMPLEMENTED:
	case CODE_INTERNAL: return;
	default: e->code = CODE_UNKNOWN;
	}
}

static void add_source(const struct llb_graph *g, const struct llb_node *n, struct err *e)
{
	Pb__Location **loc;
	size_t c = llb_graph_locations(g, n, &loc);
	for (size_t i = c; i-- > 0;) { /* the last one is told first, as if each wrapped those before it */
		if (loc[i]->sourceindex < 0 || (size_t)loc[i]->sourceindex >= g->source->n_infos) continue;
		const Pb__SourceInfo *info = g->source->infos[loc[i]->sourceindex];
		_cleanup_buf_ struct buf b = BUF_INIT;
		struct json_w w = JSON_W(&b);
		json_obj(&w);
		json_key(&w, "info");
		llb_json(&w, &info->base);
		json_key(&w, "ranges");
		json_arr(&w);
		for (size_t k = 0; k < loc[i]->n_ranges; k++) llb_json(&w, &loc[i]->ranges[k]->base);
		json_arr_end(&w);
		json_obj_end(&w);
		err_detail_add(e, "github.com/moby/buildkit/errdefs.Source+json", b.p, b.n);
	}
}

void build_error_details(struct build *b, struct err *e)
{
	static const char type[] = "github.com/moby/buildkit/errdefs.Vertex+json";
	const struct err_detail *d = err_detail_find(e, type);
	if (!d || err_detail_find(e, "github.com/moby/buildkit/errdefs.Source+json")) return;
	for (size_t i = 0; i < b->graphs.n; i++) {
		const struct llb_graph *g = b->graphs.v[i]->graph;
		for (size_t k = 0; g->source && k < g->n_nodes; k++) {
			if (!memmem(d->data, d->len, g->nodes[k].digest, strlen(g->nodes[k].digest))) continue;
			add_source(g, &g->nodes[k], e);
			return;
		}
	}
}
