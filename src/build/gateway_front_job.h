#ifndef BUILD_GATEWAY_FRONT_JOB_H
#define BUILD_GATEWAY_FRONT_JOB_H
/* The folder that a frontend container finds its own definition in. Jobs; no loop. */
#include "base/base.h"

int gateway_meta_write(const char *dir, const void *def, size_t n, struct err *e); /* makes dir with frontend.bin, mode 0400 */
void gateway_meta_remove(const char *dir);
#endif
