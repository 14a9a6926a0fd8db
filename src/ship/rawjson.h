#ifndef SHIP_RAWJSON_H
#define SHIP_RAWJSON_H
/* JSON objects whose values are kept as text, as Go's map[string]json.RawMessage: re-emitted compact, keys sorted. */
#include "base/base.h"

struct ship_raw_member {
	char *key;        /* unescaped, heap */
	struct buf value; /* compact, HTML characters escaped */
};
struct ship_raw {
	VEC(struct ship_raw_member) members;
};
/* INVALID_ARGUMENT when the text is no JSON object (then *e says where). "null" gives an object without members and
 * *ret_null. Of equal keys the last counts. */
int ship_raw_parse(const char *p, size_t n, struct ship_raw *ret, bool *ret_null, struct err *e);
void ship_raw_fini(struct ship_raw *r);
#define _cleanup_ship_raw_ _cleanup_(ship_raw_fini)
const struct buf *ship_raw_get(const struct ship_raw *r, const char *key); /* NULL when absent */
struct buf *ship_raw_set(struct ship_raw *r, const char *key);             /* an empty value to fill */
void ship_raw_write(struct ship_raw *r, struct buf *out);                  /* sorts */
int ship_raw_check(const char *p, size_t n, struct err *e);                /* INVALID_ARGUMENT when it is no JSON */
/* Compact a JSON text and escape as Go's Marshal does with a RawMessage. The text must be valid. */
void ship_raw_compact(const char *p, size_t n, struct buf *out);
/* The layout of Go's MarshalIndent with two blanks, from compact text. */
void ship_raw_indent(const char *p, size_t n, struct buf *out);
#endif
