/* local:// sources: a directory that mirrors the client's. It is a long-lived snapshot found by name, hint and the session's
 * shared key; a sync transfers what changed, then the snapshot is frozen as the result. Its index of digests is updated
 * while files are written, so the content keys of a context need no second read.
 *
 * A second build that wants the same snapshot meanwhile gets another one ("#1", "#2", ...). */
#include "ops/internal.h"
#include "ops/local_job.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

struct local_op {
	struct ops_node o;
	struct llb_source src;
	struct solve_node *node;
	/* of the sync under way */
	struct sess *session;
	struct sess_op *wait, *sync;
	struct loop_job job;
	struct local_job work;
	struct snap *snap, *copy_of;
	char *sessions[OPS_SESSIONS_MAX];
	size_t n_sessions, at;
	struct err last; /* why the session before would not do */
	bool locked;
	char *key;
	uint64_t bytes;
	struct timespec since;
};

static void op_free(void *op)
{
	struct local_op *l = op;
	ops_node_fini(&l->o);
	free(l);
}

static void map(void *op, struct solve_node *n)
{
	struct local_op *l = op;
	const char *sessions[OPS_SESSIONS_MAX];
	_cleanup_buf_ struct buf key = BUF_INIT;
	size_t c = ops_sessions(n, l->o.env, sessions, OPS_SESSIONS_MAX);
	llb_source_local_key(&l->src, *l->src.local.session ? l->src.local.session : c ? sessions[0] : "", &key);
	char digest[DIGEST_STR + 8];
	llb_source_digest(buf_str(&key), digest);
	ops_map_one(n, digest);
}

static void cleanup(struct local_op *l)
{
	for (size_t i = 0; i < l->n_sessions; i++) free(l->sessions[i]);
	l->n_sessions = l->at = 0;
	local_job_drop_trash(&l->work);
	snap_view_free(l->work.view);
	snap_view_free(l->work.from);
	if (l->work.root >= 0) close(l->work.root);
	tree_index_free(l->work.index);
	free(l->work.index_path);
	free(l->work.index_from);
	err_fini(&l->work.sync_error);
	err_fini(&l->work.error);
	err_fini(&l->last);
	free(l->key);
	l->key = NULL;
	l->work = (struct local_job){.root = -1};
	sess_unref(l->session);
	l->session = NULL;
	snap_unref(l->copy_of);
	l->copy_of = NULL;
}

static void end(struct local_op *l, struct err *e)
{
	struct snap *result = l->snap;
	struct solve_node *n = l->node;
	l->snap = NULL;
	if (l->locked) snap_unlock(result);
	l->locked = false;
	if (e && err_is_set(e)) {
		struct err copy = ERR_INIT;
		err_move(&copy, e);
		snap_unref(result);
		cleanup(l);
		solve_exec_done(n, NULL, &copy);
		return;
	}
	cleanup(l);
	solve_exec_done(n, &result, NULL);
}

/* ---- after the sync: index and seal in a job, then freeze ---- */

static void seal_work(struct loop_job *j) { local_job_seal(&container_of(j, struct local_op, job)->work); }

static void seal_done(struct loop_job *j)
{
	struct local_op *l = container_of(j, struct local_op, job);
	if (!err_is_set(&l->work.error)) snap_freeze(l->snap, &l->work.error);
	if (l->work.trashed) snap_empty_trash_later(l->o.env->snaps);
	end(l, &l->work.error);
}

static void show(struct local_op *l, bool end)
{
	_cleanup_free_ char *id = xasprintf("transferring %s:", l->src.local.name);
	struct prog_status s = {.id = id, .name = "transferring", .current = (int64_t)l->bytes, .started = l->since};
	if (end) s.completed = time_now();
	solve_status(l->node, &s);
}

static void progress(void *arg, uint64_t bytes)
{
	struct local_op *l = arg;
	l->bytes = bytes;
	show(l, false);
}

static void try_session(struct local_op *l);

static void synced(void *arg, const struct sess_filesync_stats *st, const struct err *e)
{
	struct local_op *l = arg;
	l->sync = NULL;
	if (e && e->code == CODE_NOT_FOUND && l->at + 1 < l->n_sessions && !loop_job_cancelled(&l->job)) {
		err_copy(&l->last, e);
		l->at++;
		sess_unref(l->session);
		l->session = NULL;
		try_session(l);
		return;
	}
	if (st) l->bytes = st->bytes;
	show(l, true);
	/* Also after a failure: what the directory holds is what the index says. */
	if (e) err_copy(&l->work.sync_error, e);
	l->job.work = seal_work;
	l->job.done = seal_done;
	loop_job_start(l->o.env->loop, &l->job, LOOP_DISK);
}

static const struct strvec *attr(const struct llb_strs *s, struct strvec *tmp)
{
	if (!s->set) return NULL;
	tmp->v = (char **)s->v;
	tmp->n = s->n;
	return tmp;
}

static void start_sync(struct local_op *l)
{
	struct strvec inc, exc, follow, meta;
	struct sess_filesync_req req = {
		.name = l->src.local.name,
		.includes = attr(&l->src.local.include_patterns, &inc),
		.excludes = attr(&l->src.local.exclude_patterns, &exc),
		.follow_paths = attr(&l->src.local.follow_paths, &follow),
		.metadata_only = l->src.local.metadata_only,
		.metadata_exceptions = attr(&l->src.local.metadata_exceptions, &meta),
		.dest_fd = l->work.root,
		.trash = l->work.trash,
		.index = &l->work.index,
		.differ = l->src.local.differ_none ? SESS_DIFFER_NONE : SESS_DIFFER_METADATA,
		.progress = progress,
		.done = synced,
		.arg = l,
	};
	l->bytes = 0;
	l->since = time_now();
	show(l, false);
	l->sync = sess_filesync_start(l->session, &req);
}

/* ---- before the sync: find or make the snapshot ---- */

static void open_work(struct loop_job *j) { local_job_open(&container_of(j, struct local_op, job)->work); }

static void open_done(struct loop_job *j)
{
	struct local_op *l = container_of(j, struct local_op, job);
	snap_unref(l->copy_of);
	l->copy_of = NULL;
	if (err_is_set(&l->work.error)) {
		end(l, &l->work.error);
		return;
	}
	start_sync(l);
}

/* The snapshot with that key, locked and mutable: 1; 0 when another build has it. */
static int take_existing(struct local_op *l, const char *key, struct err *e)
{
	struct snap *s = snap_find_key(l->o.env->snaps, key);
	if (!s) return 0;
	if (!snap_lock(s, true)) return -2;
	l->snap = snap_ref(s);
	l->locked = true;
	if (s->is_mutable) return 1;
	struct snap *copy = NULL;
	int r = snap_thaw(s, &copy, e);
	if (r < 0) return -1;
	if (r == 0) { /* a build still reads it: go on with a copy */
		snap_unlock(s);
		l->locked = false;
		l->copy_of = l->snap;
		l->snap = copy;
		l->locked = snap_lock(copy, true);
	}
	return 1;
}

static int take_snapshot(struct local_op *l, struct err *e)
{
	_cleanup_free_ char *description = xasprintf("local source for %s", l->src.local.name);
	_cleanup_free_ char *base = xasprintf("local:%s:%s:%s%s", l->src.local.name, l->src.local.shared_key_hint,
					      sess_shared_key(l->session), l->src.local.metadata_only ? ":metadata" : "");
	for (int i = 0; i < 1000; i++) {
		_cleanup_free_ char *key = i ? xasprintf("%s#%d", base, i) : xstrdup(base);
		int r = take_existing(l, key, e);
		if (r == 1) return 0;
		if (r == -1) return -1;
		if (r == -2) continue;
		l->snap = snap_create(l->o.env->snaps, NULL, description, SNAP_SOURCE_LOCAL);
		l->locked = snap_lock(l->snap, true);
		return snap_set_key(l->snap, key, e);
	}
	return err_set(e, CODE_RESOURCE_EXHAUSTED, "1000 builds use local source %s", l->src.local.name);
}

static void prepare(struct local_op *l)
{
	struct err e = ERR_INIT;
	if (!l->snap) {
		if (take_snapshot(l, &e) < 0) {
			end(l, &e);
			return;
		}
		struct snap *indexed = l->copy_of ? l->copy_of : l->snap;
		l->work.view = snap_view_new(l->snap);
		l->work.from = l->copy_of ? snap_view_new(l->copy_of) : NULL;
		l->work.cancelled = &l->job.cancelled;
		l->work.index_path = ops_index_path(l->o.env, l->snap->id);
		l->work.index_from = l->copy_of ? ops_index_path(l->o.env, indexed->id) : NULL;
		l->job.work = open_work;
		l->job.done = open_done;
		loop_job_start(l->o.env->loop, &l->job, LOOP_DISK);
		return;
	}
	start_sync(l); /* the next session, on what the last one left untouched */
}

static void got_session(void *arg, struct sess *s, const struct err *e)
{
	struct local_op *l = arg;
	l->wait = NULL;
	if (s && sess_supports(s, "/moby.filesync.v1.FileSync/DiffCopy")) {
		l->session = sess_ref(s);
		prepare(l);
		return;
	}
	if (e)
		err_copy(&l->last, e);
	else
		err_set(&l->last, CODE_UNKNOWN, "no local sources enabled");
	if ((e && e->code == CODE_CANCELLED) || ++l->at >= l->n_sessions) {
		struct err last = ERR_INIT;
		err_move(&last, &l->last);
		end(l, &last);
		return;
	}
	try_session(l);
}

static void try_session(struct local_op *l)
{
	l->wait = sess_wait(l->o.env->sessions, l->sessions[l->at], SESS_WAIT_MS, got_session, l);
}

static void no_session(void *arg)
{
	struct err e = ERR_INIT;
	err_set(&e, CODE_UNKNOWN, "no active sessions");
	end(arg, &e);
}

static void exec(void *op, struct solve_node *n)
{
	struct local_op *l = op;
	const char *ids[OPS_SESSIONS_MAX];
	l->node = n;
	l->work = (struct local_job){.root = -1};
	atomic_store(&l->job.cancelled, false);
	if (*l->src.local.session) l->sessions[l->n_sessions++] = xstrdup(l->src.local.session);
	size_t c = ops_sessions(n, l->o.env, ids, OPS_SESSIONS_MAX);
	for (size_t i = 0; i < c && l->n_sessions < OPS_SESSIONS_MAX; i++)
		if (!l->n_sessions || strcmp(l->sessions[0], ids[i])) l->sessions[l->n_sessions++] = xstrdup(ids[i]);
	if (!l->n_sessions) {
		loop_post(l->o.env->loop, no_session, l);
		return;
	}
	try_session(l);
}

static void cancel(void *op, struct solve_node *n)
{
	struct local_op *l = op;
	loop_job_cancel(&l->job);
	if (l->wait) sess_op_cancel(l->wait);
	if (l->sync) sess_op_cancel(l->sync);
}

static const struct solve_op_vt local_vt = {
	.kind = "local", .map = map, .exec = exec, .cancel = cancel, .free = op_free, .source = false};

void ops_local_source(struct ops_env *env, struct ops_graph *g, const struct llb_node *llb, const struct llb_source *src,
		      struct solve_vertex *ret)
{
	struct local_op *l = xnew(struct local_op);
	ops_node_init(&l->o, env, g, llb);
	l->src = *src;
	l->work.root = -1;
	ret->vt = &local_vt;
	ret->op = l;
}
