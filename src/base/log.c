#include "base/log.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

enum { SPAN_FIELDS = 3, FIXED_FIELDS = 3 };
static atomic_int threshold = LOG_INFO, form_now = LOG_TEXT;
static const char *const level_name[] = {"trace", "debug", "info", "warning", "error", "fatal", "panic"};
static const int level_colour[] = {37, 37, 36, 33, 31, 31, 31};

void log_setup(enum log_level level, bool json)
{
	atomic_store(&threshold, level);
	atomic_store(&form_now, json ? LOG_JSON : isatty(STDERR_FILENO) ? LOG_COLOUR : LOG_TEXT);
}

bool log_enabled(enum log_level level) { return (int)level >= atomic_load_explicit(&threshold, memory_order_relaxed); }

bool log_level_parse(const char *s, enum log_level *ret)
{
	if (!strcasecmp(s, "warn")) s = "warning";
	for (size_t i = 0; i < array_len(level_name); i++)
		if (!strcasecmp(s, level_name[i])) {
			*ret = (enum log_level)i;
			return true;
		}
	return false;
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct log_field *)a)->key, ((const struct log_field *)b)->key);
}

/* The caller's fields and the span's, sorted; heap. room: for so many more. */
static struct log_field *gather(const struct log_span *span, const struct log_field *fields, size_t n, size_t room,
				size_t *ret_n)
{
	struct log_field *all = xcalloc(n + SPAN_FIELDS + room, sizeof *all);
	size_t c = 0;
	for (size_t i = 0; i < n; i++)
		if (fields[i].value) all[c++] = fields[i];
	if (span && !str_empty(span->name)) all[c++] = (struct log_field){"span", span->name};
	if (span && *span->trace_id) {
		all[c++] = (struct log_field){"spanID", span->span_id};
		all[c++] = (struct log_field){"traceID", span->trace_id};
	}
	qsort(all, c, sizeof *all, by_key);
	*ret_n = c;
	return all;
}

/* ---- text ---- */

/* logrus quotes a value unless every byte is of this set; an empty one is not quoted. */
static bool plain(const char *s)
{
	for (; *s; s++)
		if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
		      strchr("-._/@^+", *s)))
			return false;
	return true;
}

static void add_value(struct buf *line, const char *v)
{
	if (plain(v)) {
		buf_adds(line, v);
		return;
	}
	_cleanup_free_ char *q = go_quote(v, strlen(v));
	buf_adds(line, q);
}

static void add_text(struct buf *line, const char *now, enum log_level level, const char *msg, const struct log_field *f,
		     size_t n)
{
	buf_addf(line, "time=\"%s\" level=%s", now, level_name[level]);
	if (*msg) {
		buf_adds(line, " msg=");
		add_value(line, msg);
	}
	for (size_t i = 0; i < n; i++) {
		buf_addf(line, " %s=", f[i].key);
		add_value(line, f[i].value);
	}
}

/* For a terminal: what is in msg and values cannot move the cursor, as control characters are quoted. */
static void add_colour(struct buf *line, const char *now, enum log_level level, const char *msg, const struct log_field *f,
		       size_t n)
{
	_cleanup_free_ char *quoted = go_quote(msg, strlen(msg));
	bool controls = false;
	for (const char *p = msg; *p; p++) controls |= (unsigned char)*p < 32 || *p == 127;
	buf_addf(line, "\x1b[%dm", level_colour[level]);
	for (int i = 0; i < 4; i++) buf_addc(line, (char)(level_name[level][i] - 'a' + 'A'));
	buf_addf(line, "\x1b[0m[%s] %-44s ", now, controls ? quoted : msg);
	for (size_t i = 0; i < n; i++) {
		buf_addf(line, " \x1b[%dm%s\x1b[0m=", level_colour[level], f[i].key);
		add_value(line, f[i].value);
	}
}

/* ---- JSON ---- */

static bool is_fixed(const char *key) { return !strcmp(key, "time") || !strcmp(key, "level") || !strcmp(key, "msg"); }

/* One object with all keys sorted; a field that is called like a fixed one is put under "fields.NAME". */
static void add_json(struct buf *line, const char *now, enum log_level level, const char *msg, struct log_field *f, size_t n)
{
	struct json_w w = JSON_W(line);
	char moved[FIXED_FIELDS][sizeof "fields.level"];
	size_t n_moved = 0;
	for (size_t i = 0; i < n; i++)
		if (is_fixed(f[i].key) && n_moved < FIXED_FIELDS) {
			snprintf(moved[n_moved], sizeof moved[0], "fields.%s", f[i].key);
			f[i].key = moved[n_moved++];
		}
	f[n++] = (struct log_field){"level", level_name[level]};
	f[n++] = (struct log_field){"msg", msg};
	f[n++] = (struct log_field){"time", now};
	qsort(f, n, sizeof *f, by_key);
	json_obj(&w);
	for (size_t i = 0; i < n; i++) json_kstr(&w, f[i].key, f[i].value);
	json_obj_end(&w);
}

static void time_text(long long now, char *out, size_t n)
{
	time_t t = (time_t)now;
	struct tm tm;
	char zone[8] = "Z";
	localtime_r(&t, &tm);
	if (tm.tm_gmtoff)
		snprintf(zone, sizeof zone, "%c%02ld:%02ld", tm.tm_gmtoff < 0 ? '-' : '+', labs(tm.tm_gmtoff) / 3600 % 24,
			 labs(tm.tm_gmtoff) / 60 % 60);
	size_t len = strftime(out, n, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + len, n - len, "%s", zone);
}

void log_format(struct buf *out, enum log_form form, long long now, enum log_level level, const struct log_span *span,
		const char *msg, const struct log_field *fields, size_t n)
{
	size_t c;
	_cleanup_free_ struct log_field *all = gather(span, fields, n, FIXED_FIELDS, &c);
	char at[40];
	time_text(now, at, sizeof at);
	switch (form) {
	case LOG_TEXT: add_text(out, at, level, msg, all, c); break;
	case LOG_COLOUR: add_colour(out, at, level, msg, all, c); break;
	case LOG_JSON: add_json(out, at, level, msg, all, c); break;
	}
	buf_addc(out, '\n');
}

void log_fields(enum log_level level, const struct log_span *span, const char *msg, const struct log_field *fields, size_t n)
{
	if (!log_enabled(level)) return;
	_cleanup_buf_ struct buf line = BUF_INIT;
	log_format(&line, (enum log_form)atomic_load(&form_now), (long long)time(NULL), level, span, msg, fields, n);
	ssize_t r = write(STDERR_FILENO, line.p, line.n);
	(void)r;
}

void log_at(enum log_level level, const struct log_span *span, const char *fmt, ...)
{
	if (!log_enabled(level)) return;
	va_list ap;
	va_start(ap, fmt);
	_cleanup_free_ char *msg = xvasprintf(fmt, ap);
	va_end(ap);
	log_fields(level, span, msg, NULL, 0);
}
