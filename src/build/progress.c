/* Progress of a build: one list of events, read by any number of readers from its beginning. A status takes the place of an
 * older one of the same id that no reader has passed yet. When the list closes, vertices that never ended are ended.
 *
 * Also "input inference": an input that never ran is cached once a step above it starts; clients count on that. */
#include "build/internal.h"

#include <stdio.h>
#include <string.h>

enum { BATCH_MAX = 512, STATUS_EVERY_MS = 50 };

struct build_reader {
	struct build *build; /* NULL while waiting for it */
	struct engine *engine;
	char *ref;
	size_t at;
	bool paused, posted, stopped;
	struct loop_timer timer;
	int64_t delivered_ns; /* when the last batch went out */
	struct list link; /* in build->readers or engine->waits */
	void (*batch)(void *arg, struct prog_event *const *v, size_t n);
	void (*end)(void *arg, const struct err *e);
	void *arg;
};

/* ---- writing ---- */

static void reader_kick(struct build_reader *r);

static bool same_status(const struct prog_event *a, const struct prog_event *b)
{
	return a->type == PROG_STATUS && !strcmp(a->status.id, b->status.id) && !strcmp(a->status.vertex, b->status.vertex);
}

static bool unread(const struct build *b, size_t i)
{
	LIST_EACH(&b->readers, struct build_reader, r, link)
	{
		if (r->at > i) return false;
	}
	return true;
}

/* A newer status takes the place of one that nobody has seen. Only the last few events are looked at. */
static bool coalesce(struct build *b, struct prog_event *ev)
{
	if (ev->type != PROG_STATUS) return false;
	for (size_t i = b->events.n; i-- > 0 && b->events.n - i < 64;) {
		if (!same_status(b->events.v[i], ev)) continue;
		if (!unread(b, i)) return false;
		prog_unref(b->events.v[i]);
		b->events.v[i] = prog_ref(ev);
		return true;
	}
	return false;
}


static void append(struct build *b, struct prog_event *ev) { vec_push(&b->events, prog_ref(ev)); }

/* Latest state of a vertex by digest, for inference and closing: map digest -> index + 1 of its newest event. */
static void remember(struct build *b, const struct prog_event *ev)
{
	if (ev->type == PROG_VERTEX) map_put(&b->last_status, ev->vertex.digest, (void *)(uintptr_t)b->events.n);
}

static const struct prog_vertex *newest(const struct build *b, const char *digest)
{
	size_t i = (size_t)(uintptr_t)map_get(&b->last_status, digest);
	return i ? &b->events.v[i - 1]->vertex : NULL;
}

static void infer_inputs(struct build *b, const struct prog_vertex *v, int depth)
{
	if (!v->started.tv_sec || depth > 1000) return;
	struct timespec when = v->started;
	for (size_t i = 0; i < v->inputs.n; i++) {
		const struct prog_vertex *in = newest(b, v->inputs.v[i]);
		if (!in || in->cached || in->completed.tv_sec) continue;
		struct prog_vertex copy = *in;
		copy.cached = true;
		copy.started = copy.completed = when;
		struct prog_event *ev = prog_vertex_new(&copy);
		infer_inputs(b, &ev->vertex, depth + 1);
		append(b, ev);
		remember(b, ev);
		prog_unref(ev);
	}
}

void build_event(struct build *b, struct prog_event *ev)
{
	if (b->events_closed) return;
	if (ev->type == PROG_VERTEX) infer_inputs(b, &ev->vertex, 0);
	if (!coalesce(b, ev)) append(b, ev);
	remember(b, ev);
	LIST_EACH(&b->readers, struct build_reader, r, link) reader_kick(r);
}

void build_events_close(struct build *b)
{
	if (b->events_closed) return;
	struct timespec now = time_now();
	size_t n = b->events.n;
	for (size_t i = 0; i < n; i++) {
		const struct prog_event *ev = b->events.v[i];
		if (ev->type != PROG_VERTEX) continue;
		const struct prog_vertex *v = newest(b, ev->vertex.digest);
		if (v != &ev->vertex || !v->started.tv_sec || v->completed.tv_sec) continue;
		struct prog_vertex copy = *v;
		copy.completed = now;
		if (!copy.cached) copy.error = "context canceled";
		struct prog_event *end = prog_vertex_new(&copy);
		append(b, end);
		prog_unref(end);
	}
	b->events_closed = true;
	LIST_EACH(&b->readers, struct build_reader, r, link) reader_kick(r);
}

/* ---- vertices of the build's own ---- */

struct build_vertex *build_vertex_start(struct build *b, const char *id, const char *name)
{
	struct build_vertex *v = xnew(struct build_vertex);
	v->build = b;
	digest_str_of(id, strlen(id), v->v.digest);
	v->v.name = xstrdup(name);
	v->v.started = time_now();
	struct prog_event *ev = prog_vertex_new(&v->v);
	build_event(b, ev);
	prog_unref(ev);
	return v;
}

void build_vertex_status(struct build_vertex *v, const struct prog_status *s)
{
	struct prog_status copy = *s;
	memcpy(copy.vertex, v->v.digest, sizeof copy.vertex);
	if (!copy.timestamp.tv_sec) copy.timestamp = time_now();
	struct prog_event *ev = prog_status_new(&copy);
	build_event(v->build, ev);
	prog_unref(ev);
}

void build_vertex_log(struct build_vertex *v, int stream, const char *text)
{
	struct prog_event *ev = prog_log_new(v->v.digest, stream, text, strlen(text));
	build_event(v->build, ev);
	prog_unref(ev);
}

void build_vertex_end(struct build_vertex *v, const struct err *e)
{
	v->v.completed = time_now();
	v->v.error = e && err_is_set(e) ? e->msg : NULL;
	struct prog_event *ev = prog_vertex_new(&v->v);
	build_event(v->build, ev);
	prog_unref(ev);
	free(v->v.name);
	free(v);
}

/* ---- reading ---- */

static void reader_free(struct build_reader *r)
{
	list_del(&r->link);
	loop_timer_stop(&r->timer);
	free(r->ref);
	free(r);
}

static void deliver(void *arg)
{
	struct build_reader *r = arg;
	r->posted = false;
	r->delivered_ns = time_mono_ns();
	if (r->stopped) {
		reader_free(r);
		return;
	}
	while (!r->paused && !r->stopped && r->at < r->build->events.n) {
		size_t n = min_of(r->build->events.n - r->at, (size_t)BATCH_MAX);
		struct prog_event *const *v = r->build->events.v + r->at;
		r->at += n;
		r->batch(r->arg, v, n);
	}
	if (r->stopped) {
		reader_free(r);
	} else if (!r->paused && r->build->events_closed && r->at == r->build->events.n) {
		r->end(r->arg, NULL);
		reader_free(r);
	}
}

/* Events are handed over in batches: at once when the last batch is a while ago, else when STATUS_EVERY_MS have passed since; the
 * last ones at once, since the client waits for the end. */
static void reader_kick(struct build_reader *r)
{
	if (r->paused || !r->build || (r->posted && !r->build->events_closed)) return;
	int64_t since_ms = (time_mono_ns() - r->delivered_ns) / 1000000;
	uint64_t wait_ms = r->build->events_closed || since_ms >= STATUS_EVERY_MS ? 0 : (uint64_t)(STATUS_EVERY_MS - since_ms);
	r->posted = true;
	loop_timer_start(r->engine->conf.env->loop, &r->timer, wait_ms, 0, deliver, r);
}

static void never_came(void *arg)
{
	struct build_reader *r = arg;
	struct err e = ERR_INIT;
	err_set(&e, CODE_NOT_FOUND, "no such job %s", r->ref);
	r->end(r->arg, &e);
	err_fini(&e);
	reader_free(r);
}

static void attach(struct build_reader *r, struct build *b)
{
	loop_timer_stop(&r->timer);
	list_del(&r->link);
	list_add_tail(&b->readers, &r->link);
	r->build = b;
	reader_kick(r);
}

struct build_reader *build_read(struct engine *g, const char *ref, void (*batch)(void *arg, struct prog_event *const *v, size_t n),
				void (*end)(void *arg, const struct err *e), void *arg)
{
	struct build_reader *r = xnew(struct build_reader);
	r->engine = g;
	r->ref = xstrdup(ref);
	r->batch = batch;
	r->end = end;
	r->arg = arg;
	list_init(&r->link);
	struct build *b = engine_find(g, ref);
	if (b) {
		attach(r, b);
	} else {
		list_add_tail(&g->reader_waits, &r->link);
		loop_timer_start(g->conf.env->loop, &r->timer, STATUS_WAIT_MS, 0, never_came, r);
	}
	return r;
}

void build_readers_attach(struct engine *g, struct build *b)
{
	LIST_EACH(&g->reader_waits, struct build_reader, r, link)
	{
		if (!strcmp(r->ref, b->ref)) attach(r, b);
	}
}

/* The build goes: readers that are not at its end get what is left, then the end. */
void build_readers_drop(struct build *b)
{
	LIST_EACH(&b->readers, struct build_reader, r, link)
	{
		if (!r->stopped) {
			if (r->at < b->events.n) r->batch(r->arg, b->events.v + r->at, b->events.n - r->at);
			if (!r->stopped) r->end(r->arg, NULL);
		}
		reader_free(r);
	}
}

void build_reader_stop(struct build_reader *r)
{
	r->stopped = true;
	list_del(&r->link);
	if (!r->posted) reader_free(r);
}

void build_reader_pause(struct build_reader *r, bool paused)
{
	r->paused = paused;
	if (!paused) reader_kick(r);
}
