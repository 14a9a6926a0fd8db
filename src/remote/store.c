/* A job that writes a blob into the client's content store: it posts its question and blocks on pipes, the other way round
 * than ops/store.c reads one. The loop finds a session and begins the write; the bytes go through the session's own pipe. */
#include "proto/methods.h"
#include "remote/internal.h"

#include <errno.h>
#include <string.h>

struct store_put { /* on the job's stack, until it has its answer */
	struct remote_place *place;
	const char *digest;
	int64_t size;
	struct ops_pick *pick;
	struct sess_op *op;
	struct sess *session;
	struct loop_pipe *ready, *over; /* closed when: bytes may be written (or not: error); the write is over */
	struct loop_pipe *data;
	struct err error;
	bool started;
};
void remote_store_cancel(struct remote_place *p);

static void close_pipe(struct loop_pipe *p)
{
	loop_pipe_close(p, NULL);
	loop_pipe_unref(p);
}

/* The last thing the loop does with it. */
static void answer(struct store_put *q)
{
	struct loop_pipe *ready = q->ready, *over = q->over;
	bool started = q->started;
	q->place->putting = NULL;
	sess_unref(q->session);
	q->session = NULL;
	if (!started) close_pipe(ready);
	close_pipe(over);
}

static void written(void *arg, const struct err *e)
{
	struct store_put *q = arg;
	q->op = NULL;
	if (e) err_copy(&q->error, e);
	answer(q);
}

static void got_session(void *arg, struct sess *s, size_t index, const struct err *e)
{
	struct store_put *q = arg;
	q->pick = NULL;
	if (e) {
		err_copy(&q->error, e);
		answer(q);
		return;
	}
	_cleanup_free_ char *ref = xasprintf("slipway-cache-%s", q->digest);
	q->session = sess_ref(s);
	q->started = true;
	q->op = sess_content_write(s, q->place->store.name, ref, q->digest, q->size, NULL, 0, &q->data, written, q);
	close_pipe(q->ready);
}

static void begin(void *arg)
{
	struct store_put *q = arg;
	struct remote_place *p = q->place;
	p->putting = q;
	q->pick = ops_pick(p->env, &p->store.ids, 0, METHOD_CONTENT_WRITE, got_session, q);
	if (atomic_load(&p->cancelled)) ops_pick_cancel(q->pick);
}

void remote_store_cancel(struct remote_place *p)
{
	struct store_put *q = p->putting;
	if (q && q->pick) ops_pick_cancel(q->pick);
	if (q && q->op) sess_op_cancel(q->op);
}

static void wait_closed(struct loop_pipe *p)
{
	char byte;
	while (loop_pipe_job_read(p, &byte, 1, NULL) > 0) {
	}
	loop_pipe_unref(p);
}

static int send_bytes(struct store_put *q, struct err *e)
{
	char chunk[64 << 10];
	_cleanup_close_ int fd = blob_open(q->place->blobs, q->digest, e);
	for (ssize_t n = 1; fd >= 0 && n > 0;) {
		n = read(fd, chunk, sizeof chunk);
		if (n < 0) return err_sys(e, errno, "reading blob %s", q->digest);
		if (n > 0 && loop_pipe_job_write(q->data, chunk, (size_t)n, e) < 0) return -1;
	}
	return fd < 0 ? -1 : 0;
}

int remote_store_put(struct remote_place *p, const char *digest, int64_t size, struct err *e)
{
	struct store_put q = {.place = p, .digest = digest, .size = size};
	_cleanup_err_ struct err mine = ERR_INIT;
	q.ready = loop_pipe_ref(loop_pipe_new(p->env->loop, 16, NULL, NULL));
	q.over = loop_pipe_ref(loop_pipe_new(p->env->loop, 16, NULL, NULL));
	struct loop_pipe *ready = q.ready, *over = q.over; /* ours; the others are the loop's */
	loop_post(p->env->loop, begin, &q);
	wait_closed(ready);
	if (q.data) {
		send_bytes(&q, &mine);
		if (mine.code == CODE_ALREADY_EXISTS) err_fini(&mine); /* the client has it */
		loop_pipe_job_close(q.data, &mine);
		loop_pipe_unref(q.data);
	}
	wait_closed(over);
	if (err_is_set(&q.error)) return err_move(e, &q.error);
	return err_is_set(&mine) ? err_move(e, &mine) : 0;
}
