/* States: ASKING (secrets and ssh from the client) -> CACHES (locks of cache mounts) -> FILLING -> MOUNTING -> READY -> (finish)
 * DOWN. A failure or cancel in any of the first four undoes what was done and reports it. */
#include "ops/mounts.h"
#include "ops/mounts_job.h"

#include <stdio.h>
#include <string.h>

enum { CACHE_POLL_MS = 100 };

struct mount {
	Pb__Mount *pb;
	struct snap *input;  /* what is mounted read-only, or parent of active */
	struct snap *active; /* what is written; a cache mount's long-lived one too */
	bool is_cache, locked, keep, skipped, secret_known;
	uint8_t *secret;
	size_t secret_len;
	struct sess_ssh *ssh;
	char *ssh_path;
};

struct ops_mounts {
	struct ops_mounts_req req;
	struct mount *mounts;
	char *what;
	size_t at, env_at, session_at; /* what is being asked for */
	char *sessions[OPS_SESSIONS_MAX];
	const char *session_ids[OPS_SESSIONS_MAX];
	size_t n_sessions;
	struct sess *session;
	struct sess_op *asking, *waiting;
	struct loop_timer poll;
	struct ops_fill *fill;
	struct loop_job job;
	struct mount_job work;
	struct strvec secret_env;
	struct run_mount *list;
	size_t n_list;
	struct strvec *list_options;
	bool cancelled;
	enum ops_keep keep;
	struct err error;
	void (*finished)(void *arg, struct snap **outputs, size_t n, const struct err *e);
	void *finished_arg;
};

static void next(struct ops_mounts *m);

/* ---- failure ---- */

static void undone(struct loop_job *j)
{
	struct ops_mounts *m = container_of(j, struct ops_mounts, job);
	m->req.done(m->req.arg, &m->error);
}

static void down_work(struct loop_job *j)
{
	struct ops_mounts *m = container_of(j, struct ops_mounts, job);
	struct err first = m->work.error;
	m->work.error = ERR_INIT;
	mount_job_down(&m->work);
	if (err_is_set(&first)) {
		err_fini(&m->work.error);
		m->work.error = first;
	}
}

static void fail(struct ops_mounts *m, const struct err *e)
{
	if (!err_is_set(&m->error)) err_copy(&m->error, e);
	loop_timer_stop(&m->poll);
	m->job.work = down_work;
	m->job.done = undone;
	loop_job_start(m->req.env->loop, &m->job, LOOP_DISK);
}

/* ---- secrets and ssh: one after the other, each of the sessions in turn ---- */

static void ask(struct ops_mounts *m);

static bool is_missing(const struct err *e) { return e->code == CODE_NOT_FOUND || e->code == CODE_UNIMPLEMENTED; }

/* Nothing more to ask of this session: true when another one is being tried. */
static bool next_session(struct ops_mounts *m)
{
	sess_unref(m->session);
	m->session = NULL;
	if (++m->session_at >= m->n_sessions) return false;
	ask(m);
	return true;
}

static void asked(struct ops_mounts *m)
{
	sess_unref(m->session);
	m->session = NULL;
	m->session_at = 0;
	if (m->at < m->req.n)
		m->at++;
	else
		m->env_at++;
	next(m);
}

static void got_secret(void *arg, const uint8_t *p, size_t n, const struct err *e)
{
	struct ops_mounts *m = arg;
	m->asking = NULL;
	bool for_mount = m->at < m->req.n;
	bool optional = for_mount ? m->mounts[m->at].pb->secretopt && m->mounts[m->at].pb->secretopt->optional
				  : m->req.secret_env[m->env_at]->optional;
	if (e && is_missing(e) && next_session(m)) return;
	if (e && !(is_missing(e) && optional)) {
		fail(m, e);
		return;
	}
	if (for_mount) {
		struct mount *mt = &m->mounts[m->at];
		mt->skipped = e != NULL;
		mt->secret = e ? NULL : xmemdup(p, n);
		mt->secret_len = e ? 0 : n;
	} else {
		Pb__SecretEnv *env = m->req.secret_env[m->env_at];
		strvec_addf(&m->secret_env, "%s=%.*s", env->name, e ? 0 : (int)n, e ? "" : (const char *)p);
	}
	asked(m);
}

static void ssh_checked(void *arg, const struct err *e)
{
	struct ops_mounts *m = arg;
	m->asking = NULL;
	struct mount *mt = &m->mounts[m->at];
	const Pb__SSHOpt *o = mt->pb->sshopt;
	if (e && e->code != CODE_CANCELLED && next_session(m)) return;
	if (e && o && o->optional && e->code != CODE_CANCELLED) {
		mt->skipped = true;
		asked(m);
		return;
	}
	struct err failed = ERR_INIT;
	if (!e && sess_ssh_listen(m->session, o ? o->id : "", o ? o->uid : 0, o ? o->gid : 0, o && o->mode ? o->mode & 0777 : 0600, &mt->ssh, &failed) < 0) e = &failed;
	if (e) {
		fail(m, e);
		err_fini(&failed);
		return;
	}
	mt->ssh_path = xstrdup(sess_ssh_path(mt->ssh));
	asked(m);
}

static void got_session(void *arg, struct sess *s, const struct err *e)
{
	struct ops_mounts *m = arg;
	m->waiting = NULL;
	if (!s) {
		if (e->code != CODE_CANCELLED && next_session(m)) return;
		fail(m, e);
		return;
	}
	m->session = sess_ref(s);
	if (m->at >= m->req.n)
		m->asking = sess_secret(s, m->req.secret_env[m->env_at]->id, got_secret, m);
	else if (m->mounts[m->at].pb->mounttype == PB__MOUNT_TYPE__SECRET)
		m->asking = sess_secret(s, m->mounts[m->at].pb->secretopt ? m->mounts[m->at].pb->secretopt->id : "", got_secret, m);
	else
		m->asking = sess_ssh_check(s, m->mounts[m->at].pb->sshopt ? m->mounts[m->at].pb->sshopt->id : "", ssh_checked, m);
}

static void ask(struct ops_mounts *m)
{
	if (!m->n_sessions) {
		struct err e = ERR_INIT;
		err_set(&e, CODE_UNKNOWN, "no active sessions");
		fail(m, &e);
		err_fini(&e);
		return;
	}
	m->waiting = sess_wait(m->req.env->sessions, m->sessions[m->session_at], SESS_WAIT_MS, got_session, m);
}

static bool needs_client(const Pb__Mount *pb) { return pb->mounttype == PB__MOUNT_TYPE__SECRET || pb->mounttype == PB__MOUNT_TYPE__SSH; }

/* ---- cache mounts ---- */

static char *cache_key(const struct mount *mt)
{
	const char *id = mt->pb->cacheopt ? mt->pb->cacheopt->id : mt->pb->dest;
	return mt->input ? xasprintf("cache:%s:%s", id, mt->input->uid) : xasprintf("cache:%s", id);
}

static void drop_cache(struct ops_mounts *m, const char *key)
{
	struct snap *s = snap_find_key(m->req.env->snaps, key);
	if (!s || snap_locked(s)) return;
	snap_set_key(s, NULL, NULL);
	if (snap_removable(s)) snap_remove(s, NULL);
}

static bool held_here(const struct ops_mounts *m, const struct snap *s)
{
	for (size_t i = 0; i < m->req.n; i++)
		if (m->mounts[i].is_cache && m->mounts[i].locked && m->mounts[i].active == s) return true;
	return false;
}

/* 1: have it; 0: somebody else does, ask again later. */
static int take_cache(struct ops_mounts *m, struct mount *mt, struct err *e)
{
	Pb__CacheSharingOpt sharing = mt->pb->cacheopt ? mt->pb->cacheopt->sharing : PB__CACHE_SHARING_OPT__SHARED;
	_cleanup_free_ char *base = cache_key(mt);
	for (int i = 0; i < 1000; i++) {
		_cleanup_free_ char *key = i ? xasprintf("%s#%d", base, i) : xstrdup(base);
		if (m->req.prune_caches) drop_cache(m, key);
		struct snap *s = snap_find_key(m->req.env->snaps, key);
		if (s && held_here(m, s)) { /* the same cache at two places of one container */
			mt->active = snap_ref(s);
			return 1;
		}
		if (s && snap_lock(s, sharing != PB__CACHE_SHARING_OPT__SHARED)) {
			mt->active = snap_ref(s);
			mt->locked = true;
			snap_used(s);
			return 1;
		}
		if (s && sharing != PB__CACHE_SHARING_OPT__PRIVATE) return 0;
		if (s) continue;
		_cleanup_free_ char *id = mt->pb->cacheopt && *mt->pb->cacheopt->id ? xasprintf(" with id \"%s\"", mt->pb->cacheopt->id) : xstrdup("");
		_cleanup_free_ char *text = xasprintf("cached mount %s from %s%s", mt->pb->dest, m->req.what, id);
		mt->active = snap_create(m->req.env->snaps, mt->input, text, SNAP_CACHEMOUNT);
		mt->locked = snap_lock(mt->active, sharing != PB__CACHE_SHARING_OPT__SHARED);
		return snap_set_key(mt->active, key, e) < 0 ? -1 : 1;
	}
	return err_set(e, CODE_RESOURCE_EXHAUSTED, "1000 steps use cache mount %s", mt->pb->dest);
}

static void poll_caches(void *arg) { next(arg); }

/* 1: all caches are there, 0: waiting, -1 failed. */
static int take_caches(struct ops_mounts *m)
{
	struct err e = ERR_INIT;
	for (size_t i = 0; i < m->req.n; i++) {
		struct mount *mt = &m->mounts[i];
		if (!mt->is_cache || mt->active) continue;
		int r = take_cache(m, mt, &e);
		if (r > 0) continue;
		if (r < 0) {
			fail(m, &e);
			err_fini(&e);
			return -1;
		}
		for (size_t k = 0; k < i; k++) { /* hold none while waiting for one: no two steps wait for each other */
			struct mount *held = &m->mounts[k];
			if (!held->is_cache || !held->active) continue;
			if (held->locked) snap_unlock(held->active);
			held->locked = false;
			snap_unref(held->active);
			held->active = NULL;
		}
		loop_timer_start(m->req.env->loop, &m->poll, CACHE_POLL_MS, 0, poll_caches, m);
		return 0;
	}
	return 1;
}

/* ---- mounting ---- */

static bool is_root(const Pb__Mount *pb) { return !strcmp(pb->dest, "/"); }

static void choose_bind(struct ops_mounts *m, struct mount *mt)
{
	Pb__Mount *pb = mt->pb;
	bool writes = !pb->readonly || !mt->input;
	mt->keep = pb->output != LLB_NONE && !pb->readonly;
	if (is_root(pb) && pb->readonly) writes = true; /* mount points have to be made in it */
	if (!writes) return;
	_cleanup_free_ char *text = xasprintf("mount %s from %s", pb->dest, m->req.what);
	mt->active = snap_create(m->req.env->snaps, mt->input, text, SNAP_REGULAR);
}

static void up_work(struct loop_job *j) { mount_job_up(&container_of(j, struct ops_mounts, job)->work); }

static void add_option(struct strvec *sv, const char *s) { strvec_add(sv, s); }

static void list_mount(struct ops_mounts *m, size_t i)
{
	struct mount *mt = &m->mounts[i];
	Pb__Mount *pb = mt->pb;
	struct run_mount *rm = &m->list[m->n_list];
	struct strvec *opt = &m->list_options[m->n_list++];
	rm->dest = pb->dest;
	rm->type = "bind";
	rm->source = mt->ssh_path ? mt->ssh_path : m->work.items[i].source;
	switch (pb->mounttype) {
	case PB__MOUNT_TYPE__TMPFS:
		rm->type = "tmpfs";
		rm->source = "tmpfs";
		add_option(opt, "nosuid");
		if (pb->readonly) add_option(opt, "ro");
		if (pb->tmpfsopt && pb->tmpfsopt->size > 0) strvec_addf(opt, "size=%lld", (long long)pb->tmpfsopt->size);
		break;
	case PB__MOUNT_TYPE__SECRET:
		for (size_t k = 0; k < 4; k++) add_option(opt, ((const char *[]){"ro", "rbind", "nodev", "nosuid"})[k]);
		if (!(pb->secretopt && pb->secretopt->mode & 0111)) add_option(opt, "noexec");
		break;
	default:
		add_option(opt, "rbind");
		if (pb->readonly) add_option(opt, "ro");
		break;
	}
	rm->options = opt->v;
	rm->n_options = opt->n;
}

static int by_dest(const void *a, const void *b)
{
	return strcmp(((const struct run_mount *)a)->dest, ((const struct run_mount *)b)->dest);
}

static void up_done(struct loop_job *j)
{
	struct ops_mounts *m = container_of(j, struct ops_mounts, job);
	if (m->cancelled && !err_is_set(&m->work.error)) err_set(&m->work.error, CODE_CANCELLED, "context canceled");
	if (err_is_set(&m->work.error)) {
		struct err e = m->work.error;
		m->work.error = ERR_INIT;
		fail(m, &e);
		err_fini(&e);
		return;
	}
	m->list = xcalloc(m->req.n, sizeof *m->list);
	m->list_options = xcalloc(m->req.n, sizeof *m->list_options);
	for (size_t i = 0; i < m->req.n; i++)
		if (!is_root(m->mounts[i].pb) && !m->mounts[i].skipped) list_mount(m, i);
	if (m->n_list > 1) qsort(m->list, m->n_list, sizeof *m->list, by_dest); /* options are reached by pointer: order is free */
	m->req.done(m->req.arg, NULL);
}

static void start_mounting(struct ops_mounts *m)
{
	char id[ID_STR];
	id_new(id);
	m->work.dir = xasprintf("%s/exec/%s", m->req.env->dir, id);
	m->work.n = m->req.n;
	m->work.items = xcalloc(m->req.n, sizeof *m->work.items);
	for (size_t i = 0; i < m->req.n; i++) {
		struct mount *mt = &m->mounts[i];
		struct mount_job_item *it = &m->work.items[i];
		Pb__Mount *pb = mt->pb;
		if (pb->mounttype == PB__MOUNT_TYPE__BIND) choose_bind(m, mt);
		if (mt->skipped) continue;
		if (pb->mounttype == PB__MOUNT_TYPE__SECRET) {
			const Pb__SecretOpt *o = pb->secretopt;
			*it = (struct mount_job_item){.is_secret = true, .secret = mt->secret, .secret_len = mt->secret_len,
						      .uid = o ? o->uid : 0, .gid = o ? o->gid : 0, .mode = o ? o->mode : 0400};
			continue;
		}
		if (pb->mounttype != PB__MOUNT_TYPE__BIND && pb->mounttype != PB__MOUNT_TYPE__CACHE) continue;
		it->view = snap_view_new(mt->active ? mt->active : mt->input);
		it->lower = mt->active && mt->input && !mt->is_cache ? snap_view_new(mt->input) : NULL;
		it->read_only = !mt->active || (pb->readonly && !is_root(pb));
		it->target = xasprintf("%s/m%zu", m->work.dir, i);
		it->selector = pb->selector;
	}
	m->job.work = up_work;
	m->job.done = up_done;
	loop_job_start(m->req.env->loop, &m->job, LOOP_DISK);
}

static void filled(void *arg, const struct err *e)
{
	struct ops_mounts *m = arg;
	m->fill = NULL;
	if (e)
		fail(m, e);
	else
		start_mounting(m);
}

static void fill_status(void *arg, const struct prog_status *s)
{
	struct ops_mounts *m = arg;
	m->req.status(m->req.arg, s);
}

static void start_filling(struct ops_mounts *m)
{
	struct snap **snaps = xcalloc(m->req.n, sizeof *snaps);
	for (size_t i = 0; i < m->req.n; i++) snaps[i] = m->mounts[i].input;
	struct ops_fill_req req = {.snaps = snaps, .n = m->req.n, .sessions = m->session_ids, .n_sessions = m->n_sessions,
				   .status = m->req.status ? fill_status : NULL, .done = filled, .arg = m, .span = m->req.span};
	m->fill = ops_fill(m->req.env, &req);
	free(snaps);
	if (!m->fill) start_mounting(m);
}

/* Goes on with whatever comes next. */
static void next(struct ops_mounts *m)
{
	if (m->cancelled) {
		struct err e = ERR_INIT;
		err_set(&e, CODE_CANCELLED, "context canceled");
		fail(m, &e);
		err_fini(&e);
		return;
	}
	while (m->at < m->req.n && !needs_client(m->mounts[m->at].pb)) m->at++;
	if (m->at < m->req.n || m->env_at < m->req.n_secret_env) {
		ask(m);
		return;
	}
	if (take_caches(m) > 0) start_filling(m);
}

static void begin(void *arg) { next(arg); }

struct ops_mounts *ops_mounts_start(const struct ops_mounts_req *req)
{
	struct ops_mounts *m = xnew(struct ops_mounts);
	m->req = *req;
	m->req.what = m->what = xstrdup(req->what);
	m->mounts = xcalloc(req->n, sizeof *m->mounts);
	for (size_t i = 0; i < req->n; i++) {
		m->mounts[i].pb = req->mounts[i];
		m->mounts[i].input = req->inputs[i] ? snap_ref(req->inputs[i]) : NULL;
		m->mounts[i].is_cache = req->mounts[i]->mounttype == PB__MOUNT_TYPE__CACHE;
	}
	for (size_t i = 0; i < req->n_sessions && i < OPS_SESSIONS_MAX; i++)
		m->session_ids[m->n_sessions++] = m->sessions[i] = xstrdup(req->sessions[i]);
	loop_post(req->env->loop, begin, m);
	return m;
}

void ops_mounts_cancel(struct ops_mounts *m)
{
	if (m->cancelled) return;
	m->cancelled = true;
	loop_job_cancel(&m->job);
	if (m->asking) sess_op_cancel(m->asking);
	if (m->waiting) sess_op_cancel(m->waiting);
	if (m->fill) ops_fill_cancel(m->fill);
}

const char *ops_mounts_rootfs(const struct ops_mounts *m)
{
	for (size_t i = 0; i < m->req.n; i++)
		if (is_root(m->mounts[i].pb)) return m->work.items[i].source;
	return NULL;
}

bool ops_mounts_root_readonly(const struct ops_mounts *m)
{
	for (size_t i = 0; i < m->req.n; i++)
		if (is_root(m->mounts[i].pb)) return m->mounts[i].pb->readonly;
	return false;
}

const struct run_mount *ops_mounts_list(const struct ops_mounts *m, size_t *ret_n)
{
	*ret_n = m->n_list;
	return m->list;
}

const struct strvec *ops_mounts_secret_env(const struct ops_mounts *m) { return &m->secret_env; }
const char *ops_mounts_path(const struct ops_mounts *m, size_t i)
{
	return m->mounts[i].ssh_path ? m->mounts[i].ssh_path : m->work.items[i].source;
}

const char *ops_mounts_host_path(const struct ops_mounts *m, size_t i) { return m->work.items[i].target; }

/* ---- the end ---- */

static int commit(struct ops_mounts *m, struct snap **outputs, size_t n, struct err *e)
{
	for (size_t i = 0; i < m->req.n; i++) {
		struct mount *mt = &m->mounts[i];
		int64_t o = mt->pb->output;
		if (mt->is_cache || mt->pb->mounttype != PB__MOUNT_TYPE__BIND || o < 0 || (size_t)o >= n) continue;
		if (mt->keep && mt->active) {
			if (snap_commit(mt->active, e) < 0) return -1;
			outputs[o] = take_ptr(mt->active);
		} else if (mt->input) {
			outputs[o] = snap_ref(mt->input);
		}
	}
	return 0;
}

/* Of a step that failed. */
static int commit_all(struct ops_mounts *m, struct snap **outputs, struct err *e)
{
	for (size_t i = 0; i < m->req.n; i++) {
		struct mount *mt = &m->mounts[i];
		if (mt->is_cache || !mt->active) continue;
		if (snap_commit(mt->active, e) < 0) return -1;
		outputs[i] = take_ptr(mt->active);
	}
	return 0;
}

void ops_mounts_drop(struct snap *s)
{
	if (!s) return;
	struct snap_store *store = s->store;
	int64_t id = s->id;
	snap_unref(s);
	s = snap_find(store, id);
	if (s && snap_removable(s)) snap_remove(s, NULL);
}

static size_t output_count(const struct ops_mounts *m)
{
	int64_t n = 0;
	for (size_t i = 0; i < m->req.n; i++) n = max_of(n, m->mounts[i].pb->output + 1);
	return (size_t)n;
}

static void down_done(struct loop_job *j)
{
	struct ops_mounts *m = container_of(j, struct ops_mounts, job);
	size_t n = m->keep == OPS_ALL ? m->req.n : m->keep ? output_count(m) : 0;
	struct snap **outputs = xcalloc(n, sizeof *outputs);
	struct err e = m->work.error;
	m->work.error = ERR_INIT;
	if (!err_is_set(&e) && m->keep == OPS_ALL)
		commit_all(m, outputs, &e);
	else if (!err_is_set(&e))
		commit(m, outputs, n, &e);
	if (err_is_set(&e)) {
		for (size_t i = 0; i < n; i++) snap_unref(outputs[i]);
		m->finished(m->finished_arg, NULL, 0, &e);
	} else {
		m->finished(m->finished_arg, outputs, n, NULL);
	}
	err_fini(&e);
	free(outputs);
}

void ops_mounts_finish(struct ops_mounts *m, enum ops_keep keep, void (*done)(void *arg, struct snap **outputs, size_t n, const struct err *e),
		       void *arg)
{
	m->finished = done;
	m->finished_arg = arg;
	m->keep = keep;
	for (size_t i = 0; i < m->req.n; i++) {
		struct mount *mt = &m->mounts[i];
		m->work.items[i].seal = (keep == OPS_ALL || (keep && mt->keep)) && mt->active && !mt->is_cache;
	}
	m->job.work = down_work;
	m->job.done = down_done;
	loop_job_start(m->req.env->loop, &m->job, LOOP_DISK);
}

void ops_mounts_free(struct ops_mounts *m)
{
	if (!m) return;
	loop_timer_stop(&m->poll);
	sess_unref(m->session);
	for (size_t i = 0; i < m->req.n; i++) {
		struct mount *mt = &m->mounts[i];
		if (m->work.items) {
			snap_view_free(m->work.items[i].view);
			snap_view_free(m->work.items[i].lower);
			free(m->work.items[i].target);
			free(m->work.items[i].source);
		}
		if (mt->locked) snap_unlock(mt->active);
		if (mt->active && !mt->is_cache)
			snap_discard(mt->active);
		else
			snap_unref(mt->active);
		snap_unref(mt->input);
		sess_ssh_stop(mt->ssh);
		free(mt->ssh_path);
		if (mt->secret) explicit_bzero(mt->secret, mt->secret_len);
		free(mt->secret);
	}
	for (size_t i = 0; i < m->n_sessions; i++) free(m->sessions[i]);
	for (size_t i = 0; i < m->n_list; i++) strvec_fini(&m->list_options[i]);
	free(m->list_options);
	free(m->list);
	free(m->work.items);
	free(m->work.dir);
	strvec_fini(&m->secret_env);
	err_fini(&m->work.error);
	err_fini(&m->error);
	free(m->mounts);
	free(m->what);
	free(m);
}
