#ifndef POLICY_POLICY_H
#define POLICY_POLICY_H
/* Source policies: a list of rules that a source operation is held against before anything is fetched. ALLOW and DENY: of those
 * that match, the last one counts; CONVERT changes identifier or attributes, and then all rules are looked at once more. Pure:
 * any thread, no blocking. Source: moby/buildkit sourcepolicy/{engine,matcher,mutate,formatter}.go, util/wildcard. */
#include "base/base.h"
#include "proto/ops.pb-c.h"
#include "proto/policy.pb-c.h"

enum { POLICY_MAX_CHANGES = 20 };

/* "invalid nil selector in policy", ... p NULL is "invalid nil policy". */
int policy_validate(const Policy__Policy *p, struct err *e);
/* Hold op (its strings and attributes in arena a) against n policies, in order. 1: it was changed, 0: it was not;
 * -1: denied ("source \"X\" denied by policy: ..."), or a rule is broken. */
int policy_apply(const Policy__Policy *const *policies, size_t n, Pb__SourceOp *op, struct arena *a, struct err *e);
/* The value of an attribute, "" when absent. */
const char *policy_attr(const Pb__SourceOp *op, const char *key);
/* Same attributes, in whatever order? "map length mismatch: ..." and the like. */
int policy_same_attrs(const Pb__SourceOp *x, const Pb__SourceOp *y, struct err *e);
#endif
