#ifndef BUILD_FLOW_JOB_H
#define BUILD_FLOW_JOB_H
/* Reading a part of a blob. Job thread; blocks on the disk and on write(). */
#include "blob/blob.h"
#include <stdatomic.h>

/* size <= 0, or beyond the end: to its end. offset < 0 is 0. */
int flow_read(const struct blob_store *s, const char *digest, int64_t offset, int64_t size, const atomic_bool *cancelled,
	      int (*write)(void *ctx, const void *p, size_t n, struct err *e), void *ctx, struct err *e);
#endif
