#ifndef OPS_CHILD_JOB_H
#define OPS_CHILD_JOB_H
/* A program run to its end from a LOOP_NET job, its output collected. Not for containers (see run) nor for what the loop
 * should watch. The child has a process group of its own, umask 022, no stdin and no descriptors but its two pipes; it gets
 * SIGTERM when the job's thread ends or the daemon dies, and when the job is cancelled (SIGKILL 10 s later). */
#include "base/base.h"
#include <stdatomic.h>

struct child_job {
	char *const *argv, *const *env;
	const char *cwd; /* NULL: ours */
	const atomic_bool *cancelled;
	/* May be NULL: told of output as it comes; stream 1 or 2. */
	void (*output)(void *ctx, int stream, const void *p, size_t n);
	void *ctx;
	struct buf *out; /* set its max; more is RESOURCE_EXHAUSTED. NULL: dropped */
	struct buf *err; /* what does not fit is dropped. NULL: dropped */
};
/* The exit code (128 + n when a signal ended it), or -1 with *e: not started, cancelled, too much output. Blocks. */
int child_job_run(const struct child_job *c, struct err *e);
#endif
