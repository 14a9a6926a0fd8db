/* Trace of a build, made from its progress: the daemon keeps no spans of its own (see trace.c for their ids). Source of the
 * layout: go.opentelemetry.io/otel/sdk/trace/tracetest SpanStub, in encoding/json. */
#include "build/history_job.h"

#include <string.h>

struct span {
	char *name;
	const char *error;
	char id[17], parent[17];
	struct timespec from, to;
	const char *digest; /* NULL: the build itself */
	bool cached;
	size_t children;
};

static void context(struct json_w *w, const char *key, const char *trace, const char *span)
{
	json_key(w, key);
	json_obj(w);
	json_kstr(w, "TraceID", trace);
	json_kstr(w, "SpanID", span);
	json_kstr(w, "TraceFlags", *span == '0' && !strcmp(span, "0000000000000000") ? "00" : "01");
	json_kstr(w, "TraceState", "");
	json_kbool(w, "Remote", false);
	json_obj_end(w);
}

static void attribute(struct json_w *w, const char *key, const char *text, bool flag)
{
	json_obj(w);
	json_kstr(w, "Key", key);
	json_key(w, "Value");
	json_obj(w);
	json_kstr(w, "Type", text ? "STRING" : "BOOL");
	if (text)
		json_kstr(w, "Value", text);
	else
		json_kbool(w, "Value", flag);
	json_obj_end(w);
	json_obj_end(w);
}

static void when(struct json_w *w, const char *key, struct timespec t)
{
	char text[TIME_STR];
	time_rfc3339nano(t, text);
	json_kstr(w, key, text);
}

static void null(struct json_w *w, const char *key)
{
	json_key(w, key);
	json_nil(w);
}

static void scope(struct json_w *w, const char *key)
{
	json_key(w, key);
	json_obj(w);
	json_kstr(w, "Name", "slipway");
	json_kstr(w, "Version", "");
	json_kstr(w, "SchemaURL", "");
	null(w, "Attributes");
	json_obj_end(w);
}

static void attributes(struct json_w *w, const struct span *s, const char *ref)
{
	json_key(w, "Attributes");
	json_arr(w);
	if (s->digest) {
		attribute(w, "vertex", s->digest, false);
		attribute(w, "cached", NULL, s->cached);
	} else {
		attribute(w, "ref", ref, false);
	}
	json_arr_end(w);
}

static void outcome(struct json_w *w, const struct span *s)
{
	json_key(w, "Status");
	json_obj(w);
	json_kstr(w, "Code", s->error ? "Error" : "Unset");
	json_kstr(w, "Description", s->error ? s->error : "");
	json_obj_end(w);
}

static void write_span(struct buf *out, const struct span *s, const char *trace, const char *ref)
{
	struct json_w w = {.out = out, .indent = "  "};
	json_obj(&w);
	json_kstr(&w, "Name", s->name);
	context(&w, "SpanContext", trace, s->id);
	context(&w, "Parent", *s->parent ? trace : "00000000000000000000000000000000",
		*s->parent ? s->parent : "0000000000000000");
	json_kint(&w, "SpanKind", 1); /* internal */
	when(&w, "StartTime", s->from);
	when(&w, "EndTime", s->to);
	attributes(&w, s, ref);
	null(&w, "Events");
	null(&w, "Links");
	outcome(&w, s);
	json_kint(&w, "DroppedAttributes", 0);
	json_kint(&w, "DroppedEvents", 0);
	json_kint(&w, "DroppedLinks", 0);
	json_kint(&w, "ChildSpanCount", (int64_t)s->children);
	json_key(&w, "Resource");
	json_arr(&w);
	attribute(&w, "service.name", "slipwayd", false);
	json_arr_end(&w);
	scope(&w, "InstrumentationLibrary");
	scope(&w, "InstrumentationScope");
	json_obj_end(&w);
	buf_addc(out, '\n');
}

/* The last event of each vertex tells all of it. */
static void last_states(const struct history_logs *h, struct map *ret)
{
	for (size_t i = 0; i < h->n_events; i++)
		if (h->events[i]->type == PROG_VERTEX) map_put(ret, h->events[i]->vertex.digest, &h->events[i]->vertex);
}

static bool ran(const struct prog_vertex *v) { return v->started.tv_sec && v->completed.tv_sec; }

static struct span root_span(const struct history_logs *h)
{
	struct span root = {
		.name = xstrdup("moby.buildkit.v1.Control/Solve"), .error = h->error, .from = h->started, .to = h->ended};
	memcpy(root.id, h->root_span, sizeof root.id);
	return root;
}

static struct span step_span(const struct history_logs *h, const struct prog_vertex *v)
{
	struct span s = {.error = v->error && *v->error ? v->error : NULL,
			 .from = v->started,
			 .to = v->completed,
			 .digest = v->digest,
			 .cached = v->cached};
	s.name = xasprintf("%s%s", v->cached ? "load cache: " : "", v->name ? v->name : "");
	tele_span_id(h->ref, v->digest, s.id);
	memcpy(s.parent, h->root_span, sizeof s.parent);
	return s;
}

struct spans {
	VEC(struct span) v; /* the build's first */
};

static void spans_fini(struct spans *s)
{
	for (size_t i = 0; i < s->v.n; i++) free(s->v.v[i].name);
	vec_fini(&s->v);
}

static void gather(const struct history_logs *h, struct spans *ret)
{
	_cleanup_map_ struct map steps = {0};
	last_states(h, &steps);
	vec_push(&ret->v, root_span(h));
	MAP_EACH(&steps, it)
	{
		if (ran(it->value)) vec_push(&ret->v, step_span(h, it->value));
	}
	ret->v.v[0].children = ret->v.n - 1;
}

static void write_json(const struct history_logs *h, const struct spans *s, struct buf *out)
{
	for (size_t i = 0; i < s->v.n; i++) write_span(out, &s->v.v[i], h->trace->trace_id, h->ref);
}

void history_trace_json(const struct history_logs *h, struct buf *out)
{
	_cleanup_(spans_fini) struct spans s = {0};
	gather(h, &s);
	write_json(h, &s, out);
}

static int64_t ns(struct timespec t) { return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec; }

/* The same for a collector; there the build has the client's span as its parent. */
static void pack_spans(struct history_logs *h, const struct spans *s)
{
	struct tele_span *v = xcalloc(s->v.n, sizeof *v);
	for (size_t i = 0; i < s->v.n; i++) {
		const struct span *x = &s->v.v[i];
		v[i] = (struct tele_span){.name = x->name,
					  .error = x->error,
					  .trace_id = h->trace->trace_id,
					  .span_id = x->id,
					  .parent_id = x->digest ? x->parent : h->trace->span_id,
					  .kind = x->digest ? TELE_INTERNAL : TELE_SERVER,
					  .start_ns = ns(x->from),
					  .end_ns = ns(x->to),
					  .n_attrs = 1};
		if (x->digest)
			v[i].attrs[0] = (struct tele_attr){.key = "vertex", .text = x->digest};
		else
			v[i].attrs[0] = (struct tele_attr){.key = "ref", .text = h->ref};
		if (x->digest) v[i].attrs[v[i].n_attrs++] = (struct tele_attr){.key = "cached", .flag = x->cached};
	}
	tele_spans_pack(h->resource, v, s->v.n, &h->spans);
	h->n_spans = s->v.n;
	free(v);
}

int history_trace_write(struct history_logs *h, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	_cleanup_(spans_fini) struct spans s = {0};
	gather(h, &s);
	write_json(h, &s, &out);
	if (h->resource) pack_spans(h, &s);
	h->trace_bytes = (int64_t)out.n;
	return blob_put_unsynced(h->blobs, out.p, out.n, h->trace_digest, e);
}
