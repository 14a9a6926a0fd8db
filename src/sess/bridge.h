#ifndef SESS_BRIDGE_H
#define SESS_BRIDGE_H
/* A connected unix socket on one side, a call of BytesMessages on the other; for ssh agents, both roles. Loop thread. */
#include "loop/loop.h"
#include "wire/wire.h"

struct bridge;
/* Takes over the call. Its socket is opened by one of the two below; it ends and frees itself. */
struct bridge *bridge_new(struct loop *l, bool server);
int bridge_open(struct bridge *b, int fd, struct err *e); /* fd is taken, also on failure */
int bridge_accept(struct bridge *b, uv_stream_t *listener);
void bridge_start(struct bridge *b, struct wire_call *call);
/* Let only agent requests through that list keys or sign; others are made into one that the agent refuses. Before start. */
void bridge_guard_agent(struct bridge *b);
/* Instead of bridge_start, when there is no call to be had. */
void bridge_drop(struct bridge *b);
#endif
