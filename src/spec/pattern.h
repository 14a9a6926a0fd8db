#ifndef SPEC_PATTERN_H
#define SPEC_PATTERN_H
/* Ignore and include patterns (.dockerignore, COPY --exclude, include-patterns) and shell wildcards.
 * Source: github.com/moby/patternmatcher with ignorefile, Go's path.Match. Any thread, no blocking; a set that was
 * made is immutable and may be shared between threads. Paths are relative, '/'-separated, clean. */
#include "base/base.h"

struct spec_patterns;
/* Each pattern is trimmed and cleaned; empty ones are dropped; a leading '!' makes an exception. Errors:
 * "syntax error in pattern" or `illegal exclusion pattern: "!"`. */
int spec_patterns_new(char *const *v, size_t n, struct spec_patterns **ret, struct err *e);
void spec_patterns_free(struct spec_patterns *p); /* NULL allowed */
static inline void spec_patterns_freep(struct spec_patterns **p) { spec_patterns_free(*p); }
#define _cleanup_spec_patterns_ __attribute__((cleanup(spec_patterns_freep)))
size_t spec_patterns_count(const struct spec_patterns *p);
bool spec_patterns_exclusions(const struct spec_patterns *p);            /* any '!' pattern */
const char *spec_patterns_text(const struct spec_patterns *p, size_t i); /* cleaned, without '!'; borrowed */
bool spec_patterns_is_exclusion(const struct spec_patterns *p, size_t i);
/* MatchesOrParentMatches: 1, 0, or -1 (a pattern that Match accepts but regexp does not). */
int spec_patterns_match(const struct spec_patterns *p, const char *path, struct err *e);
/* MatchesUsingParentResults for walks: parent and ret_info are arrays of spec_patterns_count() flags; parent NULL: nothing
 * is known of the parent (as spec_patterns_match). ret_info may be NULL. 1, 0 or -1. */
int spec_patterns_match_parents(const struct spec_patterns *p, const char *path, const bool *parent, bool *ret_info,
				struct err *e);
/* The package's MatchesOrParentMatches(file, patterns): path is cleaned first and "." never matches. */
int spec_patterns_match_once(char *const *v, size_t n, const char *path, struct err *e);
/* Go's path.Match, shell wildcards over one whole name: 1, 0, or -1 "syntax error in pattern". */
int spec_path_match(const char *pattern, const char *name, struct err *e);
bool spec_path_has_wildcard(const char *s); /* an unescaped '*', '?' or '[' */
/* ignorefile.ReadAll: the patterns of an ignore file's bytes, appended to *ret. */
int spec_ignorefile_parse(const char *p, size_t n, struct strvec *ret, struct err *e);
/* Go's strings.TrimSpace (Unicode), heap. */
char *spec_trim(const char *s, size_t n);
#endif
