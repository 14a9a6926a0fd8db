#ifndef CACHE_INTERNAL_H
#define CACHE_INTERNAL_H
#include "cache/cache.h"

struct cache_item {
	char *digest;
	struct cache_in {
		VEC(struct cache_link) links;
	} * in;
	size_t n_in;
	VEC(size_t) children; /* distinct */
	VEC(struct cache_result) results;
	bool sorted; /* of results */
};
struct cache_graph {
	VEC(struct cache_item) items;
	VEC(struct cache_blob) blobs;
	struct map roots;     /* digest -> index + 1 */
	struct map by_blob;   /* digest -> index + 1 */
	struct map by_link;   /* "item input digest selector" -> struct cache_hits * */
	struct map selectors; /* interned: key -> itself */
};
struct cache_hits {
	VEC(size_t) items;
};
#define INDEX_PTR(i) ((void *)(uintptr_t)((i) + 1))
#define PTR_INDEX(p) ((ptrdiff_t)(uintptr_t)(p)-1)

/* parse.c: a blob of an item's results by the layers' indexes. */
void cache_blob_copy(struct cache_blob *dst, const struct cache_blob *src);
void cache_blob_fini(struct cache_blob *b);
#endif
