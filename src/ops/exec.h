#ifndef OPS_EXEC_H
#define OPS_EXEC_H
/* From pb.Meta to a run_spec, for steps and gateway containers. */
#include "ops/mounts.h"

/* The environment of a process: meta's, proxies, PATH, then secrets. */
void ops_exec_env(const Pb__Meta *meta, const struct strvec *secrets, struct strvec *ret);
/* The step's error for an exit that is not among the valid ones: 0 when it is fine. */
int ops_exec_exit_error(const Pb__Op *op, const struct run_exit *x, struct err *e);
#endif
