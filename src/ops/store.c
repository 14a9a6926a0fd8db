/* A job that wants a blob of the client posts its question and blocks on pipes, as with credentials (auth.c): the loop finds a
 * session, asks for the blob's size and starts the transfer; the bytes come through the session's own pipe. */
#include "ops/store.h"
#include "proto/methods.h"

#include <string.h>

struct store_ask {
	struct ops_store *store; /* alive until the job has its answer */
	const char *digest;
	struct ops_pick *pick;
	struct sess_op *op;
	struct sess *session;
	size_t at;
	struct loop_pipe *ready, *over; /* closed when: bytes may be read (or not: error); the transfer is over */
	struct loop_pipe *data;
	struct err error;
	bool started;
};

static void close_pipe(struct loop_pipe *p)
{
	loop_pipe_close(p, NULL);
	loop_pipe_unref(p);
}

/* The last thing the loop does with it. */
static void answer(struct store_ask *q)
{
	struct loop_pipe *ready = q->ready, *over = q->over;
	bool started = q->started;
	q->store->ask = NULL;
	sess_unref(q->session);
	q->session = NULL;
	if (!started) close_pipe(ready);
	close_pipe(over);
}

static void read_done(void *arg, const struct err *e)
{
	struct store_ask *q = arg;
	q->op = NULL;
	if (e) err_copy(&q->error, e);
	answer(q);
}

static void pick(struct store_ask *q);

static void got_info(void *arg, int64_t size, const struct err *e)
{
	struct store_ask *q = arg;
	q->op = NULL;
	if (e) {
		err_copy(&q->error, e);
		q->at++;
		if (q->store->cancelled)
			answer(q);
		else
			pick(q);
		return;
	}
	err_fini(&q->error);
	q->op = sess_content_read(q->session, q->store->name, q->digest, 0, 0, &q->data, read_done, q);
	q->started = true;
	close_pipe(q->ready);
}

static void got_session(void *arg, struct sess *s, size_t index, const struct err *e)
{
	struct store_ask *q = arg;
	q->pick = NULL;
	if (e) {
		if (!err_is_set(&q->error)) err_copy(&q->error, e);
		answer(q);
		return;
	}
	q->at = index;
	sess_unref(q->session);
	q->session = sess_ref(s);
	q->op = sess_content_info(s, q->store->name, q->digest, got_info, q);
}

static void pick(struct store_ask *q)
{
	q->pick = ops_pick(q->store->env, &q->store->ids, q->at, METHOD_CONTENT_READ, got_session, q);
}

static void ask(void *arg)
{
	struct store_ask *q = arg;
	q->store->ask = q;
	pick(q);
	if (q->store->cancelled) ops_pick_cancel(q->pick);
}

static void wait_closed(struct loop_pipe *p)
{
	char byte;
	while (loop_pipe_job_read(p, &byte, 1, NULL) > 0) {
	}
	loop_pipe_unref(p);
}

static int copy(struct store_ask *q, struct blob_ingest *to, struct err *e)
{
	char chunk[64 << 10];
	ssize_t n;
	while ((n = loop_pipe_job_read(q->data, chunk, sizeof chunk, e)) > 0)
		if (blob_ingest_write(to, chunk, (size_t)n, e) < 0) return -1;
	return (int)n;
}

static int fetch(struct blob_source *src, const char *digest, int64_t size, struct blob_ingest *to, struct err *e)
{
	struct ops_store *s = container_of(src, struct ops_store, source);
	struct store_ask q = {.store = s, .digest = digest};
	q.ready = loop_pipe_ref(loop_pipe_new(s->env->loop, 16, NULL, NULL));
	q.over = loop_pipe_ref(loop_pipe_new(s->env->loop, 16, NULL, NULL));
	struct loop_pipe *ready = q.ready, *over = q.over; /* ours; the others are the loop's */
	loop_post(s->env->loop, ask, &q);
	wait_closed(ready);
	int r = 0;
	if (q.data) {
		r = copy(&q, to, e);
		/* When it stopped early the sender learns it here. */
		loop_pipe_job_close(q.data, r < 0 ? e : NULL);
		loop_pipe_unref(q.data);
	}
	wait_closed(over);
	if (r == 0 && err_is_set(&q.error)) return err_move(e, &q.error);
	err_fini(&q.error);
	return r;
}

void ops_store_init(struct ops_store *s, struct ops_env *env, const struct ops_ids *ids, const char *session, const char *store)
{
	*s = (struct ops_store){.source.fetch = fetch, .env = env, .name = xasprintf("oci:%s", store)};
	if (!str_empty(session))
		ops_ids_add(&s->ids, session);
	else
		for (size_t i = 0; i < ids->n; i++) ops_ids_add(&s->ids, ids->v[i]);
}

void ops_store_cancel(struct ops_store *s)
{
	s->cancelled = true;
	if (s->ask && s->ask->pick) ops_pick_cancel(s->ask->pick);
	if (s->ask && s->ask->op) sess_op_cancel(s->ask->op);
}

void ops_store_fini(struct ops_store *s)
{
	ops_ids_fini(&s->ids);
	free(s->name);
	s->name = NULL;
}
