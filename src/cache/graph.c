/* Records and links. A link is found by a map from (source, input, operation, selector) to its targets, so a lookup takes the
 * same time in a cache of ten records and of ten thousand. */
#include "cache/internal.h"

#include <stdio.h>
#include <string.h>

struct cache_graph *cache_graph_new(void) { return xnew(struct cache_graph); }

void cache_blob_copy(struct cache_blob *dst, const struct cache_blob *src)
{
	*dst = (struct cache_blob){xstrdup(src->digest), xstrdup(src->media_type), xstrdup(src->diff_id), src->size, {0},
				   src->created};
	strvec_copy(&dst->annotations, src->annotations.v, src->annotations.n);
}

void cache_blob_fini(struct cache_blob *b)
{
	free(b->digest);
	free(b->media_type);
	free(b->diff_id);
	strvec_fini(&b->annotations);
	*b = (struct cache_blob){0};
}

static void item_fini(struct cache_item *it)
{
	for (size_t i = 0; i < it->n_in; i++) vec_fini(&it->in[i].links);
	for (size_t i = 0; i < it->results.n; i++) free(it->results.v[i].blobs);
	vec_fini(&it->results);
	vec_fini(&it->children);
	free(it->in);
	free(it->digest);
}

void cache_graph_free(struct cache_graph *g)
{
	if (!g) return;
	for (size_t i = 0; i < g->items.n; i++) item_fini(&g->items.v[i]);
	for (size_t i = 0; i < g->blobs.n; i++) cache_blob_fini(&g->blobs.v[i]);
	MAP_EACH(&g->by_link, it)
	{
		struct cache_hits *h = it->value;
		vec_fini(&h->items);
		free(h);
	}
	MAP_EACH(&g->selectors, it) free(it->value);
	vec_fini(&g->items);
	vec_fini(&g->blobs);
	map_fini(&g->roots);
	map_fini(&g->by_blob);
	map_fini(&g->by_link);
	map_fini(&g->selectors);
	free(g);
}

size_t cache_graph_items(const struct cache_graph *g) { return g->items.n; }
size_t cache_graph_blobs(const struct cache_graph *g) { return g->blobs.n; }

size_t cache_graph_blob(struct cache_graph *g, const struct cache_blob *b)
{
	void *have = map_get(&g->by_blob, b->digest);
	if (have) return (size_t)PTR_INDEX(have);
	struct cache_blob copy;
	cache_blob_copy(&copy, b);
	vec_push(&g->blobs, copy);
	map_put(&g->by_blob, b->digest, INDEX_PTR(g->blobs.n - 1));
	return g->blobs.n - 1;
}

static const char *intern(struct cache_graph *g, const char *selector)
{
	if (str_empty(selector)) return "";
	char *s = map_get(&g->selectors, selector);
	if (!s) map_put(&g->selectors, selector, s = xstrdup(selector));
	return s;
}

static char *link_key(size_t item, size_t input, const char *digest, const char *selector)
{
	return xasprintf("%zu %zu %s %s", item, input, digest, selector ? selector : "");
}

static struct cache_hits *hits(const struct cache_graph *g, size_t item, size_t input, const char *digest, const char *selector)
{
	_cleanup_free_ char *key = link_key(item, input, digest, selector);
	return map_get(&g->by_link, key);
}

static bool hits_has(const struct cache_hits *h, size_t item)
{
	for (size_t i = 0; h && i < h->items.n; i++)
		if (h->items.v[i] == item) return true;
	return false;
}

/* Does some link of this input lead to `to` already? */
static bool dep_leads(const struct cache_graph *g, const struct cache_dep *d, size_t input, const char *digest, size_t to)
{
	for (size_t k = 0; k < d->n; k++)
		if (hits_has(hits(g, d->links[k].item, input, digest, d->links[k].selector), to)) return true;
	return false;
}

static ptrdiff_t find_equal(const struct cache_graph *g, const char *digest, const struct cache_dep *deps, size_t n)
{
	for (size_t k = 0; k < deps[0].n; k++) {
		const struct cache_hits *h = hits(g, deps[0].links[k].item, 0, digest, deps[0].links[k].selector);
		for (size_t c = 0; h && c < h->items.n; c++) {
			bool all = g->items.v[h->items.v[c]].n_in == n;
			for (size_t i = 1; i < n && all; i++) all = dep_leads(g, &deps[i], i, digest, h->items.v[c]);
			if (all) return (ptrdiff_t)h->items.v[c];
		}
	}
	return -1;
}

/* Marks what is reached from `from` downwards. */
static bool *below(const struct cache_graph *g, size_t from)
{
	bool *seen = xcalloc(g->items.n, sizeof *seen);
	VEC(size_t) todo = {0};
	vec_push(&todo, from);
	seen[from] = true;
	while (todo.n) {
		const struct cache_item *it = &g->items.v[todo.v[--todo.n]];
		for (size_t i = 0; i < it->children.n; i++) {
			if (seen[it->children.v[i]]) continue;
			seen[it->children.v[i]] = true;
			vec_push(&todo, it->children.v[i]);
		}
	}
	vec_fini(&todo);
	return seen;
}

static void add_link(struct cache_graph *g, const struct cache_link *l, size_t input, size_t to)
{
	struct cache_item *it = &g->items.v[to];
	_cleanup_free_ char *key = link_key(l->item, input, it->digest, l->selector);
	struct cache_hits *h = map_get(&g->by_link, key);
	if (hits_has(h, to)) return;
	if (!h) map_put(&g->by_link, key, h = xnew(struct cache_hits));
	vec_push(&h->items, to);
	vec_push(&it->in[input].links, ((struct cache_link){l->item, intern(g, l->selector)}));
	struct cache_item *from = &g->items.v[l->item];
	for (size_t i = 0; i < from->children.n; i++)
		if (from->children.v[i] == to) return;
	vec_push(&from->children, to);
}

static size_t new_item(struct cache_graph *g, const char *digest, size_t n_in)
{
	struct cache_item it = {.digest = xstrdup(digest), .in = xcalloc(n_in, sizeof *it.in), .n_in = n_in};
	vec_push(&g->items, it);
	return g->items.n - 1;
}

static size_t add_root(struct cache_graph *g, const char *digest)
{
	void *have = map_get(&g->roots, digest);
	if (have) return (size_t)PTR_INDEX(have);
	size_t i = new_item(g, digest, 0);
	map_put(&g->roots, digest, INDEX_PTR(i));
	return i;
}

ptrdiff_t cache_graph_add(struct cache_graph *g, const char *digest, const struct cache_dep *deps, size_t n)
{
	if (!*digest || str_starts(digest, "random:")) return -1;
	if (!n) return (ptrdiff_t)add_root(g, digest);
	for (size_t i = 0; i < n; i++)
		if (!deps[i].n) return -1;
	ptrdiff_t old = find_equal(g, digest, deps, n);
	size_t to = old >= 0 ? (size_t)old : new_item(g, digest, n);
	_cleanup_free_ bool *seen = old >= 0 ? below(g, to) : NULL;
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < deps[i].n; k++)
			if (!seen || !seen[deps[i].links[k].item]) add_link(g, &deps[i].links[k], i, to);
	return (ptrdiff_t)to;
}

static bool same_time(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

void cache_graph_result(struct cache_graph *g, size_t item, struct timespec created, const size_t *blobs, size_t n)
{
	struct cache_item *it = &g->items.v[item];
	if (!n || n > CACHE_LAYERS_MAX) return;
	for (size_t i = 0; i < it->results.n; i++) {
		const struct cache_result *r = &it->results.v[i];
		if (same_time(r->created, created) && r->n == n && !memcmp(r->blobs, blobs, n * sizeof *blobs)) return;
	}
	struct cache_result r = {created, xcalloc(n, sizeof *blobs), n};
	memcpy(r.blobs, blobs, n * sizeof *blobs);
	vec_push(&it->results, r);
	it->sorted = false;
}

static bool needs_one(const struct cache_result *r, const bool *gone)
{
	for (size_t i = 0; i < r->n; i++)
		if (gone[r->blobs[i]]) return true;
	return false;
}

void cache_graph_drop(struct cache_graph *g, const bool *gone)
{
	for (size_t i = 0; i < g->items.n; i++) {
		struct cache_item *it = &g->items.v[i];
		for (size_t k = it->results.n; k-- > 0;) {
			if (!needs_one(&it->results.v[k], gone)) continue;
			free(it->results.v[k].blobs);
			vec_remove(&it->results, k);
		}
	}
}

void cache_graph_used(struct cache_graph *g, bool *ret)
{
	memset(ret, 0, g->blobs.n * sizeof *ret);
	for (size_t i = 0; i < g->items.n; i++) {
		const struct cache_result *r = cache_graph_result_at(g, i, 0);
		for (size_t k = 0; r && k < r->n; k++) ret[r->blobs[k]] = true;
	}
}

/* ---- looking up ---- */

ptrdiff_t cache_graph_root(const struct cache_graph *g, const char *digest) { return PTR_INDEX(map_get(&g->roots, digest)); }

size_t cache_graph_children(const struct cache_graph *g, size_t item, size_t input, const char *digest, const char *selector,
			    size_t *ret, size_t max)
{
	const struct cache_hits *h = hits(g, item, input, digest, selector);
	size_t n = h ? min_of(h->items.n, max) : 0;
	if (n) memcpy(ret, h->items.v, n * sizeof *ret);
	return n;
}

const char *cache_graph_digest(const struct cache_graph *g, size_t item) { return g->items.v[item].digest; }
size_t cache_graph_inputs(const struct cache_graph *g, size_t item) { return g->items.v[item].n_in; }

struct cache_dep cache_graph_input(const struct cache_graph *g, size_t item, size_t input)
{
	const struct cache_in *in = &g->items.v[item].in[input];
	return (struct cache_dep){in->links.v, in->links.n};
}

static int newest_first(const void *pa, const void *pb)
{
	const struct cache_result *a = pa, *b = pb;
	if (a->created.tv_sec != b->created.tv_sec) return a->created.tv_sec > b->created.tv_sec ? -1 : 1;
	if (a->created.tv_nsec != b->created.tv_nsec) return a->created.tv_nsec > b->created.tv_nsec ? -1 : 1;
	return 0;
}

const struct cache_result *cache_graph_result_at(struct cache_graph *g, size_t item, size_t i)
{
	struct cache_item *it = &g->items.v[item];
	if (!it->sorted && it->results.n) qsort(it->results.v, it->results.n, sizeof *it->results.v, newest_first);
	it->sorted = true;
	return i < it->results.n ? &it->results.v[i] : NULL;
}

const struct cache_blob *cache_graph_blob_at(const struct cache_graph *g, size_t blob) { return &g->blobs.v[blob]; }
