#include "base/buf.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

void *buf_reserve(struct buf *b, size_t n)
{
	size_t want;
	if (__builtin_add_overflow(b->n, n, &want) || (b->max && want > b->max)) {
		b->overflow = true;
		return NULL;
	}
	if (want + 1 > b->cap) {
		b->cap = max_of(want + 1, b->cap + b->cap / 2);
		b->cap = max_of(b->cap, (size_t)64);
		b->p = xrealloc(b->p, b->cap);
		b->p[b->n] = 0;
	}
	return b->p + b->n;
}

int buf_add(struct buf *b, const void *p, size_t n)
{
	uint8_t *at = buf_reserve(b, n);
	if (!at) return -1;
	if (n) memcpy(at, p, n);
	b->n += n;
	b->p[b->n] = 0;
	return 0;
}

int buf_adds(struct buf *b, const char *s) { return buf_add(b, s, strlen(s)); }
int buf_addc(struct buf *b, char c) { return buf_add(b, &c, 1); }

int buf_vaddf(struct buf *b, const char *fmt, va_list ap)
{
	va_list again;
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	int r = -1;
	char *at = n < 0 ? NULL : buf_reserve(b, (size_t)n);
	if (at) {
		vsnprintf(at, (size_t)n + 1, fmt, again);
		b->n += (size_t)n;
		r = 0;
	}
	va_end(again);
	return r;
}

int buf_addf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int r = buf_vaddf(b, fmt, ap);
	va_end(ap);
	return r;
}

void buf_consume(struct buf *b, size_t n)
{
	if (n >= b->n) {
		buf_reset(b);
		return;
	}
	memmove(b->p, b->p + n, b->n - n);
	b->n -= n;
	b->p[b->n] = 0;
}

void buf_reset(struct buf *b)
{
	b->n = 0;
	b->overflow = false;
	if (b->p) b->p[0] = 0;
}

void buf_fini(struct buf *b)
{
	free(b->p);
	b->p = NULL;
	b->n = b->cap = 0;
	b->overflow = false;
}

const char *buf_str(const struct buf *b) { return b->p ? (const char *)b->p : ""; }

char *buf_take_str(struct buf *b)
{
	char *s = b->p ? (char *)b->p : xstrdup("");
	b->p = NULL;
	b->n = b->cap = 0;
	return s;
}
