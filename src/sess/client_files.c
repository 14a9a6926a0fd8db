/* Files, client side: named directories out, results in (a tree, or one stream), uploads out. Each is a job over a lane.
 * Source: BuildKit session/filesync/filesync.go, session/upload/uploadprovider; reference 02 §4, §5, §9. */
#include "sess/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

/* ---- a directory of ours to the daemon ---- */
struct sync {
	struct lane_job j;
	struct sess_client *c;
	char *name, *path;
	struct strvec includes, excludes, follow;
};

static int run_sync(struct lane_job *j, struct err *e)
{
	struct sync *t = container_of(j, struct sync, j);
	_cleanup_close_ int fd = open(t->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) return err_sys(e, errno, "open %s", t->path);
	struct sess_send_root root = {.fd = fd};
	struct sess_send o = {.roots = &root, .n_roots = 1, .proof = true, .cancelled = &j->job.cancelled, .bytes = &j->bytes};
	o.walk = (struct tree_walk_opts){
		.include = t->includes.v,
		.exclude = t->excludes.v,
		.follow = t->follow.v,
		.n_include = t->includes.n,
		.n_exclude = t->excludes.n,
		.n_follow = t->follow.n,
		.set_owner = true,
		.cancelled = &j->job.cancelled,
	};
	return sess_send_run(&o, &j->io, e);
}

static void sync_finished(struct lane_job *j)
{
	struct sync *t = container_of(j, struct sync, j);
	t->c->sent += atomic_load(&j->bytes);
}

static void sync_gone(struct lane_job *j)
{
	struct sync *t = container_of(j, struct sync, j);
	client_unref(t->c);
	free(t->name);
	free(t->path);
	strvec_fini(&t->includes);
	strvec_fini(&t->excludes);
	strvec_fini(&t->follow);
	free(t);
}

void client_on_filesync(void *arg, struct wire_call *call)
{
	struct sess_client *c = arg;
	_cleanup_strvec_ struct strvec name = {0};
	client_values(call, "dir-name", &name);
	const char *dir = name.n ? name.v[0] : "", *path = map_get(&c->dirs, dir);
	if (!path) {
		wire_call_fail(call, CODE_NOT_FOUND, "no access allowed to dir \"%s\"", dir);
		return;
	}
	struct sync *t = xnew(struct sync);
	t->c = client_ref(c);
	t->name = xstrdup(dir);
	t->path = xstrdup(path);
	client_values(call, "include-patterns", &t->includes);
	client_values(call, "exclude-patterns", &t->excludes);
	client_values(call, "followpaths", &t->follow);
	t->j.run = run_sync;
	t->j.finished = sync_finished;
	t->j.gone = sync_gone;
	wire_call_send_headers(call);
	lane_job_start(&t->j, c->loop, call, true);
	list_add_tail(&c->lanes, &t->j.lane.link);
}

/* ---- a tree from the daemon ---- */
struct tree_in {
	struct lane_job j;
	struct sess_client *c;
	char *path;
	bool delete_rest;
	struct sess_filesync_stats stats;
};

static int run_tree_in(struct lane_job *j, struct err *e)
{
	struct tree_in *t = container_of(j, struct tree_in, j);
	_cleanup_tree_index_ struct tree_index *old = NULL, *now = NULL;
	if (path_mkdirs(t->path, 0700, e) < 0) return err_wrap(e, "failed to create synctarget dest dir %s", t->path);
	_cleanup_close_ int fd = open(t->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) return err_sys(e, errno, "open %s", t->path);
	if (t->delete_rest && tree_index_scan(fd, &j->job.cancelled, &old, e) < 0) return err_wrap(e, "read %s", t->path);
	struct sess_recv o = {
		.dest_fd = fd,
		.old = old,
		.differ_none = true,
		.override_owner = true,
		.uid = geteuid(),
		.gid = getegid(),
		.cancelled = &j->job.cancelled,
		.bytes = &j->bytes,
	};
	return sess_recv_run(&o, &j->io, &now, &t->stats, e);
}

static void tree_in_finished(struct lane_job *j) {}

static void tree_in_gone(struct lane_job *j)
{
	struct tree_in *t = container_of(j, struct tree_in, j);
	client_unref(t->c);
	free(t->path);
	free(t);
}

static void start_tree_in(struct sess_client *c, struct wire_call *call, const struct client_out_dir *d)
{
	const char *multi = wire_call_header(call, "buildkit-exporter-multi-platform");
	if (d->delete_rest && !str_eq(multi, "1")) {
		wire_call_fail(
			call, CODE_UNKNOWN,
			"local exporter mode=delete requires a BuildKit daemon with multi-platform local export support");
		return;
	}
	struct tree_in *t = xnew(struct tree_in);
	t->c = client_ref(c);
	t->path = xstrdup(d->path);
	t->delete_rest = d->delete_rest;
	t->j.run = run_tree_in;
	t->j.finished = tree_in_finished;
	t->j.gone = tree_in_gone;
	wire_call_send_headers(call);
	lane_job_start(&t->j, c->loop, call, true);
	list_add_tail(&c->lanes, &t->j.lane.link);
}

/* ---- bytes between a descriptor and the daemon ---- */
struct flow {
	struct loop_job job;
	struct lane lane;
	struct sess_client *c;
	struct loop_pipe *pipe;
	int fd;
	bool out; /* to the daemon */
	bool job_done;
	struct err err;
	void (*closed)(void *arg, const struct err *e);
	void *arg;
};
enum { FLOW_CHUNK = 256 << 10, FLOW_POLL_MS = 100 };

static int flow_in(struct flow *f, uint8_t *b, struct err *e)
{
	for (;;) {
		ssize_t n = loop_pipe_job_read(f->pipe, b, FLOW_CHUNK, e);
		if (n <= 0) return (int)n;
		if (path_write_all(f->fd, b, (size_t)n, e) < 0) return -1;
	}
}

/* The descriptor may be a terminal or a pipe that brings nothing for long: the call's end must be seen meanwhile. */
static int flow_await(struct flow *f, struct err *e)
{
	struct pollfd p = {.fd = f->fd, .events = POLLIN};
	for (;;) {
		if (loop_job_cancelled(&f->job)) return err_set(e, CODE_UNAVAILABLE, "the transfer has ended");
		int n = poll(&p, 1, FLOW_POLL_MS);
		if (n > 0) return 0;
		if (n < 0 && errno != EINTR) return err_sys(e, errno, "poll");
	}
}

static int flow_out(struct flow *f, uint8_t *b, struct err *e)
{
	for (;;) {
		if (flow_await(f, e) < 0) return -1;
		ssize_t n = read(f->fd, b, FLOW_CHUNK);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return err_sys(e, errno, "read");
		if (n == 0) return 0;
		if (loop_pipe_job_write(f->pipe, b, (size_t)n, e) < 0) return -1;
	}
}

static void flow_work(struct loop_job *j)
{
	struct flow *f = container_of(j, struct flow, job);
	_cleanup_free_ uint8_t *b = xmalloc(FLOW_CHUNK);
	if (f->out)
		flow_out(f, b, &f->err);
	else
		flow_in(f, b, &f->err);
	if (close(take_fd(f->fd)) < 0 && !f->out && !err_is_set(&f->err)) err_sys(&f->err, errno, "close");
	loop_pipe_job_close(f->pipe, &f->err);
}

static void flow_gone(struct flow *f)
{
	if (f->lane.call || !f->job_done) return;
	lane_fini(&f->lane);
	loop_pipe_unref(f->pipe);
	err_fini(&f->err);
	client_unref(f->c);
	free(f);
}

static void flow_part(struct flow *f)
{
	if (!f->job_done || (f->out && !f->lane.out_done)) return;
	if (f->lane.call) wire_call_finish(f->lane.call, err_is_set(&f->err) ? &f->err : NULL);
}

static void flow_done(struct loop_job *j)
{
	struct flow *f = container_of(j, struct flow, job);
	f->job_done = true;
	if (f->closed && !f->c->let_go) f->closed(f->arg, err_is_set(&f->err) ? &f->err : NULL);
	flow_part(f);
	flow_gone(f);
}

static void flow_call_ended(struct lane *l, const struct err *status)
{
	struct flow *f = container_of(l, struct flow, lane);
	loop_job_cancel(&f->job);
	if (f->out) lane_out_close(l, status);
	flow_gone(f);
}

static void flow_out_ended(struct lane *l, const struct err *e) { flow_part(container_of(l, struct flow, lane)); }

static struct flow *flow_new(struct sess_client *c, struct wire_call *call, int fd, bool out)
{
	struct flow *f = xnew(struct flow);
	f->c = client_ref(c);
	f->fd = fd;
	f->out = out;
	wire_call_send_headers(call);
	lane_init(&f->lane, c->loop, call, true, LANE_BYTES, !out, out);
	list_add_tail(&c->lanes, &f->lane.link);
	f->lane.job = &f->job;
	f->lane.ended = flow_call_ended;
	f->lane.out_ended = flow_out_ended;
	f->pipe = loop_pipe_ref(out ? f->lane.out : f->lane.in);
	f->job.work = flow_work;
	f->job.done = flow_done;
	loop_job_start(c->loop, &f->job, LOOP_NET);
	return f;
}

/* ---- one stream from the daemon ---- */
static void read_exporter_md(const struct wire_call *call, struct strvec *ret)
{
	struct wire_md md;
	for (size_t i = 0; wire_call_header_at(call, i, &md); i++) {
		if (!str_starts(md.key, "exporter-md-")) continue;
		strvec_add(ret, md.key + strlen("exporter-md-"));
		strvec_add(ret, md.value);
	}
}

static void start_output(struct sess_client *c, struct wire_call *call, const struct sess_client_output *o)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_strvec_ struct strvec md = {0};
	int fd = -1;
	read_exporter_md(call, &md);
	int got = o->open(o->arg, md.v, md.n, &fd, &e);
	if (got < 0) {
		wire_call_finish(call, &e);
	} else if (got == 0) {
		wire_call_fail(call, CODE_ALREADY_EXISTS, "target already exists");
	} else {
		struct flow *f = flow_new(c, call, fd, false);
		f->closed = o->closed;
		f->arg = o->arg;
	}
}

void client_on_filesend(void *arg, struct wire_call *call)
{
	struct sess_client *c = arg;
	const char *id = wire_call_header(call, "buildkit-attachable-exporter-id");
	if (str_empty(id)) id = "0";
	struct client_out_dir *d = map_get(&c->out_dirs, id);
	struct sess_client_output *o = map_get(&c->outs, id);
	if (d)
		start_tree_in(c, call, d);
	else if (o)
		start_output(c, call, o);
	else
		wire_call_fail(call, CODE_UNKNOWN, "exporter %s not found", id);
}

/* ---- uploads ---- */
void client_on_upload(void *arg, struct wire_call *call)
{
	struct sess_client *c = arg;
	const char *path = wire_call_header(call, "urlpath"), *id = path ? path_base(path) : "";
	int fd = (int)(intptr_t)map_del(&c->uploads, id) - 1;
	if (fd < 0)
		wire_call_fail(call, CODE_UNKNOWN, "no http response from session for %s", id);
	else
		flow_new(c, call, fd, true);
}
