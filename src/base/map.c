#include "base/map.h"
#include "base/mem.h"

#include <string.h>

static uint64_t hash_of(const char *s) /* FNV-1a, finished by a multiply-shift */
{
	uint64_t h = 1469598103934665603u;
	for (; *s; s++) h = (h ^ (uint8_t)*s) * 1099511628211u;
	return h ^ h >> 29;
}

static size_t slot_of(const struct map *m, const char *key, uint64_t hash)
{
	size_t i = hash & (m->n_slots - 1);
	for (; m->slots[i]; i = (i + 1) & (m->n_slots - 1)) {
		const struct map_entry *e = &m->entries[m->slots[i] - 1];
		if (e->hash == hash && e->key && !strcmp(e->key, key)) return i;
	}
	return i;
}

static struct map_entry *entry_find(const struct map *m, const char *key)
{
	if (!m->count) return NULL;
	size_t i = slot_of(m, key, hash_of(key));
	return m->slots[i] ? &m->entries[m->slots[i] - 1] : NULL;
}

static void rebuild(struct map *m)
{
	size_t w = 0;
	for (size_t i = 0; i < m->n_entries; i++)
		if (m->entries[i].key) m->entries[w++] = m->entries[i];
	m->n_entries = w;
	size_t want = 16;
	while (want < w * 4) want *= 2;
	free(m->slots);
	m->slots = xcalloc(want, sizeof *m->slots);
	m->n_slots = want;
	for (size_t i = 0; i < w; i++) {
		size_t s = m->entries[i].hash & (want - 1);
		while (m->slots[s]) s = (s + 1) & (want - 1);
		m->slots[s] = (uint32_t)i + 1;
	}
}

void *map_get(const struct map *m, const char *key)
{
	struct map_entry *e = entry_find(m, key);
	return e ? e->value : NULL;
}

bool map_has(const struct map *m, const char *key) { return entry_find(m, key) != NULL; }

void *map_put(struct map *m, const char *key, void *value)
{
	struct map_entry *e = entry_find(m, key);
	if (e) {
		void *old = e->value;
		e->value = value;
		return old;
	}
	if ((m->n_entries + 1) * 2 > m->n_slots) rebuild(m);
	if (m->n_entries == m->cap_entries) {
		m->cap_entries = m->cap_entries ? m->cap_entries * 2 : 8;
		m->entries = xreallocarray(m->entries, m->cap_entries, sizeof *m->entries);
	}
	uint64_t h = hash_of(key);
	size_t i = slot_of(m, key, h);
	m->entries[m->n_entries] = (struct map_entry){xstrdup(key), value, h};
	m->slots[i] = (uint32_t)++m->n_entries;
	m->count++;
	return NULL;
}

void *map_del(struct map *m, const char *key)
{
	struct map_entry *e = entry_find(m, key);
	if (!e) return NULL;
	free(e->key);
	e->key = NULL; /* its slot stays taken until the next rebuild, so that probes go on behind it */
	m->count--;
	return e->value;
}

void map_fini(struct map *m)
{
	for (size_t i = 0; i < m->n_entries; i++) free(m->entries[i].key);
	free(m->entries);
	free(m->slots);
	*m = (struct map){0};
}

void map_fini_free(struct map *m)
{
	MAP_EACH(m, it) free(it->value);
	map_fini(m);
}
