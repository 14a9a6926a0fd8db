/* local and tar: the trees themselves go to the client. */
#include "proto/methods.h"
#include "ship/internal.h"
#include "tree/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

static bool split(const struct ship_run *r) { return r->opts.has_split ? r->opts.split : r->req.is_map; }

static char *top_dir(const char *key)
{
	char *s = xstrdup(key);
	for (char *c = s; *c; c++)
		if (*c == '/') *c = '_';
	return s;
}

/* The attestations of reference i as files beside it; NULL: none. */
static struct files_attest *attest_new(const struct ship_run *r, size_t i)
{
	struct timespec t;
	if (!ship_attests_any(r, true) || !r->refs[i].platform) return NULL;
	struct files_attest *f = xnew(struct files_attest);
	if (!ship_epoch(r, r->refs[i].key, &t)) t = time_now();
	f->in = r->att_in.v;
	f->n_in = r->att_in.n;
	f->platform = xstrdup(r->refs[i].platform);
	f->name_platform = r->req.is_map && !split(r);
	f->prefix = xstrdup(r->opts.attest_prefix ? r->opts.attest_prefix : "");
	f->mtime_ns = t.tv_sec * 1000000000 + t.tv_nsec;
	return f;
}

/* ---- local: one transfer a reference; with mode=delete one for all, so that the client knows what is to stay ---- */

struct ship_dir {
	struct snap_view *view;
	int fd;
	char *top; /* NULL: as it is */
	const char *platform;
	struct files_attest *attest;
};

void ship_dirs_fini(struct ship_run *r)
{
	for (size_t i = 0; r->dirs && i < r->n_refs; i++) {
		if (r->dirs[i].fd >= 0) close(r->dirs[i].fd);
		snap_view_free(r->dirs[i].view);
		free(r->dirs[i].top);
		files_attest_free(r->dirs[i].attest);
	}
	free(r->dirs);
	free(r->roots);
}

static void send_dirs(struct ship_run *r);

/* A status that was begun is also ended: plain progress says DONE of a step only then. */
static void dir_status(struct ship_run *r, bool completed)
{
	if (!r->req.status) return;
	const char *key = r->at < r->n_refs && split(r) && !r->opts.delete_mode ? r->dirs[r->at].platform : NULL;
	_cleanup_free_ char *id = key ? xasprintf("copying files %s", key) : xstrdup("copying files");
	struct prog_status s = {.id = id, .name = "transferring", .current = (int64_t)r->sent_bytes, .started = r->since};
	if (completed) s.completed = time_now();
	r->req.status(r->req.arg, &s);
}

static void dir_progress(void *arg, uint64_t bytes)
{
	struct ship_run *r = arg;
	r->sent_bytes = bytes;
	dir_status(r, false);
}

static void dir_sent(void *arg, const struct err *e)
{
	struct ship_run *r = arg;
	r->send = NULL;
	dir_status(r, true);
	if (e) {
		struct err copy = ERR_INIT;
		err_copy(&copy, e);
		ship_end(r, &copy);
		return;
	}
	r->at += r->opts.delete_mode ? r->n_refs : 1;
	send_dirs(r);
}

struct overwrite_check {
	struct map seen; /* path -> platform */
	const char *platform;
};

static int check_entry(const struct tree_entry *t, void *arg, struct err *e)
{
	struct overwrite_check *c = arg;
	if (S_ISDIR(t->mode)) return 0;
	const char *other = map_get(&c->seen, t->path);
	if (other)
		return err_set(e, CODE_UNKNOWN, "cannot overwrite %s from %s with %s when split option is disabled", t->path,
			       other, c->platform);
	map_put(&c->seen, t->path, (void *)c->platform);
	return 0;
}

/* Several platforms into one directory: no file of one may take another's place. */
static int check_overwrites(const struct ship_run *r, const atomic_bool *cancelled, struct err *e)
{
	struct overwrite_check c = {0};
	struct tree_walk_opts opts = {.no_xattrs = true, .cancelled = cancelled};
	int rc = 0;
	for (size_t i = 0; i < r->n_refs && rc == 0; i++) {
		c.platform = r->dirs[i].platform ? r->dirs[i].platform : "";
		rc = tree_walk(r->dirs[i].fd, &opts, check_entry, &c, e);
	}
	map_fini(&c.seen);
	return rc < 0 ? -1 : 0;
}

static void open_work(struct loop_job *j)
{
	struct ship_run *r = container_of(j, struct ship_run, job);
	struct err *e = &r->image.error;
	for (size_t i = 0; i < r->n_refs; i++) {
		struct ship_dir *d = &r->dirs[i];
		d->fd = snap_view_open_root(d->view, false, e);
		if (d->fd < 0 || (d->attest && files_attest_make(d->attest, d->fd, e) < 0)) return;
	}
	if (r->n_refs > 1 && !split(r)) check_overwrites(r, &j->cancelled, e);
}

static int by_top(const void *a, const void *b)
{
	const struct ship_dir *x = a, *y = b;
	return strcmp(x->top ? x->top : "", y->top ? y->top : "");
}

static void opened(struct loop_job *j)
{
	struct ship_run *r = container_of(j, struct ship_run, job);
	r->job_runs = false;
	if (r->cancelled || err_is_set(&r->image.error))
		ship_end(r, &r->image.error);
	else
		send_dirs(r);
}

static void send_dirs(struct ship_run *r)
{
	if (r->at >= r->n_refs) {
		ship_end(r, NULL);
		return;
	}
	struct timespec epoch;
	size_t n = r->opts.delete_mode ? r->n_refs : 1;
	for (size_t i = 0; i < n; i++) {
		struct ship_dir *d = &r->dirs[r->at + i];
		r->roots[i] = (struct sess_send_root){.fd = d->fd, .top = d->top};
		if (!d->attest) continue;
		r->roots[i].extras = d->attest->files.v;
		r->roots[i].n_extras = d->attest->files.n;
	}
	struct sess_filesend_dir_req req = {.exporter = r->req.index,
					    .roots = r->roots,
					    .n_roots = n,
					    .multi_platform = r->opts.delete_mode,
					    .progress = dir_progress,
					    .done = dir_sent,
					    .arg = r};
	if (ship_epoch(r, r->dirs[r->at].platform, &epoch)) {
		req.override_mtime = true;
		req.mtime_ns = epoch.tv_sec * 1000000000;
	}
	r->since = time_now();
	r->sent_bytes = 0;
	r->send = sess_filesend_dir(r->session, &req);
}

static void start_dirs(struct ship_run *r)
{
	struct err e = ERR_INIT;
	if (r->opts.delete_mode && r->n_refs > 1 && !split(r)) {
		err_set(&e, CODE_UNIMPLEMENTED, "mode=delete needs platform-split for a result of several platforms");
		ship_end(r, &e);
		return;
	}
	r->dirs = xcalloc(r->n_refs, sizeof *r->dirs);
	r->roots = xcalloc(r->n_refs, sizeof *r->roots);
	for (size_t i = 0; i < r->n_refs; i++) {
		struct snap *s = r->refs[i].snap;
		r->dirs[i] = (struct ship_dir){.fd = -1, .platform = r->refs[i].platform, .attest = attest_new(r, i)};
		r->dirs[i].view = s ? snap_view_new(s) : snap_view_empty(r->req.env->snaps);
		if (split(r) && r->refs[i].platform) r->dirs[i].top = top_dir(r->refs[i].platform);
	}
	qsort(r->dirs, r->n_refs, sizeof *r->dirs, by_top);
	r->job.work = open_work;
	r->job.done = opened;
	r->job_runs = true;
	loop_job_start(r->req.env->loop, &r->job, LOOP_DISK);
}

/* ---- tar ---- */

struct tar_part {
	struct snap_view *view;
	char *prefix;
	struct files_attest *attest;
};
struct tar_run {
	struct ship_run *run;
	struct loop_job job;
	struct tar_part *parts;
	size_t n;
	struct timespec epoch;
	bool has_epoch;
	struct err error;
};

static int pipe_write(void *ctx, const void *p, size_t n, struct err *e) { return loop_pipe_job_write(ctx, p, n, e); }

static int write_part(struct tar_run *t, const struct tar_part *p, struct tar_writer *w, struct err *e)
{
	_cleanup_close_ int root = snap_view_open_root(p->view, false, e);
	if (root < 0) return -1;
	if (*p->prefix) {
		struct tar_entry dir = {.name = p->prefix, .type = TAR_DIR, .mode = 0755};
		if (tar_write_header(w, &dir, e) < 0) return -1;
	}
	if (p->attest && files_attest_make(p->attest, root, e) < 0) return -1;
	if (tar_write_tree(root, p->prefix, t->has_epoch ? &t->epoch : NULL, w, e) < 0) return -1;
	for (size_t i = 0; p->attest && i < p->attest->files.n; i++) {
		const struct sess_extra_file *x = &p->attest->files.v[i];
		_cleanup_free_ char *name = xasprintf("%s%s", p->prefix, x->name);
		struct tar_entry file = {.name = name,
					 .type = TAR_REG,
					 .mode = 0600,
					 .size = (int64_t)x->n,
					 .mtime = {x->mtime_ns / 1000000000, 0}};
		if (tar_write_header(w, &file, e) < 0 || tar_write_data(w, x->p, x->n, e) < 0) return -1;
	}
	return 0;
}

static void tar_work(struct loop_job *j)
{
	struct tar_run *t = container_of(j, struct tar_run, job);
	_cleanup_tar_writer_ struct tar_writer *w = tar_writer_new((struct tar_out){pipe_write, t->run->pipe});
	int r = 0;
	for (size_t i = 0; i < t->n && r == 0; i++) r = write_part(t, &t->parts[i], w, &t->error);
	if (r == 0) tar_writer_finish(w, &t->error);
	loop_pipe_job_close(t->run->pipe, &t->error);
}

static void tar_both_done(struct ship_run *r)
{
	if (r->job_runs || r->send) return;
	ship_show(r, "sending tarball", true);
	ship_end(r, NULL);
}

static void tar_done(struct loop_job *j)
{
	struct tar_run *t = container_of(j, struct tar_run, job);
	struct ship_run *r = t->run;
	r->job_runs = false;
	if (err_is_set(&t->error) && t->error.code != CODE_ALREADY_EXISTS && !err_is_set(&r->error))
		err_move(&r->error, &t->error);
	err_fini(&t->error);
	for (size_t i = 0; i < t->n; i++) {
		snap_view_free(t->parts[i].view);
		free(t->parts[i].prefix);
		files_attest_free(t->parts[i].attest);
	}
	free(t->parts);
	free(t);
	tar_both_done(r);
}

static void tar_sent(void *arg, const struct err *e)
{
	struct ship_run *r = arg;
	r->send = NULL;
	if (e && !err_is_set(&r->error)) err_copy(&r->error, e);
	tar_both_done(r);
}

static void start_tar(struct ship_run *r)
{
	struct tar_run *t = xnew(struct tar_run);
	t->run = r;
	t->has_epoch = ship_epoch(r, NULL, &t->epoch);
	t->parts = xcalloc(r->n_refs, sizeof *t->parts);
	for (size_t i = 0; i < r->n_refs; i++) {
		struct snap *s = r->refs[i].snap;
		_cleanup_free_ char *top = split(r) && r->refs[i].platform ? top_dir(r->refs[i].platform) : NULL;
		t->parts[t->n++] = (struct tar_part){s ? snap_view_new(s) : snap_view_empty(r->req.env->snaps),
						     top ? xasprintf("%s/", top) : xstrdup(""), attest_new(r, i)};
	}
	ship_show(r, "sending tarball", false);
	r->send = sess_filesend_file(r->session, r->req.index, NULL, 0, &r->pipe, tar_sent, r);
	t->job.work = tar_work;
	t->job.done = tar_done;
	r->job_runs = true;
	loop_job_start(r->req.env->loop, &t->job, LOOP_NET);
}

void ship_files_start(struct ship_run *r)
{
	struct err e = ERR_INIT;
	if (ship_attests_any(r, true) && ship_attests_content(r, &e) < 0) {
		ship_end(r, &e);
		return;
	}
	ship_with_session(r, METHOD_FILESEND_DIFF_COPY, r->opts.kind == SHIP_TAR ? start_tar : start_dirs);
}
