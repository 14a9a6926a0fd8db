/* Disk usage and prune, in BuildKit's terms (reference 01 §4). */
#include "build/internal.h"

#include <string.h>
#include <sys/statvfs.h>

static Google__Timestamp *stamp(struct arena *a, int64_t ns)
{
	if (!ns) return NULL;
	Google__Timestamp *t = arena_new_of(a, Google__Timestamp);
	google__timestamp__init(t);
	t->seconds = ns / 1000000000;
	t->nanos = (int32_t)(ns % 1000000000);
	return t;
}

static Control__UsageRecord *record(struct arena *a, const struct snap *s)
{
	Control__UsageRecord *u = arena_new_of(a, Control__UsageRecord);
	control__usage_record__init(u);
	u->id = s->uid;
	u->mutable_ = s->is_mutable || s->state == SNAP_ACTIVE;
	u->inuse = snap_in_use(s);
	u->size = s->size_bytes > 0 ? s->size_bytes : 0;
	u->createdat = stamp(a, s->created_at_ns);
	u->lastusedat = stamp(a, s->last_used_at_ns);
	u->usagecount = s->usage_count;
	u->description = s->description ? s->description : "";
	u->recordtype = s->type;
	u->n_parents = s->parents.n;
	const char **p = arena_alloc(a, sizeof *p * s->parents.n);
	for (size_t i = 0; i < s->parents.n; i++) p[i] = s->parents.v[i]->uid;
	u->parents = p;
	return u;
}

/* containerd's filter language: selectors joined by commas; several filters are alternatives. */
static bool selector_matches(const char *sel, const struct snap *s)
{
	static const char *const ops[] = {"==", "!=", "~="};
	char key[64];
	for (size_t i = 0; i < array_len(ops); i++) {
		const char *at = strstr(sel, ops[i]);
		if (!at || (size_t)(at - sel) >= sizeof key) continue;
		memcpy(key, sel, (size_t)(at - sel));
		key[at - sel] = 0;
		const char *have = !strcmp(key, "id") ? s->uid : !strcmp(key, "description") ? s->description : !strcmp(key, "type") ? s->type : "";
		bool eq = have && !strcmp(have, at + 2);
		return i == 0 ? eq : i == 1 ? !eq : have && strstr(have, at + 2) != NULL;
	}
	if (!strcmp(sel, "inuse")) return snap_in_use(s);
	if (!strcmp(sel, "mutable")) return s->is_mutable;
	if (!strcmp(sel, "immutable")) return !s->is_mutable;
	if (!strcmp(sel, "shared")) return false;
	if (!strcmp(sel, "private")) return true;
	return false;
}

static bool filter_matches(const char *filter, const struct snap *s)
{
	_cleanup_free_ char *copy = xstrdup(filter);
	for (char *save, *sel = strtok_r(copy, ",", &save); sel; sel = strtok_r(NULL, ",", &save))
		if (!selector_matches(sel, s)) return false;
	return true;
}

static bool matches(char *const *filters, size_t n, const struct snap *s)
{
	for (size_t i = 0; i < n; i++)
		if (filter_matches(filters[i], s)) return true;
	return n == 0;
}

/* ---- sizes are measured when first asked for ---- */

struct measure {
	struct loop_job job;
	struct engine *engine;
	VEC(struct snap *) snaps;
	VEC(struct snap_view *) views;
	VEC(int64_t) sizes;
	void (*then)(void *arg);
	void *arg;
};

static void measure_work(struct loop_job *j)
{
	struct measure *m = container_of(j, struct measure, job);
	for (size_t i = 0; i < m->views.n; i++) m->sizes.v[i] = snap_view_usage(m->views.v[i], &j->cancelled, NULL);
}

static void measure_done(struct loop_job *j)
{
	struct measure *m = container_of(j, struct measure, job);
	for (size_t i = 0; i < m->snaps.n; i++) {
		if (m->sizes.v[i] >= 0 && m->snaps.v[i]->state == SNAP_COMMITTED) snap_set_size(m->snaps.v[i], m->sizes.v[i]);
		snap_view_free(m->views.v[i]);
		snap_unref(m->snaps.v[i]);
	}
	vec_fini(&m->snaps);
	vec_fini(&m->views);
	vec_fini(&m->sizes);
	void (*then)(void *) = m->then;
	void *arg = m->arg;
	free(m);
	then(arg);
}

static void measure_all(struct engine *g, void (*then)(void *arg), void *arg)
{
	struct measure *m = xnew(struct measure);
	m->engine = g;
	m->then = then;
	m->arg = arg;
	SNAP_EACH(g->conf.env->snaps, s)
	{
		if (s->size_bytes >= 0 || s->state == SNAP_LAZY) continue;
		vec_push(&m->snaps, snap_ref(s));
		vec_push(&m->views, snap_view_new(s));
		vec_push(&m->sizes, (int64_t)-1);
	}
	m->job.work = measure_work;
	m->job.done = measure_done;
	loop_job_start(g->conf.env->loop, &m->job, LOOP_DISK);
}

/* ---- du ---- */

struct du {
	struct engine *engine;
	struct strvec filters;
	int64_t age_limit_ns;
	struct build_reply reply;
};

static int64_t now_ns(void)
{
	struct timespec t = time_now();
	return t.tv_sec * 1000000000 + t.tv_nsec;
}

static void du_reply(void *arg)
{
	struct du *d = arg;
	_cleanup_arena_ struct arena *a = arena_new(0);
	Control__DiskUsageResponse m = CONTROL__DISK_USAGE_RESPONSE__INIT;
	VEC(Control__UsageRecord *) v = {0};
	SNAP_EACH(d->engine->conf.env->snaps, s)
	{
		if (d->age_limit_ns && s->last_used_at_ns > now_ns() - d->age_limit_ns) continue;
		if (matches(d->filters.v, d->filters.n, s)) vec_push(&v, record(a, s));
	}
	m.n_record = v.n;
	m.record = v.v;
	d->reply.done(d->reply.arg, &m.base, NULL);
	vec_fini(&v);
	strvec_fini(&d->filters);
	free(d);
}

void engine_disk_usage(struct engine *g, const Control__DiskUsageRequest *req, struct build_reply r)
{
	struct du *d = xnew(struct du);
	d->engine = g;
	d->reply = r;
	d->age_limit_ns = req->agelimit;
	strvec_copy(&d->filters, (char *const *)req->filter, req->n_filter);
	measure_all(g, du_reply, d);
}

/* ---- prune ---- */

struct prune {
	struct engine *engine;
	struct strvec filters;
	bool all;
	int64_t keep_ns, keep_bytes;
	int64_t reserved, max_used, min_free; /* what keep_bytes is made of */
	void (*removed)(void *arg, const Control__UsageRecord *u);
	struct build_reply reply;
	struct err error;
	struct { /* of garbage collection; set instead of removed and reply */
		void (*removed)(void *arg, int64_t bytes);
		void (*done)(void *arg);
		void *arg;
	} gc;
};

static bool prunable(const struct prune *p, struct snap *s)
{
	if (!snap_removable(s) || s->state == SNAP_ACTIVE) return s->is_mutable && snap_removable(s) && !snap_locked(s);
	if (!p->all && (!strcmp(s->type, SNAP_INTERNAL) || !strcmp(s->type, SNAP_FRONTEND))) return false;
	if (p->keep_ns && s->last_used_at_ns > now_ns() - p->keep_ns) return false;
	return matches(p->filters.v, p->filters.n, s);
}

static int64_t total_bytes(struct engine *g)
{
	int64_t total = 0;
	SNAP_EACH(g->conf.env->snaps, s) total += max_of(s->size_bytes, (int64_t)0);
	return total;
}

static int by_use(const void *a, const void *b)
{
	const struct snap *x = *(struct snap *const *)a, *y = *(struct snap *const *)b;
	int64_t dx = x->last_used_at_ns, dy = y->last_used_at_ns;
	return dx < dy ? -1 : dx > dy ? 1 : x->usage_count < y->usage_count ? -1 : x->usage_count > y->usage_count;
}

/* One round over what is removable now: leaves first, since removing them frees their parents. */
static size_t prune_round(struct prune *p)
{
	size_t n = 0;
	VEC(struct snap *) v = {0};
	SNAP_EACH(p->engine->conf.env->snaps, s)
	{
		if (prunable(p, s)) vec_push(&v, s);
	}
	if (v.n > 1) qsort(v.v, v.n, sizeof *v.v, by_use);
	for (size_t i = 0; i < v.n; i++) {
		if (p->keep_bytes && total_bytes(p->engine) < p->keep_bytes) break;
		int64_t bytes = v.v[i]->size_bytes;
		_cleanup_arena_ struct arena *a = arena_new(0);
		Control__UsageRecord *u = record(a, v.v[i]);
		u->id = arena_strdup(a, u->id);
		u->description = arena_strdup(a, u->description);
		for (size_t k = 0; k < u->n_parents; k++) u->parents[k] = arena_strdup(a, u->parents[k]);
		u->inuse = false;
		u->recordtype = "";
		if (v.v[i]->key) snap_set_key(v.v[i], NULL, NULL);
		if (snap_remove(v.v[i], NULL) < 0) continue;
		tele_count(TELE_GC_BYTES, max_of(bytes, (int64_t)0), p->gc.done ? "policy" : "prune");
		if (p->removed) p->removed(p->reply.arg, u);
		if (p->gc.removed) p->gc.removed(p->gc.arg, bytes);
		n++;
	}
	vec_fini(&v);
	return n;
}

static void prune_reply(void *arg)
{
	struct prune *p = arg;
	if (err_is_set(&p->error) && p->gc.done) {
		tele_count(TELE_GC_RUNS, 1, "policy", "error");
		log_error("garbage collection: %s", p->error.msg);
	}
	if (p->gc.done) p->gc.done(p->gc.arg);
	if (!p->gc.done) tele_count(TELE_GC_RUNS, 1, "prune", err_is_set(&p->error) ? "error" : "ok");
	if (p->reply.done) p->reply.done(p->reply.arg, NULL, err_is_set(&p->error) ? &p->error : NULL);
	err_fini(&p->error);
	strvec_fini(&p->filters);
	free(p);
}

/* Room on the disk of the store; INT64_MAX: unknown. */
static int64_t free_bytes(const struct engine *g)
{
	struct statvfs st;
	return statvfs(g->conf.env->dir, &st) < 0 ? INT64_MAX : (int64_t)st.f_bavail * (int64_t)st.f_frsize;
}

/* How much may stay; 0: no matter how much it is, what the other conditions let go goes. Source: BuildKit cache/manager.go,
 * calculateKeepBytes. */
static int64_t keep_bytes(const struct prune *p)
{
	if (!p->max_used && !p->reserved && !p->min_free) return 0;
	int64_t keep = p->max_used, total = total_bytes(p->engine);
	int64_t excess = p->min_free ? p->min_free - free_bytes(p->engine) : 0;
	if (excess > 0)
		keep = keep ? min_of(keep, total - excess) : total - excess;
	else if (p->min_free && !keep)
		return 0; /* there is room enough: see prune_run */
	return max_of(max_of(keep, p->reserved), (int64_t)1);
}

static void prune_run(void *arg)
{
	enum { YOUNG_S = 3600 };
	struct prune *p = arg;
	struct engine *g = p->engine;
	size_t n = 0;
	bool limits = p->max_used || p->reserved || p->min_free;
	p->keep_bytes = keep_bytes(p);
	if (!limits || p->keep_bytes)
		for (size_t round; (round = prune_round(p)); n += round) {}
	if (p->gc.done && !n) { /* nothing to do is the rule */
		prune_reply(p);
		return;
	}
	solver_collect(g->conf.env->solver, &p->error);
	db_flush(g->conf.db, NULL);
	/* Manifests and configurations of pulled images are named by nothing; who prunes a part keeps those of late. */
	engine_collect_blobs(g, p->gc.done || p->filters.n || p->keep_ns || p->keep_bytes ? YOUNG_S : 0, prune_reply, p);
}

void engine_prune_rule(struct engine *g, const struct engine_gc_rule *r, void (*removed)(void *arg, int64_t bytes), void (*done)(void *arg),
		       void *arg)
{
	struct prune *p = xnew(struct prune);
	p->engine = g;
	p->all = r->all;
	p->keep_ns = r->keep_duration_ns;
	p->reserved = r->reserved_bytes;
	p->max_used = r->max_used_bytes;
	p->min_free = r->min_free_bytes;
	for (const char *const *f = r->filters; f && *f; f++) strvec_add(&p->filters, *f);
	p->gc.removed = removed;
	p->gc.done = done;
	p->gc.arg = arg;
	measure_all(g, prune_run, p);
}

void engine_prune(struct engine *g, const Control__PruneRequest *req, void (*removed)(void *arg, const Control__UsageRecord *u), struct build_reply r)
{
	struct prune *p = xnew(struct prune);
	p->engine = g;
	p->all = req->all;
	p->keep_ns = req->keepduration;
	p->removed = removed;
	p->reply = r;
	p->reserved = req->reservedspace;
	p->max_used = req->maxusedspace;
	p->min_free = req->minfreespace;
	strvec_copy(&p->filters, (char *const *)req->filter, req->n_filter);
	measure_all(g, prune_run, p);
}
