#ifndef DOCKERFILE_RUNE_H
#define DOCKERFILE_RUNE_H
/* Private to the room: runes as Go's unicode and strings packages see them, and trimming by them. Any thread, no blocking. */
#include "base/base.h"

enum { RUNE_ERROR = 0xfffd, RUNE_EOF = -1 };

/* The rune at s, n bytes left (0: RUNE_EOF) and its width; a bad byte is RUNE_ERROR of width 1. */
int32_t rune_at(const char *s, size_t n, size_t *ret_width);
int rune_add(struct buf *b, int32_t r); /* as UTF-8; what is no rune becomes RUNE_ERROR. -1 when the buffer is full */
bool rune_is_space(int32_t r);
bool rune_is_letter(int32_t r);
bool rune_is_digit(int32_t r);
static inline bool rune_is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); } /* ASCII white space */
/* The text without leading, or leading and trailing, white space (any Unicode): a part of s. */
struct rune_text {
	const char *s;
	size_t n;
};
struct rune_text rune_trim_left(const char *s, size_t n);
struct rune_text rune_trim(const char *s, size_t n);
char *rune_upper(struct arena *a, const char *s); /* ASCII letters only */
char *rune_lower(struct arena *a, const char *s);
const char *rune_quote(struct arena *a, const char *s); /* Go's %q */
#endif
