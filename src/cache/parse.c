/* Reading the document. Records name each other by index in any order, so they are added when all their inputs have been: a
 * walk with a stack of its own (a peer's chain may be long), in which a record that is met again before it is done is a loop.
 */
#include "cache/internal.h"

#include <jansson.h>
#include <string.h>

#define _cleanup_json_ _cleanup_(json_decrefp)

struct layer {          /* an entry of "layers" */
	ptrdiff_t blob; /* -1: not listed in the manifest */
	json_int_t parent;
};
struct reader {
	struct cache_graph *g;
	const json_t *records;
	struct layer *layers;
	size_t n_layers, n_records;
	ptrdiff_t *item; /* of a record: -2 not read, -1 being read, -3 nothing came of it */
};
enum { NOT_READ = -2, BUSY = -1, NOTHING = -3 };

static const char *str_of(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));
	return s ? s : "";
}

static struct timespec time_of(const json_t *j)
{
	struct timespec t = {0};
	const char *s = str_of(j, "createdAt");
	static const int64_t go_zero = -62135596800; /* 0001-01-01: not known */
	if (!*s || time_parse_rfc3339(s, &t, NULL) < 0 || t.tv_sec == go_zero) return (struct timespec){0};
	return t;
}

/* ---- layers ---- */

static ptrdiff_t annotated_blob(struct cache_graph *g, const char *digest, const json_t *a)
{
	if (!json_is_object(a)) return -1;
	struct cache_blob b = {.digest = (char *)digest,
			       .media_type = (char *)str_of(a, "mediaType"),
			       .diff_id = (char *)str_of(a, "diffID"),
			       .size = json_integer_value(json_object_get(a, "size")),
			       .created = time_of(a)};
	if (!digest_valid(digest) || !digest_valid(b.diff_id) || b.size < 0) return -1;
	return (ptrdiff_t)cache_graph_blob(g, &b);
}

static int read_layers(struct reader *r, const json_t *layers, const struct map *blobs, struct err *e)
{
	r->n_layers = json_array_size(layers);
	r->layers = xcalloc(r->n_layers, sizeof *r->layers);
	for (size_t i = 0; i < r->n_layers; i++) {
		const json_t *l = json_array_get(layers, i);
		const char *digest = str_of(l, "blob");
		struct layer *x = &r->layers[i];
		x->parent = json_integer_value(json_object_get(l, "parent"));
		if (x->parent < -1 || x->parent >= (json_int_t)r->n_layers)
			return err_set(e, CODE_INVALID_ARGUMENT, "invalid layer index %lld", (long long)x->parent);
		const struct cache_blob *b = blobs ? map_get(blobs, digest) : NULL;
		if (blobs)
			x->blob = b ? (ptrdiff_t)cache_graph_blob(r->g, b) : -1;
		else
			x->blob = annotated_blob(r->g, digest, json_object_get(l, "annotations"));
	}
	return 0;
}

/* ---- results ---- */

static int add_chain(struct reader *r, size_t item, const json_t *res, struct err *e)
{
	size_t up[CACHE_LAYERS_MAX], n = 0;
	json_int_t at = json_integer_value(json_object_get(res, "layer"));
	if (at < 0 || at >= (json_int_t)r->n_layers)
		return err_set(e, CODE_INVALID_ARGUMENT, "invalid layer index %lld", (long long)at);
	for (size_t steps = 0; at != -1; at = r->layers[at].parent) {
		if (steps++ >= r->n_layers) return err_set(e, CODE_INVALID_ARGUMENT, "invalid looping layer");
		if (r->layers[at].blob < 0 || n == CACHE_LAYERS_MAX) return 0;
		up[n++] = (size_t)r->layers[at].blob;
	}
	for (size_t i = 0; i < n / 2; i++) {
		size_t t = up[i];
		up[i] = up[n - 1 - i];
		up[n - 1 - i] = t;
	}
	cache_graph_result(r->g, item, time_of(res), up, n);
	return 0;
}

static int add_listed(struct reader *r, size_t item, const json_t *res, struct err *e)
{
	size_t up[CACHE_LAYERS_MAX];
	const json_t *list = json_object_get(res, "layers");
	size_t n = json_array_size(list);
	if (n > CACHE_LAYERS_MAX) return 0;
	for (size_t i = 0; i < n; i++) {
		json_int_t at = json_integer_value(json_array_get(list, i));
		if (at < 0 || at >= (json_int_t)r->n_layers)
			return err_set(e, CODE_INVALID_ARGUMENT, "invalid layer index %lld", (long long)at);
		if (r->layers[at].blob < 0) return 0;
		up[i] = (size_t)r->layers[at].blob;
	}
	cache_graph_result(r->g, item, time_of(res), up, n);
	return 0;
}

static int add_results(struct reader *r, size_t item, const json_t *rec, struct err *e)
{
	const json_t *layers = json_object_get(rec, "layers"), *chains = json_object_get(rec, "chains");
	for (size_t i = 0; i < json_array_size(layers); i++)
		if (add_chain(r, item, json_array_get(layers, i), e) < 0) return -1;
	for (size_t i = 0; i < json_array_size(chains); i++)
		if (add_listed(r, item, json_array_get(chains, i), e) < 0) return -1;
	return 0;
}

/* ---- records ---- */

static json_int_t link_of(const json_t *link) { return json_integer_value(json_object_get(link, "link")); }

/* The next record that `idx` needs and that has not been read; -1: all are there; -2: *e. */
static ptrdiff_t missing_input(struct reader *r, size_t idx, struct err *e)
{
	const json_t *inputs = json_object_get(json_array_get(r->records, idx), "inputs");
	for (size_t i = 0; i < json_array_size(inputs); i++) {
		const json_t *links = json_array_get(inputs, i);
		if (!json_array_size(links)) {
			err_set(e, CODE_INVALID_ARGUMENT, "invalid empty input for record %zu", idx);
			return -2;
		}
		for (size_t k = 0; k < json_array_size(links); k++) {
			json_int_t to = link_of(json_array_get(links, k));
			if (to < 0 || to >= (json_int_t)r->n_records) {
				err_set(e, CODE_INVALID_ARGUMENT, "invalid record ID: %lld", (long long)to);
				return -2;
			}
			if (r->item[to] == BUSY) {
				err_set(e, CODE_INVALID_ARGUMENT, "invalid looping record");
				return -2;
			}
			if (r->item[to] == NOT_READ) return (ptrdiff_t)to;
		}
	}
	return -1;
}

static int add_record(struct reader *r, size_t idx, struct err *e)
{
	const json_t *rec = json_array_get(r->records, idx), *inputs = json_object_get(rec, "inputs");
	size_t n = json_array_size(inputs);
	struct cache_dep *deps = xcalloc(n, sizeof *deps);
	for (size_t i = 0; i < n; i++) {
		const json_t *links = json_array_get(inputs, i);
		deps[i].links = xcalloc(json_array_size(links), sizeof *deps[i].links);
		for (size_t k = 0; k < json_array_size(links); k++) {
			const json_t *l = json_array_get(links, k);
			ptrdiff_t item = r->item[link_of(l)];
			if (item >= 0) deps[i].links[deps[i].n++] = (struct cache_link){(size_t)item, str_of(l, "selector")};
		}
	}
	r->item[idx] = cache_graph_add(r->g, str_of(rec, "digest"), deps, n);
	for (size_t i = 0; i < n; i++) free(deps[i].links);
	free(deps);
	if (r->item[idx] >= 0) return add_results(r, (size_t)r->item[idx], rec, e);
	r->item[idx] = NOTHING;
	return 0;
}

static int read_record(struct reader *r, size_t first, struct err *e)
{
	VEC(size_t) stack = {0};
	int rc = 0;
	if (r->item[first] == NOT_READ) vec_push(&stack, first);
	while (stack.n && rc == 0) {
		size_t at = stack.v[stack.n - 1];
		r->item[at] = BUSY;
		ptrdiff_t need = missing_input(r, at, e);
		if (need >= 0) {
			vec_push(&stack, (size_t)need);
			continue;
		}
		rc = need == -2 ? -1 : add_record(r, at, e);
		stack.n--;
	}
	vec_fini(&stack);
	return rc;
}

static int read_records(struct reader *r, const json_t *records, struct err *e)
{
	r->records = records;
	r->n_records = json_array_size(records);
	r->item = xcalloc(r->n_records, sizeof *r->item);
	for (size_t i = 0; i < r->n_records; i++) r->item[i] = NOT_READ;
	int rc = 0;
	for (size_t i = 0; i < r->n_records && rc == 0; i++) rc = read_record(r, i, e);
	return rc;
}

static void reader_fini(struct reader *r)
{
	free(r->layers);
	free(r->item);
}

static json_t *load(const void *json, size_t n, struct err *e)
{
	json_error_t je;
	if (n > CACHE_CONFIG_MAX) {
		err_set(e, CODE_INVALID_ARGUMENT, "cache config is too large (%zu > %d)", n, CACHE_CONFIG_MAX);
		return NULL;
	}
	json_t *j = json_loadb(json, n, 0, &je);
	if (!j) err_set(e, CODE_INVALID_ARGUMENT, "cache config is not valid JSON: %s at line %d", je.text, je.line);
	return j;
}

int cache_config_parse(const void *json, size_t n, const struct map *blobs, struct cache_graph *g, struct err *e)
{
	_cleanup_json_ json_t *j = load(json, n, e);
	struct reader r = {.g = g};
	if (!j) return -1;
	if (!json_is_object(j)) return err_set(e, CODE_INVALID_ARGUMENT, "cache config is not a JSON object");
	int rc = read_layers(&r, json_object_get(j, "layers"), blobs, e);
	if (rc >= 0) rc = read_records(&r, json_object_get(j, "records"), e);
	reader_fini(&r);
	return rc;
}

int cache_inline_parse(const void *json, size_t n, const struct cache_blob *layers, size_t n_layers, struct cache_graph *g,
		       struct err *e)
{
	_cleanup_json_ json_t *j = load(json, n, e);
	struct reader r = {.g = g, .n_layers = n_layers};
	if (!j) return -1;
	r.layers = xcalloc(n_layers, sizeof *r.layers);
	for (size_t i = 0; i < n_layers; i++)
		r.layers[i] = (struct layer){(ptrdiff_t)cache_graph_blob(g, &layers[i]), (json_int_t)i - 1};
	int rc = read_records(&r, j, e);
	reader_fini(&r);
	return rc;
}
