/* Progress as messages: what Status streams and history logs carry. Vertices first by start, then statuses and logs in order. */
#include "build/internal.h"

#include <string.h>

static Google__Timestamp *stamp(struct arena *a, struct timespec t)
{
	if (!t.tv_sec) return NULL;
	Google__Timestamp *ts = arena_new_of(a, Google__Timestamp);
	google__timestamp__init(ts);
	ts->seconds = t.tv_sec;
	ts->nanos = (int32_t)t.tv_nsec;
	return ts;
}

static const char *text(struct arena *a, const char *s)
{
	if (!s) return "";
	if (utf8_valid(s, strlen(s))) return arena_strdup(a, s);
	_cleanup_free_ char *clean = utf8_clean(s, strlen(s));
	return arena_strdup(a, clean);
}

static ProtobufCBinaryData bytes(struct arena *a, const void *p, size_t n)
{
	return (ProtobufCBinaryData){n, arena_memdup(a, p, n)};
}

static Control__Vertex *vertex(struct arena *a, const struct prog_vertex *v)
{
	Control__Vertex *m = arena_new_of(a, Control__Vertex);
	control__vertex__init(m);
	m->digest = arena_strdup(a, v->digest);
	m->name = text(a, v->name);
	m->cached = v->cached;
	m->started = stamp(a, v->started);
	m->completed = stamp(a, v->completed);
	m->error = text(a, v->error);
	m->n_inputs = v->inputs.n;
	const char **in = arena_alloc(a, sizeof *in * v->inputs.n);
	for (size_t i = 0; i < v->inputs.n; i++) in[i] = arena_strdup(a, v->inputs.v[i]);
	m->inputs = (void *)in;
	if (v->group_id) {
		m->progressgroup = arena_new_of(a, Pb__ProgressGroup);
		pb__progress_group__init(m->progressgroup);
		m->progressgroup->id = text(a, v->group_id);
		m->progressgroup->name = text(a, v->group_name);
		m->progressgroup->weak = v->group_weak;
	}
	return m;
}

static Control__VertexStatus *status(struct arena *a, const struct prog_status *s)
{
	Control__VertexStatus *m = arena_new_of(a, Control__VertexStatus);
	control__vertex_status__init(m);
	m->id = text(a, s->id);
	m->vertex = arena_strdup(a, s->vertex);
	m->name = text(a, s->name);
	m->current = s->current;
	m->total = s->total;
	m->timestamp = stamp(a, s->timestamp);
	m->started = stamp(a, s->started);
	m->completed = stamp(a, s->completed);
	return m;
}

static Control__VertexLog *log_line(struct arena *a, const struct prog_log *l)
{
	Control__VertexLog *m = arena_new_of(a, Control__VertexLog);
	control__vertex_log__init(m);
	m->vertex = arena_strdup(a, l->vertex);
	m->timestamp = stamp(a, l->timestamp);
	m->stream = l->stream;
	m->msg = bytes(a, l->data, l->len);
	return m;
}

static Pb__Range *range(struct arena *a, const struct prog_range *r)
{
	Pb__Range *m = arena_new_of(a, Pb__Range);
	pb__range__init(m);
	m->start = arena_new_of(a, Pb__Position);
	m->end = arena_new_of(a, Pb__Position);
	pb__position__init(m->start);
	pb__position__init(m->end);
	m->start->line = r->start.line;
	m->start->character = r->start.character;
	m->end->line = r->end.line;
	m->end->character = r->end.character;
	return m;
}

static Control__VertexWarning *warning(struct arena *a, const struct prog_warning *w)
{
	Control__VertexWarning *m = arena_new_of(a, Control__VertexWarning);
	control__vertex_warning__init(m);
	m->vertex = arena_strdup(a, w->vertex);
	m->level = w->level;
	m->short_ = bytes(a, w->short_ ? w->short_ : "", w->short_ ? strlen(w->short_) : 0);
	m->url = text(a, w->url);
	m->n_detail = w->detail.n;
	m->detail = arena_alloc(a, sizeof *m->detail * w->detail.n);
	for (size_t i = 0; i < w->detail.n; i++) m->detail[i] = bytes(a, w->detail.v[i], strlen(w->detail.v[i]));
	if (w->source_info) m->info = wire_unpack_as(Pb__SourceInfo, pb__source_info, w->source_info, w->source_info_len, a, NULL);
	m->n_ranges = w->n_ranges;
	m->ranges = arena_alloc(a, sizeof *m->ranges * w->n_ranges);
	for (size_t i = 0; i < w->n_ranges; i++) m->ranges[i] = range(a, &w->ranges[i]);
	return m;
}

size_t build_status_cut(struct prog_event *const *v, size_t n)
{
	enum { LOG_BYTES = 1 << 20 };
	size_t k = 0, bytes = 0;
	while (k < n && (!k || bytes < LOG_BYTES)) {
		if (v[k]->type == PROG_LOG) bytes += v[k]->log.len;
		k++;
	}
	return k;
}

Control__StatusResponse *build_status_message(struct arena *a, struct prog_event *const *v, size_t n)
{
	Control__StatusResponse *m = arena_new_of(a, Control__StatusResponse);
	control__status_response__init(m);
	m->vertexes = arena_alloc(a, sizeof *m->vertexes * n);
	m->statuses = arena_alloc(a, sizeof *m->statuses * n);
	m->logs = arena_alloc(a, sizeof *m->logs * n);
	m->warnings = arena_alloc(a, sizeof *m->warnings * n);
	for (size_t i = 0; i < n; i++) {
		switch (v[i]->type) {
		case PROG_VERTEX: m->vertexes[m->n_vertexes++] = vertex(a, &v[i]->vertex); break;
		case PROG_STATUS: m->statuses[m->n_statuses++] = status(a, &v[i]->status); break;
		case PROG_LOG: m->logs[m->n_logs++] = log_line(a, &v[i]->log); break;
		case PROG_WARNING: m->warnings[m->n_warnings++] = warning(a, &v[i]->warning); break;
		}
	}
	return m;
}
