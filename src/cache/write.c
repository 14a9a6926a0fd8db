/* Writing the document, always the same for the same graph: layers by (blob, parent), records by what they say, so an export
 * that changed nothing has the same digest. */
#include "cache/internal.h"

#include <stdio.h>
#include <string.h>

struct layer {
	size_t blob;
	ptrdiff_t parent; /* index into the unsorted layers */
	size_t at;        /* where it is once sorted */
	const struct cache_graph *g;
};
struct writer {
	struct cache_graph *g;
	struct layer **layers; /* unsorted */
	size_t n_layers, cap;
	struct map by_chain;  /* "blob parent" -> index + 1 */
	ptrdiff_t *top;       /* of an item: its newest result's layer, unsorted index; -1 none */
	size_t *order, *rank; /* of items */
};

/* ---- layers ---- */

static ptrdiff_t add_layer(struct writer *w, size_t blob, ptrdiff_t parent)
{
	char key[64];
	snprintf(key, sizeof key, "%zu %td", blob, parent);
	void *have = map_get(&w->by_chain, key);
	if (have) return PTR_INDEX(have);
	if (w->n_layers == w->cap) {
		w->cap = w->cap ? w->cap * 2 : 32;
		w->layers = xreallocarray(w->layers, w->cap, sizeof *w->layers);
	}
	struct layer *l = w->layers[w->n_layers] = xnew(struct layer);
	*l = (struct layer){blob, parent, 0, w->g};
	map_put(&w->by_chain, key, INDEX_PTR(w->n_layers));
	return (ptrdiff_t)w->n_layers++;
}

static int layer_order(const void *pa, const void *pb)
{
	const struct layer *a = *(struct layer *const *)pa, *b = *(struct layer *const *)pb;
	int c = strcmp(a->g->blobs.v[a->blob].digest, b->g->blobs.v[b->blob].digest);
	return c ? c : (a->parent > b->parent) - (a->parent < b->parent);
}

static struct layer **collect_layers(struct writer *w)
{
	w->top = xcalloc(w->g->items.n, sizeof *w->top);
	for (size_t i = 0; i < w->g->items.n; i++) {
		const struct cache_result *r = cache_graph_result_at(w->g, i, 0);
		w->top[i] = -1;
		for (size_t k = 0; r && k < r->n; k++) w->top[i] = add_layer(w, r->blobs[k], w->top[i]);
	}
	struct layer **sorted = xcalloc(w->n_layers, sizeof *sorted);
	if (w->n_layers) memcpy(sorted, w->layers, w->n_layers * sizeof *sorted);
	qsort(sorted, w->n_layers, sizeof *sorted, layer_order);
	for (size_t i = 0; i < w->n_layers; i++) sorted[i]->at = i;
	return sorted;
}

/* ---- records: in rounds, since a record's place depends on those it links to ---- */

static _Thread_local const struct writer *sorting;

static int by_digest(const struct cache_item *a, const struct cache_item *b)
{
	int c = strcmp(a->digest, b->digest);
	if (c) return c;
	if (a->n_in != b->n_in) return a->n_in < b->n_in ? -1 : 1;
	for (size_t i = 0; i < a->n_in; i++)
		if (a->in[i].links.n != b->in[i].links.n) return a->in[i].links.n < b->in[i].links.n ? -1 : 1;
	return 0;
}

static int link_order(const void *pa, const void *pb)
{
	const struct cache_link *a = pa, *b = pb;
	int c = strcmp(a->selector, b->selector);
	if (c) return c;
	c = strcmp(sorting->g->items.v[a->item].digest, sorting->g->items.v[b->item].digest);
	if (c) return c;
	return (sorting->rank[a->item] > sorting->rank[b->item]) - (sorting->rank[a->item] < sorting->rank[b->item]);
}

static int record_order(const void *pa, const void *pb)
{
	size_t ia = *(const size_t *)pa, ib = *(const size_t *)pb;
	const struct cache_item *a = &sorting->g->items.v[ia], *b = &sorting->g->items.v[ib];
	int c = by_digest(a, b);
	for (size_t i = 0; i < a->n_in && !c; i++)
		for (size_t k = 0; k < a->in[i].links.n && !c; k++) c = link_order(&a->in[i].links.v[k], &b->in[i].links.v[k]);
	if (c) return c;
	return (ia > ib) - (ia < ib);
}

static void sort_records(struct writer *w)
{
	size_t n = w->g->items.n;
	w->order = xcalloc(n, sizeof *w->order);
	w->rank = xcalloc(n, sizeof *w->rank); /* all alike at first */
	for (size_t i = 0; i < n; i++) w->order[i] = i;
	sorting = w;
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < n; i++)
			for (size_t k = 0; k < w->g->items.v[i].n_in; k++) {
				struct cache_in *in = &w->g->items.v[i].in[k];
				qsort(in->links.v, in->links.n, sizeof *in->links.v, link_order);
			}
		qsort(w->order, n, sizeof *w->order, record_order);
		for (size_t i = 0; i < n; i++) w->rank[w->order[i]] = i;
	}
	sorting = NULL;
}

static int by_place(const void *pa, const void *pb)
{
	const struct cache_link *a = pa, *b = pb;
	if (a->item != b->item) return a->item < b->item ? -1 : 1;
	return strcmp(a->selector, b->selector);
}

static void put_inputs(struct json_w *j, const struct writer *w, const struct cache_item *it)
{
	if (!it->n_in) return;
	json_key(j, "inputs");
	json_arr(j);
	for (size_t i = 0; i < it->n_in; i++) {
		size_t n = it->in[i].links.n;
		struct cache_link *links = xcalloc(n, sizeof *links);
		for (size_t k = 0; k < n; k++)
			links[k] = (struct cache_link){w->rank[it->in[i].links.v[k].item], it->in[i].links.v[k].selector};
		qsort(links, n, sizeof *links, by_place);
		json_arr(j);
		for (size_t k = 0; k < n; k++) {
			json_obj(j);
			json_kstr_omit(j, "selector", links[k].selector);
			json_kint(j, "link", (int64_t)links[k].item);
			json_obj_end(j);
		}
		json_arr_end(j);
		free(links);
	}
	json_arr_end(j);
}

static void put_time(struct json_w *j, struct timespec t)
{
	char text[TIME_STR];
	time_rfc3339nano(t, text);
	json_kstr(j, "createdAt", t.tv_sec || t.tv_nsec ? text : "0001-01-01T00:00:00Z");
}

static void put_blob(struct json_w *j, const struct writer *w, const struct layer *l, bool annotate)
{
	const struct cache_blob *b = &w->g->blobs.v[l->blob];
	ptrdiff_t parent = l->parent < 0 ? -1 : (ptrdiff_t)w->layers[l->parent]->at;
	json_obj(j);
	json_kstr_omit(j, "blob", b->digest);
	json_kint_omit(j, "parent", parent);
	if (annotate) {
		json_key(j, "annotations");
		json_obj(j);
		json_kstr_omit(j, "mediaType", b->media_type);
		json_kstr_omit(j, "diffID", b->diff_id);
		json_kint_omit(j, "size", b->size);
		put_time(j, b->created);
		json_obj_end(j);
	}
	json_obj_end(j);
}

static void writer_fini(struct writer *w)
{
	for (size_t i = 0; i < w->n_layers; i++) free(w->layers[i]);
	free(w->layers);
	free(w->top);
	free(w->order);
	free(w->rank);
	map_fini(&w->by_chain);
}

void cache_config_write(struct cache_graph *g, bool annotate, struct buf *ret, size_t **ret_blobs, size_t *ret_n)
{
	struct writer w = {.g = g};
	struct layer **sorted = collect_layers(&w);
	sort_records(&w);
	struct json_w j = JSON_W(ret);
	json_obj(&j);
	size_t *blobs = xcalloc(w.n_layers, sizeof *blobs);
	if (w.n_layers) {
		json_key(&j, "layers");
		json_arr(&j);
		for (size_t i = 0; i < w.n_layers; i++) {
			blobs[i] = sorted[i]->blob;
			put_blob(&j, &w, sorted[i], annotate);
		}
		json_arr_end(&j);
	}
	if (g->items.n) {
		json_key(&j, "records");
		json_arr(&j);
		for (size_t i = 0; i < g->items.n; i++) {
			size_t it = w.order[i];
			json_obj(&j);
			if (w.top[it] >= 0) {
				json_key(&j, "layers");
				json_arr(&j);
				json_obj(&j);
				json_kint(&j, "layer", (int64_t)w.layers[w.top[it]]->at);
				put_time(&j, cache_graph_result_at(g, it, 0)->created);
				json_obj_end(&j);
				json_arr_end(&j);
			}
			json_kstr_omit(&j, "digest", g->items.v[it].digest);
			put_inputs(&j, &w, &g->items.v[it]);
			json_obj_end(&j);
		}
		json_arr_end(&j);
	}
	json_obj_end(&j);
	*ret_blobs = blobs;
	*ret_n = w.n_layers;
	free(sorted);
	writer_fini(&w);
}

/* ---- inline ---- */

struct place { /* of a layer in the image */
	const char *const *layers;
	size_t n;
};

/* A blob is the image's layer when its digest is, or its diff ID where the image lists that. */
static bool is_layer(const struct cache_blob *b, const char *layer)
{
	return !strcmp(b->digest, layer) || str_eq(b->diff_id, layer);
}

static ptrdiff_t place_of(const struct place *p, const struct cache_blob *b)
{
	for (size_t i = p->n; i-- > 0;)
		if (is_layer(b, p->layers[i])) return (ptrdiff_t)i;
	return -1;
}

static bool all_placed(const struct cache_graph *g, const struct cache_result *r, const struct place *p)
{
	for (size_t i = 0; i < r->n; i++)
		if (place_of(p, &g->blobs.v[r->blobs[i]]) < 0) return false;
	return true;
}

static void put_inline_result(struct json_w *j, const struct cache_graph *g, const struct cache_result *r,
			      const struct place *p)
{
	bool in_order = r->n <= p->n;
	for (size_t i = 0; i < r->n && in_order; i++) in_order = is_layer(&g->blobs.v[r->blobs[i]], p->layers[i]);
	json_key(j, in_order ? "layers" : "chains");
	json_arr(j);
	json_obj(j);
	if (in_order) {
		json_kint(j, "layer", (int64_t)r->n - 1);
		put_time(j, r->created);
	} else {
		json_key(j, "layers");
		json_arr(j);
		for (size_t i = 0; i < r->n; i++) json_int(j, place_of(p, &g->blobs.v[r->blobs[i]]));
		json_arr_end(j);
		put_time(j, (struct timespec){0});
	}
	json_obj_end(j);
	json_arr_end(j);
}

/* A copy with the results that the image's layers hold: the newest one that fits. */
static struct cache_graph *fitting(const struct cache_graph *g, const struct place *p, bool *ret_any)
{
	struct cache_graph *c = cache_graph_new();
	*ret_any = false;
	for (size_t i = 0; i < g->items.n; i++) {
		const struct cache_item *it = &g->items.v[i];
		struct cache_item copy = {
			.digest = xstrdup(it->digest), .in = xcalloc(it->n_in, sizeof *copy.in), .n_in = it->n_in};
		for (size_t k = 0; k < it->n_in; k++)
			for (size_t l = 0; l < it->in[k].links.n; l++)
				vec_push(&copy.in[k].links, it->in[k].links.v[l]); /* selectors are borrowed from g */
		vec_push(&c->items, copy);
	}
	for (size_t i = 0; i < g->blobs.n; i++) cache_graph_blob(c, &g->blobs.v[i]);
	for (size_t i = 0; i < g->items.n; i++)
		for (size_t k = 0; k < g->items.v[i].results.n; k++) {
			const struct cache_result *r = &g->items.v[i].results.v[k];
			if (!all_placed(g, r, p)) continue;
			cache_graph_result(c, i, r->created, r->blobs, r->n);
			*ret_any = true;
		}
	return c;
}

int cache_inline_write(const struct cache_graph *g, const char *const *layers, size_t n, struct buf *ret, struct err *e)
{
	struct place p = {layers, n};
	bool any;
	_cleanup_cache_graph_ struct cache_graph *c = fitting(g, &p, &any);
	if (!any) return 0;
	struct writer w = {.g = c};
	struct layer **sorted = collect_layers(&w);
	free(sorted);
	sort_records(&w);
	struct json_w j = JSON_W(ret);
	json_arr(&j);
	for (size_t i = 0; i < c->items.n; i++) {
		size_t it = w.order[i];
		const struct cache_result *r = cache_graph_result_at(c, it, 0);
		json_obj(&j);
		if (r) put_inline_result(&j, c, r, &p);
		json_kstr_omit(&j, "digest", c->items.v[it].digest);
		put_inputs(&j, &w, &c->items.v[it]);
		json_obj_end(&j);
	}
	json_arr_end(&j);
	writer_fini(&w);
	return ret->overflow ? err_set(e, CODE_RESOURCE_EXHAUSTED, "the inline cache is too large") : 0;
}
