/* The metrics of this process: one table of names, and a small map of series for each.
 *
 *  1. One lock guards all values; it is held for a map lookup and an addition, or while text is made of them.
 *  2. A series is named by its rendered labels: `{host="a",result="ok"}`, "" without any.
 *  3. Metrics that are not about a label are shown from the start, with 0.
 * Those called buildkit_* have BuildKit's own names and labels (solver/llbsolver/metrics.go), so that dashboards go on working.
 */
#include "tele/tele.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

enum type { COUNTER, GAUGE, HISTOGRAM };
enum { LABELS_MAX = 3, BUCKETS = 14 };
static const double bounds[BUCKETS] = {.005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200};

struct row {
	const char *name, *help;
	enum type type;
	const char *labels[LABELS_MAX];
};
static const struct row rows[TELE_METRICS] = {
	[TELE_BUILD_INFO] = {"slipway_build_info",
			     "Version of this daemon; always 1.",
			     GAUGE,
			     {"version", "revision", "buildkit"}},
	[TELE_BUILDS] = {"buildkit_builds_total",
			 "Builds that have ended, by status (success, failure) and gRPC code.",
			 COUNTER,
			 {"status", "error_code"}},
	[TELE_BUILDS_STEPS] = {"buildkit_builds_steps_total",
			       "Steps of builds that have ended, by kind (completed, cached, total, warnings).",
			       COUNTER,
			       {"kind"}},
	[TELE_BUILD_SECONDS] = {"buildkit_build_duration_seconds",
				"Time from a build's start to its end.",
				HISTOGRAM,
				{"status"}},
	[TELE_BUILDS_RUNNING] = {"slipway_builds_running", "Builds that run now.", GAUGE, {0}},
	[TELE_STEPS] = {"slipway_steps_total",
			"Steps by operation and outcome (ran, cached, failed, canceled).",
			COUNTER,
			{"op", "outcome"}},
	[TELE_STEP_SECONDS] = {"slipway_step_duration_seconds",
			       "Time that steps ran, by operation; cached ones are not in it.",
			       HISTOGRAM,
			       {"op"}},
	[TELE_CACHE_HITS] = {"slipway_cache_hits_total", "Steps whose result was found in the build cache.", COUNTER, {0}},
	[TELE_CACHE_MISSES] = {"slipway_cache_misses_total", "Steps that had to run.", COUNTER, {0}},
	[TELE_EXEC_RUNNING] = {"slipway_exec_running", "RUN steps that hold a slot of max-parallelism.", GAUGE, {0}},
	[TELE_EXEC_WAITING] = {"slipway_exec_waiting", "RUN steps that wait for a slot.", GAUGE, {0}},
	[TELE_EXEC_LIMIT] = {"slipway_exec_limit", "max-parallelism; 0: unlimited.", GAUGE, {0}},
	[TELE_TRANSFERS] =
		{"slipway_transfers_total",
		 "HTTP requests to registries and other sources, by host, method and result (status class, or what failed).",
		 COUNTER,
		 {"host", "method", "result"}},
	[TELE_TRANSFER_BYTES] = {"slipway_transfer_bytes_total",
				 "Bytes of bodies, by host and direction (received, sent).",
				 COUNTER,
				 {"host", "direction"}},
	[TELE_GC_RUNS] = {"slipway_gc_runs_total",
			  "Runs of the garbage collector (by policy) and of prune, by result (ok, error).",
			  COUNTER,
			  {"by", "result"}},
	[TELE_GC_BYTES] = {"slipway_gc_freed_bytes_total", "Bytes that these removed.", COUNTER, {"by"}},
	[TELE_CONNECTIONS] = {"slipway_connections", "Clients that are connected.", GAUGE, {0}},
	[TELE_SPANS_EXPORTED] = {"slipway_trace_spans_exported_total", "Spans that the collector took.", COUNTER, {0}},
	[TELE_SPANS_DROPPED] = {"slipway_trace_spans_dropped_total",
				"Spans that were dropped: queue full, or the collector did not take them.",
				COUNTER,
				{0}},
	[TELE_SPAN_FAILURES] = {"slipway_trace_export_failures_total", "Requests to the collector that failed.", COUNTER, {0}},
	[TELE_RSS] = {"process_resident_memory_bytes", "Resident memory.", GAUGE, {0}},
	[TELE_CPU_SECONDS] = {"process_cpu_seconds_total", "Processor time, user and system.", COUNTER, {0}},
	[TELE_OPEN_FDS] = {"process_open_fds", "Open file descriptors.", GAUGE, {0}},
	[TELE_START_TIME] = {"process_start_time_seconds", "When the process started, in seconds since 1970.", GAUGE, {0}},
};

struct series {
	double value; /* histogram: the sum */
	uint64_t count, below[];
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct map table[TELE_METRICS];

/* ---- counting ---- */

static void add_label(struct buf *out, const char *name, const char *value)
{
	bool fit = strlen(value) <= TELE_LABEL_MAX && utf8_valid(value, strlen(value));
	buf_addc(out, out->n ? ',' : '{');
	buf_addf(out, "%s=\"", name);
	for (const char *p = fit ? value : "other"; *p; p++) {
		if (*p == '\\' || *p == '"') buf_addc(out, '\\');
		if (*p == '\n')
			buf_adds(out, "\\n");
		else
			buf_addc(out, *p);
	}
	buf_addc(out, '"');
}

static void render(const struct row *r, const char *const *labels, bool other, struct buf *out)
{
	for (size_t i = 0; i < LABELS_MAX && r->labels[i] && labels[i]; i++)
		add_label(out, r->labels[i], other ? "other" : labels[i]);
	if (out->n) buf_addc(out, '}');
}

static struct series *find(enum tele_metric m, const char *const *labels)
{
	_cleanup_buf_ struct buf key = BUF_INIT;
	const struct row *r = &rows[m];
	render(r, labels, false, &key);
	struct series *s = map_get(&table[m], buf_str(&key));
	if (s) return s;
	if (table[m].count >= TELE_SERIES_MAX) {
		buf_reset(&key);
		render(r, labels, true, &key);
		if ((s = map_get(&table[m], buf_str(&key)))) return s;
	}
	s = xcalloc(1, sizeof *s + (r->type == HISTOGRAM ? BUCKETS * sizeof *s->below : 0));
	map_put(&table[m], buf_str(&key), s);
	return s;
}

void tele_count_(enum tele_metric m, double n, const char *const *labels)
{
	pthread_mutex_lock(&lock);
	find(m, labels)->value += n;
	pthread_mutex_unlock(&lock);
}

void tele_gauge_(enum tele_metric m, double v, const char *const *labels)
{
	pthread_mutex_lock(&lock);
	find(m, labels)->value = v;
	pthread_mutex_unlock(&lock);
}

void tele_observe_(enum tele_metric m, double seconds, const char *const *labels)
{
	pthread_mutex_lock(&lock);
	struct series *s = find(m, labels);
	s->value += seconds;
	s->count++;
	for (int i = 0; i < BUCKETS; i++)
		if (seconds <= bounds[i]) s->below[i]++;
	pthread_mutex_unlock(&lock);
}

double tele_value(enum tele_metric m)
{
	double sum = 0;
	pthread_mutex_lock(&lock);
	MAP_EACH(&table[m], it) sum += ((struct series *)it->value)->value;
	pthread_mutex_unlock(&lock);
	return sum;
}

/* ---- this process ---- */

static size_t count_fds(void)
{
	size_t n = 0;
	DIR *d = opendir("/proc/self/fd");
	if (!d) return 0;
	while (readdir(d)) n++;
	closedir(d);
	return n < 3 ? 0 : n - 3; /* ".", "..", this one */
}

static double start_time(void)
{
	char text[1024] = "";
	_cleanup_close_ int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	unsigned long long ticks = 0;
	const char *end = n > 0 ? strrchr(text, ')') : NULL; /* the name may hold anything */
	if (!end ||
	    sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &ticks) != 1)
		return 0;
	struct timespec now, up;
	clock_gettime(CLOCK_REALTIME, &now);
	clock_gettime(CLOCK_BOOTTIME, &up);
	return (double)(now.tv_sec - up.tv_sec) + (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

static double resident(void)
{
	char text[128] = "";
	_cleanup_close_ int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	unsigned long long pages = 0;
	if (n <= 0 || sscanf(text, "%*u %llu", &pages) != 1) return 0;
	return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

void tele_process(void)
{
	static double started;
	struct rusage u;
	if (!started) started = start_time();
	getrusage(RUSAGE_SELF, &u);
	tele_gauge(TELE_RSS, resident());
	tele_gauge(TELE_CPU_SECONDS,
		   (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
	tele_gauge(TELE_OPEN_FDS, count_fds());
	tele_gauge(TELE_START_TIME, started);
}

/* ---- text ---- */

static void number(struct buf *out, double v)
{
	if (v == floor(v) && fabs(v) < 9e15)
		buf_addf(out, "%lld", (long long)v);
	else
		buf_addf(out, "%.15g", v);
}

static void line(struct buf *out, const char *name, const char *suffix, const char *labels, double v)
{
	buf_addf(out, "%s%s%s ", name, suffix, labels);
	number(out, v);
	buf_addc(out, '\n');
}

static void buckets(struct buf *out, const char *name, const char *labels, const struct series *s)
{
	int rest = *labels ? (int)strlen(labels) - 1 : 0; /* without the closing brace */
	for (int i = 0; i <= BUCKETS; i++) {
		buf_addf(out, "%s_bucket%.*s%sle=\"", name, rest, labels, rest ? "," : "{");
		if (i < BUCKETS)
			buf_addf(out, "%g", bounds[i]);
		else
			buf_adds(out, "+Inf");
		buf_addf(out, "\"} %llu\n", (unsigned long long)(i < BUCKETS ? s->below[i] : s->count));
	}
	line(out, name, "_sum", labels, s->value);
	line(out, name, "_count", labels, (double)s->count);
}

void tele_prometheus(struct buf *out)
{
	static const char *const types[] = {"counter", "gauge", "histogram"};
	pthread_mutex_lock(&lock);
	for (int m = 0; m < TELE_METRICS; m++) {
		const struct row *r = &rows[m];
		buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", r->name, r->help, r->name, types[r->type]);
		if (!r->labels[0] && !table[m].count) line(out, r->name, "", "", 0);
		MAP_EACH(&table[m], it)
		{
			if (r->type == HISTOGRAM)
				buckets(out, r->name, it->key, it->value);
			else
				line(out, r->name, "", it->key, ((struct series *)it->value)->value);
		}
	}
	pthread_mutex_unlock(&lock);
}

void tele_json(struct buf *out)
{
	struct json_w w = {.out = out, .indent = "  "};
	json_obj(&w);
	pthread_mutex_lock(&lock);
	for (int m = 0; m < TELE_METRICS; m++) MAP_EACH(&table[m], it)
		{
			const struct series *s = it->value;
			_cleanup_free_ char *key =
				xasprintf("%s%s%s", rows[m].name, rows[m].type == HISTOGRAM ? "_sum" : "", it->key);
			_cleanup_buf_ struct buf text = BUF_INIT;
			number(&text, s->value);
			json_key(&w, key);
			json_raw(&w, buf_str(&text), text.n);
		}
	pthread_mutex_unlock(&lock);
	json_obj_end(&w);
	buf_addc(out, '\n');
}
