/* tar=false: the image's blobs go into the client's content store, children first; the client writes index.json itself.
 * One blob after the other; each is a job that reads it into the session's pipe. */
#include "ship/internal.h"
#include "ship/oci_tar.h"

#include <string.h>

struct store_run {
	struct ship_run *run;
	struct ship_blobs blobs;
	size_t at;
	struct loop_job job;
	struct loop_pipe *pipe;
	bool job_runs, sending;
	struct err job_error; /* the job's own until it has ended */
	struct err error;
};

static void next(struct store_run *s);

static void end(struct store_run *s)
{
	struct ship_run *r = s->run;
	struct err e = s->error;
	s->error = ERR_INIT;
	err_fini(&s->job_error);
	ship_blobs_fini(&s->blobs);
	free(s);
	ship_end(r, &e);
}

static void blob_done(struct store_run *s)
{
	if (s->job_runs || s->sending) return;
	loop_pipe_unref(s->pipe);
	s->pipe = NULL;
	if (!err_is_set(&s->error) && err_is_set(&s->job_error)) err_move(&s->error, &s->job_error);
	if (err_is_set(&s->error) || s->run->cancelled) {
		end(s);
		return;
	}
	s->at++;
	next(s);
}

static void sent(void *arg, const struct err *e)
{
	struct store_run *s = arg;
	s->sending = false;
	s->run->send = NULL;
	if (e && !err_is_set(&s->error)) err_copy(&s->error, e);
	blob_done(s);
}

static int copy_blob(struct store_run *s, struct err *e)
{
	char chunk[65536];
	_cleanup_close_ int fd = blob_open(s->run->req.env->blobs, s->blobs.digests.v[s->at], e);
	for (ssize_t n = 1; fd >= 0 && n > 0;) {
		n = read(fd, chunk, sizeof chunk);
		if (n < 0) return err_set(e, CODE_INTERNAL, "read of blob %s failed", s->blobs.digests.v[s->at]);
		if (n > 0 && loop_pipe_job_write(s->pipe, chunk, (size_t)n, e) < 0) return -1;
	}
	return fd < 0 ? -1 : 0;
}

static void copy_work(struct loop_job *j)
{
	struct store_run *s = container_of(j, struct store_run, job);
	struct err e = ERR_INIT;
	copy_blob(s, &e);
	if (e.code == CODE_ALREADY_EXISTS) err_fini(&e); /* the client has it */
	loop_pipe_job_close(s->pipe, &e);
	if (err_is_set(&e)) err_move(&s->job_error, &e);
}

static void copy_done(struct loop_job *j)
{
	struct store_run *s = container_of(j, struct store_run, job);
	s->job_runs = false;
	blob_done(s);
}

static void next(struct store_run *s)
{
	struct ship_run *r = s->run;
	if (s->at == s->blobs.digests.n) {
		ship_show(r, "copying blobs", true);
		end(s);
		return;
	}
	const char *digest = s->blobs.digests.v[s->at];
	_cleanup_free_ char *ref = xasprintf("slipway-export-%s", digest);
	s->sending = s->job_runs = true;
	r->send = sess_content_write(r->session, "export", ref, digest, s->blobs.sizes.v[s->at], NULL, 0, &s->pipe, sent, s);
	s->job.work = copy_work;
	s->job.done = copy_done;
	loop_job_start(r->req.env->loop, &s->job, LOOP_NET);
}

void ship_store_start(struct ship_run *r)
{
	struct store_run *s = xnew(struct store_run);
	struct ship_desc root = {.media_type = r->image.is_map ? spec_media_index(r->opts.oci_types) : spec_media_manifest(r->opts.oci_types)};
	memcpy(root.digest, r->image.digest, sizeof root.digest);
	s->run = r;
	ship_show(r, "copying blobs", false);
	/* The documents are small and were written a moment ago: reading them here costs microseconds. */
	if (blob_stat(r->req.env->blobs, root.digest, &root.size, &s->error) < 0 ||
	    ship_blobs_walk(r->req.env->blobs, &root, &s->blobs, &s->error) < 0) {
		end(s);
		return;
	}
	next(s);
}
