#include "base/arena.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { CHUNK = 8192 };

struct chunk {
	struct chunk *next;
	size_t used, size;
	_Alignas(16) char data[];
};

struct arena {
	struct chunk *chunk;
	size_t max, used;
};

struct arena *arena_new(size_t max_bytes)
{
	struct arena *a = xnew(struct arena);
	a->max = max_bytes;
	return a;
}

void arena_free(struct arena *a)
{
	if (!a) return;
	for (struct chunk *c = a->chunk; c;) {
		struct chunk *next = c->next;
		free(c);
		c = next;
	}
	free(a);
}

void *arena_alloc(struct arena *a, size_t n)
{
	if (n > SIZE_MAX / 2) return NULL;
	n = (n + 15) & ~(size_t)15;
	if (a->max && (n > a->max || a->used > a->max - n)) return NULL;
	struct chunk *c = a->chunk;
	if (!c || c->size - c->used < n) {
		size_t size = max_of(n, (size_t)CHUNK);
		c = xmalloc(sizeof *c + size);
		c->used = 0;
		c->size = size;
		if (n > CHUNK / 2 && a->chunk) { /* a big one of its own: the open chunk stays in front */
			c->next = a->chunk->next;
			a->chunk->next = c;
		} else {
			c->next = a->chunk;
			a->chunk = c;
		}
	}
	void *p = c->data + c->used;
	c->used += n;
	a->used += n;
	return memset(p, 0, n);
}

void *arena_memdup(struct arena *a, const void *p, size_t n)
{
	void *copy = arena_alloc(a, n);
	if (copy && n) memcpy(copy, p, n);
	return copy;
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
	n = strnlen(s, n);
	char *copy = arena_alloc(a, n + 1);
	if (copy) memcpy(copy, s, n);
	return copy;
}

char *arena_strdup(struct arena *a, const char *s) { return s ? arena_strndup(a, s, strlen(s)) : NULL; }

char *arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	char *s = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
	if (!s) return NULL;
	va_start(ap, fmt);
	vsnprintf(s, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return s;
}

size_t arena_used_bytes(const struct arena *a) { return a->used; }
