#ifndef BASE_LOG_H
#define BASE_LOG_H
/* The daemon's log on stderr, in the three forms that logrus has (and BuildKit's users grep for): text, text with colours on a
 * terminal, JSON. A line is a message and a few fields, sorted by name; the span that it belongs to is an explicit argument.
 * Any thread; a line is one write(2). Debug lines may come from any room; errors are printed by daemon, serve and cli only.
 * Values are data: what must stay secret is left out by the caller. Source: logrus text_formatter.go, json_formatter.go. */
#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_FATAL, LOG_PANIC };
/* Fields "span" (when the name is not empty), "spanID" and "traceID". Ids are lower-case hex; an empty trace id: none known. */
struct log_span {
	const char *name;
	char trace_id[33], span_id[17];
};
struct log_field {
	const char *key, *value; /* value NULL: the field is left out */
};
/* Also again while other threads log: the settings can be reloaded. */
void log_setup(enum log_level level, bool json);
bool log_enabled(enum log_level level);
/* logrus' names in any case: panic, fatal, error, warn, warning, info, debug, trace. */
bool log_level_parse(const char *s, enum log_level *ret);
void log_at(enum log_level level, const struct log_span *span, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void log_fields(enum log_level level, const struct log_span *span, const char *msg, const struct log_field *fields, size_t n);
/* log_with(LOG_DEBUG, span, "diff applied", {"digest", digest}, {"media", type}): evaluates nothing when the level is off. */
#define log_with(level, span, msg, ...)                                                                              \
	(log_enabled(level) ? log_fields(level, span, msg, (const struct log_field[]){__VA_ARGS__},                  \
					 sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field)) \
			    : (void)0)
#define log_debug(...) (log_enabled(LOG_DEBUG) ? log_at(LOG_DEBUG, NULL, __VA_ARGS__) : (void)0)
#define log_info(...) log_at(LOG_INFO, NULL, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, NULL, __VA_ARGS__)
#define log_error(...) log_at(LOG_ERROR, NULL, __VA_ARGS__)

/* For tests: the line as it would be written, '\n' included. now: seconds since 1970. */
enum log_form { LOG_TEXT, LOG_COLOUR, LOG_JSON };
struct buf;
void log_format(struct buf *out, enum log_form form, long long now, enum log_level level, const struct log_span *span,
		const char *msg, const struct log_field *fields, size_t n);
#endif
