/* One export: which steps' results take part, blobs for those that have none, the graph, then one job that writes all of it.
 *
 *  1. The build's nodes are walked twice: first to learn what has to be made, then, with all blobs known, for the graph.
 *  2. A blob that is elsewhere (a pulled layer that nobody needed, a record of an imported cache) is fetched only when the
 *     place does not have it. */
#include "remote/internal.h"
#include "ship/layer_job.h"
#include "spec/media.h"

#include <string.h>

struct layer_task {
	struct remote_export *x;
	struct snap *layer;
	struct loop_job job;
	struct layer_job work;
};
struct source {                       /* where blobs that are not here come from */
	char *repo;                   /* a registry repository, or */
	struct remote_import *import; /* an imported cache */
	struct remote_place *place;
};
struct remote_export {
	struct ops_env *env;
	const struct remote_kind *kind;
	struct strvec attrs;
	struct ops_ids ids;
	bool max;
	struct remote_root *roots;
	size_t n_roots;
	void (*status)(void *arg, const struct prog_status *s);
	void (*done)(void *arg, const struct strvec *response, const struct err *e);
	void *arg;
	struct timespec since;
	const char *open; /* the line of progress that has begun */

	struct remote_place *place;
	bool collecting;
	VEC(struct layer_task *) tasks; /* blobs to make */
	size_t tasks_left;
	VEC(struct snap *) fills; /* whose blobs are needed here to make others */
	struct ops_fill *fill;
	struct cache_graph *graph;
	VEC(struct source) sources;
	VEC(ptrdiff_t) from; /* of a blob of the graph: index into sources; -1: it is here */
	VEC(struct snap *) held;
	struct loop_job job;
	struct loop_slot slot;
	bool job_runs, cancelled;
	struct strvec response;
	struct err error;
};

/* Clients print an error only behind lines that have ended. */
static void show(struct remote_export *x, const char *id, bool end)
{
	struct prog_status s = {.id = id, .name = "", .started = x->since};
	if (!end) s.started = x->since = time_now();
	if (end) s.completed = time_now();
	x->open = end ? NULL : id;
	if (x->status && !x->cancelled) x->status(x->arg, &s);
}

/* ---- a result's blobs ---- */

static bool reachable(const struct ops_env *env, const struct snap_blob *b)
{
	return b && (b->source || blob_has(env->blobs, b->digest));
}

/* The blob that goes along, NULL: it would have to be made. */
static const struct snap_blob *fitting(const struct ops_env *env, const struct remote_place *p, const struct snap *layer)
{
	const struct snap_blob *b = snap_blob_find(layer, spec_compression_name(p->compression));
	if (reachable(env, b)) return b;
	b = p->force ? NULL : snap_blob_find(layer, NULL);
	return reachable(env, b) ? b : NULL;
}

static void label(struct strvec *to, const struct snap *layer)
{
	char created[TIME_STR];
	time_rfc3339nano((struct timespec){layer->created_at_ns / 1000000000, layer->created_at_ns % 1000000000}, created);
	if (layer->diff_id) strvec_env_set(to, "containerd.io/uncompressed", layer->diff_id);
	strvec_env_set(to, "buildkit/createdat", created);
}

static size_t put_layer(struct cache_graph *g, const struct snap *layer, const struct snap_blob *b)
{
	struct cache_blob x = {.digest = b->digest,
			       .media_type = (char *)spec_media_convert_layer(b->media_type, true),
			       .diff_id = layer->diff_id,
			       .size = b->size,
			       .created = {layer->created_at_ns / 1000000000, layer->created_at_ns % 1000000000}};
	for (size_t i = 0; i < b->annotations.n; i++)
		if (!str_starts(b->annotations.v[i], "slipway.")) strvec_add(&x.annotations, b->annotations.v[i]); /* notes of our own */
	label(&x.annotations, layer);
	size_t i = cache_graph_blob(g, &x);
	strvec_fini(&x.annotations);
	return i;
}

/* ---- first walk: what has to be made ---- */

static void add_task(struct remote_export *x, struct snap *layer)
{
	for (size_t i = 0; i < x->tasks.n; i++)
		if (x->tasks.v[i]->layer == layer) return;
	struct layer_task *t = xnew(struct layer_task);
	const struct snap_blob *any = snap_blob_find(layer, NULL);
	struct snap *lower = snap_layer_lower(layer);
	if (!reachable(x->env, any)) any = NULL;
	t->x = x;
	t->layer = snap_ref(layer);
	t->work = (struct layer_job){.blobs = x->env->blobs,
				     .view = snap_view_new(layer),
				     .lower = lower ? snap_view_new(lower) : NULL,
				     .compression = x->place->compression,
				     .level = x->place->level,
				     .cancelled = &t->job.cancelled,
				     .from = any ? xstrdup(any->digest) : NULL};
	vec_push(&x->tasks, t);
	if (any && !blob_has(x->env->blobs, any->digest)) vec_push(&x->fills, layer);
}

static bool can_make(const struct remote_export *x, const struct snap *layer)
{
	return layer->state == SNAP_COMMITTED || reachable(x->env, snap_blob_find(layer, NULL));
}

static size_t local_blobs(void *arg, struct snap *snap, bool make, size_t *ret, size_t max)
{
	struct remote_export *x = arg;
	if (!snap->chain.n || snap->chain.n > max) return 0;
	for (size_t i = 0; i < snap->chain.n; i++)
		if (!fitting(x->env, x->place, snap->chain.v[i]) && !(x->collecting && make && can_make(x, snap->chain.v[i])))
			return 0;
	for (size_t i = 0; i < snap->chain.n; i++) {
		struct snap *layer = snap->chain.v[i];
		const struct snap_blob *b = fitting(x->env, x->place, layer);
		if (x->collecting) {
			if (!b) add_task(x, layer);
			continue;
		}
		ret[i] = put_layer(x->graph, layer, b);
		if (ret[i] < x->from.n) continue;
		vec_push(&x->held, snap_ref(layer));
		ptrdiff_t from = -1;
		if (!blob_has(x->env->blobs, b->digest)) {
			for (size_t k = 0; k < x->sources.n && from < 0; k++)
				if (str_eq(x->sources.v[k].repo, b->source)) from = (ptrdiff_t)k;
			if (from < 0) {
				vec_push(&x->sources, ((struct source){.repo = xstrdup(b->source)}));
				from = (ptrdiff_t)x->sources.n - 1;
			}
		}
		vec_push(&x->from, from);
	}
	return x->collecting ? 1 : snap->chain.n;
}

static size_t remote_blobs(void *arg, struct solve_remote *r, const struct cache_result *res, size_t *ret, size_t max)
{
	struct remote_export *x = arg;
	struct remote_import *import = solve_remote_arg(r);
	struct cache_graph *g = solve_remote_graph(r);
	if (!import || res->n > max) return 0;
	for (size_t i = 0; i < res->n; i++) {
		enum spec_compression c;
		const struct cache_blob *b = cache_graph_blob_at(g, res->blobs[i]);
		if (x->place->force && (spec_media_compression(b->media_type, &c, NULL) < 0 || c != x->place->compression))
			return 0;
	}
	if (x->collecting) return 1;
	for (size_t i = 0; i < res->n; i++) {
		ret[i] = cache_graph_blob(x->graph, cache_graph_blob_at(g, res->blobs[i]));
		if (ret[i] < x->from.n) continue;
		ptrdiff_t from = -1;
		for (size_t k = 0; k < x->sources.n && from < 0; k++)
			if (x->sources.v[k].import == import) from = (ptrdiff_t)k;
		if (from < 0) {
			vec_push(&x->sources, ((struct source){.import = import}));
			import->refs++;
			from = (ptrdiff_t)x->sources.n - 1;
		}
		vec_push(&x->from, from);
	}
	return res->n;
}

static void walk(struct remote_export *x, struct cache_graph *g)
{
	struct solve_export e = {.brief = x->collecting, .max = x->max, .local = local_blobs, .remote = remote_blobs, .arg = x};
	for (size_t i = 0; i < x->n_roots; i++) solve_export(x->roots[i].node, x->roots[i].output, &e, g);
}

/* ---- the end ---- */

static void task_free(struct layer_task *t)
{
	snap_unref(t->layer);
	snap_view_free(t->work.view);
	snap_view_free(t->work.lower);
	free(t->work.from);
	err_fini(&t->work.error);
	free(t);
}

static void export_free(struct remote_export *x)
{
	for (size_t i = 0; i < x->tasks.n; i++) task_free(x->tasks.v[i]);
	for (size_t i = 0; i < x->sources.n; i++) {
		remote_place_free(x->sources.v[i].place);
		if (x->sources.v[i].import) remote_import_unref(x->sources.v[i].import);
		free(x->sources.v[i].repo);
	}
	for (size_t i = 0; i < x->held.n; i++) snap_unref(x->held.v[i]);
	remote_place_free(x->place);
	cache_graph_free(x->graph);
	vec_fini(&x->tasks);
	vec_fini(&x->fills);
	vec_fini(&x->sources);
	vec_fini(&x->from);
	vec_fini(&x->held);
	strvec_fini(&x->attrs);
	strvec_fini(&x->response);
	ops_ids_fini(&x->ids);
	err_fini(&x->error);
	free(x->roots);
	free(x);
}

static void finish(struct remote_export *x)
{
	loop_slot_release(&x->slot);
	if (x->cancelled && !err_is_set(&x->error)) err_set(&x->error, CODE_CANCELLED, "context canceled");
	bool failed = err_is_set(&x->error);
	if (x->open) show(x, x->open, true);
	x->done(x->arg, failed ? NULL : &x->response, failed ? &x->error : NULL);
	export_free(x);
}

/* ---- the job that writes ---- */

static struct source *source_of(struct remote_export *x, size_t i)
{
	return x->from.v[i] < 0 ? NULL : &x->sources.v[x->from.v[i]];
}

/* Have what is written, here or there. What its own place has no more is marked. */
static int gather(struct remote_export *x, const bool *used, bool *there, bool *gone, struct err *e)
{
	struct remote_place *p = x->place;
	for (size_t i = 0; i < cache_graph_blobs(x->graph); i++) {
		const struct cache_blob *b = cache_graph_blob_at(x->graph, i);
		_cleanup_err_ struct err why = ERR_INIT;
		if (!used[i] || blob_has(p->blobs, b->digest)) continue;
		int r = p->kind->have(p, b, e);
		if (r < 0) return -1;
		there[i] = r;
		if (there[i]) continue;
		struct source *from = source_of(x, i);
		if (!from || !from->place)
			gone[i] = true;
		else if (remote_fetch(from->place, b, &why) < 0) {
			if (why.code != CODE_NOT_FOUND) return err_move(e, &why);
			gone[i] = true;
		}
	}
	return 0;
}

static int write_blob(struct remote_export *x, size_t i, struct err *e)
{
	const struct cache_blob *b = cache_graph_blob_at(x->graph, i);
	struct remote_place *p = x->place;
	const struct source *from = source_of(x, i);
	p->mount_from = NULL;
	if (from && from->place && from->place->ref.domain && str_eq(from->place->ref.domain, p->ref.domain) &&
	    !str_eq(from->place->ref.path, p->ref.path))
		p->mount_from = from->place->ref.path;
	return p->kind->put(p, b, e);
}

static int write_blobs(struct remote_export *x, const bool *used, const bool *there, struct err *e)
{
	for (size_t i = 0; i < cache_graph_blobs(x->graph); i++) {
		const char *digest = cache_graph_blob_at(x->graph, i)->digest;
		if (!used[i]) continue;
		if (atomic_load(&x->place->cancelled)) return err_set(e, CODE_CANCELLED, "context canceled");
		remote_note(x->place, false, "writing layer %s", digest);
		int r = there[i] ? 0 : write_blob(x, i, e);
		remote_note(x->place, true, "writing layer %s", digest);
		if (r < 0) return err_wrap(e, "error writing layer blob");
	}
	return 0;
}

static void write_work(struct loop_job *j)
{
	struct remote_export *x = container_of(j, struct remote_export, job);
	size_t n = cache_graph_blobs(x->graph);
	_cleanup_free_ bool *used = xcalloc(n, sizeof *used), *there = xcalloc(n, sizeof *there),
			    *gone = xcalloc(n, sizeof *gone);
	cache_graph_used(x->graph, used);
	if (gather(x, used, there, gone, &x->error) < 0) return;
	cache_graph_drop(x->graph, gone);
	cache_graph_used(x->graph, used);
	if (write_blobs(x, used, there, &x->error) < 0) return;
	x->place->kind->finish(x->place, x->graph, &x->response, &x->error);
}

static void write_done(struct loop_job *j)
{
	struct remote_export *x = container_of(j, struct remote_export, job);
	x->job_runs = false;
	finish(x);
}

static void granted(struct loop_slot *s)
{
	struct remote_export *x = container_of(s, struct remote_export, slot);
	x->job_runs = true;
	x->job.work = write_work;
	x->job.done = write_done;
	loop_job_start(x->env->loop, &x->job, LOOP_NET);
}

/* From the job: posted before its end is. */
struct later {
	struct remote_export *x;
	char *id;
	struct timespec at;
	bool end;
};

static void show_later(void *arg)
{
	struct later *l = arg;
	struct prog_status s = {.id = l->id, .name = "", .started = l->at, .timestamp = l->at};
	if (l->end) s.completed = l->at;
	if (l->x->status && !l->x->cancelled) l->x->status(l->x->arg, &s);
	free(l->id);
	free(l);
}

static void note(void *arg, const char *id, bool end)
{
	struct remote_export *x = arg;
	struct later *l = xnew(struct later);
	*l = (struct later){x, xstrdup(id), time_now(), end};
	loop_post(x->env->loop, show_later, l);
}

static void have_blobs(struct remote_export *x)
{
	x->collecting = false;
	x->graph = cache_graph_new();
	walk(x, x->graph);
	show(x, "preparing build cache for export", true);
	for (size_t i = 0; i < x->sources.n; i++) {
		struct source *s = &x->sources.v[i];
		_cleanup_err_ struct err why = ERR_INIT;
		s->place = s->repo ? remote_place_repo(x->env, s->repo, &x->ids, &why)
				   : remote_place_new(s->import->kind, x->env, &s->import->attrs, &s->import->ids, &why);
	}
	show(x, "sending cache export", false);
	x->slot.granted = granted;
	remote_place_admit(x->place, &x->slot, false);
}

/* ---- making blobs ---- */

static int keep_blob(struct layer_task *t, struct err *e)
{
	struct layer_job *w = &t->work;
	struct timespec now = time_now();
	struct snap_blob b = {.compression = (char *)spec_compression_name(w->compression),
			      .digest = w->sums.digest,
			      .media_type = (char *)spec_media_layer(w->compression, true),
			      .size = w->sums.size,
			      .created_at_ns = now.tv_sec * 1000000000 + now.tv_nsec};
	if (!t->layer->diff_id && snap_set_diff_id(t->layer, w->sums.diff_id, e) < 0) return -1;
	return snap_blob_find_digest(t->layer, w->sums.digest) ? 0 : snap_blob_add(t->layer, &b, e);
}

static void made(struct loop_job *j)
{
	struct layer_task *t = container_of(j, struct layer_task, job);
	struct remote_export *x = t->x;
	if (!err_is_set(&t->work.error)) keep_blob(t, &t->work.error);
	if (err_is_set(&t->work.error) && !err_is_set(&x->error)) {
		err_move(&x->error, &t->work.error);
		for (size_t i = 0; i < x->tasks.n; i++) loop_job_cancel(&x->tasks.v[i]->job);
	}
	if (--x->tasks_left) return;
	if (err_is_set(&x->error) || x->cancelled)
		finish(x);
	else
		have_blobs(x);
}

static void make_work(struct loop_job *j) { layer_job_run(&container_of(j, struct layer_task, job)->work); }

static void make_blobs(struct remote_export *x)
{
	if (!x->tasks.n) {
		have_blobs(x);
		return;
	}
	x->tasks_left = x->tasks.n;
	for (size_t i = 0; i < x->tasks.n; i++) {
		struct layer_task *t = x->tasks.v[i];
		t->job.work = make_work;
		t->job.done = made;
		loop_job_start(x->env->loop, &t->job, LOOP_CPU);
	}
}

static void filled(void *arg, const struct err *e)
{
	struct remote_export *x = arg;
	x->fill = NULL;
	if (e) err_copy(&x->error, e);
	if (e || x->cancelled)
		finish(x);
	else
		make_blobs(x);
}

static void begin(void *arg)
{
	struct remote_export *x = arg;
	const char *sessions[OPS_SESSIONS_MAX];
	if (x->cancelled || err_is_set(&x->error)) {
		finish(x);
		return;
	}
	show(x, "preparing build cache for export", false);
	x->collecting = true;
	struct cache_graph *draft = cache_graph_new();
	walk(x, draft);
	cache_graph_free(draft);
	for (size_t i = 0; i < x->ids.n; i++) sessions[i] = x->ids.v[i];
	struct ops_fill_req req = {.snaps = x->fills.v,
				   .n = x->fills.n,
				   .sessions = sessions,
				   .n_sessions = x->ids.n,
				   .blobs_only = true,
				   .done = filled,
				   .arg = x};
	x->fill = x->fills.n ? ops_fill(x->env, &req) : NULL;
	if (!x->fill) make_blobs(x);
}

struct remote_export *remote_export_start(const struct remote_req *req, const struct remote_root *roots, size_t n_roots,
					  void (*done)(void *arg, const struct strvec *response, const struct err *e))
{
	struct remote_export *x = xnew(struct remote_export);
	*x = (struct remote_export){.env = req->env,
				    .kind = remote_kind_find(req->spec.type),
				    .status = req->status,
				    .done = done,
				    .arg = req->arg,
				    .n_roots = n_roots};
	list_init(&x->slot.link);
	for (size_t k = 0; k < req->spec.n_attrs; k++)
		strvec_addf(&x->attrs, "%s=%s", req->spec.attrs[k].key, req->spec.attrs[k].value);
	for (size_t k = 0; k < req->n_sessions; k++) ops_ids_add(&x->ids, req->sessions[k]);
	x->max = str_eq(strvec_env_get(&x->attrs, "mode"), "max");
	x->roots = xcalloc(n_roots, sizeof *roots);
	if (n_roots) memcpy(x->roots, roots, n_roots * sizeof *roots);
	x->place = remote_place_new(x->kind, x->env, &x->attrs, &x->ids, &x->error);
	if (x->place) {
		x->place->note = note;
		x->place->note_arg = x;
	}
	loop_post(x->env->loop, begin, x);
	return x;
}

void remote_export_cancel(struct remote_export *x)
{
	if (x->cancelled) return;
	x->cancelled = true;
	if (x->fill) ops_fill_cancel(x->fill);
	for (size_t i = 0; i < x->tasks.n; i++) loop_job_cancel(&x->tasks.v[i]->job);
	if (x->place) remote_place_cancel(x->place);
	for (size_t i = 0; i < x->sources.n; i++)
		if (x->sources.v[i].place) remote_place_cancel(x->sources.v[i].place);
	if (x->slot.pool && !x->slot.held) {
		loop_slot_release(&x->slot);
		loop_post(x->env->loop, begin, x);
	}
}

/* ---- inline: everything is there, so it is done at once ---- */

struct inline_walk {
	struct ops_env *env;
	struct cache_graph *g;
	const char *const *layers;
	size_t n;
};

static bool listed(const struct inline_walk *w, const char *s)
{
	for (size_t i = 0; s && i < w->n; i++)
		if (!strcmp(w->layers[i], s)) return true;
	return false;
}

/* Of a layer's blobs the one that the image has. */
static const struct snap_blob *image_blob(const struct inline_walk *w, const struct snap *layer)
{
	for (size_t i = 0; i < layer->blobs.n; i++)
		if (listed(w, layer->blobs.v[i].digest)) return &layer->blobs.v[i];
	return snap_blob_find(layer, NULL);
}

static size_t inline_local(void *arg, struct snap *snap, bool make, size_t *ret, size_t max)
{
	struct inline_walk *w = arg;
	if (snap->chain.n > max) return 0;
	for (size_t i = 0; i < snap->chain.n; i++)
		if (!image_blob(w, snap->chain.v[i])) return 0;
	for (size_t i = 0; i < snap->chain.n; i++) ret[i] = put_layer(w->g, snap->chain.v[i], image_blob(w, snap->chain.v[i]));
	return snap->chain.n;
}

static size_t inline_remote(void *arg, struct solve_remote *r, const struct cache_result *res, size_t *ret, size_t max)
{
	struct inline_walk *w = arg;
	if (res->n > max) return 0;
	for (size_t i = 0; i < res->n; i++)
		ret[i] = cache_graph_blob(w->g, cache_graph_blob_at(solve_remote_graph(r), res->blobs[i]));
	return res->n;
}

int remote_inline(struct ops_env *env, const struct remote_root *root, const char *const *layers, size_t n, struct buf *ret,
		  struct err *e)
{
	_cleanup_cache_graph_ struct cache_graph *g = cache_graph_new();
	struct inline_walk w = {env, g, layers, n};
	struct solve_export x = {.local = inline_local, .remote = inline_remote, .arg = &w};
	solve_export(root->node, root->output, &x, g);
	return cache_inline_write(g, layers, n, ret, e);
}
