#ifndef SOLVE_CACHE_H
#define SOLVE_CACHE_H
/* The cache rows: keys, links, results (tables key, link, result). Private to the room. Loop thread; microseconds each.
 * A write that the database refuses is logged and forgotten: the step is then simply not found again. */
#include "db/db.h"

/* Key ids are > 0. */
size_t cache_roots(struct db *db, const char *root_key, int64_t *ret, size_t max);
/* Keys that lead from `from` as input number `input` of an operation. selector "": none. */
size_t cache_children(struct db *db, int64_t from, size_t input, const char *op_digest, const char *selector, size_t output,
		      int64_t *ret, size_t max);
int64_t cache_new_key(struct db *db, const char *root_key /* or NULL */);
void cache_link(struct db *db, int64_t from, size_t input, const char *op_digest, const char *selector, size_t output, int64_t to);
/* The newest result: 1 found (*ret_snap 0 is scratch), 0 none. ret_created_ns may be NULL. */
int cache_result(struct db *db, int64_t key, int64_t *ret_snap, int64_t *ret_created_ns);
void cache_save(struct db *db, int64_t key, int64_t snap /* 0: scratch */, int64_t created_ns /* 0: now */);
/* For export. The root key of a key that has one: heap, NULL; the links that lead to a key. */
char *cache_root_of(struct db *db, int64_t key);
struct cache_row {
	int64_t from;
	size_t input, output;
	char *op_digest, *selector;
};
size_t cache_links_to(struct db *db, int64_t key, size_t max, struct cache_row **ret /* heap; cache_rows_free */);
void cache_rows_free(struct cache_row *rows, size_t n);
void cache_forget(struct db *db, int64_t key, int64_t snap);
int cache_collect(struct db *db, struct err *e);
#endif
