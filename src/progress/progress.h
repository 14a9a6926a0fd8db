#ifndef PROGRESS_PROGRESS_H
#define PROGRESS_PROGRESS_H
/* What a user sees of a build: the daemon's status messages as plain text, as a live display on a terminal, as JSON lines, or
 * not at all. The forms are those of BuildKit's util/progress/progressui, since people and scripts read them. Main thread;
 * writes to its descriptor and may block there. */
#include "base/base.h"
#include "proto/control.pb-c.h"

enum { PROGRESS_TICK_MS = 150 };
struct progress;
/* mode: auto (or ""), plain, tty, rawjson, quiet (or none). now: nanoseconds since the epoch, NULL: the clock. fd is borrowed.
 * INVALID_ARGUMENT: an unknown mode, or tty where there is none. */
int progress_new(const char *mode, int fd, int64_t (*now)(void), struct progress **ret, struct err *e);
/* Shown at the top: "building with ...", "remote:default". */
void progress_title(struct progress *p, const char *plain, const char *tty);
/* The warnings of the build, on stderr; with_details: where and why too. Nothing when the form is JSON or quiet. */
void progress_print_warnings(const struct progress *p, bool with_details);
void progress_update(struct progress *p, const Control__StatusResponse *m);
void progress_tick(struct progress *p); /* each PROGRESS_TICK_MS without an update */
/* The last picture and the logs of failed steps; nothing may follow but free. */
void progress_done(struct progress *p);
void progress_free(struct progress *p); /* NULL allowed */
/* A step of our own: starts with the first call, ends with completed; error NULL: none. id makes it one step. part: a line
 * below its name, which starts and ends alike. */
struct progress_step {
	const char *id, *name, *error;
	bool completed;
	const char *part; /* NULL: none */
	bool part_completed;
	bool leads; /* shown though the daemon has said nothing yet */
};
void progress_step(struct progress *p, const struct progress_step *s);
/* A message as Go's encoding/json writes it, one line. */
void progress_json(const Control__StatusResponse *m, struct buf *out);
/* "process ... " steps that were served from the cache and such, for --debug-json-cache-metrics. */
void progress_cache_metrics(const struct progress *p, int64_t duration_ms, struct buf *out);
#endif
