#ifndef BASE_BUF_H
#define BASE_BUF_H
/* Growing bytes with a hard maximum. `{0}` is an empty buffer without one.
 * Invariants: p[n] is 0 whenever p is set (so p is also a C string); n < cap; n <= max when max is set.
 * Adding past max changes nothing but sets `overflow` and answers -1: check once, at the end. Any thread, no blocking. */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *p;
	size_t n, cap, max;
	bool overflow;
};
#define BUF_INIT ((struct buf){0})
#define BUF_MAX(m) ((struct buf){.max = (m)})
#define _cleanup_buf_ __attribute__((cleanup(buf_fini)))

int buf_add(struct buf *b, const void *p, size_t n);
int buf_adds(struct buf *b, const char *s);
int buf_addc(struct buf *b, char c);
int buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int buf_vaddf(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
/* Room for n more bytes behind p[n], uninitialised; the caller adds to b->n what it used. NULL on overflow. */
void *buf_reserve(struct buf *b, size_t n);
void buf_consume(struct buf *b, size_t n); /* drop the first n bytes */
void buf_reset(struct buf *b);             /* empty, memory kept */
void buf_fini(struct buf *b);
const char *buf_str(const struct buf *b); /* never NULL; "" when empty */
char *buf_take_str(struct buf *b);        /* the bytes as a heap string, the buffer is empty afterwards */
#endif
