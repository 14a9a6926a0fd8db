#ifndef TELE_TELE_H
#define TELE_TELE_H
/* Telemetry: what the daemon counts, the HTTP address that shows it, and traces for an OpenTelemetry collector.
 *
 *  1. Counting never blocks for long and never fails: any thread, a short lock. A metric's series are bounded: behind
 *     TELE_SERIES_MAX of them, and for values that are not fit to be labels, the value is "other".
 *  2. Traces go out by a bounded queue. What does not fit, or what no collector takes in time, is dropped and counted:
 *     slipway_trace_spans_dropped_total. A build never waits for it.
 *  3. Nothing in here knows what a build is. Names and labels are fixed by the table in metrics.c; docs/metrics.md lists them.
 * Sources: Prometheus text format 0.0.4; W3C Trace Context; OTLP 1.x; OpenTelemetry environment variable specification. */
#include "base/base.h"
#include "loop/loop.h"

/* ---- counting: any thread ---- */
enum tele_metric {
	TELE_BUILD_INFO,    /* version, revision, buildkit */
	TELE_BUILDS,        /* status, error_code */
	TELE_BUILDS_STEPS,  /* kind */
	TELE_BUILD_SECONDS, /* status; histogram */
	TELE_BUILDS_RUNNING,
	TELE_STEPS,        /* op, outcome */
	TELE_STEP_SECONDS, /* op; histogram */
	TELE_CACHE_HITS,
	TELE_CACHE_MISSES,
	TELE_EXEC_RUNNING,
	TELE_EXEC_WAITING,
	TELE_EXEC_LIMIT,
	TELE_TRANSFERS,      /* host, method, result */
	TELE_TRANSFER_BYTES, /* host, direction */
	TELE_GC_RUNS,        /* by, result */
	TELE_GC_BYTES,       /* by */
	TELE_CONNECTIONS,
	TELE_SPANS_EXPORTED,
	TELE_SPANS_DROPPED,
	TELE_SPAN_FAILURES,
	TELE_RSS,
	TELE_CPU_SECONDS,
	TELE_OPEN_FDS,
	TELE_START_TIME,
	TELE_METRICS,
};
enum { TELE_SERIES_MAX = 128, TELE_LABEL_MAX = 120 };
/* Labels are values in the order of the metric's table row; a missing one (or NULL) is left out of the series. */
#define tele_count(m, n, ...) tele_count_((m), (double)(n), (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
#define tele_gauge(m, v, ...) tele_gauge_((m), (double)(v), (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
#define tele_observe(m, seconds, ...) tele_observe_((m), (seconds), (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
void tele_count_(enum tele_metric m, double n, const char *const *labels);
void tele_gauge_(enum tele_metric m, double v, const char *const *labels);
void tele_observe_(enum tele_metric m, double seconds, const char *const *labels);
double tele_value(enum tele_metric m); /* sum over its series; for tests */
void tele_process(void);               /* fill in the TELE_RSS, ... of this process; reads /proc */
void tele_prometheus(struct buf *out);
void tele_json(struct buf *out); /* {"name{label=\"value\"}": number, ...} */

/* ---- the debug address: loop thread ---- */
struct tele_page {
	const char *path, *type, *help; /* "/debug/builds", "text/plain", what it shows */
	void (*fill)(void *arg, struct buf *out);
};
struct tele_http_conf {
	void (*before)(void *arg);     /* set gauges; called for /metrics and /debug/vars */
	const struct tele_page *pages; /* ends with {0}; borrowed */
	void *arg;
};
struct tele_http;
/* addr: "host:port", "tcp://host:port" (port 0: any) or "unix:///path". Serves GET and HEAD of "/" (the list of pages),
 * /metrics, /debug/vars and the pages given; at most 16 connections, 16 KiB of request, 10 s each. Blocks shortly (name, bind).
 */
int tele_http_open(struct loop *l, const char *addr, const struct tele_http_conf *conf, struct tele_http **ret, struct err *e);
const char *tele_http_addr(const struct tele_http *h); /* with the port that was chosen */
void tele_http_close(struct tele_http *h);             /* NULL allowed; removes the unix socket's file */

/* ---- trace context: pure, any thread ---- */
struct tele_context {
	char trace_id[33], span_id[17]; /* lower-case hex; span_id "": no parent */
	bool sampled;
};
/* "00-<32 hex>-<16 hex>-<2 hex>"; false: it is none, *ret is untouched. */
bool tele_traceparent_parse(const char *s, struct tele_context *ret);
enum { TELE_TRACEPARENT_STR = 56 };
void tele_traceparent(const char *trace_id, const char *span_id, bool sampled, char out[static TELE_TRACEPARENT_STR]);
/* Ids that follow from text, the same each time: whoever knows a build's reference knows its spans. */
void tele_trace_id(const char *text, char out[static 33]);
void tele_span_id(const char *text, const char *more, char out[static 17]);

/* ---- spans to bytes: pure, any thread ---- */
enum tele_kind { TELE_INTERNAL = 1, TELE_SERVER = 2 };
struct tele_attr {
	const char *key, *text; /* text NULL: a boolean */
	bool flag;
};
struct tele_span {
	const char *name, *error; /* error NULL: none */
	const char *trace_id, *span_id, *parent_id;
	enum tele_kind kind;
	int64_t start_ns, end_ns; /* since 1970 */
	struct tele_attr attrs[4];
	size_t n_attrs;
};
/* One ExportTraceServiceRequest; appended. resource: "k=v". */
void tele_spans_pack(const struct strvec *resource, const struct tele_span *v, size_t n, struct buf *out);

/* ---- the exporter: loop thread unless said otherwise ---- */
struct tele_otlp { /* what the OTEL_* variables say */
	bool enabled, grpc;
	char *url, *unix_path; /* unix_path NULL: by the URL's host */
	struct strvec headers; /* "name: value" */
	char *ca, *cert, *key;
	int64_t timeout_ms, delay_ms;
	int64_t max_spans; /* in the queue */
	struct strvec resource;
};
/* env: getenv, or a test's. -1: INVALID_ARGUMENT names the variable. enabled is false when no variable asks for traces. */
int tele_otlp_from_env(const char *(*env)(const char *name), const char *service, const char *version, struct tele_otlp *ret,
		       struct err *e);
void tele_otlp_fini(struct tele_otlp *o);
struct tele_exporter;
/* Takes conf over. Never NULL: when it is not enabled, what is given is dropped without being counted. */
struct tele_exporter *tele_exporter_new(struct loop *l, struct tele_otlp *conf);
const struct strvec *tele_exporter_resource(const struct tele_exporter *x);
bool tele_exporter_enabled(const struct tele_exporter *x);
/* One ExportTraceServiceRequest (copied) that holds so many spans. */
void tele_export(struct tele_exporter *x, const void *request, size_t n, size_t spans);
/* Send what is left, for at most max_ms; blocks. The loop must not run any more. NULL allowed. */
void tele_exporter_close(struct tele_exporter *x, int64_t max_ms);
#endif
