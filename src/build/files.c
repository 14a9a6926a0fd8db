/* ReadFile, ReadDir, StatFile: evaluate the reference, fill it, read in a job. */
#include "build/bridge.h"
#include "build/files_job.h"

#include <string.h>

struct file_call {
	struct bridge_call c;
	struct loop_job job;
	struct files_job work;
	struct ops_fill *fill;
	struct snap *snap;
};

static void file_call_free(struct file_call *f)
{
	snap_view_free(f->work.view);
	snap_unref(f->snap);
	files_job_fini(&f->work);
}

void files_answer(struct bridge_call *c, const struct files_job *w)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	Gateway__ReadFileResponse file = GATEWAY__READ_FILE_RESPONSE__INIT;
	Gateway__ReadDirResponse dir = GATEWAY__READ_DIR_RESPONSE__INIT;
	Gateway__StatFileResponse st = GATEWAY__STAT_FILE_RESPONSE__INIT;
	if (err_is_set(&w->error)) {
		bridge_call_end(c, NULL, &w->error);
	} else if (w->kind == FILES_READ) {
		file.data = (ProtobufCBinaryData){w->data.n, w->data.p};
		bridge_call_end(c, &file.base, NULL);
	} else if (w->kind == FILES_DIR) {
		dir.n_entries = w->entries.n;
		dir.entries = arena_alloc(a, sizeof *dir.entries * w->entries.n);
		for (size_t i = 0; i < w->entries.n; i++) dir.entries[i] = files_stat_message(a, &w->entries.v[i]);
		bridge_call_end(c, &dir.base, NULL);
	} else {
		st.stat = files_stat_message(a, &w->entries.v[0]);
		bridge_call_end(c, &st.base, NULL);
	}
}

static void work(struct loop_job *j) { files_job_run(&container_of(j, struct file_call, job)->work); }

static void job_done(struct loop_job *j)
{
	struct file_call *f = container_of(j, struct file_call, job);
	f->c.busy = false;
	if (f->c.ended) {
		file_call_free(f);
		free(f);
		return;
	}
	files_answer(&f->c, &f->work);
}

static void start(struct file_call *f)
{
	f->work.view = f->snap ? snap_view_new(f->snap) : snap_view_empty(f->c.bridge->build->engine->conf.env->snaps);
	f->job.work = work;
	f->job.done = job_done;
	f->c.busy = true;
	loop_job_start(f->c.bridge->build->engine->conf.env->loop, &f->job, LOOP_DISK);
}

static void filled(void *arg, const struct err *e)
{
	struct file_call *f = arg;
	f->fill = NULL;
	f->c.busy = false;
	if (f->c.ended) {
		file_call_free(f);
		free(f);
		return;
	}
	if (e)
		bridge_call_end(&f->c, NULL, e);
	else
		start(f);
}

static void evaluated(void *arg, struct snap *result, const struct err *e)
{
	struct file_call *f = arg;
	if (e) {
		bridge_call_failed(&f->c, e);
		return;
	}
	f->snap = result ? snap_ref(result) : NULL;
	struct build *b = f->c.bridge->build;
	const char *sessions[OPS_SESSIONS_MAX];
	struct ops_fill_req req = {.snaps = &f->snap, .n = 1, .sessions = sessions, .done = filled, .arg = f};
	req.n_sessions = build_sessions(b, sessions, OPS_SESSIONS_MAX);
	f->fill = ops_fill(b->engine->conf.env, &req);
	f->c.busy = f->fill != NULL;
	if (!f->fill) start(f);
}

static void stop(struct bridge_call *c)
{
	struct file_call *f = (struct file_call *)c;
	if (!c->busy) file_call_free(f);
}

static struct file_call *begin(struct bridge *b, const char *id, struct build_reply r)
{
	struct err e = ERR_INIT;
	struct ref *ref = bridge_find(b, id, &e);
	if (!ref) {
		r.done(r.arg, NULL, &e);
		err_fini(&e);
		return NULL;
	}
	struct file_call *f = (struct file_call *)bridge_call_new(b, r, sizeof *f);
	f->c.ref = ref_hold(ref);
	f->c.stop = stop;
	return f;
}

void bridge_read_file(struct bridge *b, const Gateway__ReadFileRequest *req, struct build_reply r)
{
	struct file_call *f = begin(b, req->ref, r);
	if (!f) return;
	f->work.kind = FILES_READ;
	f->work.path = xstrdup(req->filepath);
	f->work.offset = req->range ? req->range->offset : 0;
	f->work.length = req->range ? req->range->length : -1;
	ref_eval(f->c.ref, evaluated, f);
}

void bridge_read_dir(struct bridge *b, const Gateway__ReadDirRequest *req, struct build_reply r)
{
	struct file_call *f = begin(b, req->ref, r);
	if (!f) return;
	f->work.kind = FILES_DIR;
	f->work.path = xstrdup(req->dirpath);
	f->work.pattern = xstrdup(req->includepattern);
	ref_eval(f->c.ref, evaluated, f);
}

void bridge_stat_file(struct bridge *b, const Gateway__StatFileRequest *req, struct build_reply r)
{
	struct file_call *f = begin(b, req->ref, r);
	if (!f) return;
	f->work.kind = FILES_STAT;
	f->work.path = xstrdup(req->path);
	ref_eval(f->c.ref, evaluated, f);
}
