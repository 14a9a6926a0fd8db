#ifndef SESS_CLIENT_INTERNAL_H
#define SESS_CLIENT_INTERNAL_H
/* What the files of the client side share. */
#include "proto/methods.h"
#include "sess/lane.h"
#include "sess/sess_client.h"
#include "wire/wire.h"

enum secret_kind { SECRET_FILE, SECRET_ENV, SECRET_BYTES };
struct client_secret {
	enum secret_kind kind;
	char *where; /* path or variable */
	struct buf bytes;
};
struct client_out_dir {
	char *path;
	bool delete_rest;
};
struct client_store {
	char *dir;
	bool writable;
};
struct client_method {
	void (*handler)(void *arg, struct wire_call *call);
	void *arg;
};
struct sess_client {
	struct loop *loop;
	char id[ID_STR], *shared_key;
	int refs;            /* the owner's, the connection's, one a job under way */
	struct map methods;  /* path -> struct client_method (owned) */
	struct map dirs;     /* name -> path (owned) */
	struct map out_dirs; /* index -> struct client_out_dir */
	struct map outs;     /* index -> struct sess_client_output (owned copy) */
	struct map secrets;  /* id -> struct client_secret */
	struct map agents;   /* id -> socket path (owned) */
	struct map uploads;  /* id -> fd + 1 in a pointer */
	struct map stores;   /* id -> struct client_store */
	char *docker_config; /* path, when auth is served */
	struct sess_client_fetcher {
		int (*fetch)(void *arg, const struct sess_token_ask *q, struct sess_token *ret, struct err *e);
		void *arg;
	} fetcher; /* of bearer tokens */
	struct wire_handler handler;
	struct wire_conn *tunnel;
	void (*ended)(void *arg, const struct err *e);
	void *arg;
	struct list lanes; /* of the jobs under way: sess_client_stop breaks them */
	bool stopping;
	bool let_go; /* by the owner: outputs are not told any more */
	uint64_t sent;
};
struct sess_client *client_ref(struct sess_client *c);
void client_unref(struct sess_client *c);
void client_serve(struct sess_client *c, const char *method, void (*handler)(void *c, struct wire_call *call));

/* A handler that gets the whole request: collects the message, then calls fn, which must answer or fail the call. */
typedef void client_unary_fn(struct sess_client *c, struct wire_call *call, const uint8_t *p, size_t n);
void client_unary(struct sess_client *c, struct wire_call *call, client_unary_fn *fn);
/* A job that answers a unary call: work fills `reply` (packed) or err; the answer is sent if the call still waits. */
struct client_task {
	struct loop_job job;
	struct sess_client *c;
	struct wire_call *call; /* NULL once it has ended */
	struct buf reply;
	struct err err;
	void (*free)(struct client_task *t); /* the struct around it, after client_task released its own */
};
void client_task_start(struct client_task *t, struct sess_client *c, struct wire_call *call, void (*work)(struct loop_job *j),
		       enum loop_class class_);
/* The values of a metadata key, URL-decoded where "<key>-encoded" says so. */
void client_values(const struct wire_call *call, const char *key, struct strvec *ret);

/* Handlers of the other files; each takes struct sess_client. */
void client_on_filesync(void *c, struct wire_call *call);
void client_on_filesend(void *c, struct wire_call *call);
void client_on_upload(void *c, struct wire_call *call);
void client_on_credentials(void *c, struct wire_call *call);
void client_content_register(struct sess_client *c);

#endif
