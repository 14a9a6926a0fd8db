#ifndef BASE_MEM_H
#define BASE_MEM_H
/* Allocation that aborts when memory is out, scope cleanup, and giving away. Any thread.
 * Sizes that a peer chose go through struct buf with a maximum or a capped arena, never through these. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
void *xreallocarray(void *p, size_t n, size_t size);
char *xstrdup(const char *s); /* NULL gives NULL */
char *xstrndup(const char *s, size_t n);
void *xmemdup(const void *p, size_t n);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
char *xvasprintf(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));
#define xnew(T) ((T *)xcalloc(1, sizeof(T)))

static inline void free_ptr(void *p) { free(*(void **)p); }
static inline void close_fd(int *fd)
{
	if (*fd >= 0) close(*fd);
}
#define _cleanup_(fn) __attribute__((cleanup(fn)))
#define _cleanup_free_ _cleanup_(free_ptr)
#define _cleanup_close_ _cleanup_(close_fd)

/* Give away: the variable is empty afterwards and its cleanup does nothing. */
#define take_ptr(p)                     \
	({                              \
		__typeof__(p) _t = (p); \
		(p) = NULL;             \
		_t;                     \
	})
#define take_fd(fd)            \
	({                     \
		int _t = (fd); \
		(fd) = -1;     \
		_t;            \
	})

#define container_of(ptr, T, member) ((T *)((char *)(ptr)-offsetof(T, member)))
#define array_len(a) (sizeof(a) / sizeof((a)[0]))
#define min_of(a, b) ((a) < (b) ? (a) : (b))
#define max_of(a, b) ((a) > (b) ? (a) : (b))
#endif
