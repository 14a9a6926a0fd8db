/* ReadFileContainer, ReadDirContainer, StatFileContainer: a job reads in the mount's host path. */
#include "build/container.h"
#include "build/container_files_job.h"

#include <string.h>

struct container_file_call {
	struct bridge_call c;
	struct loop_job job;
	struct files_job work;
	char *root;
};

static void call_fini(struct container_file_call *f)
{
	files_job_fini(&f->work);
	free(f->root);
}

static void stop(struct bridge_call *c)
{
	if (!c->busy) call_fini((struct container_file_call *)c);
}

static void work(struct loop_job *j)
{
	struct container_file_call *f = container_of(j, struct container_file_call, job);
	container_files_run(&f->work, f->root);
}

static void job_done(struct loop_job *j)
{
	struct container_file_call *f = container_of(j, struct container_file_call, job);
	f->c.busy = false;
	if (f->c.ended) {
		call_fini(f);
		free(f);
		return;
	}
	files_answer(&f->c, &f->work);
}

static void begin(struct bridge *b, const char *id, int32_t index, struct build_reply r, enum files_kind kind, const char *path)
{
	struct container *c = container_find(b, id);
	if (!c) {
		bridge_refuse(r, CODE_UNKNOWN, "container details for %s@%d not found", id, index);
		return;
	}
	if (index < 0 || (size_t)index >= c->req->n_mounts) {
		bridge_refuse(r, CODE_UNKNOWN, "mount index %d is out of bounds (%zu available)", index, c->req->n_mounts);
		return;
	}
	const char *root = ops_mounts_host_path(c->mounts, (size_t)index);
	if (!root) {
		bridge_refuse(r, CODE_UNKNOWN, "mountable %d not found", index);
		return;
	}
	struct container_file_call *f = (struct container_file_call *)bridge_call_new(b, r, sizeof *f);
	f->c.stop = stop;
	f->c.busy = true;
	f->root = xstrdup(root);
	f->work.kind = kind;
	f->work.path = xstrdup(path);
	f->job.work = work;
	f->job.done = job_done;
	loop_job_start(c->env->loop, &f->job, LOOP_DISK);
}

void bridge_read_file_container(struct bridge *b, const Gateway__ReadFileRequest *req, struct build_reply r)
{
	begin(b, req->ref, req->mountindex, r, FILES_READ, req->filepath);
}

void bridge_read_dir_container(struct bridge *b, const Gateway__ReadDirRequest *req, struct build_reply r)
{
	begin(b, req->ref, req->mountindex, r, FILES_DIR, req->dirpath);
}

void bridge_stat_file_container(struct bridge *b, const Gateway__StatFileRequest *req, struct build_reply r)
{
	begin(b, req->ref, req->mountindex, r, FILES_STAT, req->path);
}
