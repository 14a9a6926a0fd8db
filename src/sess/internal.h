#ifndef SESS_INTERNAL_H
#define SESS_INTERNAL_H
/* What the files of the daemon side share. */
#include "loop/loop.h"
#include "proto/methods.h"
#include "sess/lane.h"
#include "sess/sess.h"
#include "wire/wire.h"

/* Something that was started; embedded first in each kind of operation. */
struct sess_op {
	void (*cancel)(struct sess_op *op);
};

struct sess {
	struct sess_manager *manager;
	struct loop *loop;
	struct wire_conn *conn; /* NULL once it has ended */
	char *id, *shared_key, *name;
	struct map methods; /* lower case -> "" */
	struct list watches, link;
	int refs;
	struct err why; /* it ended */
	/* health */
	struct loop_timer timer;
	struct wire_call *check;
	uint64_t interval_ms, timeout_ms, last_ms;
	int64_t check_began_ns;
	int failures, failures_max;
};

/* Open a call of a session, or NULL when it has ended (then *e says so). */
struct wire_call *sess_open(struct sess *s, const char *method, const struct wire_md *md, size_t n_md, uint64_t timeout_ms,
			    const struct wire_call_ops *ops, void *user, struct err *e);
/* The error of an operation whose session has gone meanwhile says so. */
void sess_explain(const struct sess *s, struct err *e);
/* "<method> not supported": the client does not list it. */
int sess_need(const struct sess *s, const char *method, struct err *e);

/* A byte stream between a call and a job of the caller's; made by stream.c. */
struct sess_stream;

/* ---- one question, one answer ---- */
struct sess_ask {
	struct sess_op op;
	struct sess *s;
	struct wire_call *call;
	struct buf resp;
	bool answered;
	struct err err; /* set: it fails with this */
	/* The answer, or e. Called once, then the struct is freed. */
	void (*finish)(struct sess_ask *a, const uint8_t *p, size_t n, const struct err *e);
	void (*user_fn)(void); /* the caller's, cast back by finish */
	void *arg;
	char *noun; /* for messages; freed with it */
};
/* req NULL: the n bytes at p are the message. `a` comes from sess_ask_new, with finish, user_fn, arg and noun set. */
struct sess_ask *sess_ask_new(struct sess *s,
			      void (*finish)(struct sess_ask *a, const uint8_t *p, size_t n, const struct err *e),
			      void (*user_fn)(void), void *arg, const char *noun);
struct sess_op *sess_ask_send(struct sess_ask *a, const char *method, const struct wire_md *md, size_t n_md,
			      const ProtobufCMessage *req, const void *p, size_t n, uint64_t timeout_ms);
#endif
