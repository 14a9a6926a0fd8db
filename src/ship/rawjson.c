/* The scanner works on text that jansson has accepted, so it need not check again: a string ends at the first quote that
 * is not escaped, a value where its brackets are closed. */
#include "ship/rawjson.h"
#include <jansson.h>
#include <string.h>

void ship_raw_compact(const char *p, size_t n, struct buf *out)
{
	bool in_string = false;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)p[i];
		if (!in_string && (c == ' ' || c == '\t' || c == '\n' || c == '\r')) continue;
		if (c == '"') in_string = !in_string;
		if (c == '<' || c == '>' || c == '&') {
			buf_addf(out, "\\u%04x", c);
		} else if (c == 0xe2 && i + 2 < n && (unsigned char)p[i + 1] == 0x80 &&
			   ((unsigned char)p[i + 2] & ~1) == 0xa8) {
			buf_adds(out, (unsigned char)p[i + 2] == 0xa8 ? "\\u2028" : "\\u2029");
			i += 2;
		} else {
			buf_addc(out, (char)c);
			if (in_string && c == '\\' && i + 1 < n) buf_addc(out, p[++i]);
		}
	}
}

/* In compact valid JSON: the end of the value at p. */
static const char *value_end(const char *p, const char *end)
{
	int depth = 0;
	for (; p < end; p++) {
		if (*p == '"') {
			for (p++; p < end && *p != '"'; p++)
				if (*p == '\\') p++;
		} else if (*p == '{' || *p == '[') {
			depth++;
		} else if (*p == '}' || *p == ']') {
			if (!depth) return p;
			depth--;
		} else if (*p == ',' && !depth) {
			return p;
		}
	}
	return p;
}

static const char *string_end(const char *p)
{
	for (p++; *p != '"'; p++)
		if (*p == '\\') p++;
	return p + 1;
}

static char *unquote(const char *p, size_t n)
{
	json_t *s = json_loadb(p, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	char *text = s ? xstrdup(json_string_value(s)) : NULL;
	json_decref(s);
	return text;
}

struct buf *ship_raw_set(struct ship_raw *r, const char *key)
{
	for (size_t i = 0; i < r->members.n; i++)
		if (!strcmp(r->members.v[i].key, key)) {
			buf_reset(&r->members.v[i].value);
			return &r->members.v[i].value;
		}
	struct ship_raw_member *m = vec_add(&r->members);
	m->key = xstrdup(key);
	return &m->value;
}

const struct buf *ship_raw_get(const struct ship_raw *r, const char *key)
{
	for (size_t i = 0; i < r->members.n; i++)
		if (!strcmp(r->members.v[i].key, key)) return &r->members.v[i].value;
	return NULL;
}

int ship_raw_check(const char *p, size_t n, struct err *e)
{
	json_error_t why;
	json_t *checked = json_loadb(p, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
	if (!checked) return err_set(e, CODE_INVALID_ARGUMENT, "%s (line %d, column %d)", why.text, why.line, why.column);
	json_decref(checked);
	return 0;
}

int ship_raw_parse(const char *p, size_t n, struct ship_raw *ret, bool *ret_null, struct err *e)
{
	json_error_t why;
	json_t *checked = json_loadb(p, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
	if (!checked) return err_set(e, CODE_INVALID_ARGUMENT, "%s (line %d, column %d)", why.text, why.line, why.column);
	bool object = json_is_object(checked), null = json_is_null(checked);
	json_decref(checked);
	if (!object && !null) return err_set(e, CODE_INVALID_ARGUMENT, "not a JSON object");
	*ret_null = null;
	if (null) return 0;
	_cleanup_buf_ struct buf text = BUF_INIT;
	ship_raw_compact(p, n, &text);
	const char *s = (char *)text.p + 1, *end = (char *)text.p + text.n - 1;
	while (s < end) {
		const char *colon = string_end(s), *stop = value_end(colon + 1, end);
		_cleanup_free_ char *key = unquote(s, (size_t)(colon - s));
		if (!key) return err_set(e, CODE_INVALID_ARGUMENT, "bad key in a JSON object");
		buf_add(ship_raw_set(ret, key), colon + 1, (size_t)(stop - colon - 1));
		s = stop + 1;
	}
	return 0;
}

void ship_raw_fini(struct ship_raw *r)
{
	for (size_t i = 0; i < r->members.n; i++) {
		free(r->members.v[i].key);
		buf_fini(&r->members.v[i].value);
	}
	vec_fini(&r->members);
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct ship_raw_member *)a)->key, ((const struct ship_raw_member *)b)->key);
}

void ship_raw_write(struct ship_raw *r, struct buf *out)
{
	if (r->members.n) qsort(r->members.v, r->members.n, sizeof *r->members.v, by_key);
	struct json_w w = JSON_W(out);
	json_obj(&w);
	for (size_t i = 0; i < r->members.n; i++) {
		json_key(&w, r->members.v[i].key);
		json_raw(&w, buf_str(&r->members.v[i].value), r->members.v[i].value.n);
	}
	json_obj_end(&w);
}

static void newline(struct buf *out, int depth)
{
	buf_addc(out, '\n');
	while (depth-- > 0) buf_adds(out, "  ");
}

void ship_raw_indent(const char *p, size_t n, struct buf *out)
{
	int depth = 0;
	for (const char *end = p + n; p < end; p++) {
		if (*p == '"') {
			const char *stop = string_end(p);
			buf_add(out, p, (size_t)(stop - p));
			p = stop - 1;
		} else if (*p == '{' || *p == '[') {
			buf_addc(out, *p);
			if (p + 1 < end && (p[1] == '}' || p[1] == ']'))
				buf_addc(out, *++p);
			else
				newline(out, ++depth);
		} else if (*p == '}' || *p == ']') {
			newline(out, --depth);
			buf_addc(out, *p);
		} else {
			buf_addc(out, *p);
			if (*p == ',') newline(out, depth);
			if (*p == ':') buf_addc(out, ' ');
		}
	}
}
