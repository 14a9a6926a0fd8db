#ifndef PROGRESS_MODEL_H
#define PROGRESS_MODEL_H
/* The state that the displays draw: vertexes in the order they began, with their intervals, statuses and pending log lines.
 * Times are nanoseconds since the epoch, 0: not there. */
#include "progress/progress.h"

enum { LOG_RING = 10, VT_ROWS_MAX = 200 };
struct interval {
	int64_t start, stop; /* stop 0: still runs */
};
struct shown_status {
	char *id;
	int64_t current, total, timestamp, started, completed;
	bool updated, listed;
};
struct vt;
struct shown_vertex {
	char *digest, *name, *error;
	bool cached, hidden, updated;
	struct strvec inputs;                   /* digests */
	int depth;                              /* steps below it, at most; plain_print's */
	int index;                              /* number in plain text, 0: not yet */
	VEC(struct interval) intervals, merged; /* as they came (one a start time), and united */
	VEC(struct shown_status *) statuses;    /* all; those with a start are listed */
	struct map by_id;
	VEC(struct buf) logs; /* lines not yet printed (plain), or all (tty) */
	bool logs_partial;
	size_t logs_offset;
	char *ring[LOG_RING];
	size_t ring_at;
	bool has_ring;
	struct strvec warnings;
	size_t warnings_shown;
	int64_t last_block;
	int count;
	struct { /* what the last message said, to see what changes */
		bool set, cached;
		char *name, *error;
		int64_t started;
	} prev;
	struct vt *term;
	size_t term_bytes, term_count;
};
struct shown_group {
	struct shown_vertex *vertex;
	struct map members; /* digest -> struct member * */
	bool touched;
};
struct trace {
	int64_t (*now)(void);
	bool keep_terms;
	size_t width;
	int64_t start, time_diff; /* first start as the daemon says; how far its clock is behind ours, plus delay */
	VEC(struct shown_vertex *) all, shown; /* every one; those that began, in order */
	struct map by_digest;                  /* borrowed; several digests may name a group's vertex */
	struct map groups;
};
void trace_update(struct trace *t, const Control__StatusResponse *m);
void trace_fini(struct trace *t);
bool vertex_started(const struct shown_vertex *v);
bool vertex_completed(const struct shown_vertex *v);
int64_t vertex_last_stop(const struct shown_vertex *v);
double vertex_seconds(const struct trace *t, const struct shown_vertex *v); /* all intervals */
bool error_is_cancel(const char *error);
void trace_print_error_logs(struct trace *t, struct buf *out);

/* The printers: bytes for the terminal or file. */
struct plain {
	struct shown_vertex *current;
	struct map last; /* status id -> struct last_status * */
	bool not_first;
	int next_index;
	char *title;
};
void plain_print(struct plain *p, struct trace *t, struct buf *out);
void plain_fini(struct plain *p);
struct tty {
	size_t lines;
	bool repeated;
	char *phase, *title;
};
void tty_print(struct tty *d, struct trace *t, size_t width, size_t height, bool all, struct buf *out);

/* A very small terminal: what the last lines of a program's output look like. */
struct vt *vt_new(size_t rows, size_t cols);
void vt_free(struct vt *v);
void vt_resize(struct vt *v, size_t rows, size_t cols);
void vt_write(struct vt *v, const uint8_t *p, size_t n);
size_t vt_rows(const struct vt *v);
size_t vt_used(const struct vt *v);                            /* rows with something in them */
bool vt_line(const struct vt *v, size_t row, struct buf *out); /* false when blank; as wide as the terminal */
#endif
