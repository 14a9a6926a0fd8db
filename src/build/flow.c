/* A blob's bytes on their way to the loop: a job reads them into a bounded pipe, the loop hands them on as long as the consumer
 * is not paused. The consumer may go at any moment; the job then finds its pipe closed. */
#include "build/build.h"
#include "build/flow_job.h"

struct flow_job {
	struct loop_job job;
	struct blob_store *blobs;
	struct loop_pipe *pipe;
	char *digest;
	int64_t offset, size;
	struct err error;
};
struct blob_flow {
	struct loop *loop;
	struct loop_pipe *pipe;
	struct loop_timer kick;
	bool paused, busy, stopped;
	void (*data)(void *arg, const uint8_t *p, size_t n);
	void (*end)(void *arg, const struct err *e);
	void *arg;
};

/* ---- the job ---- */

static int into_pipe(void *ctx, const void *p, size_t n, struct err *e) { return loop_pipe_job_write(ctx, p, n, e); }

static void work(struct loop_job *j)
{
	struct flow_job *f = container_of(j, struct flow_job, job);
	flow_read(f->blobs, f->digest, f->offset, f->size, &j->cancelled, into_pipe, f->pipe, &f->error);
	loop_pipe_job_close(f->pipe, &f->error);
}

static void job_done(struct loop_job *j)
{
	struct flow_job *f = container_of(j, struct flow_job, job);
	loop_pipe_unref(f->pipe);
	err_fini(&f->error);
	free(f->digest);
	free(f);
}

/* ---- the loop ---- */

static void flow_free(struct blob_flow *f)
{
	loop_timer_stop(&f->kick);
	loop_pipe_detach(f->pipe);
	loop_pipe_close(f->pipe, NULL);
	loop_pipe_unref(f->pipe);
	free(f);
}

static void pump(void *arg)
{
	enum { CHUNK = 256 << 10 };
	struct blob_flow *f = arg;
	struct err e = ERR_INIT;
	_cleanup_free_ uint8_t *buf = xmalloc(CHUNK);
	ssize_t n = 1;
	bool end = false;
	f->busy = true;
	while (!f->paused && !f->stopped && !end && (n = loop_pipe_read(f->pipe, buf, CHUNK, &end, &e)) > 0)
		f->data(f->arg, buf, (size_t)n);
	f->busy = false;
	if (!f->stopped && !end && n >= 0) return;
	if (!f->stopped) f->end(f->arg, n < 0 ? &e : NULL);
	err_fini(&e);
	flow_free(f);
}

struct blob_flow *blob_flow_start(struct loop *l, struct blob_store *s, const char *digest, int64_t offset, int64_t size,
				  void (*data)(void *arg, const uint8_t *p, size_t n),
				  void (*end)(void *arg, const struct err *e), void *arg)
{
	enum { PIPE_BYTES = 1 << 20 };
	struct blob_flow *f = xnew(struct blob_flow);
	struct flow_job *j = xnew(struct flow_job);
	f->loop = l;
	f->data = data;
	f->end = end;
	f->arg = arg;
	f->pipe = loop_pipe_new(l, PIPE_BYTES, pump, f);
	*j = (struct flow_job){.job = {.work = work, .done = job_done}, .blobs = s, .offset = offset, .size = size};
	j->pipe = loop_pipe_ref(f->pipe);
	j->digest = xstrdup(digest);
	loop_job_start(l, &j->job, LOOP_NET); /* it waits for the consumer */
	return f;
}

void blob_flow_pause(struct blob_flow *f, bool paused)
{
	f->paused = paused;
	if (!paused && !f->busy) loop_timer_start(f->loop, &f->kick, 0, 0, pump, f);
}

void blob_flow_stop(struct blob_flow *f)
{
	f->stopped = true;
	if (!f->busy) flow_free(f);
}
