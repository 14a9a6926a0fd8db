/* Caches from elsewhere. A slot's keys are rows of the database and records of these; each kind is followed in its own store,
 * content keys begin in both. A result that was loaded from here is written to the database, with what led to it. */
#include "solve/internal.h"

#include <string.h>

struct solve_remote *solve_remote_new(struct solver *s, const struct solve_remote_ops *ops, void *arg)
{
	struct solve_remote *r = xnew(struct solve_remote);
	*r = (struct solve_remote){.solver = s, .refs = 1, .busy = true, .ops = ops, .arg = arg};
	return r;
}

static struct solve_remote *remote_ref(struct solve_remote *r)
{
	r->refs++;
	return r;
}

void solve_remote_unref(struct solve_remote *r)
{
	if (!r || --r->refs) return;
	cache_graph_free(r->graph);
	free(r);
}

struct cache_graph *solve_remote_graph(struct solve_remote *r) { return r->graph; }
void *solve_remote_arg(struct solve_remote *r) { return r->arg; }

static bool uses(const struct solve_build *b, const struct solve_remote *r)
{
	for (size_t i = 0; i < b->remotes.n; i++)
		if (b->remotes.v[i] == r) return true;
	return false;
}

static void wake_build(struct solve_build *b) { LIST_EACH(&b->members, struct solve_member, m, in_build) solve_wake(m->node); }

void solve_remote_ready(struct solve_remote *r, struct cache_graph *g)
{
	r->busy = false;
	r->graph = g;
	LIST_EACH(&r->solver->builds, struct solve_build, b, all)
	{
		if (uses(b, r)) wake_build(b);
	}
}

void solve_remote_drop(struct solve_remote *r)
{
	if (!r) return;
	if (r->busy) solve_remote_ready(r, NULL);
	r->ops = NULL;
	r->arg = NULL;
	solve_remote_unref(r);
}

void solve_build_use(struct solve_build *b, struct solve_remote *r)
{
	if (uses(b, r)) return;
	vec_push(&b->remotes, remote_ref(r));
	if (!r->busy) wake_build(b);
}

/* ---- a node's caches: those of all its builds ---- */

#define REMOTES_EACH(n, r)                                         \
	LIST_EACH(&(n)->members, struct solve_member, m_, in_node) \
	for (size_t i_ = 0; i_ < m_->build->remotes.n; i_++)       \
		for (struct solve_remote *r = m_->build->remotes.v[i_]; r; r = NULL)

bool solve_remotes_busy(const struct solve_node *n)
{
	REMOTES_EACH(n, r)
	{
		if (r->busy) return true;
	}
	return false;
}

static bool add_rkey(struct solve_slot *slot, struct solve_remote *r, size_t item)
{
	for (size_t i = 0; i < slot->rkeys.n; i++)
		if (slot->rkeys.v[i].remote == r && slot->rkeys.v[i].item == item) return false;
	if (slot->rkeys.n >= SOLVE_KEYS_MAX) return false;
	vec_push(&slot->rkeys, ((struct solve_rkey){remote_ref(r), item}));
	return true;
}

/* Records that input i leads to. */
static size_t input_hits(const struct solve_node *n, struct solve_remote *r, size_t i, const char *digest, size_t *out,
			 size_t max)
{
	const struct solve_in *in = &n->in[i];
	const struct solve_slot *slot = &in->node->slot[in->output];
	size_t c = 0;
	for (size_t k = 0; k < slot->rkeys.n; k++)
		if (slot->rkeys.v[k].remote == r)
			c += cache_graph_children(r->graph, slot->rkeys.v[k].item, i, digest, n->map.deps[i].selector, out + c,
						  max - c);
	ptrdiff_t content = *in->content_root ? cache_graph_root(r->graph, in->content_root) : -1;
	if (content >= 0) c += cache_graph_children(r->graph, (size_t)content, i, digest, NULL, out + c, max - c);
	return c;
}

static bool probe_links(struct solve_node *n, struct solve_remote *r, size_t o)
{
	enum { HITS = SOLVE_KEYS_MAX * 4 };
	char digest[DIGEST_STR];
	size_t all[HITS], c = 0;
	bool grew = false;
	solve_root_key(n->map.digests[0], (int)o, digest);
	for (size_t i = 0; i < n->n_in; i++) {
		size_t hit[HITS], n_hit = input_hits(n, r, i, digest, hit, HITS), w = 0;
		if (i == 0) {
			memcpy(all, hit, n_hit * sizeof *hit);
			c = n_hit;
			continue;
		}
		for (size_t a = 0; a < c; a++)
			for (size_t b = 0; b < n_hit; b++)
				if (all[a] == hit[b]) {
					all[w++] = all[a];
					break;
				}
		c = w;
	}
	for (size_t i = 0; i < c; i++) grew |= add_rkey(&n->slot[o], r, all[i]);
	return grew;
}

static bool probe_roots(struct solve_node *n, struct solve_remote *r, size_t o)
{
	bool grew = false;
	for (size_t i = 0; i < n->map.n_digests; i++) {
		if (solve_is_random(n->map.digests[i])) continue;
		char root[DIGEST_STR];
		solve_root_key(n->map.digests[i], (int)o, root);
		ptrdiff_t item = cache_graph_root(r->graph, root);
		if (item >= 0) grew |= add_rkey(&n->slot[o], r, (size_t)item);
	}
	return grew;
}

bool solve_remotes_probe(struct solve_node *n)
{
	bool grew = false;
	size_t seen = 0;
	REMOTES_EACH(n, r)
	{
		seen++;
		for (size_t o = 0; o < n->n_slot && r->graph; o++)
			grew |= n->n_in ? probe_links(n, r, o) : probe_roots(n, r, o);
	}
	n->remotes_seen = seen;
	return grew;
}

bool solve_remotes_probe_new(struct solve_node *n)
{
	size_t c = 0;
	REMOTES_EACH(n, r) c++;
	return c != n->remotes_seen && !solve_remotes_busy(n) && solve_remotes_probe(n);
}

/* ---- results ---- */

static bool was_tried(const struct solve_node *n, const struct solve_load *l)
{
	for (size_t i = 0; i < n->tried.n; i++)
		if (n->tried.v[i].remote == l->remote && n->tried.v[i].item == l->item && n->tried.v[i].result == l->result)
			return true;
	return false;
}

static bool newer(struct timespec a, struct timespec b)
{
	return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

/* The newest one that has not failed yet. */
static bool choose(struct solve_node *n, size_t o, struct solve_load *ret)
{
	const struct cache_result *best = NULL;
	for (size_t i = 0; i < n->slot[o].rkeys.n; i++) {
		const struct solve_rkey *k = &n->slot[o].rkeys.v[i];
		const struct cache_result *res;
		if (!k->remote->ops) continue;
		for (size_t x = 0; (res = cache_graph_result_at(k->remote->graph, k->item, x)); x++) {
			struct solve_load l = {o, k->item, x, k->remote};
			if (was_tried(n, &l) || (best && !newer(res->created, best->created))) continue;
			best = res;
			*ret = l;
		}
	}
	return best;
}

bool solve_remotes_have(struct solve_node *n, size_t output)
{
	struct solve_load ignored;
	return choose(n, output, &ignored);
}

bool solve_remotes_load(struct solve_node *n)
{
	for (size_t o = 0; o < n->n_slot; o++) {
		struct solve_load l;
		if (n->slot[o].want != SOLVE_RESULT || n->slot[o].done || !choose(n, o, &l)) continue;
		n->loading = true;
		n->load = l;
		remote_ref(l.remote);
		n->under_way++;
		l.remote->ops->load(l.remote->arg, n, l.item, l.result);
		solve_spare_inputs(n);
		return true;
	}
	return false;
}

void solve_remotes_cancel(struct solve_node *n)
{
	if (n->load.remote->ops) n->load.remote->ops->cancel(n->load.remote->arg, n);
}

static void save(struct solve_node *n, const struct solve_load *l, struct snap *snap)
{
	const struct cache_result *res = cache_graph_result_at(l->remote->graph, l->item, l->result);
	struct solve_slot *slot = &n->slot[l->output];
	solve_write_rows(n, l->output);
	for (size_t k = 0; k < slot->n_keys; k++)
		cache_save(n->solver->db, slot->keys[k], snap ? snap->id : 0,
			   res->created.tv_sec * 1000000000 + res->created.tv_nsec);
}

void solve_remote_loaded(struct solve_node *n, struct snap *snap, const struct err *e)
{
	struct solve_load l = n->load;
	n->loading = false;
	n->under_way--;
	if (e) {
		log_debug("cache record of %s could not be used: %s", n->name, e->msg);
		if (!n->cancelled) vec_push(&n->tried, ((struct solve_load){l.output, l.item, l.result, remote_ref(l.remote)}));
	} else if (n->slot[l.output].done) {
		snap_unref(snap);
	} else {
		if (snap) snap_used(snap);
		save(n, &l, snap);
		solve_slot_done(n, l.output, snap);
		if (solve_results_done(n)) {
			n->cached = true;
			solve_show_vertex(n, true, true, NULL);
		}
		solve_tell_waiters(n);
		solve_wake_users(n);
	}
	solve_remote_unref(l.remote);
	solve_answered(n);
}
