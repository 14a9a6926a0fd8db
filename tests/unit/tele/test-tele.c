/* Counters as text, trace context, the OTEL_* variables, spans as bytes, an exporter whose collector is not there. */
#include "proto/otlp.pb-c.h"
#include "tele/tele.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

static char *text(void)
{
	struct buf b = BUF_INIT;
	tele_prometheus(&b);
	return buf_take_str(&b);
}

static void has(const char *all, const char *line)
{
	if (!strstr(all, line)) fail_msg("%s\n is not in\n%s", line, all);
}

static void test_metrics(void **state)
{
	tele_count(TELE_CACHE_HITS, 1);
	tele_count(TELE_CACHE_HITS, 2);
	tele_count(TELE_TRANSFERS, 1, "a\"b\\c\nd", "GET", "2xx");
	tele_count(TELE_TRANSFER_BYTES, 12345678901.0, "h", "received");
	tele_count(TELE_BUILDS, 1, "success");
	tele_count(TELE_BUILDS, 1, "failure", "Unknown");
	tele_observe(TELE_BUILD_SECONDS, 0.2, "success");
	tele_observe(TELE_BUILD_SECONDS, 3, "success");
	_cleanup_free_ char *t = text();
	has(t, "\n# TYPE slipway_cache_hits_total counter\nslipway_cache_hits_total 3\n");
	has(t, "\nslipway_cache_misses_total 0\n");
	has(t, "\nslipway_transfers_total{host=\"a\\\"b\\\\c\\nd\",method=\"GET\",result=\"2xx\"} 1\n");
	has(t, "\nslipway_transfer_bytes_total{host=\"h\",direction=\"received\"} 12345678901\n");
	has(t, "\nbuildkit_builds_total{status=\"success\"} "
	       "1\nbuildkit_builds_total{status=\"failure\",error_code=\"Unknown\"} 1\n");
	has(t, "\nbuildkit_build_duration_seconds_bucket{status=\"success\",le=\"0.1\"} 0\n");
	has(t, "\nbuildkit_build_duration_seconds_bucket{status=\"success\",le=\"0.25\"} 1\n");
	has(t, "\nbuildkit_build_duration_seconds_bucket{status=\"success\",le=\"5\"} 2\n");
	has(t, "\nbuildkit_build_duration_seconds_bucket{status=\"success\",le=\"+Inf\"} 2\n");
	has(t, "\nbuildkit_build_duration_seconds_sum{status=\"success\"} 3.2\n");
	has(t, "\nbuildkit_build_duration_seconds_count{status=\"success\"} 2\n");
}

/* A thousand hosts are a bounded number of series; what no label may be is "other". */
static void test_bounded(void **state)
{
	char host[32];
	for (int i = 0; i < 1000; i++) {
		snprintf(host, sizeof host, "h%d", i);
		tele_count(TELE_TRANSFER_BYTES, 1, host, "sent");
	}
	_cleanup_free_ char *t = text();
	size_t n = 0;
	for (const char *p = t; (p = strstr(p, "\nslipway_transfer_bytes_total{")); p++) n++;
	assert_int_equal(n, TELE_SERIES_MAX + 1);
	has(t, "\nslipway_transfer_bytes_total{host=\"other\",direction=\"other\"} ");
	tele_count(TELE_GC_RUNS, 1, "\xff\xfe");
	free(t);
	t = text();
	has(t, "\nslipway_gc_runs_total{by=\"other\"} 1\n");
}

static void test_traceparent(void **state)
{
	struct tele_context c = {0};
	assert_true(tele_traceparent_parse("00-b60f6ce61cc3ad279d68e1cac4214723-ee6e4aa668101211-01", &c));
	assert_string_equal(c.trace_id, "b60f6ce61cc3ad279d68e1cac4214723");
	assert_string_equal(c.span_id, "ee6e4aa668101211");
	assert_true(c.sampled);
	assert_true(tele_traceparent_parse("cc-b60f6ce61cc3ad279d68e1cac4214723-ee6e4aa668101211-00-more", &c) && !c.sampled);
	static const char *const bad[] = {"",
					  "00",
					  "00-b60f6ce61cc3ad279d68e1cac4214723-ee6e4aa668101211-01-more",
					  "00-B60F6CE61CC3AD279D68E1CAC4214723-ee6e4aa668101211-01",
					  "00-00000000000000000000000000000000-ee6e4aa668101211-01",
					  "00-b60f6ce61cc3ad279d68e1cac4214723-0000000000000000-01",
					  "ff-b60f6ce61cc3ad279d68e1cac4214723-ee6e4aa668101211-01",
					  "00-b60f6ce61cc3ad279d68e1cac4214723_ee6e4aa668101211-01"};
	for (size_t i = 0; i < array_len(bad); i++) assert_false(tele_traceparent_parse(bad[i], &c));
	assert_false(tele_traceparent_parse(NULL, &c));
	char out[TELE_TRACEPARENT_STR];
	tele_traceparent(c.trace_id, c.span_id, true, out);
	assert_string_equal(out, "00-b60f6ce61cc3ad279d68e1cac4214723-ee6e4aa668101211-01");
}

/* ---- OTEL_* ---- */

static const char *const *vars;

static const char *env(const char *name)
{
	for (const char *const *v = vars; *v; v++)
		if (str_starts(*v, name) && (*v)[strlen(name)] == '=') return *v + strlen(name) + 1;
	return NULL;
}

#define ENV(...) \
	(const char *const[]) { __VA_ARGS__ __VA_OPT__(, ) NULL }

static int read_env(const char *const *v, struct tele_otlp *o, struct err *e)
{
	vars = v;
	return tele_otlp_from_env(env, "slipwayd", "1", o, e);
}

static void url_is(const char *const *v, bool grpc, const char *url)
{
	struct tele_otlp o = {0};
	assert_int_equal(read_env(v, &o, NULL), 0);
	assert_true(o.enabled);
	assert_int_equal(o.grpc, grpc);
	assert_string_equal(o.url, url);
	tele_otlp_fini(&o);
}

static void refused(const char *const *v, const char *word)
{
	struct tele_otlp o = {0};
	struct err e = ERR_INIT;
	assert_int_equal(read_env(v, &o, &e), -1);
	has(e.msg, word);
	err_fini(&e);
}

#define METHOD "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

static void test_env(void **state)
{
	struct tele_otlp o = {0};
	assert_int_equal(read_env(ENV("OTEL_SERVICE_NAME=x"), &o, NULL), 0);
	assert_false(o.enabled);
	tele_otlp_fini(&o);
	assert_int_equal(read_env(ENV("OTEL_EXPORTER_OTLP_ENDPOINT=http://h", "OTEL_SDK_DISABLED=true"), &o, NULL), 0);
	assert_false(o.enabled);
	tele_otlp_fini(&o);
	url_is(ENV("OTEL_TRACES_EXPORTER=otlp"), true, "http://localhost:4317" METHOD);
	url_is(ENV("OTEL_EXPORTER_OTLP_ENDPOINT=http://h:1/ignored"), true, "http://h:1" METHOD);
	url_is(ENV("OTEL_EXPORTER_OTLP_ENDPOINT=h:1"), true, "https://h:1" METHOD);
	url_is(ENV("OTEL_EXPORTER_OTLP_ENDPOINT=h:1", "OTEL_EXPORTER_OTLP_INSECURE=true"), true, "http://h:1" METHOD);
	url_is(ENV("OTEL_EXPORTER_OTLP_ENDPOINT=https://h/base/", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"), false,
	       "https://h/base/v1/traces");
	url_is(ENV("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://h/exactly", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf"),
	       false, "http://h/exactly");
	assert_int_equal(read_env(ENV("OTEL_TRACES_EXPORTER=otlp",
				      "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20x%0D%0Aevil: 1, b = c",
				      "OTEL_RESOURCE_ATTRIBUTES=team=farm,service.name=other", "OTEL_SERVICE_NAME=mine",
				      "OTEL_EXPORTER_OTLP_TIMEOUT=7"),
				  &o, NULL),
			 0);
	assert_string_equal(o.headers.v[0], "authorization: Bearer x  evil: 1");
	assert_string_equal(o.headers.v[1], "b: c");
	assert_string_equal(strvec_env_get(&o.resource, "service.name"), "mine");
	assert_string_equal(strvec_env_get(&o.resource, "team"), "farm");
	assert_int_equal(o.timeout_ms, 7);
	tele_otlp_fini(&o);
	refused(ENV("OTEL_TRACES_EXPORTER=jaeger"), "OTEL_TRACES_EXPORTER");
	refused(ENV("OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=http/json"),
		"unsupported otlp protocol http/json");
	refused(ENV("OTEL_EXPORTER_OTLP_ENDPOINT=ftp://h"), "OTEL_EXPORTER_OTLP_ENDPOINT");
	refused(ENV("OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_TIMEOUT=soon"), "OTEL_EXPORTER_OTLP_TIMEOUT");
}

static void test_spans(void **state)
{
	_cleanup_strvec_ struct strvec resource = {0};
	_cleanup_buf_ struct buf b = BUF_INIT;
	strvec_add(&resource, "service.name=s");
	const struct tele_span v[] = {{.name = "bad \xff text",
				       .error = "boom",
				       .trace_id = "b60f6ce61cc3ad279d68e1cac4214723",
				       .span_id = "ee6e4aa668101211",
				       .parent_id = "",
				       .kind = TELE_SERVER,
				       .start_ns = 5,
				       .end_ns = 7,
				       .attrs = {{"vertex", "sha256:1", false}, {"cached", NULL, true}},
				       .n_attrs = 2}};
	tele_spans_pack(&resource, v, 1, &b);
	tele_spans_pack(&resource, v, 1, &b); /* one behind the other is one request */
	Otlp__ExportTraceServiceRequest *m = otlp__export_trace_service_request__unpack(NULL, b.n, b.p);
	assert_non_null(m);
	assert_int_equal(m->n_resource_spans, 2);
	assert_string_equal(m->resource_spans[0]->resource->attributes[0]->value->string_value, "s");
	const Otlp__Span *s = m->resource_spans[1]->scope_spans[0]->spans[0];
	assert_string_equal(s->name, "bad \xef\xbf\xbd text");
	assert_int_equal(s->trace_id.len, 16);
	assert_int_equal(s->trace_id.data[0], 0xb6);
	assert_int_equal(s->parent_span_id.len, 0);
	assert_int_equal(s->end_time_unix_nano, 7);
	assert_int_equal(s->status->code, OTLP__STATUS_CODE__STATUS_CODE_ERROR);
	assert_true(s->attributes[1]->value->bool_value);
	otlp__export_trace_service_request__free_unpacked(m, NULL);
}

/* Nobody listens: the queue stays bounded, all is counted, and closing takes no longer than it may. */
static void test_no_collector(void **state)
{
	struct loop *l = loop_new();
	struct tele_otlp o = {0};
	assert_int_equal(
		read_env(ENV("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_BSP_MAX_QUEUE_SIZE=10"), &o, NULL), 0);
	struct tele_exporter *x = tele_exporter_new(l, &o);
	for (int i = 0; i < 25; i++) tele_export(x, "", 1, 1);
	assert_int_equal(tele_value(TELE_SPANS_DROPPED), 15);
	int64_t from = time_mono_ns();
	tele_exporter_close(x, 1000);
	assert_true(time_mono_ns() - from < 2000000000);
	assert_int_equal(tele_value(TELE_SPANS_DROPPED), 25);
	assert_int_equal(tele_value(TELE_SPANS_EXPORTED), 0);
	loop_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_metrics),     cmocka_unit_test(test_bounded),
					   cmocka_unit_test(test_traceparent), cmocka_unit_test(test_env),
					   cmocka_unit_test(test_spans),       cmocka_unit_test(test_no_collector)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
