#ifndef BASE_LOG_H
#define BASE_LOG_H
/* The daemon's log, in logrus' text form or JSON, on stderr. Any thread: a line is written with one write(2).
 * Debug lines may come from any room; errors are printed by daemon, serve and cli only. A span is an explicit argument. */
#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
struct log_span {
	const char *name;
	char trace_id[33], span_id[17];
};
struct log_field {
	const char *key, *value;
};
void log_setup(enum log_level level, bool json);
bool log_enabled(enum log_level level);
bool log_level_parse(const char *s, enum log_level *ret);
void log_at(enum log_level level, const struct log_span *span, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void log_fields(enum log_level level, const struct log_span *span, const char *msg, const struct log_field *fields, size_t n);
#define log_debug(...) (log_enabled(LOG_DEBUG) ? log_at(LOG_DEBUG, NULL, __VA_ARGS__) : (void)0)
#define log_info(...) log_at(LOG_INFO, NULL, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, NULL, __VA_ARGS__)
#define log_error(...) log_at(LOG_ERROR, NULL, __VA_ARGS__)
#endif
