/* Trace context and spans as bytes. Pure. */
#include "tele/tele.h"

#include "proto/otlp.pb-c.h"
#include <stdio.h>
#include <string.h>

static bool is_hex(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f'))) return false;
	return true;
}

static bool all_zero(const char *s, size_t n) { return strspn(s, "0") >= n; }

/* A later version may have more behind the flags; version ff is invalid, and so are ids of zeros. */
bool tele_traceparent_parse(const char *s, struct tele_context *ret)
{
	enum { TRACE = 3, SPAN = 36, FLAGS = 53, LEN = 55 };
	if (!s || strlen(s) < LEN || !is_hex(s, 2) || !strncmp(s, "ff", 2)) return false;
	if (s[LEN] && (s[LEN] != '-' || !strncmp(s, "00", 2))) return false;
	if (s[TRACE - 1] != '-' || s[SPAN - 1] != '-' || s[FLAGS - 1] != '-') return false;
	if (!is_hex(s + TRACE, 32) || !is_hex(s + SPAN, 16) || !is_hex(s + FLAGS, 2)) return false;
	if (all_zero(s + TRACE, 32) || all_zero(s + SPAN, 16)) return false;
	struct tele_context c = {.sampled = strchr("13579bdf", s[FLAGS + 1]) != NULL};
	memcpy(c.trace_id, s + TRACE, 32);
	memcpy(c.span_id, s + SPAN, 16);
	*ret = c;
	return true;
}

void tele_traceparent(const char *trace_id, const char *span_id, bool sampled, char out[static TELE_TRACEPARENT_STR])
{
	snprintf(out, TELE_TRACEPARENT_STR, "00-%.32s-%.16s-%s", trace_id, span_id, sampled ? "01" : "00");
}

static void id_of(const char *text, size_t hex, char *out)
{
	char all[DIGEST_STR];
	digest_str_of(text, strlen(text), all);
	memcpy(out, all + strlen("sha256:"), hex);
	out[hex] = 0;
}

void tele_trace_id(const char *text, char out[static 33]) { id_of(text, 32, out); }

void tele_span_id(const char *text, const char *more, char out[static 17])
{
	_cleanup_free_ char *all = xasprintf("%s %s", text, more);
	id_of(all, 16, out);
}

/* ---- bytes ---- */

static ProtobufCBinaryData bytes_of(struct arena *a, const char *hex)
{
	size_t n = hex ? strlen(hex) / 2 : 0;
	uint8_t *p = arena_alloc(a, n + 1);
	for (size_t i = 0; i < n; i++) {
		unsigned b = 0;
		sscanf(hex + 2 * i, "%2x", &b);
		p[i] = (uint8_t)b;
	}
	return (ProtobufCBinaryData){n, p};
}

/* Strings of peers come in here: protobuf wants UTF-8. */
static char *text_of(struct arena *a, const char *s)
{
	_cleanup_free_ char *clean = utf8_clean(s, strlen(s));
	return arena_strdup(a, clean);
}

static Otlp__KeyValue *attribute(struct arena *a, const char *key, const char *text, bool flag)
{
	Otlp__KeyValue *kv = arena_new_of(a, Otlp__KeyValue);
	otlp__key_value__init(kv);
	kv->key = text_of(a, key);
	kv->value = arena_new_of(a, Otlp__AnyValue);
	otlp__any_value__init(kv->value);
	if (text) {
		kv->value->value_case = OTLP__ANY_VALUE__VALUE_STRING_VALUE;
		kv->value->string_value = text_of(a, text);
	} else {
		kv->value->value_case = OTLP__ANY_VALUE__VALUE_BOOL_VALUE;
		kv->value->bool_value = flag;
	}
	return kv;
}

static Otlp__Resource *resource_of(struct arena *a, const struct strvec *attrs)
{
	Otlp__Resource *r = arena_new_of(a, Otlp__Resource);
	otlp__resource__init(r);
	r->attributes = arena_alloc(a, sizeof *r->attributes * (attrs->n + 1));
	for (size_t i = 0; i < attrs->n; i++) {
		const char *kv = attrs->v[i], *eq = strchr(kv, '=');
		if (!eq) continue;
		_cleanup_free_ char *key = xstrndup(kv, (size_t)(eq - kv));
		r->attributes[r->n_attributes++] = attribute(a, key, eq + 1, false);
	}
	return r;
}

static Otlp__Span *span_of(struct arena *a, const struct tele_span *s)
{
	Otlp__Span *m = arena_new_of(a, Otlp__Span);
	otlp__span__init(m);
	m->trace_id = bytes_of(a, s->trace_id);
	m->span_id = bytes_of(a, s->span_id);
	m->parent_span_id = bytes_of(a, s->parent_id);
	m->name = text_of(a, s->name);
	m->kind = (Otlp__SpanKind)s->kind;
	m->start_time_unix_nano = (uint64_t)s->start_ns;
	m->end_time_unix_nano = (uint64_t)s->end_ns;
	m->attributes = arena_alloc(a, sizeof *m->attributes * (s->n_attrs + 1));
	for (size_t i = 0; i < s->n_attrs; i++)
		m->attributes[m->n_attributes++] = attribute(a, s->attrs[i].key, s->attrs[i].text, s->attrs[i].flag);
	m->status = arena_new_of(a, Otlp__Status);
	otlp__status__init(m->status);
	if (s->error) {
		m->status->code = OTLP__STATUS_CODE__STATUS_CODE_ERROR;
		m->status->message = text_of(a, s->error);
	}
	return m;
}

void tele_spans_pack(const struct strvec *resource, const struct tele_span *v, size_t n, struct buf *out)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	Otlp__ScopeSpans scope = OTLP__SCOPE_SPANS__INIT, *scopes = &scope;
	Otlp__InstrumentationScope by = OTLP__INSTRUMENTATION_SCOPE__INIT;
	Otlp__ResourceSpans spans = OTLP__RESOURCE_SPANS__INIT, *all = &spans;
	Otlp__ExportTraceServiceRequest m = OTLP__EXPORT_TRACE_SERVICE_REQUEST__INIT;
	by.name = (char *)"slipway";
	scope.scope = &by;
	scope.spans = arena_alloc(a, sizeof *scope.spans * (n + 1));
	for (size_t i = 0; i < n; i++) scope.spans[scope.n_spans++] = span_of(a, &v[i]);
	spans.resource = resource_of(a, resource);
	spans.scope_spans = &scopes;
	spans.n_scope_spans = 1;
	m.resource_spans = &all;
	m.n_resource_spans = 1;
	size_t size = otlp__export_trace_service_request__get_packed_size(&m);
	void *p = buf_reserve(out, size);
	if (p) out->n += otlp__export_trace_service_request__pack(&m, p);
}
