/* Garbage collection by policy: the rules in their order, a second after the daemon's start, a second after a build has ended,
 * and every ten minutes (rules with a duration come due by themselves). One run at a time; after one there is a pause as long
 * as it took times twenty, so that a store which takes long to measure is not measured all the time. Builds that run are no
 * obstacle: what they use is held. Source: BuildKit control/control.go gc, cache/manager.go. */
#include "build/internal.h"

enum { AFTER_MS = 1000, EVERY_MS = 600000, PAUSE_FACTOR = 20 };

struct rule {
	struct strvec filters;
	struct engine_gc_rule r; /* its filters are those */
};
struct gc {
	struct engine *engine;
	VEC(struct rule) rules, next; /* next: set while a run was under way */
	bool has_next, running;
	bool wanted; /* again, when this run is over */
	size_t at, removed;
	int64_t removed_bytes, began_ns, not_before_ns, due_ns; /* due_ns 0: no run is planned */
	struct loop_timer timer;
};

static void rules_fini(struct gc *c)
{
	for (size_t i = 0; i < c->rules.n; i++) strvec_fini(&c->rules.v[i].filters);
	vec_fini(&c->rules);
}

static void start(void *arg);

static void plan(struct gc *c, int64_t after_ms)
{
	int64_t now = time_mono_ns(), pause = (c->not_before_ns - now) / 1000000, ms = max_of(after_ms, pause);
	int64_t due = now + ms * 1000000;
	if (c->due_ns && c->due_ns <= due) return; /* builds that end one after the other must not put it off */
	c->due_ns = due;
	loop_timer_start(c->engine->conf.env->loop, &c->timer, (uint64_t)ms, 0, start, c);
}

static void unplan(struct gc *c)
{
	loop_timer_stop(&c->timer);
	c->due_ns = 0;
}

static void take_next(struct gc *c)
{
	if (!c->has_next) return;
	rules_fini(c);
	c->rules.v = c->next.v;
	c->rules.n = c->next.n;
	c->rules.cap = c->next.cap;
	c->next.v = NULL;
	c->next.n = c->next.cap = 0;
	c->has_next = false;
}

static void removed(void *arg, int64_t bytes)
{
	struct gc *c = arg;
	c->removed++;
	c->removed_bytes += max_of(bytes, (int64_t)0);
}

static void step(void *arg)
{
	struct gc *c = arg;
	if (c->at < c->rules.n) {
		engine_prune_rule(c->engine, &c->rules.v[c->at++].r, removed, step, c);
		return;
	}
	int64_t now = time_mono_ns(), took = now - c->began_ns;
	char size[24];
	size_format(c->removed_bytes, size);
	tele_count(TELE_GC_RUNS, 1, "policy", "ok");
	if (c->removed) log_info("garbage collection: %zu records of %s removed", c->removed, size);
	c->not_before_ns = now + took * PAUSE_FACTOR;
	c->running = false;
	take_next(c);
	if (c->rules.n) plan(c, c->wanted ? AFTER_MS : EVERY_MS);
	c->wanted = false;
}

static void start(void *arg)
{
	struct gc *c = arg;
	if (c->running) return;
	c->running = true;
	c->due_ns = 0;
	c->at = c->removed = 0;
	c->removed_bytes = 0;
	c->began_ns = time_mono_ns();
	step(c);
}

void gc_soon(struct gc *c)
{
	if (c->running)
		c->wanted = true;
	else if (c->rules.n)
		plan(c, AFTER_MS);
}

void gc_set(struct gc *c, const struct engine_policy *p)
{
	for (size_t i = 0; i < c->next.n; i++) strvec_fini(&c->next.v[i].filters);
	c->next.n = 0;
	c->has_next = true;
	for (size_t i = 0; i < p->n_gc; i++) {
		struct rule *r = vec_add(&c->next);
		for (const char *const *f = p->gc[i].filters; f && *f; f++) strvec_add(&r->filters, *f);
		r->r = p->gc[i];
		r->r.filters = (const char *const *)r->filters.v;
	}
	if (c->running) {
		c->wanted = true;
		return;
	}
	take_next(c);
	if (c->rules.n)
		plan(c, AFTER_MS);
	else
		unplan(c);
}

const struct engine_gc_rule *gc_rule(const struct gc *c, size_t i)
{
	size_t n = c->has_next ? c->next.n : c->rules.n;
	return i >= n ? NULL : c->has_next ? &c->next.v[i].r : &c->rules.v[i].r;
}

struct gc *gc_new(struct engine *g)
{
	struct gc *c = xnew(struct gc);
	c->engine = g;
	return c;
}

void gc_free(struct gc *c)
{
	loop_timer_stop(&c->timer);
	ensure(!c->running);
	take_next(c);
	rules_fini(c);
	free(c);
}
