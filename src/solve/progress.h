#ifndef SOLVE_PROGRESS_H
#define SOLVE_PROGRESS_H
/* Progress as values: refcounted, immutable events. Nodes keep theirs for builds that join later; a build keeps its own
 * list for readers of its status and for its history. Loop thread only.
 * Source of the fields: moby/buildkit api/services/control/control.proto (reference 01 §2.1, §7). */
#include "base/base.h"

struct prog_vertex {
	char digest[DIGEST_STR];
	char *name;
	struct strvec inputs; /* digests */
	struct timespec started, completed; /* 0: not set */
	bool cached;
	const char *error; /* owned by the event */
	char *group_id, *group_name;
	bool group_weak;
};
struct prog_status {
	char vertex[DIGEST_STR]; /* filled in by solve_status */
	const char *id, *name; /* owned by the event */
	int64_t current, total;
	struct timespec timestamp, started, completed;
};
struct prog_log {
	char vertex[DIGEST_STR];
	int stream;
	struct timespec timestamp;
	uint8_t *data;
	size_t len;
};
struct prog_pos { int32_t line, character; };
struct prog_range { struct prog_pos start, end; };
struct prog_warning {
	char vertex[DIGEST_STR];
	int64_t level;
	char *short_, *url;
	struct strvec detail;
	uint8_t *source_info; /* packed pb.SourceInfo; NULL: none */
	size_t source_info_len;
	struct prog_range *ranges;
	size_t n_ranges;
};
enum prog_type { PROG_VERTEX, PROG_STATUS, PROG_LOG, PROG_WARNING };
struct prog_event {
	enum prog_type type;
	unsigned refs;
	union {
		struct prog_vertex vertex;
		struct prog_status status;
		struct prog_log log;
		struct prog_warning warning;
	};
};
/* New events hold one reference. The arguments are copied. */
struct prog_event *prog_vertex_new(const struct prog_vertex *v);
struct prog_event *prog_status_new(const struct prog_status *s);
struct prog_event *prog_log_new(const char *vertex, int stream, const void *p, size_t n);
struct prog_event *prog_warning_new(const struct prog_warning *w);
struct prog_event *prog_ref(struct prog_event *ev);
void prog_unref(struct prog_event *ev); /* NULL allowed */
#endif
