/* Filling lazy snapshots: each lazy layer is downloaded (admitted by its registry's pool) and unpacked on a thread of its
 * own, all layers side by side; what a layer needs from those below it (hard links, parents' attributes) is done in
 * order, when the layers below are there.
 *
 * Steps of a layer: WAITING (for a slot) -> RUNNING (download and unpack) -> UNPACKED -> FIXING (ordered) -> DONE.
 * A layer that two fills want is unpacked by both at worst; the second one's directory is dropped (snap_fill_commit). */
#include "ops/fill_job.h"
#include "ops/internal.h"
#include "spec/media.h"

#include <string.h>

enum layer_state { WAITING, RUNNING, UNPACKED, FIXING, DONE };

struct fill_layer {
	struct ops_fill *fill;
	struct snap *snap;
	enum layer_state state;
	struct loop_job job;
	struct loop_slot slot;
	struct fill_job work;
	struct snap_view *view, *lower_view;
	struct reg_io io;
	struct spec_ref ref;
	bool io_ready, blob_only;
	struct prog_status last;
	atomic_llong bytes;
};

struct ops_fill {
	struct ops_env *env;
	struct fill_layer *layers; /* bottom to top where they belong together */
	size_t n, left;
	struct ops_auth auth;
	struct reg_config *config;
	struct ops_span span;
	struct loop_timer ticker;
	void (*status)(void *arg, const struct prog_status *s);
	void (*done)(void *arg, const struct err *e);
	void *arg;
	struct err error;
	bool cancelled;
};

static void advance(struct ops_fill *f);

static void show(struct fill_layer *l, const char *id, const char *name, int64_t current, int64_t total, bool end)
{
	struct ops_fill *f = l->fill;
	if (!f->status) return;
	struct timespec now = time_now();
	struct prog_status s = {.id = id, .name = name, .current = current, .total = total, .timestamp = now};
	if (!l->last.started.tv_sec || strcmp(l->last.id ? l->last.id : "", id)) {
		l->last.started = now;
		free((char *)l->last.id);
		l->last.id = xstrdup(id);
	}
	s.started = l->last.started;
	if (end) s.completed = now;
	f->status(f->arg, &s);
}

static void tick(void *arg)
{
	struct ops_fill *f = arg;
	for (size_t i = 0; i < f->n; i++) {
		struct fill_layer *l = &f->layers[i];
		if (l->state != RUNNING || l->work.have_blob) continue;
		long long got = atomic_load(&l->bytes);
		if (got < l->work.desc.size) show(l, l->work.desc.digest, "", got, l->work.desc.size, false);
	}
}

static void layer_fini(struct fill_layer *l)
{
	snap_unref(l->snap);
	snap_view_free(l->view);
	snap_view_free(l->lower_view);
	if (l->io_ready) reg_io_fini(&l->io);
	spec_ref_fini(&l->ref);
	reg_desc_fini(&l->work.desc);
	tar_pending_fini(&l->work.pending);
	free((char *)l->last.id);
	err_fini(&l->work.error);
}

static void finish(struct ops_fill *f)
{
	loop_timer_stop(&f->ticker);
	for (size_t i = 0; i < f->n; i++) layer_fini(&f->layers[i]);
	bool failed = err_is_set(&f->error);
	f->done(f->arg, failed ? &f->error : NULL);
	ops_auth_fini(&f->auth);
	reg_config_unref(f->config);
	err_fini(&f->error);
	free(f->layers);
	free(f);
}

static void fail(struct ops_fill *f, struct err *e)
{
	if (!err_is_set(&f->error)) err_move(&f->error, e);
	err_fini(e);
	for (size_t i = 0; i < f->n; i++) {
		struct fill_layer *l = &f->layers[i];
		loop_job_cancel(&l->job);
		if (l->io_ready && l->state == RUNNING) reg_io_cancel(&l->io);
	}
}

static void layer_ended(struct fill_layer *l)
{
	l->state = DONE;
	l->fill->left--;
}

/* ---- the ordered pass ---- */

static void fix_work(struct loop_job *j)
{
	struct fill_layer *l = container_of(j, struct fill_layer, job);
	fill_job_commit(&l->work, l->lower_view);
}

static void fix_done(struct loop_job *j)
{
	struct fill_layer *l = container_of(j, struct fill_layer, job);
	struct ops_fill *f = l->fill;
	if (!err_is_set(&l->work.error)) snap_filled(l->snap, &l->work.error);
	if (err_is_set(&l->work.error))
		fail(f, &l->work.error);
	else {
		_cleanup_free_ char *id = xasprintf("extracting %s", l->work.desc.digest);
		show(l, id, "extracting", 0, 0, true);
	}
	layer_ended(l);
	advance(f);
}

static bool lower_ready(const struct fill_layer *l)
{
	struct snap *lazy[1];
	struct snap *lower = snap_layer_lower(l->snap);
	return !lower || snap_lazy_layers(lower, lazy, 1) == 0;
}

static void start_fix(struct fill_layer *l)
{
	struct snap *lower = snap_layer_lower(l->snap);
	l->state = FIXING;
	l->lower_view = lower ? snap_view_new(lower) : NULL;
	l->job.work = fix_work;
	l->job.done = fix_done;
	loop_job_start(l->fill->env->loop, &l->job, LOOP_DISK);
}

/* ---- download and unpack ---- */

static void unpack_work(struct loop_job *j) { fill_job_unpack(&container_of(j, struct fill_layer, job)->work); }

static void unpack_done(struct loop_job *j)
{
	struct fill_layer *l = container_of(j, struct fill_layer, job);
	struct ops_fill *f = l->fill;
	if (err_is_set(&l->work.error)) {
		snap_fill_abort(&l->work.fill);
		fail(f, &l->work.error);
		layer_ended(l);
	} else {
		l->state = UNPACKED;
	}
	advance(f);
}

static void unpack_start(struct fill_layer *l)
{
	l->state = RUNNING;
	l->job.work = unpack_work;
	l->job.done = unpack_done;
	loop_job_start(l->fill->env->loop, &l->job, LOOP_CPU);
}

static void get_work(struct loop_job *j) { fill_job_download(&container_of(j, struct fill_layer, job)->work); }

static void get_done(struct loop_job *j)
{
	struct fill_layer *l = container_of(j, struct fill_layer, job);
	struct ops_fill *f = l->fill;
	loop_slot_release(&l->slot); /* the next download begins while this one is unpacked */
	if (!err_is_set(&l->work.error)) show(l, l->work.desc.digest, "", l->work.desc.size, l->work.desc.size, true);
	if (err_is_set(&l->work.error)) fail(f, &l->work.error);
	if (l->blob_only || err_is_set(&f->error))
		layer_ended(l);
	else
		unpack_start(l);
	advance(f);
}

static void granted(struct loop_slot *s)
{
	struct fill_layer *l = container_of(s, struct fill_layer, slot);
	l->state = RUNNING;
	l->job.work = get_work;
	l->job.done = get_done;
	loop_job_start(l->fill->env->loop, &l->job, LOOP_NET);
}

static void advance(struct ops_fill *f)
{
	for (size_t i = 0; i < f->n; i++) {
		struct fill_layer *l = &f->layers[i];
		if (l->state == WAITING && err_is_set(&f->error)) {
			loop_slot_release(&l->slot);
			layer_ended(l);
		} else if (l->state == UNPACKED && err_is_set(&f->error)) {
			snap_fill_abort(&l->work.fill);
			layer_ended(l);
		} else if (l->state == UNPACKED && l->snap->state != SNAP_LAZY) { /* another fill was quicker */
			snap_fill_abort(&l->work.fill);
			layer_ended(l);
		} else if (l->state == UNPACKED && lower_ready(l)) {
			start_fix(l);
		}
	}
	if (!f->left) finish(f);
}

static int add_layer(struct ops_fill *f, struct snap *snap, bool blob_only, struct err *e)
{
	const struct snap_blob *b = snap_blob_find(snap, NULL);
	if (!b) {
		if (blob_only) return 0; /* made here: the exporter compresses it */
		return err_set(e, CODE_INTERNAL, "layer %s has neither a directory nor a blob", snap->uid);
	}
	bool have = blob_has(f->env->blobs, b->digest);
	if (blob_only && have) return 0;
	struct fill_layer *l = &f->layers[f->n];
	list_init(&l->slot.link);
	if (b->source && spec_ref_parse(b->source, &l->ref, e) < 0) return err_wrap(e, "source of layer %s", b->digest);
	if (!b->source && !have) return err_set(e, CODE_NOT_FOUND, "layer %s is not here and has no source", b->digest);
	f->n++;
	f->left++;
	l->fill = f;
	l->snap = snap_ref(snap);
	l->blob_only = blob_only;
	l->view = blob_only ? NULL : snap_view_new(snap);
	reg_io_init(&l->io, f->env->reg, f->config);
	l->io.span = ops_span_log(&f->span);
	l->io_ready = true;
	l->io.cancelled = &l->job.cancelled;
	ops_auth_use(&f->auth, &l->io);
	l->slot.group = ops_auth_group(&f->auth);
	l->work = (struct fill_job){.blobs = f->env->blobs, .io = &l->io, .ref = &l->ref, .have_blob = have, .bytes = &l->bytes,
				    .cancelled = &l->job.cancelled, .view = l->view, .fill = {.dirfd = -1}};
	l->work.desc = (struct reg_desc){xstrdup(b->digest), xstrdup(b->media_type), b->size};
	l->work.diff_id = snap->diff_id;
	l->slot.granted = granted;
	return 0;
}

static bool has_layer(const struct ops_fill *f, const struct snap *s)
{
	for (size_t i = 0; i < f->n; i++)
		if (f->layers[i].snap == s) return true;
	return false;
}

static size_t layers_to_fill(struct snap *s, bool blobs_only, struct snap **out, size_t max)
{
	if (!blobs_only) return snap_lazy_layers(s, out, max);
	size_t n = min_of(s->chain.n, max);
	memcpy(out, s->chain.v, n * sizeof *out);
	return n;
}

static void start(void *arg)
{
	struct ops_fill *f = arg;
	for (size_t i = 0; i < f->n; i++) {
		struct fill_layer *l = &f->layers[i];
		if (err_is_set(&f->error)) continue;
		if (l->work.have_blob)
			unpack_start(l);
		else
			loop_slot_want(reg_pools_get(f->env->reg_pools, l->ref.domain, false), &l->slot);
	}
	advance(f);
}

struct ops_fill *ops_fill(struct ops_env *env, const struct ops_fill_req *req)
{
	enum { MAX = 2048 };
	struct snap *todo[MAX];
	size_t total = 0;
	for (size_t i = 0; i < req->n; i++)
		if (req->snaps[i]) total += layers_to_fill(req->snaps[i], req->blobs_only, todo, MAX);
	if (!total) return NULL;
	struct ops_fill *f = xnew(struct ops_fill);
	f->env = env;
	f->status = req->status;
	f->done = req->done;
	f->arg = req->arg;
	f->config = reg_config_ref(ops_settings(env, req->sessions, req->n_sessions).registries);
	f->span = req->span;
	ops_auth_init(&f->auth, env, req->sessions, req->n_sessions);
	f->layers = xcalloc(total, sizeof *f->layers);
	for (size_t i = 0; i < req->n && !err_is_set(&f->error); i++) {
		size_t n = req->snaps[i] ? layers_to_fill(req->snaps[i], req->blobs_only, todo, MAX) : 0;
		for (size_t k = 0; k < n && !err_is_set(&f->error); k++)
			if (!has_layer(f, todo[k])) add_layer(f, todo[k], req->blobs_only, &f->error);
	}
	if (f->n) loop_timer_start(env->loop, &f->ticker, 150, 150, tick, f);
	loop_post(env->loop, start, f);
	return f;
}

void ops_fill_cancel(struct ops_fill *f)
{
	if (f->cancelled) return;
	f->cancelled = true;
	struct err e = ERR_INIT;
	err_set(&e, CODE_CANCELLED, "context canceled");
	fail(f, &e);
	/* Layers that wait for a slot end here, the others when their jobs answer. */
	bool running = false;
	for (size_t i = 0; i < f->n; i++) running |= f->layers[i].state == RUNNING || f->layers[i].state == FIXING;
	if (!running) loop_post(f->env->loop, start, f);
}
