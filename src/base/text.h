#ifndef BASE_TEXT_H
#define BASE_TEXT_H
/* Small pure text helpers: ids, UTF-8, base64, Go quoting, times. Any thread. */
#include "base/buf.h"
#include "base/err.h"
#include <stdbool.h>
#include <time.h>

enum { ID_STR = 26, TIME_STR = 40 };
void id_new(char out[static ID_STR]); /* 25 random base36 characters, as BuildKit's identity.NewID */
bool utf8_valid(const char *s, size_t n);
char *utf8_clean(const char *s, size_t n); /* heap; bad bytes become U+FFFD, NUL too */
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);
bool str_eq(const char *a, const char *b);                                  /* NULL equals NULL only */
bool str_empty(const char *s);                                              /* NULL or "" */
bool str_bool(const char *s, bool *ret);                                    /* Go's strconv.ParseBool; false when it is none */
void base64_encode(struct buf *out, const void *p, size_t n);               /* standard alphabet, padded */
int base64_decode(const char *s, size_t n, struct buf *out, struct err *e); /* std and URL alphabets, padding optional */
void hex_encode(const void *p, size_t n, char *out);                        /* 2n+1 bytes */
char *go_quote(const char *s, size_t n);                                    /* Go's %q, heap */
/* Times are struct timespec of CLOCK_REALTIME. */
struct timespec time_now(void);
int64_t time_mono_ns(void);
void time_rfc3339nano(struct timespec t, char out[static TIME_STR]); /* UTC, trailing zeros dropped, as Go's RFC3339Nano */
int time_parse_rfc3339(const char *s, struct timespec *ret, struct err *e);
int duration_parse(const char *s, int64_t *ret_ns, struct err *e); /* Go's time.ParseDuration */
/* Human decimal sizes as Docker prints them ("1.23MB"), into out. */
void size_format(int64_t bytes, char out[static 24]);
/* Levenshtein distance, for "did you mean". */
size_t text_distance(const char *a, const char *b);
#endif
