#include "base/log.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

static enum log_level threshold = LOG_INFO;
static bool as_json;
static const char *const level_name[] = {"trace", "debug", "info", "warning", "error"};

void log_setup(enum log_level level, bool json)
{
	threshold = level;
	as_json = json;
}

bool log_enabled(enum log_level level) { return level >= threshold; }

bool log_level_parse(const char *s, enum log_level *ret)
{
	for (size_t i = 0; i < array_len(level_name); i++)
		if (!strcasecmp(s, level_name[i])) {
			*ret = (enum log_level)i;
			return true;
		}
	if (!strcasecmp(s, "warn")) {
		*ret = LOG_WARN;
		return true;
	}
	return false;
}

/* logrus quotes a value unless every byte is of this set. */
static bool plain(const char *s)
{
	for (; *s; s++)
		if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
		      strchr("-._/@^+", *s)))
			return false;
	return true;
}

static void add_field(struct buf *line, struct json_w *w, const char *k, const char *v)
{
	if (as_json) {
		json_kstr(w, k, v);
		return;
	}
	if (line->n) buf_addc(line, ' ');
	buf_addf(line, "%s=", k);
	if (plain(v) && (*v || strcmp(k, "msg"))) {
		buf_adds(line, v);
		return;
	}
	char *q = go_quote(v, strlen(v));
	buf_adds(line, q);
	free(q);
}

static void emit(struct buf *line)
{
	buf_addc(line, '\n');
	ssize_t r = write(STDERR_FILENO, line->p, line->n);
	(void)r;
}

void log_fields(enum log_level level, const struct log_span *span, const char *msg, const struct log_field *fields, size_t n)
{
	if (!log_enabled(level)) return;
	_cleanup_buf_ struct buf line = BUF_INIT;
	struct json_w w = JSON_W(&line);
	char now[32];
	time_t t = time(NULL);
	struct tm tm;
	gmtime_r(&t, &tm);
	strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (as_json) json_obj(&w);
	if (as_json) {
		json_kstr(&w, "level", level_name[level]);
		json_kstr(&w, "msg", msg);
	} else {
		buf_addf(&line, "time=\"%s\"", now);
		add_field(&line, &w, "level", level_name[level]);
		char *q = go_quote(msg, strlen(msg));
		buf_addf(&line, " msg=%s", q);
		free(q);
	}
	for (size_t i = 0; i < n; i++) add_field(&line, &w, fields[i].key, fields[i].value);
	if (span) {
		add_field(&line, &w, "span", span->name);
		add_field(&line, &w, "spanID", span->span_id);
		add_field(&line, &w, "traceID", span->trace_id);
	}
	if (as_json) {
		json_kstr(&w, "time", now);
		json_obj_end(&w);
	}
	emit(&line);
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
