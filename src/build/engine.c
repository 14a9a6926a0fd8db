/* The engine: which builds there are, who waits for one, the worker as the API shows it. */
#include "build/provenance.h"

#include <string.h>

struct build_wait {
	struct engine *engine;
	char *ref;
	struct loop_timer timer;
	struct list link;
	bool found, cancelled;
	void (*done)(void *arg, struct bridge *b, const struct err *e);
	void *arg;
};

static bool builds_run(void *arg) { return engine_running(arg) > 0; }

struct engine *engine_new(const struct engine_conf *conf)
{
	struct engine *g = xnew(struct engine);
	g->conf = *conf;
	g->conf.env->build_sessions = build_sessions;
	g->conf.env->build_memo = build_memo;
	g->conf.env->build_settings = policy_of_sessions;
	g->conf.env->settings_arg = g;
	g->conf.env->build_span = build_span;
	g->conf.env->nested_start = build_nested_start;
	g->conf.env->nested_cancel = build_nested_cancel;
	g->conf.env->source_check = build_source_check;
	g->conf.env->source_check_cancel = build_source_check_cancel;
	list_init(&g->builds);
	list_init(&g->waits);
	list_init(&g->reader_waits);
	g->provenance_env = prov_env_load(conf->provenance_dir);
	g->collect = collect_new(g);
	g->gc = gc_new(g);
	g->history = history_new(g);
	snap_store_on_busy(conf->env->snaps, builds_run, g);
	return g;
}

void engine_free(struct engine *g)
{
	snap_store_on_busy(g->conf.env->snaps, NULL, NULL);
	history_free(g->history);
	gc_free(g->gc);
	policy_unref(g->policy);
	collect_free(g->collect);
	json_decref(g->provenance_env);
	free(g);
}

size_t engine_running(const struct engine *g)
{
	size_t n = 0;
	for (const struct list *i = g->builds.next; i != &g->builds; i = i->next)
		n += container_of(i, struct build, all)->state != BUILD_DONE;
	return n;
}

static bool running_now(const struct prog_event *ev)
{
	return ev->type == PROG_VERTEX && ev->vertex.started.tv_sec && !ev->vertex.completed.tv_sec;
}

static void describe_steps(const struct build *b, int64_t now_s, struct buf *out)
{
	MAP_EACH(&b->last_status, it)
	{
		size_t i = (size_t)(uintptr_t)it->value;
		const struct prog_event *ev = i && i <= b->events.n ? b->events.v[i - 1] : NULL;
		if (!ev || !running_now(ev) || strcmp(ev->vertex.digest, it->key)) continue;
		_cleanup_free_ char *name =
			go_quote(ev->vertex.name ? ev->vertex.name : "", ev->vertex.name ? strlen(ev->vertex.name) : 0);
		buf_addf(out, "  %llds %s\n", (long long)(now_s - ev->vertex.started.tv_sec), name);
	}
}

void engine_describe(struct engine *g, struct buf *out)
{
	static const char *const states[] = {
		[BUILD_FRONT] = "frontend", [BUILD_SOLVE] = "solve", [BUILD_SHIP] = "export", [BUILD_SAVE] = "save"};
	int64_t now_s = time_now().tv_sec;
	buf_addf(out, "%zu builds run\n", engine_running(g));
	LIST_EACH(&g->builds, struct build, b, all)
	{
		if (b->state == BUILD_DONE) continue;
		_cleanup_free_ char *ref = go_quote(b->ref, strlen(b->ref));
		buf_addf(out, "%s %s trace %s\n", ref, states[b->state], b->trace.trace_id);
		describe_steps(b, now_s, out);
	}
}

void engine_on_idle(struct engine *g, void (*fn)(void *arg), void *arg)
{
	g->on_idle = fn;
	g->idle_arg = arg;
}

const struct engine_conf *engine_conf(const struct engine *g) { return &g->conf; }

struct build *engine_find(struct engine *g, const char *ref)
{
	LIST_EACH(&g->builds, struct build, b, all)
	{
		if (!strcmp(b->ref, ref)) return b;
	}
	return NULL;
}

/* ---- waiting for the bridge of a build ---- */

static void wait_free(struct build_wait *w)
{
	list_del(&w->link);
	loop_timer_stop(&w->timer);
	free(w->ref);
	free(w);
}

static void wait_answer(void *arg)
{
	struct build_wait *w = arg;
	struct err e = ERR_INIT;
	struct build *b = engine_find(w->engine, w->ref);
	struct bridge *bridge = b && b->state == BUILD_FRONT ? b->bridge : NULL;
	if (b && b->bridge && b->state != BUILD_DONE) bridge = b->bridge;
	if (!bridge) err_set(&e, CODE_NOT_FOUND, "no such job %s", w->ref);
	w->done(w->arg, bridge, bridge ? NULL : &e);
	err_fini(&e);
	wait_free(w);
}

struct build_wait *build_bridge_wait(struct engine *g, const char *ref,
				     void (*done)(void *arg, struct bridge *b, const struct err *e), void *arg)
{
	struct build_wait *w = xnew(struct build_wait);
	struct build *b = engine_find(g, ref);
	w->engine = g;
	w->ref = xstrdup(ref);
	w->done = done;
	w->arg = arg;
	list_add_tail(&g->waits, &w->link);
	loop_timer_start(g->conf.env->loop, &w->timer, b && b->bridge ? 0 : BRIDGE_WAIT_MS, 0, wait_answer, w);
	return w;
}

void build_wait_cancel(struct build_wait *w) { wait_free(w); }

void engine_build_came(struct engine *g, struct build *b)
{
	build_readers_attach(g, b);
	if (!b->bridge) return;
	LIST_EACH(&g->waits, struct build_wait, w, link)
	{
		if (!strcmp(w->ref, b->ref)) loop_timer_start(g->conf.env->loop, &w->timer, 0, 0, wait_answer, w);
	}
}

/* ---- the worker ---- */

static Types__WorkerRecord__LabelsEntry *label(struct arena *a, const char *kv)
{
	Types__WorkerRecord__LabelsEntry *m = arena_new_of(a, Types__WorkerRecord__LabelsEntry);
	types__worker_record__labels_entry__init(m);
	const char *eq = strchr(kv, '=');
	m->key = arena_strndup(a, kv, eq ? (size_t)(eq - kv) : strlen(kv));
	m->value = arena_strdup(a, eq ? eq + 1 : "");
	return m;
}

static Types__BuildkitVersion *version(const struct engine_conf *c, struct arena *a)
{
	Types__BuildkitVersion *v = arena_new_of(a, Types__BuildkitVersion);
	types__buildkit_version__init(v);
	v->package = "github.com/moby/buildkit";
	v->version = c->version;
	v->revision = c->revision;
	v->dockerfileversion = c->dockerfile_version;
	return v;
}

static Types__GCPolicy *gc_policy(struct arena *a, const struct engine_gc_rule *r)
{
	Types__GCPolicy *m = arena_new_of(a, Types__GCPolicy);
	types__gcpolicy__init(m);
	m->all = r->all;
	m->keepduration = r->keep_duration_ns;
	m->reservedspace = r->reserved_bytes;
	m->maxusedspace = r->max_used_bytes;
	m->minfreespace = r->min_free_bytes;
	while (r->filters && r->filters[m->n_filters]) m->n_filters++;
	const char **f = arena_alloc(a, sizeof *f * m->n_filters);
	for (size_t i = 0; i < m->n_filters; i++) f[i] = arena_strdup(a, r->filters[i]);
	m->filters = f;
	return m;
}

static void add_devices(struct cdi *c, struct arena *a, Types__WorkerRecord *w)
{
	cdi_look(c);
	w->cdidevices = arena_alloc(a, (cdi_count(c) + 1) * sizeof *w->cdidevices);
	for (size_t i = 0; i < cdi_count(c); i++) {
		const struct cdi_device *d = cdi_at(c, i);
		Types__CDIDevice *m = arena_new_of(a, Types__CDIDevice);
		types__cdidevice__init(m);
		m->name = arena_strdup(a, d->name);
		m->autoallow = d->auto_allow;
		m->annotations = arena_alloc(a, (d->annotations.n + 1) * sizeof *m->annotations);
		for (size_t k = 0; k < d->annotations.n; k++) {
			const char *kv = d->annotations.v[k], *eq = strchr(kv, '=');
			Types__CDIDevice__AnnotationsEntry *x = arena_new_of(a, Types__CDIDevice__AnnotationsEntry);
			types__cdidevice__annotations_entry__init(x);
			x->key = arena_strndup(a, kv, (size_t)(eq - kv));
			x->value = arena_strdup(a, eq + 1);
			m->annotations[m->n_annotations++] = x;
		}
		w->cdidevices[w->n_cdidevices++] = m;
	}
}

Types__WorkerRecord *engine_worker(struct engine *g, struct arena *a, bool brief)
{
	const struct engine_conf *c = &g->conf;
	Types__WorkerRecord *w = arena_new_of(a, Types__WorkerRecord);
	types__worker_record__init(w);
	w->id = c->worker_id;
	w->labels = arena_alloc(a, sizeof *w->labels * c->labels->n);
	for (size_t i = 0; i < c->labels->n; i++) w->labels[w->n_labels++] = label(a, c->labels->v[i]);
	w->platforms = arena_alloc(a, sizeof *w->platforms * c->n_platforms);
	for (size_t i = 0; i < c->n_platforms; i++) w->platforms[w->n_platforms++] = llb_platform(a, &c->platforms[i]);
	if (!brief) w->buildkitversion = version(c, a);
	if (!brief) add_devices(c->env->cdi, a, w);
	size_t n_gc = 0;
	while (gc_rule(g->gc, n_gc)) n_gc++;
	w->gcpolicy = arena_alloc(a, sizeof *w->gcpolicy * n_gc);
	for (size_t i = 0; !brief && i < n_gc; i++) w->gcpolicy[w->n_gcpolicy++] = gc_policy(a, gc_rule(g->gc, i));
	return w;
}

void engine_set_platforms(struct engine *g, const struct spec_platform *v, size_t n)
{
	g->conf.platforms = v;
	g->conf.n_platforms = n;
}

void engine_list_workers(struct engine *g, const Control__ListWorkersRequest *req, struct build_reply r)
{
	if (g->conf.look_for_platforms) g->conf.look_for_platforms(g->conf.platforms_arg);
	_cleanup_arena_ struct arena *a = arena_new(0);
	Control__ListWorkersResponse m = CONTROL__LIST_WORKERS_RESPONSE__INIT;
	Types__WorkerRecord *w = engine_worker(g, a, false);
	m.n_record = 1;
	m.record = &w;
	for (size_t i = 0; i < req->n_filter; i++) { /* "id==X": the only selector that clients use; no match, no record */
		const char *f = req->filter[i];
		if (str_starts(f, "id==") && strcmp(f + 4, w->id)) m.n_record = 0;
	}
	r.done(r.arg, &m.base, NULL);
}

void engine_info(struct engine *g, struct build_reply r)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	Control__InfoResponse m = CONTROL__INFO_RESPONSE__INIT;
	m.buildkitversion = version(&g->conf, a);
	r.done(r.arg, &m.base, NULL);
}
