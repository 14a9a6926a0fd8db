#ifndef SERVE_SERVE_H
#define SERVE_SERVE_H
/* The gRPC services: messages in, replies and streams out, nothing else. One table of methods; what they do is in `build`.
 * Loop thread, not blocking. */
#include "build/build.h"
#include "wire/wire.h"

struct serve;
/* engine, sessions and blobs are borrowed. */
struct serve *serve_new(struct engine *g, struct sess_manager *sessions, struct blob_store *blobs);
void serve_free(struct serve *s);
/* For the control sockets; lives as long as s. */
const struct wire_handler *serve_control(struct serve *s);
const struct wire_handler *serve_traces(struct serve *s); /* TraceService alone, for the socket that steps see */
/* LLBBridge (and Health) for one frontend on two descriptors, which are taken. The connection (close it before the bridge goes),
 * or NULL with *e. closed() comes once, when it does not exist any more. */
struct wire_conn *serve_bridge(struct serve *s, struct bridge *b, int rfd, int wfd, void (*closed)(void *arg), void *arg, struct err *e);
#endif
