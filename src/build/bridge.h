#ifndef BUILD_BRIDGE_H
#define BUILD_BRIDGE_H
/* Private to the room: a request of a frontend that is under way. */
#include "build/internal.h"
#include <stdio.h>

struct bridge_call {
	struct bridge *bridge;
	struct build_reply reply;
	struct ref *ref; /* held; NULL: none */
	struct list link;
	void (*stop)(struct bridge_call *c); /* before it is freed; may be NULL */
	bool busy;  /* a job of it runs: its done() frees it, once `ended` */
	bool ended; /* answered meanwhile */
};
/* size: of the struct that begins with a struct bridge_call. */
struct bridge_call *bridge_call_new(struct bridge *b, struct build_reply r, size_t size);
void bridge_call_end(struct bridge_call *c, const ProtobufCMessage *m, const struct err *e); /* frees */
void bridge_refuse(struct build_reply r, enum code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
struct ref *bridge_find(struct bridge *b, const char *id, struct err *e); /* borrowed */
void bridge_add_input(struct bridge *b, const char *name, const Pb__Definition *def);
Pb__Definition *bridge_input(const struct bridge *b, const char *name, struct arena *a); /* NULL when absent */
/* solve_error.c: the error of a request that had to evaluate something, as this bridge tells it. */
void bridge_solve_error(struct bridge *b, const struct err *e, struct err *ret);
void bridge_call_failed(struct bridge_call *c, const struct err *e); /* ends the call with it */
struct files_job;
void files_answer(struct bridge_call *c, const struct files_job *w); /* what the job found, or its error; ends the call */
#endif
