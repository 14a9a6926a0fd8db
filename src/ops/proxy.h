#ifndef OPS_PROXY_H
#define OPS_PROXY_H
/* The proxy network of a step: a proxy of its own, whose requests are held against the source policy of the build that the step
 * is for (the first of several). Loop thread. */
#include "ops/ops.h"
#include "proxy/proxy.h"

struct ops_proxy;
/* The authority that steps trust, in PEM; made when it is first asked for. NULL with *e. */
const char *ops_proxy_ca(struct ops_env *env, struct err *e);
/* See run_ops.proxy; listen_fd is taken. */
int ops_proxy_start(struct ops_env *env, struct solve_node *n, int listen_fd, const char *egress_netns, struct ops_proxy **ret,
		    struct err *e);
/* done comes later, once, with what was recorded, to be taken over; then p is gone. */
void ops_proxy_end(struct ops_proxy *p, void (*done)(void *arg, struct proxy_record *r), void *arg);
#endif
