/* Progress as plain text: blocks of "#N ..." lines, one step at a time.
 *
 * Finished steps are printed first, in the order they finished; of the running ones one is "current", until another has been
 * waiting too long or says much more (a share of the time that fits its share of the news).
 * Source: BuildKit util/progress/progressui/printer.go. */
#include "term/text.h"
#include "progress/model.h"

#include <string.h>

#define SECOND 1000000000LL
enum { ANTI_FLICKER_S = 5, MAX_DELAY_S = 10, MIN_TIME_S = 5, NAME_MAX_BYTES = 72, DEPTH_MAX = 1000 };
#define MIN_PROGRESS 0.05

struct last_status {
	int64_t current, timestamp;
};

void plain_fini(struct plain *p)
{
	map_fini_free(&p->last);
	free(p->title);
}

static void print_header(struct plain *p, struct shown_vertex *v, struct buf *out)
{
	struct shown_vertex *old = p->current;
	if (old) {
		if (old->logs_partial) buf_addc(out, '\n');
		old->logs_offset = 0;
		old->count = 0;
		buf_addf(out, "#%d ...\n", old->index);
	}
	if (p->not_first)
		buf_addc(out, '\n');
	else if (p->title)
		buf_addf(out, "#0 %s\n\n", p->title);
	p->not_first = true;
	bool cut = str_eq(getenv("PROGRESS_NO_TRUNC"), "0") && strlen(v->name) > NAME_MAX_BYTES;
	buf_addf(out, cut ? "#%d %.72s...\n" : "#%d %s\n", v->index, v->name);
}

/* Answers whether the status is still open. */
static bool print_status(struct plain *p, const struct shown_vertex *v, const struct shown_status *s, struct buf *out)
{
	struct last_status *last = map_get(&p->last, s->id);
	char a[32], b[32];
	if (last && !s->completed) {
		double delta = s->total > 0 ? (double)(s->current - last->current) / (double)s->total : 0;
		if (delta < MIN_PROGRESS && s->timestamp - last->timestamp < MIN_TIME_S * SECOND) return false;
	}
	if (!last) map_put(&p->last, s->id, last = xnew(struct last_status));
	*last = (struct last_status){s->current, s->timestamp};
	buf_addf(out, "#%d %s", v->index, s->id);
	bytes_format(s->current, 2, a);
	bytes_format(s->total, 2, b);
	if (s->total)
		buf_addf(out, " %s / %s", a, b);
	else if (s->current)
		buf_addf(out, " %s", a);
	double sec = s->started ? (double)((s->completed ? s->completed : s->timestamp) - s->started) / 1e9 : 0;
	if (sec > 0.01) buf_addf(out, " %.1fs", sec);
	buf_adds(out, s->completed ? " done\n" : "\n");
	return !s->completed;
}

static void keep_last_lines(struct shown_vertex *v, const char *line)
{
	char **slot = &v->ring[v->ring_at];
	free(*slot);
	*slot = xstrdup(line);
	v->has_ring = true;
	if (!v->logs_partial) v->ring_at = (v->ring_at + 1) % LOG_RING;
}

static void print_logs(struct shown_vertex *v, struct buf *out)
{
	for (size_t i = 0; i < v->logs.n; i++) {
		const struct buf *l = &v->logs.v[i];
		size_t skip = i == 0 ? min_of(v->logs_offset, l->n) : 0; /* what was printed already */
		if (!skip) buf_addf(out, "#%d ", v->index);
		buf_add(out, l->p + skip, l->n - skip);
		if (i + 1 < v->logs.n || !v->logs_partial) buf_addc(out, '\n');
		keep_last_lines(v, buf_str(l) + skip);
	}
	if (!v->logs.n) return;
	size_t keep = v->logs_partial ? 1 : 0;
	struct buf last = v->logs.v[v->logs.n - 1];
	for (size_t i = 0; i + keep < v->logs.n; i++) buf_fini(&v->logs.v[i]);
	v->logs.n = keep;
	v->logs.v[0] = last;
	v->logs_offset = keep ? last.n : 0;
}

static void print_end(struct trace *t, struct shown_vertex *v, struct buf *out)
{
	v->count = 0;
	if (v->logs_partial) buf_addc(out, '\n');
	if (*v->error && error_is_cancel(v->error))
		buf_addf(out, "#%d CANCELED\n", v->index);
	else if (*v->error)
		buf_addf(out, "#%d ERROR: %s\n", v->index, v->error);
	else if (v->cached)
		buf_addf(out, "#%d CACHED\n", v->index);
	else
		buf_addf(out, "#%d DONE %.1fs\n", v->index, vertex_seconds(t, v));
}

static void print_vertex(struct plain *p, struct trace *t, struct shown_vertex *v, struct buf *out)
{
	bool open = false; /* loading a remote cache reports statuses of a vertex that is not active */
	if (!v->index) v->index = ++p->next_index;
	if (v != p->current) print_header(p, v, out);
	for (size_t i = 0; i < v->statuses.n; i++) {
		struct shown_status *s = v->statuses.v[i];
		if (s->updated && print_status(p, v, s, out)) open = true;
	}
	MAP_EACH(&v->by_id, it)((struct shown_status *)it->value)->updated = false;
	for (; v->warnings_shown < v->warnings.n; v->warnings_shown++)
		buf_addf(out, "#%d WARN: %s\n", v->index, v->warnings.v[v->warnings_shown]);
	print_logs(v, out);
	v->updated = false;
	p->current = v;
	if (!vertex_completed(v) || open) return;
	p->current = NULL;
	print_end(t, v, out);
}

/* ---- which ones ---- */
static int by_completion(const void *a, const void *b)
{
	int64_t x = vertex_last_stop(*(struct shown_vertex *const *)a), y = vertex_last_stop(*(struct shown_vertex *const *)b);
	if (x != y) return x > y ? 1 : -1;
	return (*(struct shown_vertex *const *)a)->depth - (*(struct shown_vertex *const *)b)->depth;
}

/* Steps found in the cache at one moment have the same times: what they are built upon comes first. */
static int depth_of(const struct trace *t, struct shown_vertex *v, int guard)
{
	if (v->depth || guard == 0) return v->depth;
	int depth = 1;
	for (size_t i = 0; i < v->inputs.n; i++) {
		struct shown_vertex *in = map_get(&t->by_digest, v->inputs.v[i]);
		if (in && in != v) depth = max_of(depth, 1 + depth_of(t, in, guard - 1));
	}
	return v->depth = depth;
}

static double speed_of(struct trace *t, const struct shown_vertex *v, double *ret_waited)
{
	*ret_waited = (double)(t->now() - v->last_block) / 1e9;
	return v->count / max_of(*ret_waited, 1e-9);
}

static void print_active(struct plain *p, struct trace *t, struct shown_vertex **rest, size_t n, struct shown_vertex *current,
			 bool current_ended, struct buf *out)
{
	double sum = 0, best_speed = -1, current_speed = 0, current_waited = 0;
	struct shown_vertex *best = NULL, *late = NULL;
	for (size_t i = 0; i < n; i++) {
		double waited, speed;
		if (!rest[i]->last_block) continue;
		speed = speed_of(t, rest[i], &waited);
		sum += speed;
		if (rest[i] == current) {
			current_speed = speed;
			current_waited = waited;
		} else if (waited > MAX_DELAY_S) {
			late = best = rest[i];
			best_speed = speed;
		}
		if (speed > best_speed) {
			best = rest[i];
			best_speed = speed;
		}
	}
	double share = sum > 0 ? current_speed / sum : 1;
	if (current_ended || !current) {
		if (best) print_vertex(p, t, best, out);
	} else if (late) {
		print_vertex(p, t, late, out);
	} else if (share < 1 && 1.0 / (1.0 - share) * ANTI_FLICKER_S < current_waited && best) {
		print_vertex(p, t, best, out);
	}
}

void plain_print(struct plain *p, struct trace *t, struct buf *out)
{
	VEC(struct shown_vertex *) done = {0}, rest = {0};
	struct shown_vertex *current = p->current;
	bool current_ended = false;
	for (size_t i = 0; i < t->all.n; i++) {
		struct shown_vertex *v = t->all.v[i];
		if (!v->updated || v->hidden) continue;
		if (vertex_completed(v))
			vec_push(&done, v);
		else
			vec_push(&rest, v);
		current_ended |= v == current && vertex_completed(v);
	}
	if (current_ended) print_vertex(p, t, current, out);
	for (size_t i = 0; i < t->all.n && done.n > 1; i++) t->all.v[i]->depth = 0;
	for (size_t i = 0; i < done.n && done.n > 1; i++) depth_of(t, done.v[i], DEPTH_MAX);
	if (done.n) qsort(done.v, done.n, sizeof *done.v, by_completion);
	for (size_t i = 0; i < done.n; i++)
		if (done.v[i] != current) print_vertex(p, t, done.v[i], out);
	if (!rest.n) {
		for (size_t i = 0; i < t->all.n && !(current && vertex_started(current) && !vertex_completed(current)); i++) {
			struct shown_vertex *v = t->all.v[i];
			if (v->hidden || !vertex_started(v) || vertex_completed(v)) continue;
			print_vertex(p, t, v, out);
			break;
		}
	} else {
		bool listed = false;
		for (size_t i = 0; i < rest.n; i++) listed |= rest.v[i] == current;
		if (listed) print_vertex(p, t, current, out);
		if (current && !listed) vec_push(&rest, current);
		print_active(p, t, rest.v, rest.n, current, current_ended, out);
	}
	vec_fini(&done);
	vec_fini(&rest);
}
