#ifndef DOCKERFILE_DIRECTIVE_H
#define DOCKERFILE_DIRECTIVE_H
/* Private to the room: parser directives, line by line. Any thread, no blocking. */
#include "dockerfile/lint.h"

struct directive_line {
	const char *key, *value; /* key lower case: syntax, escape or check */
};
/* Whether text (behind the comment sign) is a directive: 1 or 0. */
int directive_match(struct arena *a, const char *text, size_t n, struct directive_line *ret);

struct directive_parser {
	const char *comment; /* the sign before a directive: "#" or "//" */
	unsigned seen;       /* one bit a name */
	bool done;           /* a line was no directive: there are no more */
};
/* One line without its end: 1 a directive, 0 none, -1 a second one of the same name. */
int directive_next(struct arena *a, struct directive_parser *p, const char *line, size_t n, struct directive_line *ret,
		   struct err *e);
static inline size_t directive_bom(const char *s, size_t n)
{
	return n >= 3 && !__builtin_memcmp(s, "\xef\xbb\xbf", 3) ? 3 : 0;
}
#endif
