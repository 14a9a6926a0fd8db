#ifndef OPS_NESTED_JOB_H
#define OPS_NESTED_JOB_H
/* The definition that a build operation finds in its input. Job; no loop. */
#include "snap/snap.h"

enum { NESTED_MAX_BYTES = 16 << 20 };
int nested_job_read(const struct snap_view *v, const char *path, uint8_t **ret, size_t *ret_len, struct err *e);
#endif
