/* git:// sources. A ref is resolved to a commit for the cache key (ls-remote); the checkout is made when its result is wanted.
 *
 * A get (struct ops_git_get) does either, also for frontends that ask for metadata:
 *	WAIT for the remote's turn -> known already? -> AUTH (secrets) -> SSH (agent) -> BUNDLE (blob) -> job(s) -> done
 * The turn is held to the end: one job at a time works on the shared repository of a remote, a long-lived snapshot with the
 * key "git:<remote>". Checkouts are found again by a record "git-checkout:<key>". */
#include "ops/git_job.h"
#include "ops/image_blob.h"
#include "ops/internal.h"
#include "ops/remote.h"
#include "spec/url.h"

#include <stdio.h>
#include <string.h>

struct ops_git_get {
	struct ops_env *env;
	const struct llb_source *src;
	struct ops_asker asker;
	struct ops_ids ids;
	bool objects, cancelled, running, locked, again;
	char *memo_key, *record_key;
	struct ops_turn turn;
	struct ops_secret *secret;
	struct strvec secret_names;
	bool secret_is_token[4];
	struct ops_pick *pick;
	size_t at_session;
	struct sess *session;
	struct sess_op *ssh_check;
	struct sess_ssh *ssh;
	struct ops_blob_get *bundle;
	int bundle_fd;
	struct loop_job job;
	struct git_job git;
	char *tmp;
	struct snap *repo, *checkout; /* being written, or found */
	struct snap_view *repo_view, *checkout_view;
	struct ops_known *known, *asked;
	struct err error;
	void (*done)(void *arg, struct ops_known *known, struct snap *checkout, const struct err *e);
	void *arg;
};

static void next(struct ops_git_get *g);

/* ---- the end ---- */

static void drop_repo(struct ops_git_get *g)
{
	snap_view_free(g->repo_view);
	g->repo_view = NULL;
	if (g->locked) snap_unlock(g->repo);
	g->locked = false;
	snap_unref(g->repo);
	g->repo = NULL;
}

static void drop_job(struct git_job *j)
{
	free(j->ref);
	free(j->auth);
	free(j->digest);
	free(j->name);
	free(j->commit);
	free(j->commit_object);
	free(j->tag_object);
	err_fini(&j->error);
}

static void end(void *arg)
{
	struct ops_git_get *g = arg;
	if (g->cancelled && !err_is_set(&g->error)) err_set(&g->error, CODE_CANCELLED, "context canceled");
	bool failed = err_is_set(&g->error);
	drop_repo(g);
	ops_joblog_end(g->git.log, failed);
	sess_ssh_stop(g->ssh);
	sess_unref(g->session);
	close_fd(&g->bundle_fd);
	ops_turn_end(&g->turn);
	g->done(g->arg, failed ? NULL : g->known, failed ? NULL : g->checkout, failed ? &g->error : NULL);
	snap_view_free(g->checkout_view);
	snap_unref(g->checkout);
	ops_known_unref(g->known);
	ops_known_unref(g->asked);
	drop_job(&g->git);
	ops_ids_fini(&g->ids);
	strvec_fini(&g->secret_names);
	err_fini(&g->error);
	free(g->memo_key);
	free(g->record_key);
	free(g->tmp);
	free(g);
}

/* ---- jobs ---- */

static bool wants_objects(const struct ops_git_get *g) { return g->objects || (g->src->git.verify && !g->asked); }

static void resolve_work(struct loop_job *j)
{
	struct ops_git_get *g = container_of(j, struct ops_git_get, job);
	git_job_resolve(&g->git);
	git_job_fini(&g->git);
}

static void resolve_done(struct loop_job *j)
{
	struct ops_git_get *g = container_of(j, struct ops_git_get, job);
	g->running = false;
	if (err_is_set(&g->git.error)) {
		err_move(&g->error, &g->git.error);
		end(g);
		return;
	}
	g->known = ops_known_new(g->git.digest, g->git.name, g->git.commit, NULL);
	if (!ops_asker_known(&g->asker, g->memo_key)) ops_asker_learn(&g->asker, g->memo_key, g->known);
	next(g);
}

static void fetch_work(struct loop_job *j)
{
	struct ops_git_get *g = container_of(j, struct ops_git_get, job);
	git_job_fetch(&g->git, wants_objects(g));
	git_job_fini(&g->git);
}

static int keep_repo(struct ops_git_get *g, struct err *e)
{
	_cleanup_free_ char *key = xasprintf("git:%s", g->src->git.remote);
	if (!g->git.repo_ok) return 0;
	snap_used(g->repo);
	snap_set_size(g->repo, g->git.repo_bytes);
	return g->repo->key ? 0 : snap_set_key(g->repo, key, e);
}

/* A fresh repository instead of the one that cannot take the new refs. */
static void reset_repo(struct ops_git_get *g)
{
	err_fini(&g->git.error);
	if (snap_set_key(g->repo, NULL, &g->error) < 0) {
		end(g);
		return;
	}
	drop_repo(g);
	g->again = true;
	g->git.reset = false;
	next(g);
}

static int keep_checkout(struct ops_git_get *g, struct err *e)
{
	if (!g->checkout_view) return 0;
	if (snap_commit(g->checkout, e) < 0) return -1;
	ops_record_put(g->env, g->record_key, g->checkout, "");
	return 0;
}

/* What the objects say is known from here on, for this asker; the memo keeps what the remote said. */
static void take_objects(struct ops_git_get *g)
{
	struct git_job *j = &g->git;
	struct ops_known *k = ops_known_new(j->digest, j->name, j->commit, NULL);
	k->commit_object = take_ptr(j->commit_object);
	k->tag_object = take_ptr(j->tag_object);
	k->commit_len = j->commit_len;
	k->tag_len = j->tag_len;
	ops_known_unref(g->known);
	g->known = k;
}

static void fetch_done(struct loop_job *j)
{
	struct ops_git_get *g = container_of(j, struct ops_git_get, job);
	g->running = false;
	if (err_is_set(&g->git.error) && g->git.reset && !g->again) {
		reset_repo(g);
		return;
	}
	keep_repo(g, &g->error);
	if (err_is_set(&g->git.error))
		err_move(&g->error, &g->git.error);
	else if (!err_is_set(&g->error) && keep_checkout(g, &g->error) >= 0 && wants_objects(g))
		take_objects(g);
	end(g);
}

/* ---- the shared repository ---- */

static int take_repo(struct ops_git_get *g, struct err *e)
{
	_cleanup_free_ char *key = xasprintf("git:%s", g->src->git.remote), *shown = git_redact(g->src->git.remote);
	_cleanup_free_ char *description = xasprintf("shared git repo for %s", shown);
	struct snap *s = snap_find_key(g->env->snaps, key);
	g->git.repo_new = !s;
	g->repo = s ? snap_ref(s) : snap_create(g->env->snaps, NULL, description, SNAP_REGULAR);
	g->locked = snap_lock(g->repo, true);
	if (!g->locked) return err_set(e, CODE_ABORTED, "the git repository of %s is in use", shown);
	g->repo_view = snap_view_new(g->repo);
	return 0;
}

static void make_checkout(struct ops_git_get *g)
{
	if (!g->asked || g->checkout) return;
	_cleanup_free_ char *shown = git_redact(g->src->git.remote);
	bool bundle = g->src->git.checkout_bundle;
	const char *what = bundle ? "bundle checkout" : "snapshot", *ref = *g->src->git.ref ? g->src->git.ref : g->known->name;
	_cleanup_free_ char *description = xasprintf("git %s for %s#%s", what, shown, ref);
	g->checkout = snap_create(g->env->snaps, NULL, description, bundle ? SNAP_REGULAR : SNAP_SOURCE_GIT);
	g->checkout_view = snap_view_new(g->checkout);
}

static void start_job(struct ops_git_get *g, void (*work)(struct loop_job *j), void (*done)(struct loop_job *j))
{
	g->job.work = work;
	g->job.done = done;
	g->running = true;
	loop_job_start(g->env->loop, &g->job, LOOP_NET);
}

static void start_fetch(struct ops_git_get *g)
{
	struct git_job *j = &g->git;
	if (take_repo(g, &g->error) < 0) {
		end(g);
		return;
	}
	make_checkout(g);
	j->repo = g->repo_view;
	j->checkout = g->checkout_view;
	if (!j->digest) {
		j->digest = xstrdup(g->known->digest);
		j->name = xstrdup(g->known->name);
		j->commit = xstrdup(g->known->extra);
	}
	if (!*j->ref && !*g->src->git.bundle && str_starts(j->name, "refs/heads/")) { /* the default branch */
		free(j->ref);
		j->ref = xstrdup(j->name + strlen("refs/heads/"));
	}
	start_job(g, fetch_work, fetch_done);
}

/* All that is needed has been asked for. */
static void next(struct ops_git_get *g)
{
	if (g->cancelled)
		end(g);
	else if (!g->known)
		start_job(g, resolve_work, resolve_done);
	else if (g->asked || wants_objects(g))
		start_fetch(g);
	else
		end(g);
}

/* ---- BUNDLE ---- */

static void got_bundle(void *arg, int fd, const struct err *e)
{
	struct ops_git_get *g = arg;
	g->bundle = NULL;
	if (e) {
		err_copy(&g->error, e);
		err_wrap(&g->error, "failed to fetch git bundle %s", strstr(g->src->git.bundle, "://") + 3);
		end(g);
		return;
	}
	g->bundle_fd = g->git.bundle_fd = fd;
	next(g);
}

static void want_bundle(struct ops_git_get *g)
{
	if (g->cancelled || !*g->src->git.bundle) {
		next(g);
		return;
	}
	const char *raw = g->src->git.bundle, *ref = strstr(raw, "://") + 3, *at = strrchr(ref, '@');
	_cleanup_free_ char *name = xstrndup(ref, (size_t)(at - ref));
	bool oci = str_starts(raw, "oci-layout+blob://");
	struct ops_blob_req req = {.ref = ref, .digest = at + 1, .ids = &g->ids};
	if (oci) req.store = *g->src->git.bundle_store ? g->src->git.bundle_store : name;
	if (oci) req.session = g->src->git.bundle_session;
	g->bundle = ops_blob_get(g->env, &req, got_bundle, g);
}

/* ---- SSH ---- */

static void pick_agent(struct ops_git_get *g);

static void agent_checked(void *arg, const struct err *e)
{
	struct ops_git_get *g = arg;
	g->ssh_check = NULL;
	if (e && !g->cancelled) {
		err_copy(&g->error, e); /* of the last session, when no other one will do */
		g->at_session++;
		pick_agent(g);
		return;
	}
	if (!g->cancelled &&
	    sess_ssh_listen(g->session, g->src->git.mount_ssh_sock, getuid(), getgid(), 0700, &g->ssh, &g->error) < 0) {
		end(g);
		return;
	}
	g->git.ssh_sock = g->ssh ? sess_ssh_path(g->ssh) : NULL;
	want_bundle(g);
}

static void agent_session(void *arg, struct sess *s, size_t index, const struct err *e)
{
	struct ops_git_get *g = arg;
	g->pick = NULL;
	if (e) {
		if (!err_is_set(&g->error)) err_copy(&g->error, e);
		end(g);
		return;
	}
	err_fini(&g->error);
	g->at_session = index;
	sess_unref(g->session);
	g->session = sess_ref(s);
	g->ssh_check = sess_ssh_check(s, g->src->git.mount_ssh_sock, agent_checked, g);
}

static void pick_agent(struct ops_git_get *g)
{
	if (g->cancelled || !*g->src->git.mount_ssh_sock || *g->src->git.bundle)
		want_bundle(g);
	else
		g->pick = ops_pick(g->env, &g->ids, g->at_session, NULL, agent_session, g);
}

/* ---- AUTH ---- */

static void got_secret(void *arg, ssize_t which, const uint8_t *p, size_t n, const struct err *e)
{
	struct ops_git_get *g = arg;
	g->secret = NULL;
	if (which >= 0 && !memchr(p, 0, n)) {
		_cleanup_buf_ struct buf b = BUF_INIT, text = BUF_INIT;
		if (g->secret_is_token[which]) {
			buf_adds(&text, "x-access-token:");
			buf_add(&text, p, n);
			buf_adds(&b, "basic ");
			base64_encode(&b, text.p, text.n);
		} else {
			buf_add(&b, p, n);
		}
		g->git.auth = buf_take_str(&b);
	}
	pick_agent(g);
}

static void add_names(struct ops_git_get *g, const char *suffix)
{
	const char *names[] = {g->src->git.auth_header_secret, g->src->git.auth_token_secret};
	for (size_t i = 0; i < array_len(names); i++) {
		if (!*names[i]) continue;
		g->secret_is_token[g->secret_names.n] = i == 1;
		strvec_addf(&g->secret_names, "%s%s", names[i], suffix);
	}
}

static void ask(struct ops_git_get *g)
{
	_cleanup_spec_url_ struct spec_url u = {0};
	if (*g->src->git.bundle || spec_url_parse(g->src->git.remote, &u, NULL) < 0) {
		pick_agent(g);
		return;
	}
	_cleanup_free_ char *host = xasprintf(".%s", u.host);
	add_names(g, host);
	add_names(g, "");
	if (!g->secret_names.n)
		pick_agent(g);
	else
		g->secret = ops_secret(g->env, &g->ids, g->secret_names.v, g->secret_names.n, got_secret, g);
}

/* ---- WAIT ---- */

static struct ops_known *commit_known(const char *ref, const char *sha) { return ops_known_new(sha, ref, "", NULL); }

/* What the source says by itself: *ret NULL when the remote has to be asked. */
static int known_by_itself(const struct llb_source *s, struct ops_known **ret, struct err *e)
{
	const char *ref = s->git.ref, *sum = s->git.checksum;
	if (*sum && strspn(sum, "0123456789abcdefABCDEF") != strlen(sum))
		return err_set(e, CODE_UNKNOWN, "invalid checksum %s for Git URL, expected hex commit hash", sum);
	if (*s->git.bundle && !*ref) ref = sum;
	if (git_is_commit(ref) || (*s->git.bundle && !*s->git.ref)) {
		if (*sum && !str_starts(ref, sum))
			return err_set(e, CODE_UNKNOWN, "expected checksum to match %s, got %s", sum, ref);
		*ret = commit_known(ref, ref);
		return 0;
	}
	if (!s->git.fetch_by_commit || *s->git.bundle) return 0;
	if (!*sum) return err_set(e, CODE_UNKNOWN, "fetch-by-commit requires a checksum or a commit SHA ref");
	if (!git_is_commit(sum))
		return err_set(e, CODE_UNKNOWN, "fetch-by-commit requires a full commit SHA checksum, got \"%s\"", sum);
	_cleanup_free_ char *full =
		*ref && !str_starts(ref, "refs/") ? xasprintf("refs/heads/%s", ref) : xstrdup(*ref ? ref : sum);
	*ret = commit_known(full, sum);
	return 0;
}

static bool matches(const struct ops_git_get *g, const struct ops_known *k)
{
	const char *want = g->src->git.checksum;
	return !*want || str_starts(k->digest, want) || str_starts(k->extra, want);
}

static void begin(void *arg)
{
	struct ops_git_get *g = arg;
	if (g->cancelled) {
		end(g);
		return;
	}
	struct ops_known *k = g->known ? NULL : ops_asker_known(&g->asker, g->memo_key);
	if (k && matches(g, k)) g->known = ops_known_ref(k);
	struct snap *old = g->asked ? ops_record_find(g->env, g->record_key, NULL) : NULL;
	if (old) g->checkout = snap_ref(old);
	if (old || (g->known && !g->asked && !wants_objects(g)))
		end(g);
	else
		ask(g);
}

static void granted(struct ops_turn *t) { loop_post(t->env->loop, begin, container_of(t, struct ops_git_get, turn)); }

/* ---- making one ---- */

static int64_t compat_of(const struct ops_git_get *g)
{
	struct ops_memo *m = ops_asker_memo(&g->asker);
	return m ? m->compat : 0;
}

static const char *key_commit(const struct llb_source *s, const struct ops_known *k)
{
	if (git_is_commit(k->name)) return k->name;
	return *k->extra && !s->git.keep_git_dir ? k->extra : k->digest;
}

static void make_keys(struct ops_git_get *g)
{
	g->memo_key = xasprintf("git:%s#%s", g->src->git.remote, g->src->git.ref);
	if (!g->asked) return;
	_cleanup_buf_ struct buf b = BUF_INIT;
	llb_source_git_key(g->src, key_commit(g->src, g->asked), g->asked->name, &b);
	g->record_key = xasprintf("git-checkout:%s:%s:%lld", g->src->git.remote, buf_str(&b), (long long)g->git.compat);
}

struct ops_git_get *ops_git_get(struct ops_env *env, const struct ops_git_req *req,
				void (*done)(void *arg, struct ops_known *known, struct snap *checkout, const struct err *e),
				void *arg)
{
	struct ops_git_get *g = xnew(struct ops_git_get);
	char id[ID_STR];
	id_new(id);
	g->env = env;
	g->src = req->src;
	g->asker = (struct ops_asker){env, req->node, req->build};
	for (size_t i = 0; i < req->n_sessions; i++) ops_ids_add(&g->ids, req->sessions[i]);
	g->objects = req->objects;
	g->asked = req->known ? ops_known_ref(req->known) : NULL;
	g->known = req->known ? ops_known_ref(req->known) : NULL;
	g->done = done;
	g->arg = arg;
	g->tmp = xasprintf("%s/exec/git-%s", env->dir, id);
	g->git = (struct git_job){.src = req->src, .tmp = g->tmp, .bundle_fd = -1, .cancelled = &g->job.cancelled};
	g->bundle_fd = -1;
	g->git.log = req->node ? ops_joblog_new(env->loop, req->node) : NULL;
	g->git.compat = compat_of(g);
	make_keys(g);
	if (!g->known && known_by_itself(req->src, &g->known, &g->error) < 0) {
		loop_post(env->loop, end, g);
		return g;
	}
	/* The full name where one follows from the source alone: it is what the checkout's own repository shows. */
	bool by_commit =
		req->src->git.fetch_by_commit && g->known && !*req->src->git.bundle && !git_is_commit(req->src->git.ref);
	g->git.ref = xstrdup(by_commit ? g->known->name : req->src->git.ref);
	_cleanup_free_ char *turn = xasprintf("git:%s", req->src->git.remote);
	ops_turn_want(env, turn, &g->turn, granted);
	return g;
}

void ops_git_get_cancel(struct ops_git_get *g)
{
	if (g->cancelled) return;
	g->cancelled = true;
	g->asker.build = NULL;
	loop_job_cancel(&g->job);
	if (g->secret) ops_secret_cancel(g->secret);
	if (g->pick) ops_pick_cancel(g->pick);
	if (g->ssh_check) sess_op_cancel(g->ssh_check);
	if (g->bundle) ops_blob_get_cancel(g->bundle);
	if (g->turn.key && !g->turn.slot.held) {
		ops_turn_end(&g->turn);
		loop_post(g->env->loop, end, g);
	}
}

/* ---- the vertex ---- */

struct git_op {
	struct ops_node o;
	struct llb_source src;
	struct solve_node *node;
	struct ops_git_get *get;
	struct ops_known *known;
};

const char *ops_git_pin(const void *op)
{
	const struct git_op *o = op;
	return o->known ? o->known->digest : NULL;
}

static void op_free(void *op)
{
	struct git_op *o = op;
	ops_known_unref(o->known);
	ops_node_fini(&o->o);
	free(o);
}

static void start(struct git_op *o, struct solve_node *n, struct ops_known *known,
		  void (*done)(void *arg, struct ops_known *known, struct snap *checkout, const struct err *e))
{
	const char *sessions[OPS_SESSIONS_MAX];
	struct ops_git_req req = {.src = &o->src, .sessions = sessions, .node = n, .known = known};
	o->node = n;
	req.n_sessions = ops_sessions(n, o->o.env, sessions, OPS_SESSIONS_MAX);
	o->get = ops_git_get(o->o.env, &req, done, o);
}

static void mapped(void *arg, struct ops_known *known, struct snap *checkout, const struct err *e)
{
	struct git_op *o = arg;
	_cleanup_buf_ struct buf key = BUF_INIT;
	char digest[DIGEST_STR + 8];
	o->get = NULL;
	if (e) {
		ops_map_failed(o->node, e);
		return;
	}
	ops_known_unref(o->known);
	o->known = ops_known_ref(known);
	llb_source_git_key(&o->src, key_commit(&o->src, known), known->name, &key);
	llb_source_digest(buf_str(&key), digest);
	ops_map_one(o->node, digest);
}

static void map(void *op, struct solve_node *n) { start(op, n, NULL, mapped); }

static void checked_out(void *arg, struct ops_known *known, struct snap *checkout, const struct err *e)
{
	struct git_op *o = arg;
	struct err copy = ERR_INIT;
	o->get = NULL;
	if (e) {
		err_copy(&copy, e);
		solve_exec_done(o->node, NULL, &copy);
		return;
	}
	struct snap *out = snap_ref(checkout);
	solve_exec_done(o->node, &out, NULL);
}

static void exec(void *op, struct solve_node *n)
{
	struct git_op *o = op;
	start(o, n, o->known, checked_out);
}

static void cancel(void *op, struct solve_node *n)
{
	struct git_op *o = op;
	if (o->get) ops_git_get_cancel(o->get);
}

static const struct solve_op_vt git_vt = {
	.kind = "git", .map = map, .exec = exec, .cancel = cancel, .free = op_free, .source = true};

void ops_git_source(struct ops_env *env, struct ops_graph *g, const struct llb_node *llb, const struct llb_source *src,
		    struct solve_vertex *ret)
{
	struct git_op *o = xnew(struct git_op);
	ops_node_init(&o->o, env, g, llb);
	o->src = *src;
	ret->vt = &git_vt;
	ret->op = o;
}
