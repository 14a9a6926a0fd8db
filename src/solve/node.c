/* Nodes and builds: interning by digest, membership, waiters. The policy is in step.c. */
#include "solve/internal.h"

#include <string.h>

void solve_root_key(const char *digest, int output, char out[static DIGEST_STR])
{
	_cleanup_free_ char *text = xasprintf("%s@%d", digest, output);
	digest_str_of(text, strlen(text), out);
}

int solver_new(const struct solver_conf *conf, struct solver **ret, struct err *e)
{
	struct solver *s = xnew(struct solver);
	s->loop = conf->loop;
	s->db = conf->db;
	s->snaps = conf->snaps;
	loop_pool_init(&s->execs, conf->max_parallelism);
	list_init(&s->all_nodes);
	list_init(&s->builds);
	list_init(&s->ready);
	*ret = s;
	return 0;
}

void solver_free(struct solver *s)
{
	ensure(list_empty(&s->builds));
	while (!list_empty(&s->all_nodes)) /* users come behind their inputs */
		solve_node_free(container_of(s->all_nodes.prev, struct solve_node, all));
	map_fini(&s->nodes);
	free(s);
}

void solver_set_parallelism(struct solver *s, size_t n) { loop_pool_set_limit(&s->execs, n); }

void solver_load(const struct solver *s, size_t *ret_running, size_t *ret_waiting)
{
	*ret_running = s->execs.used;
	*ret_waiting = loop_pool_waiting(&s->execs);
}

int solver_collect(struct solver *s, struct err *e)
{
	if (!list_empty(&s->builds)) return 0; /* a node may hold keys that have no result yet */
	return cache_collect(s->db, e);
}

struct loop *solver_loop(struct solver *s) { return s->loop; }
struct snap_store *solver_snaps(struct solver *s) { return s->snaps; }

/* ---- builds ---- */

struct solve_build *solve_build_new(struct solver *s, const struct solve_build_ops *ops, void *user)
{
	struct solve_build *b = xnew(struct solve_build);
	b->solver = s;
	b->ops = ops;
	b->user = user;
	list_init(&b->members);
	list_init(&b->waiters);
	list_add_tail(&s->builds, &b->all);
	return b;
}

static void member_free(struct solve_member *m)
{
	list_del(&m->in_build);
	list_del(&m->in_node);
	free(m);
}

void solve_build_free(struct solve_build *b)
{
	if (!b) return;
	struct solver *s = b->solver;
	LIST_EACH(&b->waiters, struct solve_waiter, w, in_build)
	{
		list_del(&w->in_build);
		list_del(&w->in_node);
		w->build = NULL; /* its owner frees it */
	}
	LIST_EACH(&b->members, struct solve_member, m, in_build) member_free(m);
	list_del(&b->all);
	map_fini(&b->by_digest);
	for (size_t i = 0; i < b->remotes.n; i++) solve_remote_unref(b->remotes.v[i]);
	vec_fini(&b->remotes);
	free(b);
	solve_rewant_soon(s);
}

void *solve_build_user(struct solve_build *b) { return b->user; }

static void join(struct solve_build *b, struct solve_node *n)
{
	struct solve_member *m = xnew(struct solve_member);
	m->build = b;
	m->node = n;
	list_add_tail(&b->members, &m->in_build);
	list_add_tail(&n->members, &m->in_node);
	map_put(&b->by_digest, n->key, n);
	solve_show_announce(n, b);
}

static bool is_member(const struct solve_build *b, const struct solve_node *n) { return map_get(&b->by_digest, n->key) == n; }

/* ---- nodes ---- */

static struct solve_node *node_new(struct solver *s, const struct solve_vertex *v, const char *key)
{
	struct solve_node *n = xnew(struct solve_node);
	n->solver = s;
	snprintf(n->digest, sizeof n->digest, "%s", v->digest);
	snprintf(n->key, sizeof n->key, "%s", key);
	n->name = xstrdup(v->name);
	n->group_id = xstrdup(v->group_id);
	n->group_name = xstrdup(v->group_name);
	n->group_weak = v->group_weak;
	n->ignore_cache = v->ignore_cache;
	n->internal = v->internal;
	n->no_export = v->no_export;
	n->vt = v->vt;
	n->op = v->op;
	n->n_in = v->n_inputs;
	n->in = xcalloc(v->n_inputs, sizeof *n->in);
	n->n_slot = v->n_outputs;
	n->slot = xcalloc(v->n_outputs, sizeof *n->slot);
	list_init(&n->members);
	list_init(&n->waiters);
	list_init(&n->ready);
	list_init(&n->pool_slot.link);
	for (size_t i = 0; i < v->n_inputs; i++) {
		struct solve_node *in = v->inputs[i].node;
		ensure(v->inputs[i].output < in->n_slot);
		n->in[i].node = in;
		n->in[i].output = v->inputs[i].output;
		vec_push(&in->users, n);
	}
	list_add_tail(&s->all_nodes, &n->all);
	map_put(&s->nodes, n->key, n);
	n->findable = true;
	return n;
}

static void users_drop(struct solve_node *n, const struct solve_node *user)
{
	for (size_t i = n->users.n; i-- > 0;)
		if (n->users.v[i] == user) vec_remove(&n->users, i);
}

void solve_node_free(struct solve_node *n)
{
	struct solver *s = n->solver;
	ensure(n->users.n == 0);
	for (size_t i = 0; i < n->n_in; i++) users_drop(n->in[i].node, n);
	if (n->watching) users_drop(n->watching, n);
	if (n->findable) map_del(&s->nodes, n->key);
	list_del(&n->all);
	list_del(&n->ready);
	loop_slot_release(&n->pool_slot);
	for (size_t o = 0; o < n->n_slot; o++) {
		snap_unref(n->slot[o].snap);
		for (size_t i = 0; i < n->slot[o].rkeys.n; i++) solve_remote_unref(n->slot[o].rkeys.v[i].remote);
		vec_fini(&n->slot[o].rkeys);
	}
	for (size_t i = 0; i < n->tried.n; i++) solve_remote_unref(n->tried.v[i].remote);
	vec_fini(&n->tried);
	for (size_t i = 0; i < n->events.n; i++) prog_unref(n->events.v[i]);
	vec_fini(&n->events);
	vec_fini(&n->users);
	for (size_t i = 0; i < n->map.n_digests; i++) free(n->map.digests[i]);
	for (size_t i = 0; i < n->map.n_deps; i++) free(n->map.deps[i].selector);
	free(n->map.deps);
	if (n->op) n->vt->free(n->op);
	err_fini(&n->error);
	free(n->name);
	free(n->group_id);
	free(n->group_name);
	free(n->in);
	free(n->slot);
	free(n);
}

/* The node that serves this vertex: one that never matches the cache also serves who would accept a match, not the reverse. */
static struct solve_node *find(struct solver *s, const struct solve_vertex *v, char key[static DIGEST_STR])
{
	char uncached[DIGEST_STR];
	_cleanup_free_ char *text = xasprintf("%s-ignorecache", v->digest);
	digest_str_of(text, strlen(text), uncached);
	struct solve_node *n = map_get(&s->nodes, uncached);
	snprintf(key, DIGEST_STR, "%s", v->digest);
	if (n) return n;
	n = map_get(&s->nodes, v->digest);
	if (n && !n->ignore_cache && v->ignore_cache) {
		memcpy(key, uncached, sizeof uncached);
		return NULL;
	}
	return n;
}

static bool same_inputs(const struct solve_node *n, const struct solve_vertex *v)
{
	if (n->n_in != v->n_inputs || n->n_slot < v->n_outputs) return false;
	for (size_t i = 0; i < n->n_in; i++)
		if (n->in[i].node != v->inputs[i].node || n->in[i].output != v->inputs[i].output) return false;
	return true;
}

struct solve_node *solve_add(struct solve_build *b, const struct solve_vertex *v)
{
	char key[DIGEST_STR];
	struct solver *s = b->solver;
	struct solve_node *n = find(s, v, key);
	if (n && !same_inputs(n, v)) { /* an input failed or is built without the cache by now: a node of its own */
		map_del(&s->nodes, n->key);
		n->findable = false;
		n = NULL;
	}
	if (n && n->vt != v->vt) n = NULL;
	if (n) {
		v->vt->free(v->op);
	} else {
		n = node_new(s, v, key);
	}
	if (!is_member(b, n)) join(b, n);
	return n;
}

/* ---- waiting ---- */

static void tell(void *arg)
{
	struct solver *s = arg;
	LIST_EACH(&s->builds, struct solve_build, b, all)
	{
		LIST_EACH(&b->waiters, struct solve_waiter, w, in_build)
		{
			struct solve_slot *slot = &w->node->slot[w->output];
			bool failed = w->node->exec == SOLVE_FAILED;
			if (w->told || (!slot->done && !failed)) continue;
			w->told = true;
			w->done(w->arg, slot->done ? slot->snap : NULL, slot->done ? NULL : &w->node->error);
			/* Anything may have been freed by it: this build too. Start over. */
			loop_post(s->loop, tell, s);
			return;
		}
	}
}

void solve_tell_waiters(struct solve_node *n) { loop_post(n->solver->loop, tell, n->solver); }

struct solve_waiter *solve_want(struct solve_build *b, struct solve_node *n, size_t output,
				void (*done)(void *arg, struct snap *result, const struct err *e), void *arg)
{
	ensure(output < n->n_slot);
	struct solve_waiter *w = xnew(struct solve_waiter);
	w->build = b;
	w->node = n;
	w->output = output;
	w->done = done;
	w->arg = arg;
	list_add_tail(&b->waiters, &w->in_build);
	list_add_tail(&n->waiters, &w->in_node);
	if (n->slot[output].done || n->exec == SOLVE_FAILED) solve_tell_waiters(n);
	solve_raise(n, output, SOLVE_RESULT);
	return w;
}

void solve_waiter_free(struct solve_waiter *w)
{
	if (!w) return;
	struct solver *s = w->build ? w->build->solver : NULL;
	bool pending = s && !w->told;
	list_del(&w->in_build);
	list_del(&w->in_node);
	free(w);
	if (pending) solve_rewant_soon(s);
}

/* ---- what failed ---- */

static bool has_input(const struct solve_node *n, size_t i) { return n->in[i].node->slot[n->in[i].output].done; }

static void fill_debris(struct solve_node *n, struct solve_debris *ret)
{
	bool has_all = true;
	for (size_t i = 0; i < n->n_in; i++) {
		has_all &= has_input(n, i);
		if (n->in[i].content != SOLVE_FAILED || !has_input(n, i)) continue;
		ret->content = (ptrdiff_t)i;
		ret->n_inputs = 1;
		ret->inputs = xnew(struct snap *);
		ret->inputs[0] = solve_input(n, i);
		return;
	}
	if (has_all && n->vt->debris) n->vt->debris(n->op, n, ret); /* else it failed before it ran */
}

bool solve_debris(struct solve_build *b, const char *digest, struct solve_debris *ret)
{
	LIST_EACH(&b->members, struct solve_member, m, in_build)
	{
		struct solve_node *n = m->node;
		if (n->exec != SOLVE_FAILED || strcmp(n->digest, digest)) continue;
		*ret = (struct solve_debris){.action = -1, .content = -1};
		fill_debris(n, ret);
		return true;
	}
	return false;
}

void solve_debris_fini(struct solve_debris *d)
{
	free(d->inputs);
	free(d->mounts);
	*d = (struct solve_debris){.action = -1, .content = -1};
}

/* ---- for operations ---- */

struct solve_node *solve_input_node(const struct solve_node *n, size_t i) { return n->in[i].node; }

struct snap *solve_input(const struct solve_node *n, size_t i)
{
	const struct solve_slot *slot = &n->in[i].node->slot[n->in[i].output];
	ensure(slot->done);
	return slot->snap;
}

size_t solve_input_count(const struct solve_node *n) { return n->n_in; }
const char *solve_node_digest(const struct solve_node *n) { return n->digest; }
const char *solve_node_name(const struct solve_node *n) { return n->name; }
struct solver *solve_node_solver(const struct solve_node *n) { return n->solver; }
void *solve_node_op(const struct solve_node *n) { return n->op; }
bool solve_node_was_cached(const struct solve_node *n) { return n->cached; }

bool solve_node_each_build(struct solve_node *n, bool (*f)(void *arg, struct solve_build *b), void *arg)
{
	LIST_EACH(&n->members, struct solve_member, m, in_node)
	{
		if (f(arg, m->build)) return true;
	}
	/* Wanted only by a node of another build that waits for this one's row. */
	for (size_t i = 0; i < n->users.n; i++)
		if (n->users.v[i] != n && list_empty(&n->members) && solve_node_each_build(n->users.v[i], f, arg)) return true;
	return false;
}

enum solve_phase solve_node_phase(const struct solve_node *n, size_t output)
{
	if (n->slot[output].done) return SOLVE_DONE;
	return n->exec;
}

size_t solve_node_keys(const struct solve_node *n, size_t output, int64_t *ret, size_t max)
{
	size_t c = min_of(n->slot[output].n_keys, max);
	memcpy(ret, n->slot[output].keys, c * sizeof *ret);
	return c;
}
