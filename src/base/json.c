#include "base/json.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void newline(struct json_w *w)
{
	if (!w->indent) return;
	buf_addc(w->out, '\n');
	for (int i = 0; i < w->depth; i++) buf_adds(w->out, w->indent);
}

static void before_value(struct json_w *w)
{
	if (w->after_key) {
		w->after_key = false;
		return;
	}
	if (w->need_comma) buf_addc(w->out, ',');
	if (w->depth) newline(w);
	w->opened = false;
}

static void open_with(struct json_w *w, char c)
{
	before_value(w);
	buf_addc(w->out, c);
	w->depth++;
	w->need_comma = false;
	w->opened = true;
}

static void close_with(struct json_w *w, char c)
{
	w->depth--;
	if (!w->opened) newline(w);
	buf_addc(w->out, c);
	w->need_comma = true;
	w->opened = false;
}

void json_obj(struct json_w *w) { open_with(w, '{'); }
void json_obj_end(struct json_w *w) { close_with(w, '}'); }
void json_arr(struct json_w *w) { open_with(w, '['); }
void json_arr_end(struct json_w *w) { close_with(w, ']'); }

/* The length of the UTF-8 sequence at s, 0 when it is none. */
static size_t utf8_len(const uint8_t *s, size_t n)
{
	if (s[0] < 0x80) return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4) return 0;
	size_t len = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	if (n < len) return 0;
	for (size_t i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80) return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return len;
}

static void quote(struct buf *out, const char *s, size_t n, bool html)
{
	const uint8_t *p = (const uint8_t *)s;
	buf_addc(out, '"');
	for (size_t i = 0; i < n;) {
		size_t len = utf8_len(p + i, n - i);
		uint8_t c = p[i];
		if (!len) {
			buf_adds(out, "\\ufffd");
			i++;
			continue;
		}
		if (len == 3 && c == 0xe2 && p[i + 1] == 0x80 && (p[i + 2] == 0xa8 || p[i + 2] == 0xa9))
			buf_adds(out, p[i + 2] == 0xa8 ? "\\u2028" : "\\u2029");
		else if (len > 1)
			buf_add(out, p + i, len);
		else if (c == '"' || c == '\\') {
			buf_addc(out, '\\');
			buf_addc(out, (char)c);
		} else if (c == '\n')
			buf_adds(out, "\\n");
		else if (c == '\r')
			buf_adds(out, "\\r");
		else if (c == '\t')
			buf_adds(out, "\\t");
		else if (c == '\b')
			buf_adds(out, "\\b");
		else if (c == '\f')
			buf_adds(out, "\\f");
		else if (c < 0x20 || (html && (c == '<' || c == '>' || c == '&')))
			buf_addf(out, "\\u%04x", c);
		else
			buf_addc(out, (char)c);
		i += len;
	}
	buf_addc(out, '"');
}

void json_quote(struct buf *out, const char *s, size_t n) { quote(out, s, n, true); }

void json_key(struct json_w *w, const char *k)
{
	before_value(w);
	quote(w->out, k, strlen(k), !w->no_html_escape);
	buf_adds(w->out, w->indent ? ": " : ":");
	w->after_key = true;
	w->need_comma = true;
}

static void value(struct json_w *w)
{
	before_value(w);
	w->need_comma = true;
}

void json_strn(struct json_w *w, const char *s, size_t n)
{
	value(w);
	quote(w->out, s, n, !w->no_html_escape);
}

void json_str(struct json_w *w, const char *s)
{
	if (s)
		json_strn(w, s, strlen(s));
	else
		json_strn(w, "", 0);
}

void json_int(struct json_w *w, int64_t v)
{
	value(w);
	buf_addf(w->out, "%" PRId64, v);
}

void json_uint(struct json_w *w, uint64_t v)
{
	value(w);
	buf_addf(w->out, "%" PRIu64, v);
}

void json_bool(struct json_w *w, bool v)
{
	value(w);
	buf_adds(w->out, v ? "true" : "false");
}

void json_nil(struct json_w *w)
{
	value(w);
	buf_adds(w->out, "null");
}

void json_raw(struct json_w *w, const char *raw, size_t n)
{
	value(w);
	buf_add(w->out, raw, n);
}

void json_base64(struct json_w *w, const void *p, size_t n)
{
	value(w);
	buf_addc(w->out, '"');
	base64_encode(w->out, p, n);
	buf_addc(w->out, '"');
}

void json_kstr(struct json_w *w, const char *k, const char *s)
{
	json_key(w, k);
	json_str(w, s);
}

void json_kint(struct json_w *w, const char *k, int64_t v)
{
	json_key(w, k);
	json_int(w, v);
}

void json_kbool(struct json_w *w, const char *k, bool v)
{
	json_key(w, k);
	json_bool(w, v);
}

void json_kstr_omit(struct json_w *w, const char *k, const char *s)
{
	if (s && *s) json_kstr(w, k, s);
}

void json_kint_omit(struct json_w *w, const char *k, int64_t v)
{
	if (v) json_kint(w, k, v);
}

void json_kbool_omit(struct json_w *w, const char *k, bool v)
{
	if (v) json_kbool(w, k, v);
}

void json_kstrs_omit(struct json_w *w, const char *k, char *const *v, size_t n)
{
	if (!n) return;
	json_key(w, k);
	json_arr(w);
	for (size_t i = 0; i < n; i++) json_str(w, v[i]);
	json_arr_end(w);
}
