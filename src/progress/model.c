/* The model behind the displays: takes the daemon's messages in.
 *
 * 1. A vertex is listed once it has started; it may run several times, so it has intervals.
 * 2. Members of a progress group are one shown vertex: cached when all are, hidden while only weak members have started.
 * 3. Whatever a message touches is marked `updated`, till a printer has shown it.
 * Source: BuildKit util/progress/progressui/display.go. */
#include "progress/model.h"
#include "term/text.h"

#include <string.h>

struct member {
	bool cached, weak;
	char *error;
	int64_t started, completed;
};

static const char *or_empty(const char *s) { return s ? s : ""; }

static void set_str(char **dst, const char *s)
{
	char *n = xstrdup(or_empty(s));
	free(*dst);
	*dst = n;
}

bool error_is_cancel(const char *error) { return str_ends(or_empty(error), "context canceled"); }

/* ---- intervals ---- */
static int by_start(const void *a, const void *b)
{
	const struct interval *x = a, *y = b;
	return (x->start > y->start) - (x->start < y->start);
}

static void merge(struct shown_vertex *v)
{
	v->merged.n = 0;
	if (!v->intervals.n) return;
	qsort(v->intervals.v, v->intervals.n, sizeof *v->intervals.v, by_start);
	struct interval cur = v->intervals.v[0];
	for (size_t i = 1; i < v->intervals.n && cur.stop; i++) {
		struct interval next = v->intervals.v[i];
		if (cur.stop < next.start) {
			vec_push(&v->merged, cur);
			cur = next;
		} else if (!next.stop || next.stop > cur.stop) {
			cur.stop = next.stop;
		}
	}
	vec_push(&v->merged, cur);
}

/* Answers whether something changed. */
static bool set_interval(struct shown_vertex *v, int64_t start, int64_t stop)
{
	for (size_t i = 0; i < v->intervals.n; i++) {
		if (v->intervals.v[i].start != start) continue;
		bool changed = v->intervals.v[i].stop != stop;
		v->intervals.v[i].stop = stop;
		return changed;
	}
	struct interval new = {start, stop};
	vec_push(&v->intervals, new);
	return true;
}

bool vertex_started(const struct shown_vertex *v) { return v->merged.n > 0; }
int64_t vertex_last_stop(const struct shown_vertex *v) { return v->merged.n ? v->merged.v[v->merged.n - 1].stop : 0; }
bool vertex_completed(const struct shown_vertex *v) { return vertex_last_stop(v) != 0; }

double vertex_seconds(const struct trace *t, const struct shown_vertex *v)
{
	double sum = 0;
	for (size_t i = 0; i < v->merged.n; i++) {
		int64_t stop = v->merged.v[i].stop;
		sum += (double)((stop ? stop : t->now() - t->time_diff) - v->merged.v[i].start) / 1e9;
	}
	return sum;
}

/* ---- vertexes ---- */
static struct shown_vertex *new_vertex(struct trace *t, const char *digest)
{
	struct shown_vertex *v = xnew(struct shown_vertex);
	v->digest = xstrdup(digest);
	v->name = xstrdup("");
	v->error = xstrdup("");
	if (t->keep_terms) v->term = vt_new(6, t->width > 11 ? t->width - 10 : 1);
	vec_push(&t->all, v);
	return v;
}

static void touch(struct trace *t, struct shown_vertex *v)
{
	if (v->count == 0) v->last_block = t->now();
	v->count++;
}

static void set_vertex(struct shown_vertex *v, const Control__Vertex *m)
{
	set_str(&v->name, m->name);
	set_str(&v->error, m->error);
	v->cached = m->cached;
	if (!v->inputs.n) strvec_copy(&v->inputs, (char *const *)m->inputs, m->n_inputs);
}

static void note_change(struct trace *t, struct shown_vertex *v, const Control__Vertex *m)
{
	int64_t started = timestamp_ns(m->started);
	if (!started) return;
	bool changed = !v->prev.set || m->completed || !str_eq(v->prev.name, or_empty(m->name)) || v->prev.started != started ||
		       v->prev.cached != (bool)m->cached || !str_eq(v->prev.error, or_empty(m->error));
	if (changed) {
		touch(t, v);
		v->updated = true;
	}
	v->prev.set = true;
	v->prev.cached = m->cached;
	v->prev.started = started;
	set_str(&v->prev.name, m->name);
	set_str(&v->prev.error, m->error);
}

static void take_vertex(struct trace *t, const Control__Vertex *m)
{
	struct shown_vertex *v = map_get(&t->by_digest, m->digest);
	int64_t started = timestamp_ns(m->started);
	bool was_started = v && vertex_started(v);
	if (!v) map_put(&t->by_digest, m->digest, v = new_vertex(t, m->digest));
	note_change(t, v, m);
	if (started && !was_started) {
		if (!t->time_diff) t->time_diff = t->now() - started;
		vec_push(&t->shown, v);
	}
	if (started || !was_started) set_vertex(v, m); /* an announcement must not undo what ran */
	if (started) {
		set_interval(v, started, timestamp_ns(m->completed));
		merge(v);
	}
}

/* ---- groups ---- */
static void take_member(struct trace *t, const Control__Vertex *m)
{
	struct shown_group *g = map_get(&t->groups, m->progressgroup->id);
	if (!g) {
		g = xnew(struct shown_group);
		g->vertex = new_vertex(t, m->progressgroup->id);
		g->vertex->hidden = true;
		set_str(&g->vertex->name, m->progressgroup->name);
		map_put(&t->groups, m->progressgroup->id, g);
		map_put(&t->by_digest, m->progressgroup->id, g->vertex);
	}
	struct member *x = map_get(&g->members, m->digest);
	if (!x) map_put(&g->members, m->digest, x = xnew(struct member));
	x->cached = m->cached;
	x->weak = m->progressgroup->weak;
	x->started = timestamp_ns(m->started);
	x->completed = timestamp_ns(m->completed);
	set_str(&x->error, m->error);
	g->touched = true;
	map_put(&t->by_digest, m->digest, g->vertex);
}

static void refresh_group(struct trace *t, struct shown_group *g)
{
	struct shown_vertex *v = g->vertex;
	bool was_started = vertex_started(v), was_hidden = v->hidden, changed = false, cached = true;
	_cleanup_free_ char *error = xstrdup(v->error);
	MAP_EACH(&g->members, it)
	{
		const struct member *x = it->value;
		if (x->started) {
			changed |= set_interval(v, x->started, x->completed);
			if (!x->weak) v->hidden = false;
		}
		cached &= x->cached;
		if (!*error)
			set_str(&error, x->error);
		else
			v->hidden = false;
	}
	changed |= cached != v->cached || strcmp(error, v->error) != 0 || (was_hidden && !v->hidden);
	v->cached = cached;
	set_str(&v->error, error);
	merge(v);
	if (!was_started && vertex_started(v) && !t->time_diff) t->time_diff = t->now() - v->merged.v[0].start;
	if (v->hidden) return;
	if (was_hidden) vec_push(&t->shown, v);
	if (!changed) return;
	touch(t, v);
	v->updated = true;
}

/* ---- statuses, warnings, logs ---- */
static void take_status(struct trace *t, const Control__VertexStatus *m)
{
	struct shown_vertex *v = map_get(&t->by_digest, m->vertex);
	if (!v) return;
	struct shown_status *s = map_get(&v->by_id, m->id);
	if (!s) {
		s = xnew(struct shown_status);
		s->id = xstrdup(m->id);
		map_put(&v->by_id, m->id, s);
	}
	if (m->started && !s->listed) {
		s->listed = true;
		vec_push(&v->statuses, s);
	}
	s->current = m->current;
	s->total = m->total;
	s->timestamp = timestamp_ns(m->timestamp);
	s->started = timestamp_ns(m->started);
	s->completed = timestamp_ns(m->completed);
	s->updated = true;
	v->updated = true;
	touch(t, v);
}

static void take_warning(struct trace *t, const Control__VertexWarning *m)
{
	struct shown_vertex *v = map_get(&t->by_digest, m->vertex);
	if (!v) return;
	strvec_take(&v->warnings, m->short_.len ? xstrndup((const char *)m->short_.data, m->short_.len) : xstrdup(""));
	touch(t, v);
}

static void add_line(struct shown_vertex *v, int64_t timestamp, const uint8_t *p, size_t n)
{
	double sec = v->merged.n ? (double)(timestamp - v->merged.v[v->merged.n - 1].start) / 1e9 : 0;
	struct buf line = BUF_INIT;
	buf_addf(&line, "%.*f ", sec < 10 ? 3 : sec < 100 ? 2 : 1, sec);
	buf_add(&line, p, n);
	vec_push(&v->logs, line);
}

static void take_log(struct trace *t, const Control__VertexLog *m)
{
	struct shown_vertex *v = map_get(&t->by_digest, m->vertex);
	if (!v) return;
	const uint8_t *p = m->msg.data, *end = p + m->msg.len;
	if (v->term) {
		v->term_bytes += m->msg.len;
		vt_write(v->term, p, m->msg.len);
	}
	bool complete = false;
	for (bool first = true; p < end; first = false) {
		const uint8_t *nl = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((nl ? nl : end) - p);
		if (first && v->logs_partial && v->logs.n)
			buf_add(&v->logs.v[v->logs.n - 1], p, n);
		else
			add_line(v, timestamp_ns(m->timestamp), p, n);
		complete = nl != NULL;
		p += n + (nl ? 1 : 0);
	}
	v->logs_partial = !complete;
	v->updated = true;
	touch(t, v);
}

void trace_update(struct trace *t, const Control__StatusResponse *m)
{
	for (size_t i = 0; i < m->n_vertexes; i++) {
		const Control__Vertex *v = m->vertexes[i];
		if (!t->start) t->start = timestamp_ns(v->started);
		if (v->progressgroup)
			take_member(t, v);
		else
			take_vertex(t, v);
	}
	MAP_EACH(&t->groups, it)
	{
		struct shown_group *g = it->value;
		if (g->touched) refresh_group(t, g);
		g->touched = false;
	}
	for (size_t i = 0; i < m->n_statuses; i++) take_status(t, m->statuses[i]);
	for (size_t i = 0; i < m->n_warnings; i++) take_warning(t, m->warnings[i]);
	for (size_t i = 0; i < m->n_logs; i++) take_log(t, m->logs[i]);
}

void trace_print_error_logs(struct trace *t, struct buf *out)
{
	for (size_t i = 0; i < t->shown.n; i++) {
		const struct shown_vertex *v = t->shown.v[i];
		if (!*v->error || error_is_cancel(v->error)) continue;
		buf_addf(out, "------\n > %s:\n", v->name);
		for (size_t k = 0; k < v->logs.n; k++) {
			buf_add(out, v->logs.v[k].p, v->logs.v[k].n);
			buf_addc(out, '\n');
		}
		for (size_t k = 0; k < LOG_RING && v->has_ring; k++) {
			const char *line = v->ring[(v->ring_at + k) % LOG_RING];
			if (line) buf_addf(out, "%s\n", line);
		}
		buf_adds(out, "------\n");
	}
}

/* ---- end ---- */
static void free_vertex(struct shown_vertex *v)
{
	for (size_t i = 0; i < v->logs.n; i++) buf_fini(&v->logs.v[i]);
	MAP_EACH(&v->by_id, it)
	{
		free(((struct shown_status *)it->value)->id);
		free(it->value);
	}
	for (size_t i = 0; i < LOG_RING; i++) free(v->ring[i]);
	map_fini(&v->by_id);
	vec_fini(&v->logs);
	vec_fini(&v->statuses);
	vec_fini(&v->intervals);
	vec_fini(&v->merged);
	strvec_fini(&v->warnings);
	strvec_fini(&v->inputs);
	vt_free(v->term);
	free(v->digest);
	free(v->name);
	free(v->error);
	free(v->prev.name);
	free(v->prev.error);
	free(v);
}

void trace_fini(struct trace *t)
{
	for (size_t i = 0; i < t->all.n; i++) free_vertex(t->all.v[i]);
	MAP_EACH(&t->groups, it)
	{
		struct shown_group *g = it->value;
		MAP_EACH(&g->members, m) free(((struct member *)m->value)->error);
		map_fini_free(&g->members);
	}
	vec_fini(&t->all);
	vec_fini(&t->shown);
	map_fini(&t->by_digest);
	map_fini_free(&t->groups);
}
