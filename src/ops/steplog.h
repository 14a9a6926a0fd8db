#ifndef OPS_STEPLOG_H
#define OPS_STEPLOG_H
/* The output of a step with BuildKit's limits: size and speed (BUILDKIT_STEP_LOG_MAX_SIZE, _MAX_SPEED), a note where it is
 * clipped, and the last 256 KiB kept for when the step fails. Loop thread. Source: moby/buildkit util/progress/logs. */
#include "solve/solve.h"

struct ops_steplog {
	struct solve_node *node;
	int stream;
	int64_t since_ns, written;
	bool clipping;
	struct buf tail; /* a ring would save little: cut when it doubles */
};
void ops_steplog_init(struct ops_steplog *l, struct solve_node *n, int stream);
void ops_steplog_write(struct ops_steplog *l, const void *p, size_t n);
void ops_steplog_end(struct ops_steplog *l, bool failed); /* releases */
#endif
