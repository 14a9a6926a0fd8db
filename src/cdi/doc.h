#ifndef CDI_DOC_H
#define CDI_DOC_H
/* YAML as a tree of JSON values, by libyaml. A scalar is a string, but for a plain null; what it means is for the reader of the
 * tree. Refused: aliases, keys that are no scalars or come twice, a second document, more than 32 levels. Any thread. */
#include "base/base.h"

#include <jansson.h>

int yaml_read(const char *text, size_t n, json_t **ret, struct err *e); /* INVALID_ARGUMENT with the line */
#endif
