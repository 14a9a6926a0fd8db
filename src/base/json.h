#ifndef BASE_JSON_H
#define BASE_JSON_H
/* JSON writer for bytes that are hashed or compared: the exact output of Go's encoding/json (HTML characters, U+2028/9
 * and bad UTF-8 escaped as Go does). Reading is jansson's. The writer puts commas and, when indent is set, Go's MarshalIndent
 * layout. */
#include "base/buf.h"
#include <stdbool.h>
#include <stdint.h>

struct json_w {
	struct buf *out;
	const char *indent;  /* NULL: compact; else e.g. "  " */
	bool no_html_escape; /* as SetEscapeHTML(false) */
	int depth;
	bool need_comma, after_key;
	bool opened; /* the container at hand has no element yet */
};
#define JSON_W(b) ((struct json_w){.out = (b)})
void json_obj(struct json_w *w);
void json_obj_end(struct json_w *w);
void json_arr(struct json_w *w);
void json_arr_end(struct json_w *w);
void json_key(struct json_w *w, const char *k);
void json_str(struct json_w *w, const char *s);
void json_strn(struct json_w *w, const char *s, size_t n);
void json_int(struct json_w *w, int64_t v);
void json_uint(struct json_w *w, uint64_t v);
void json_bool(struct json_w *w, bool v);
void json_nil(struct json_w *w);
void json_raw(struct json_w *w, const char *raw, size_t n);  /* already JSON, put as it is */
void json_base64(struct json_w *w, const void *p, size_t n); /* a Go []byte */
/* Key and value at once; the _omit forms write nothing for the zero value (Go's omitempty). */
void json_kstr(struct json_w *w, const char *k, const char *s);
void json_kint(struct json_w *w, const char *k, int64_t v);
void json_kbool(struct json_w *w, const char *k, bool v);
void json_kstr_omit(struct json_w *w, const char *k, const char *s);
void json_kint_omit(struct json_w *w, const char *k, int64_t v);
void json_kbool_omit(struct json_w *w, const char *k, bool v);
void json_kstrs_omit(struct json_w *w, const char *k, char *const *v, size_t n);
void json_quote(struct buf *out, const char *s, size_t n); /* one string literal */
#endif
