#ifndef CACHE_CACHE_H
#define CACHE_CACHE_H
/* A shared build cache as a value: records (what was done to what), links between them, results (chains of layers).
 * BuildKit's cache config v0 is read into it and written from it. See docs/cache.md.
 *
 *  1. Pure: any thread, one at a time; no files. Only the size of what is parsed is bounded by its reader (CACHE_CONFIG_MAX).
 *  2. A link's source is never below its target: following links ends. cache_graph_add leaves out what would close a loop.
 *  3. Items and blobs are named by their index, which stays.
 * Sources: moby/buildkit cache/remotecache/v1 (chains, parse, utils), cache/remotecache/inline; reference 06 §6. */
#include "base/base.h"

enum { CACHE_CONFIG_MAX = 1 << 20, CACHE_LAYERS_MAX = 1000 /* of one result */ };

/* A layer's blob. Strings are owned by the graph that holds it; a caller's are copied. */
struct cache_blob {
	char *digest, *media_type;
	char *diff_id; /* NULL: not known */
	int64_t size;
	struct strvec annotations; /* "k=v" */
	struct timespec created;   /* 0: not known */
};
struct cache_result {
	struct timespec created;
	size_t *blobs; /* bottom to top */
	size_t n;
};
struct cache_link {
	size_t item;
	const char *selector; /* "": none */
};
struct cache_dep { /* one input: any of these */
	struct cache_link *links;
	size_t n;
};
struct cache_graph;
struct cache_graph *cache_graph_new(void);
void cache_graph_free(struct cache_graph *g); /* NULL allowed */
static inline void cache_graph_freep(struct cache_graph **g) { cache_graph_free(*g); }
#define _cleanup_cache_graph_ _cleanup_(cache_graph_freep)
size_t cache_graph_items(const struct cache_graph *g);
size_t cache_graph_blobs(const struct cache_graph *g);

/* ---- building ---- */
/* The index; the one that is there when its digest is known. */
size_t cache_graph_blob(struct cache_graph *g, const struct cache_blob *b);
/* A record, new or the one that the same operation on one of the same inputs has already; then its links are added. -1: nothing
 * (a digest "random:", an input without links). */
ptrdiff_t cache_graph_add(struct cache_graph *g, const char *digest, const struct cache_dep *deps, size_t n_deps);
/* At most CACHE_LAYERS_MAX blobs; none is nothing to say. An equal one is not added twice. */
void cache_graph_result(struct cache_graph *g, size_t item, struct timespec created, const size_t *blobs, size_t n);

/* Take away the results that need one of these blobs (by index). */
void cache_graph_drop(struct cache_graph *g, const bool *gone);
/* Which blobs the newest results need; ret has room for all. */
void cache_graph_used(struct cache_graph *g, bool *ret);

/* ---- looking up ---- */
ptrdiff_t cache_graph_root(const struct cache_graph *g, const char *digest); /* without inputs; -1: absent */
/* Records of operation `digest` that have `item` as input number `input`: how many (at most max) were put. */
size_t cache_graph_children(const struct cache_graph *g, size_t item, size_t input, const char *digest, const char *selector,
			    size_t *ret, size_t max);
const char *cache_graph_digest(const struct cache_graph *g, size_t item);
size_t cache_graph_inputs(const struct cache_graph *g, size_t item);
struct cache_dep cache_graph_input(const struct cache_graph *g, size_t item, size_t input); /* borrowed */
/* Results of an item, newest first; borrowed. NULL past the last. */
const struct cache_result *cache_graph_result_at(struct cache_graph *g, size_t item, size_t i);
const struct cache_blob *cache_graph_blob_at(const struct cache_graph *g, size_t blob);

/* ---- the document ---- */
/* blobs: digest -> struct cache_blob, what the manifest lists; NULL: the document's own annotations say it (object stores).
 * A result with a layer that is not listed is left out. INVALID_ARGUMENT names the record or layer that is wrong. */
int cache_config_parse(const void *json, size_t n, const struct map *blobs, struct cache_graph *g, struct err *e);
/* ret_blobs: the blobs in the order of "layers"; heap; one that is in two chains comes twice. annotate: object stores. */
void cache_config_write(struct cache_graph *g, bool annotate, struct buf *ret, size_t **ret_blobs, size_t *ret_n);

/* The records of an image's own layers (bottom to top): an array of records. Nothing is written when no result fits. */
int cache_inline_write(const struct cache_graph *g, const char *const *layers, size_t n, struct buf *ret, struct err *e);
/* The reverse: records (JSON), and the image's layers. */
int cache_inline_parse(const void *json, size_t n, const struct cache_blob *layers, size_t n_layers, struct cache_graph *g,
		       struct err *e);
#endif
