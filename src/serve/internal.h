#ifndef SERVE_INTERNAL_H
#define SERVE_INTERNAL_H
#include "proto/methods.h"
#include "serve/serve.h"

struct serve {
	struct engine *engine;
	struct sess_manager *sessions;
	struct blob_store *blobs;
	struct wire_handler control, traces;
};

/* One call: freed when it has ended and nothing answers it any more. */
struct serve_call {
	struct serve *serve;
	struct wire_call *wire; /* NULL once it has ended */
	const struct method *method;
	struct arena *arena; /* of the request */
	const ProtobufCMessage *req;
	struct bridge *bridge; /* of a frontend's own connection; else found by the build id */
	bool pending; /* somebody will answer */
	struct build *build;
	struct build_reader *reader;
	struct build_wait *wait;
	void (*stop)(struct serve_call *c);	/* the client has gone */
	void (*writable)(struct serve_call *c); /* no longer congested; NULL allowed */
	void *state;
};
typedef void serve_fn(struct serve_call *c);
struct method {
	const char *path;
	const ProtobufCMessageDescriptor *req; /* NULL: the call is handed over raw */
	serve_fn *fn;
	bool bridge; /* needs c->bridge */
};
struct build_reply serve_reply(struct serve_call *c); /* unary: the message, or the error; marks it pending */
void serve_done(struct serve_call *c);		      /* what was pending has ended */
void serve_fail(struct serve_call *c, const struct err *e);
void serve_find_bridge(struct serve_call *c); /* by the build id in its headers; then method->fn again, or the call fails */
void serve_ended(struct wire_call *w, const struct err *status);
serve_fn serve_exec_process; /* exec.c */
serve_fn serve_history_listen, serve_history_update; /* history.c */
bool serve_history_replay(struct serve_call *c, const char *ref); /* Status of a build that is over; false: there is no record */
extern const struct method serve_control_methods[], serve_bridge_methods[], serve_content_methods[];
#endif
