#ifndef BASE_MAP_H
#define BASE_MAP_H
/* Hash map from strings to pointers. Keys are copied, values borrowed (map_fini_free frees them). `{0}` is an empty map.
 * Iteration order is insertion order, less what was removed: `MAP_EACH(&m, it) use(it->key, it->value);`; removing the
 * entry at hand while iterating is allowed, adding is not. Any thread, one at a time. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_entry {
	char *key; /* NULL: removed */
	void *value;
	uint64_t hash;
};
struct map {
	struct map_entry *entries;
	uint32_t *slots; /* index + 1 into entries */
	size_t n_entries, cap_entries, n_slots, count;
};
#define _cleanup_map_ __attribute__((cleanup(map_fini)))
void *map_get(const struct map *m, const char *key); /* NULL when absent */
bool map_has(const struct map *m, const char *key);
void *map_put(struct map *m, const char *key, void *value); /* the value that was there, or NULL */
void *map_del(struct map *m, const char *key);              /* the value that was there, or NULL */
void map_fini(struct map *m);
void map_fini_free(struct map *m);
static inline struct map_entry *map_at(const struct map *m, size_t from)
{
	for (; from < m->n_entries; from++)
		if (m->entries[from].key) return &m->entries[from];
	return NULL;
}
#define MAP_EACH(m, it) for (struct map_entry *it = map_at((m), 0); it; it = map_at((m), (size_t)(it - (m)->entries) + 1))
#endif
