#include "base/mem.h"
#include "base/err.h"

#include <stdio.h>
#include <string.h>

static void *checked(void *p)
{
	if (!p) bug("out of memory");
	return p;
}

void *xmalloc(size_t n) { return checked(malloc(n ? n : 1)); }
void *xcalloc(size_t n, size_t size) { return checked(calloc(n ? n : 1, size ? size : 1)); }
void *xrealloc(void *p, size_t n) { return checked(realloc(p, n ? n : 1)); }

void *xreallocarray(void *p, size_t n, size_t size)
{
	size_t bytes;
	if (__builtin_mul_overflow(n, size, &bytes)) bug("allocation of %zu times %zu bytes", n, size);
	return xrealloc(p, bytes);
}

char *xstrdup(const char *s) { return s ? checked(strdup(s)) : NULL; }
char *xstrndup(const char *s, size_t n) { return checked(strndup(s, n)); }

void *xmemdup(const void *p, size_t n)
{
	void *copy = xmalloc(n);
	if (n) memcpy(copy, p, n);
	return copy;
}

char *xvasprintf(const char *fmt, va_list ap)
{
	char *s;
	if (vasprintf(&s, fmt, ap) < 0) bug("out of memory");
	return s;
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	char *s = xvasprintf(fmt, ap);
	va_end(ap);
	return s;
}
