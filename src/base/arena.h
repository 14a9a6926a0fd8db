#ifndef BASE_ARENA_H
#define BASE_ARENA_H
/* Memory that is freed all at once: one arena a request. A capped arena answers NULL past its maximum (for protobuf
 * messages of peers); an uncapped one never does. One thread at a time. */
#include <stdarg.h>
#include <stddef.h>

struct arena;
struct arena *arena_new(size_t max_bytes);    /* 0: no cap */
void arena_free(struct arena *a);             /* NULL allowed */
void *arena_alloc(struct arena *a, size_t n); /* zeroed, aligned to 16 */
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t n);
void *arena_memdup(struct arena *a, const void *p, size_t n);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
size_t arena_used_bytes(const struct arena *a);
static inline void arena_freep(struct arena **a) { arena_free(*a); }
#define _cleanup_arena_ __attribute__((cleanup(arena_freep)))
#define arena_new_of(a, T) ((T *)arena_alloc((a), sizeof(T)))
#endif
