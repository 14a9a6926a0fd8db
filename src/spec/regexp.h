#ifndef SPEC_REGEXP_H
#define SPEC_REGEXP_H
/* Regular expressions as Go's regexp package has them (RE2's syntax, leftmost-first), for what a client writes: source
 * policies. Time is expression times text, never exponential; no recursion that the text decides. Any thread, no blocking; a
 * compiled one is immutable and may be shared between threads. There: literals, '.', classes with POSIX names and \d \s \w, ^ $
 * \A \z \b \B, groups (also named, and not capturing), flags i m s U,
 * |, *, +, ?, {n,m} and their lazy forms, \Q..\E, octal and hexadecimal escapes. Not there: \p{..} (an error says so); the flag
 * i knows ASCII letters only. Source: Go regexp/syntax, https://github.com/google/re2/wiki/Syntax. */
#include "base/base.h"

struct spec_regexp;
enum { SPEC_REGEXP_MAX_BYTES = 4096, SPEC_REGEXP_MAX_REPEAT = 1000, SPEC_REGEXP_MAX_STEPS = 20000 };

/* "error parsing regexp: missing closing ): `(`" and the like. */
int spec_regexp_new(const char *text, struct spec_regexp **ret, struct err *e);
void spec_regexp_free(struct spec_regexp *r); /* NULL allowed */
static inline void spec_regexp_freep(struct spec_regexp **r) { spec_regexp_free(*r); }
#define _cleanup_spec_regexp_ __attribute__((cleanup(spec_regexp_freep)))
/* MatchString: somewhere in s. */
bool spec_regexp_match(const struct spec_regexp *r, const char *s);
/* Expand `format` ($1, ${1}, $name, ${name}, $$) by the first match in s: true. No match: false, nothing is appended. */
bool spec_regexp_expand(const struct spec_regexp *r, const char *s, const char *format, struct buf *out);
/* ReplaceAllString: s with every match replaced by `format`, expanded. */
void spec_regexp_replace(const struct spec_regexp *r, const char *s, const char *format, struct buf *out);
/* QuoteMeta: text that matches s itself. */
void spec_regexp_quote(const char *s, struct buf *out);
#endif
