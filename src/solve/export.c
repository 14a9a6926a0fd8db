/* What a build knows, as a cache graph: the walk goes from a result to its sources, through this build's nodes first and then
 * through the database's links to the same keys (other ways to the same result), which carry no results of their own.
 *
 *  1. A slot and a key are visited once; what is met again while it is being visited is left out (a loop).
 *  2. A record with an input that nothing is known of is left out, and so is what depends on it only.
 *  3. Sources have no results. Of a step the newest result counts, the database's or a remote cache's.
 * Source: moby/buildkit solver/exporter.go. */
#include "solve/internal.h"

#include <stdio.h>
#include <string.h>

enum { ROWS_MAX = 10000, KEYS_VISITED_MAX = 20000, DEPTH_MAX = 2000 };

struct found { /* the records of a slot or key */
	size_t item[SOLVE_MAPS_MAX + 1];
	size_t n;
};
struct walk {
	const struct solve_export *x;
	struct cache_graph *g;
	struct solver *solver;
	struct map slots, keys, records; /* text -> struct found * */
	size_t depth;
};
enum mode { MODE_MIN, MODE_MAX, MODE_HAVE /* only what has blobs */ };

struct deps {
	struct cache_dep *v;
	size_t n;
};

static struct deps deps_new(size_t n) { return (struct deps){xcalloc(n, sizeof(struct cache_dep)), n}; }

static void deps_add(struct deps *d, size_t input, size_t item, const char *selector)
{
	struct cache_dep *x = &d->v[input];
	x->links = xreallocarray(x->links, x->n + 1, sizeof *x->links);
	x->links[x->n++] = (struct cache_link){item, selector ? selector : ""};
}

static void deps_fini(struct deps *d)
{
	for (size_t i = 0; i < d->n; i++) free(d->v[i].links);
	free(d->v);
}

static void found_add(struct found *f, ptrdiff_t item)
{
	if (item < 0 || f->n == array_len(f->item)) return;
	for (size_t i = 0; i < f->n; i++)
		if (f->item[i] == (size_t)item) return;
	f->item[f->n++] = (size_t)item;
}

/* ---- other ways to a key of the database ---- */

static struct found *visit_key(struct walk *w, int64_t key);

/* rows[0..n) are of one operation and output. */
static ptrdiff_t add_rows(struct walk *w, const struct cache_row *rows, size_t n)
{
	size_t inputs = 0;
	char digest[DIGEST_STR];
	for (size_t i = 0; i < n; i++) inputs = max_of(inputs, rows[i].input + 1);
	if (inputs > ROWS_MAX) return -1;
	struct deps d = deps_new(inputs);
	for (size_t i = 0; i < n; i++) {
		struct found *from = visit_key(w, rows[i].from);
		for (size_t k = 0; from && k < from->n; k++) deps_add(&d, rows[i].input, from->item[k], rows[i].selector);
	}
	solve_root_key(rows[0].op_digest, (int)rows[0].output, digest);
	ptrdiff_t item = cache_graph_add(w->g, digest, d.v, d.n);
	deps_fini(&d);
	return item;
}

static void follow_links(struct walk *w, int64_t key, struct found *f)
{
	struct cache_row *rows;
	size_t n = cache_links_to(w->solver->db, key, ROWS_MAX, &rows);
	for (size_t at = 0, end; at < n; at = end) {
		for (end = at + 1;
		     end < n && rows[end].output == rows[at].output && !strcmp(rows[end].op_digest, rows[at].op_digest);)
			end++;
		found_add(f, add_rows(w, rows + at, end - at));
	}
	cache_rows_free(rows, n);
}

static struct found *visit_key(struct walk *w, int64_t key)
{
	char name[32];
	snprintf(name, sizeof name, "%jd", (intmax_t)key);
	struct found *f = map_get(&w->keys, name);
	if (f) return f;
	if (w->keys.count >= KEYS_VISITED_MAX || w->depth >= DEPTH_MAX) return NULL;
	map_put(&w->keys, name, f = xnew(struct found));
	w->depth++;
	_cleanup_free_ char *root = cache_root_of(w->solver->db, key);
	struct found got = {0};
	if (!root)
		follow_links(w, key, &got);
	else if (digest_valid(root))
		found_add(&got, cache_graph_add(w->g, root, NULL, 0));
	*f = got;
	w->depth--;
	return f;
}

/* ---- other ways to a record of a remote cache ---- */

static struct found *visit_record(struct walk *w, struct solve_remote *r, size_t item)
{
	char name[64];
	snprintf(name, sizeof name, "%p %zu", (void *)r, item);
	struct found *f = map_get(&w->records, name);
	if (f) return f;
	if (w->depth >= DEPTH_MAX) return NULL;
	map_put(&w->records, name, f = xnew(struct found));
	w->depth++;
	struct deps d = deps_new(cache_graph_inputs(r->graph, item));
	for (size_t i = 0; i < d.n; i++) {
		struct cache_dep in = cache_graph_input(r->graph, item, i);
		for (size_t k = 0; k < in.n; k++) {
			struct found *from = visit_record(w, r, in.links[k].item);
			for (size_t x = 0; from && x < from->n; x++) deps_add(&d, i, from->item[x], in.links[k].selector);
		}
	}
	found_add(f, cache_graph_add(w->g, cache_graph_digest(r->graph, item), d.v, d.n));
	deps_fini(&d);
	w->depth--;
	return f;
}

/* ---- results ---- */

struct best {
	struct timespec created;
	bool found;
	struct snap *snap; /* borrowed; NULL with remote NULL: scratch */
	struct solve_remote *remote;
	const struct cache_result *result;
};

static bool newer(struct timespec a, struct timespec b)
{
	return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

static struct best best_result(struct solver *s, const struct solve_slot *slot)
{
	struct best b = {0};
	for (size_t i = 0; i < slot->n_keys; i++) {
		int64_t id, ns;
		if (!cache_result(s->db, slot->keys[i], &id, &ns)) continue;
		struct timespec t = {ns / 1000000000, ns % 1000000000};
		struct snap *snap = id ? snap_find(s->snaps, id) : NULL;
		if ((id && !snap) || (b.found && !newer(t, b.created))) continue;
		b = (struct best){t, true, snap, NULL, NULL};
	}
	for (size_t i = 0; i < slot->rkeys.n; i++) {
		const struct solve_rkey *k = &slot->rkeys.v[i];
		const struct cache_result *r = cache_graph_result_at(k->remote->graph, k->item, 0);
		if (!k->remote->ops || !r || (b.found && !newer(r->created, b.created))) continue;
		b = (struct best){r->created, true, NULL, k->remote, r};
	}
	return b;
}

static size_t result_blobs(const struct walk *w, const struct best *b, enum mode mode, size_t *ret)
{
	if (b->remote) return w->x->remote(w->x->arg, b->remote, b->result, ret, CACHE_LAYERS_MAX);
	return b->snap ? w->x->local(w->x->arg, b->snap, mode != MODE_HAVE, ret, CACHE_LAYERS_MAX) : 0;
}

/* ---- this build's nodes ---- */

static struct found *visit(struct walk *w, struct solve_node *n, size_t o, enum mode mode);

static void add_source(struct walk *w, const struct solve_node *n, size_t o, struct found *f)
{
	for (size_t i = 0; i < n->map.n_digests; i++) {
		char root[DIGEST_STR];
		if (solve_is_random(n->map.digests[i])) continue;
		solve_root_key(n->map.digests[i], (int)o, root);
		found_add(f, cache_graph_add(w->g, root, NULL, 0));
	}
}

static void add_step(struct walk *w, struct solve_node *n, size_t o, enum mode mode, struct found *f)
{
	struct solve_slot *slot = &n->slot[o];
	struct best best = n->no_export ? (struct best){0} : best_result(w->solver, slot);
	size_t *blobs = xcalloc(CACHE_LAYERS_MAX, sizeof *blobs),
	       n_blobs = best.found ? result_blobs(w, &best, mode, blobs) : 0;
	if (n_blobs && mode == MODE_MIN) mode = MODE_HAVE;
	struct deps d = deps_new(n->n_in);
	for (size_t i = 0; i < n->n_in; i++) {
		const struct solve_in *in = &n->in[i];
		struct found *from = visit(w, in->node, in->output, mode);
		for (size_t k = 0; from && k < from->n; k++) deps_add(&d, i, from->item[k], n->map.deps[i].selector);
		if (*in->content_root) deps_add(&d, i, (size_t)cache_graph_add(w->g, in->content_root, NULL, 0), "");
	}
	for (size_t i = 0; i < slot->n_keys && !w->x->brief; i++) visit_key(w, slot->keys[i]);
	for (size_t i = 0; i < slot->rkeys.n && !w->x->brief; i++)
		visit_record(w, slot->rkeys.v[i].remote, slot->rkeys.v[i].item);
	char digest[DIGEST_STR];
	solve_root_key(n->map.digests[0], (int)o, digest);
	ptrdiff_t item = cache_graph_add(w->g, digest, d.v, d.n);
	if (item >= 0 && n_blobs) cache_graph_result(w->g, (size_t)item, best.created, blobs, n_blobs);
	found_add(f, item);
	deps_fini(&d);
	free(blobs);
}

static struct found *visit(struct walk *w, struct solve_node *n, size_t o, enum mode mode)
{
	char name[64];
	snprintf(name, sizeof name, "%p %zu", (void *)n, o);
	struct found *f = map_get(&w->slots, name);
	if (f) return f;
	if (n->map_phase != SOLVE_DONE || w->depth >= DEPTH_MAX) return NULL;
	map_put(&w->slots, name, f = xnew(struct found));
	w->depth++;
	struct found got = {0};
	if (n->n_in)
		add_step(w, n, o, mode, &got);
	else
		add_source(w, n, o, &got);
	*f = got;
	w->depth--;
	return f;
}

static void map_fini_found(struct map *m)
{
	MAP_EACH(m, it) free(it->value);
	map_fini(m);
}

void solve_export(struct solve_node *n, size_t output, const struct solve_export *x, struct cache_graph *g)
{
	struct walk w = {.x = x, .g = g, .solver = n->solver};
	visit(&w, n, output, x->max ? MODE_MAX : MODE_MIN);
	map_fini_found(&w.slots);
	map_fini_found(&w.keys);
	map_fini_found(&w.records);
}
