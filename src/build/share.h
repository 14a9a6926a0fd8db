#ifndef BUILD_SHARE_H
#define BUILD_SHARE_H
/* The caches that a request names: imports begin when a frontend's graph asks for them, exports run behind the exporters, each
 * in a vertex of its own. Loop thread. */
#include "build/internal.h"

struct ship_kv;
/* Types, attributes and duplicates of the exports, before anything runs. */
int share_check(const Control__SolveRequest *req, struct err *e);
/* The nodes of the build look at that cache too, once it is read. One that is named twice is read once. */
void share_import(struct build *b, const char *type, const struct ship_kv *attrs, size_t n);
void share_import_request(struct build *b); /* those of the request itself */
void share_import_gateway(struct build *b, Gateway__CacheOptionsEntry *const *entries, size_t n);
void share_end(struct build *b);

struct share_exports;
/* NULL: there is nothing to export. done: once, later. */
struct share_exports *
share_export_start(struct build *b, void (*done)(void *arg, const struct strvec *response, const struct err *e), void *arg);
void share_export_cancel(struct share_exports *s); /* done is not called any more */
/* For ship: the inline cache of result number `ref`; NULL: the request wants none. arg is the build. */
typedef int share_inline_fn(void *arg, size_t ref, const char *const *layers, size_t n, struct buf *ret, struct err *e);
share_inline_fn *share_inline(const struct build *b);
#endif
