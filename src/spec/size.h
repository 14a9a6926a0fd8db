#ifndef SPEC_SIZE_H
#define SPEC_SIZE_H
/* Sizes with units, as github.com/docker/go-units reads them. Any thread, no blocking. */
#include "base/err.h"

int spec_size_parse(const char *s, int64_t *ret_bytes, struct err *e);         /* RAMInBytes: "512MB" = 512 MiB, "1g", "64" */
int spec_size_parse_decimal(const char *s, int64_t *ret_bytes, struct err *e); /* FromHumanSize: "1kB" = 1000 */
#endif
