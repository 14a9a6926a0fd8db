#ifndef DAEMON_OBSERVE_H
#define DAEMON_OBSERVE_H
/* What can be seen from outside: the debug address, traces to a collector, the socket where steps leave theirs. Loop thread. */
#include "base/base.h"

struct daemon;
struct observe;
/* Reads OTEL_*: INVALID_ARGUMENT names the variable. Before the engine and the runtime: they want to know. */
int observe_open(struct daemon *d, struct err *e);
/* The address and the socket: when the engine and serve are there. An address that cannot be had is an error, the socket a
 * warning. */
int observe_listen(struct daemon *d, struct err *e);
void observe_close(struct daemon *d); /* sends the last spans, for at most 3 s; the loop must not run any more */
#endif
