#ifndef DRIVE_INTERNAL_H
#define DRIVE_INTERNAL_H
#include "drive/engine.h"
#include <curl/curl.h>

/* A handle for a URL of the engine; the caller sets what it wants and cleans it up. */
CURL *drive_curl(const struct drive_engine *at, const char *path, struct err *e);
/* The engine's own message, or "docker engine: <what>: status N". Returns -1. */
int drive_status_error(const char *what, long status, const char *answer, size_t n, struct err *e);
#endif
