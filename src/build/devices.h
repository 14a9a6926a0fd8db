#ifndef BUILD_DEVICES_H
#define BUILD_DEVICES_H
#include "ops/ops.h"

#include "proto/control.pb-c.h"

int devices_check(const Control__SolveRequest *req, struct err *e); /* the request's grants are well-formed */
/* The step's requests become the devices that it gets, in arena a; UNKNOWN when one is not there or not allowed. */
int devices_allow(struct cdi *c, const Control__SolveRequest *req, Pb__ExecOp *x, struct arena *a, struct err *e);
#endif
