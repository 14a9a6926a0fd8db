#ifndef SPEC_INTERNAL_H
#define SPEC_INTERNAL_H
/* Shared inside the room only: the code of a grammar error, and UTF-8 stepping as Go's ranges do it. */
#include "base/base.h"

/* A plain Go error crosses the wire as UNKNOWN, and then clients print its text alone. */
#define SPEC_BAD CODE_UNKNOWN
enum { SPEC_RUNE_ERROR = 0xfffd };
/* The rune at s (n > 0 bytes left) and its width; a bad byte is U+FFFD of width 1. */
uint32_t spec_rune(const char *s, size_t n, size_t *ret_width);
void spec_rune_add(struct buf *b, uint32_t r);
/* Go's path.Match over n bytes of name. */
int spec_match_bytes(const char *pattern, const char *name, struct err *e);
#endif
