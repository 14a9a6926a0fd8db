/* Content keys: the digest of the bytes that a step takes from an input, in BuildKit's terms (tree room). The index of a
 * snapshot is kept in a sidecar file, so that its files are hashed once. Also the cache map that such operations share. */
#include "ops/content_job.h"
#include "ops/internal.h"

struct content {
	struct loop_job job;
	struct ops_env *env;
	struct solve_node *node;
	size_t input;
	struct snap *snap;
	struct ops_fill *fill;
	struct content_job work;
	struct list link;
};

static struct list running = {&running, &running}; /* for cancelling by node */

static void content_free(struct content *c)
{
	list_del(&c->link);
	snap_view_free(c->work.view);
	snap_unref(c->snap);
	free(c->work.index_path);
	free(c->work.selectors);
	err_fini(&c->work.error);
	free(c);
}

static void answer(struct content *c)
{
	struct solve_node *n = c->node;
	size_t input = c->input;
	struct err e = c->work.error;
	c->work.error = ERR_INIT;
	char digest[DIGEST_STR];
	memcpy(digest, c->work.digest, sizeof digest);
	if (err_is_set(&e)) err_wrap(&e, "failed to calculate checksum of ref %s", c->snap ? c->snap->uid : "");
	content_free(c);
	solve_content_done(n, input, digest, &e);
}

static void work(struct loop_job *j)
{
	struct content *c = container_of(j, struct content, job);
	content_job_run(&c->work);
}

static void job_done(struct loop_job *j) { answer(container_of(j, struct content, job)); }

static void start_job(struct content *c)
{
	c->work.view = c->snap ? snap_view_new(c->snap) : NULL;
	c->work.cancelled = &c->job.cancelled;
	c->job.work = work;
	c->job.done = job_done;
	loop_job_start(c->env->loop, &c->job, LOOP_CPU);
}

static void filled(void *arg, const struct err *e)
{
	struct content *c = arg;
	c->fill = NULL;
	if (e) {
		err_copy(&c->work.error, e);
		answer(c);
		return;
	}
	start_job(c);
}

static void show_fill(void *arg, const struct prog_status *s)
{
	struct content *c = arg;
	ops_pull_status(c->node, s);
}

void ops_content(void *op, struct solve_node *n, size_t input)
{
	struct ops_node *o = op;
	struct content *c = xnew(struct content);
	struct snap *snap = solve_input(n, input);
	const struct llb_dep *dep = &o->keys.deps[input];
	c->env = o->env;
	c->node = n;
	c->input = input;
	c->snap = snap ? snap_ref(snap) : NULL;
	c->work.index_path = snap ? ops_index_path(o->env, snap->id) : NULL;
	c->work.selectors = xcalloc(dep->n_selectors, sizeof *c->work.selectors);
	c->work.n_selectors = dep->n_selectors;
	for (size_t i = 0; i < dep->n_selectors; i++) {
		const struct llb_selector *s = &dep->selectors[i];
		c->work.selectors[i] = (struct tree_selector){s->path, s->wildcard, s->follow_links, (char *const *)s->include_patterns,
							      (char *const *)s->exclude_patterns, (char *const *)s->required_paths,
							      s->n_include_patterns, s->n_exclude_patterns, s->n_required_paths};
	}
	list_add_tail(&running, &c->link);
	const char *sessions[OPS_SESSIONS_MAX];
	struct ops_fill_req req = {.snaps = &c->snap, .n = 1, .sessions = sessions, .status = show_fill, .done = filled, .arg = c};
	req.n_sessions = ops_sessions(n, o->env, sessions, OPS_SESSIONS_MAX);
	ops_span_node(&req.span, o->env, n);
	c->fill = ops_fill(o->env, &req);
	if (!c->fill) start_job(c);
}

void ops_content_cancel(struct solve_node *n)
{
	LIST_EACH(&running, struct content, c, link)
	{
		if (c->node != n) continue;
		loop_job_cancel(&c->job);
		if (c->fill) ops_fill_cancel(c->fill);
	}
}

char *ops_index_path(const struct ops_env *env, int64_t snap_id) { return xasprintf("%s/index/%lld", env->dir, (long long)snap_id); }
