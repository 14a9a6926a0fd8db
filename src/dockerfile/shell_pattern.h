#ifndef DOCKERFILE_SHELL_PATTERN_H
#define DOCKERFILE_SHELL_PATTERN_H
/* Private to shell.c: the patterns of ${v#p}, ${v%p} and ${v/p/r}: `*`, `?` and plain characters. Any thread, no blocking. */
#include "dockerfile/lint.h"

/* The value without what matches at its beginning (or end); the longest when greedy. Errors: a bad escape. */
int shell_trim(struct arena *a, const char *pattern, const char *value, bool suffix, bool greedy, const char **ret,
	       struct err *e);
/* The first match replaced, or all of them; then $1, ${x} and $$ in the replacement are what Go's regexp makes of them. */
int shell_replace(struct arena *a, const char *pattern, const char *value, const char *with, bool all, const char **ret,
		  struct err *e);
#endif
