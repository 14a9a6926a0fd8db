/* A run: copies of the request, filling of lazy layers, then the exporter's own way (image.c, files.c). */
#include "ship/internal.h"

#include <string.h>

static const char session_missing[] = "no active session to export to";

void ship_show(struct ship_run *r, const char *id, bool end)
{
	if (!r->req.status) return;
	if (!end) r->since = time_now();
	struct prog_status s = {.id = id, .name = "", .started = r->since};
	if (end) s.completed = time_now();
	r->req.status(r->req.arg, &s);
}

static void run_free(struct ship_run *r)
{
	for (size_t i = 0; i < r->n_refs; i++) {
		snap_unref(r->refs[i].snap);
		free(r->refs[i].key);
		free(r->refs[i].platform);
	}
	for (size_t i = 0; i < r->meta.n; i++) {
		free(r->meta.v[i].key);
		free(r->meta.v[i].data);
	}
	vec_fini(&r->meta);
	ship_attests_fini(r);
	for (size_t i = 0; i < r->n_layers; i++) {
		snap_unref(r->layers[i].layer);
		snap_view_free(r->layers[i].work.view);
		snap_view_free(r->layers[i].work.lower);
		free(r->layers[i].work.from);
		err_fini(&r->layers[i].work.error);
	}
	for (size_t i = 0; i < r->n_attrs; i++) {
		free((char *)r->attrs[i].key);
		free((char *)r->attrs[i].value);
	}
	for (size_t i = 0; i < r->n_sessions; i++) free(r->sessions[i]);
	ship_dirs_fini(r);
	ship_rewrite_fini(r);
	ship_annotations_fini(&r->annotations);
	image_job_fini(&r->image);
	reg_config_unref(r->reg_config);
	sess_unref(r->session);
	loop_pipe_unref(r->pipe);
	strvec_fini(&r->response);
	ship_opts_fini(&r->opts);
	err_fini(&r->error);
	free(r->layers);
	free(r->refs);
	free(r->attrs);
	free(r);
}

static void end_now(void *arg)
{
	struct ship_run *r = arg;
	bool failed = err_is_set(&r->error);
	r->req.done(r->req.arg, failed ? NULL : &r->response, failed ? &r->error : NULL);
	run_free(r);
}

void ship_end(struct ship_run *r, struct err *e)
{
	if (e && err_is_set(e) && !err_is_set(&r->error)) err_move(&r->error, e);
	if (e) err_fini(e);
	if (r->cancelled && !err_is_set(&r->error)) err_set(&r->error, CODE_CANCELLED, "context canceled");
	loop_post(r->req.env->loop, end_now, r);
}

const struct image_meta_kv *ship_meta_find(const struct ship_run *r, const char *key, const char *platform)
{
	_cleanup_free_ char *full = platform ? xasprintf("%s/%s", key, platform) : xstrdup(key);
	for (size_t i = 0; i < r->meta.n; i++)
		if (!strcmp(r->meta.v[i].key, full)) return &r->meta.v[i];
	return NULL;
}

static void begin_kind(struct ship_run *r)
{
	if (r->cancelled)
		ship_end(r, NULL);
	else if (r->opts.kind <= SHIP_DOCKER)
		ship_image_start(r);
	else
		ship_files_start(r);
}

static void begin(struct ship_run *r) { ship_attests_fill(r, begin_kind); }

static void filled(void *arg, const struct err *e)
{
	struct ship_run *r = arg;
	r->fill = NULL;
	if (!e) {
		begin(r);
		return;
	}
	struct err copy = ERR_INIT;
	err_copy(&copy, e);
	ship_end(r, &copy);
}

static void fill_status(void *arg, const struct prog_status *s)
{
	struct ship_run *r = arg;
	if (r->req.status) r->req.status(r->req.arg, s);
}

static void start(void *arg)
{
	struct ship_run *r = arg;
	struct snap **snaps = xcalloc(r->n_refs, sizeof *snaps);
	for (size_t i = 0; i < r->n_refs; i++) snaps[i] = r->refs[i].snap;
	struct ops_fill_req req = {.snaps = snaps, .n = r->n_refs, .sessions = r->session_ids, .n_sessions = r->n_sessions,
				   .blobs_only = r->opts.kind <= SHIP_DOCKER, .status = fill_status, .done = filled, .arg = r, .span = r->req.span};
	r->fill = r->cancelled ? NULL : ops_fill(r->req.env, &req);
	free(snaps);
	if (!r->fill) begin(r);
}

static void copy_request(struct ship_run *r, const struct ship_req *req)
{
	r->attrs = xcalloc(req->n_attrs, sizeof *r->attrs);
	r->n_attrs = req->n_attrs;
	for (size_t i = 0; i < req->n_attrs; i++) r->attrs[i] = (struct ship_kv){xstrdup(req->attrs[i].key), xstrdup(req->attrs[i].value)};
	r->refs = xcalloc(req->n_refs, sizeof *r->refs);
	r->n_refs = req->n_refs;
	for (size_t i = 0; i < req->n_refs; i++)
		r->refs[i] = (struct ship_one){xstrdup(req->refs[i].key), req->refs[i].snap ? snap_ref(req->refs[i].snap) : NULL, xstrdup(req->refs[i].platform)};
	ship_attests_copy(r, req);
	for (size_t i = 0; i < req->n_meta; i++) {
		struct image_meta_kv kv = {xstrdup(req->meta[i].key), xmemdup(req->meta[i].data, req->meta[i].len), req->meta[i].len};
		vec_push(&r->meta, kv);
	}
	for (size_t i = 0; i < req->n_sessions && i < OPS_SESSIONS_MAX; i++)
		r->session_ids[r->n_sessions++] = r->sessions[i] = xstrdup(req->sessions[i]);
}

struct ship_run *ship_start(const struct ship_req *req)
{
	struct ship_run *r = xnew(struct ship_run);
	r->req = *req;
	copy_request(r, req);
	struct err e = ERR_INIT;
	if (ship_opts_parse(req->type, r->attrs, r->n_attrs, &r->opts, &e) < 0) {
		ship_end(r, &e);
		return r;
	}
	for (size_t i = 0; i < r->opts.rest.n; i++) { /* unknown attributes count as the result's metadata */
		const struct ship_kv *kv = &r->opts.rest.v[i];
		struct image_meta_kv m = {xstrdup(kv->key), xmemdup(kv->value, strlen(kv->value)), strlen(kv->value)};
		vec_push(&r->meta, m);
	}
	loop_post(req->env->loop, start, r);
	return r;
}

void ship_cancel(struct ship_run *r)
{
	if (r->cancelled) return;
	r->cancelled = true;
	loop_job_cancel(&r->job);
	for (size_t i = 0; i < r->n_layers; i++) loop_job_cancel(&r->layers[i].job);
	ship_rewrite_cancel(r);
	if (r->fill) ops_fill_cancel(r->fill);
	if (r->wait) sess_op_cancel(r->wait);
	if (r->send) sess_op_cancel(r->send);
	if (r->push) ship_push_cancel(r->push);
}

/* ---- the receiving session ---- */

struct session_wait {
	struct ship_run *run;
	const char *method;
	void (*go)(struct ship_run *r);
};

static void got_session(void *arg, struct sess *s, const struct err *e)
{
	struct session_wait *w = arg;
	struct ship_run *r = w->run;
	const char *method = w->method;
	void (*go)(struct ship_run *) = w->go;
	free(w);
	r->wait = NULL;
	struct err copy = ERR_INIT;
	if (e) {
		err_copy(&copy, e);
		ship_end(r, &copy);
		return;
	}
	if (!sess_supports(s, method)) {
		err_set(&copy, CODE_UNKNOWN, "method %s not supported by the client", method);
		ship_end(r, &copy);
		return;
	}
	r->session = sess_ref(s);
	go(r);
}

void ship_with_session(struct ship_run *r, const char *method, void (*go)(struct ship_run *r))
{
	if (!r->n_sessions) {
		struct err e = ERR_INIT;
		err_set(&e, CODE_UNKNOWN, "%s", session_missing);
		ship_end(r, &e);
		return;
	}
	struct session_wait *w = xnew(struct session_wait);
	w->run = r;
	w->method = method;
	w->go = go;
	r->wait = sess_wait(r->req.env->sessions, r->sessions[0], SESS_WAIT_MS, got_session, w);
}
