/* Trace of a build, made from its progress: the daemon keeps no spans of its own. Ids are made of the build's ref and the
 * steps' digests. Source of the layout: go.opentelemetry.io/otel/sdk/trace/tracetest SpanStub, in encoding/json. */
#include "build/history_job.h"

#include <string.h>

struct span {
	const char *name, *error;
	char id[17], parent[17];
	struct timespec from, to;
	const char *digest; /* NULL: the build itself */
	bool cached;
	size_t children;
};

static void id_of(const char *text, size_t hex, char *out)
{
	char all[DIGEST_STR];
	digest_str_of(text, strlen(text), all);
	memcpy(out, all + strlen("sha256:"), hex);
	out[hex] = 0;
}

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

void history_trace_json(const struct history_logs *h, struct buf *out)
{
	_cleanup_map_ struct map steps = {0};
	char trace[33];
	struct span root = {.name = "build", .error = h->error, .from = h->started, .to = h->ended};
	id_of(h->ref, 32, trace);
	memcpy(root.id, trace + 16, sizeof root.id);
	last_states(h, &steps);
	MAP_EACH(&steps, it) root.children += ran(it->value);
	write_span(out, &root, trace, h->ref);
	MAP_EACH(&steps, it)
	{
		const struct prog_vertex *v = it->value;
		if (!ran(v)) continue;
		struct span s = {.name = v->name ? v->name : "",
				 .error = v->error && *v->error ? v->error : NULL,
				 .from = v->started,
				 .to = v->completed,
				 .digest = v->digest,
				 .cached = v->cached};
		_cleanup_free_ char *unique = xasprintf("%s %s", h->ref, v->digest);
		id_of(unique, 16, s.id);
		memcpy(s.parent, root.id, sizeof s.parent);
		write_span(out, &s, trace, h->ref);
	}
}

int history_trace_write(struct history_logs *h, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	history_trace_json(h, &out);
	h->trace_bytes = (int64_t)out.n;
	return blob_put(h->blobs, out.p, out.n, h->trace_digest, e);
}
