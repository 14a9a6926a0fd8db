/* A reader of JSON text that keeps only strings.
 *
 * The grammar is RFC 8259's, with Go's limits: what Go refuses is no JSON here either, since a RUN or CMD whose array does
 * not parse is a shell command. Invariants: (1) the cursor never passes the end; (2) nesting over JSON_DEPTH is no JSON;
 * (3) what is skipped allocates nothing. */
#include "dockerfile/json.h"
#include "dockerfile/ast.h"
#include "dockerfile/rune.h"

#include <string.h>

enum { JSON_DEPTH = 500 };

struct reader {
	const char *s, *end;
	bool nul; /* the last string held \u0000 */
};

static void space(struct reader *r)
{
	while (r->s < r->end && (*r->s == ' ' || *r->s == '\t' || *r->s == '\n' || *r->s == '\r')) r->s++;
}

static bool accept(struct reader *r, char c)
{
	if (r->s == r->end || *r->s != c) return false;
	r->s++;
	return true;
}

static bool accept_word(struct reader *r, const char *w)
{
	size_t n = strlen(w);
	if ((size_t)(r->end - r->s) < n || memcmp(r->s, w, n)) return false;
	r->s += n;
	return true;
}

/* Four hex digits: the number or -1. */
static int32_t hex4(struct reader *r)
{
	int32_t v = 0;
	if (r->end - r->s < 4) return -1;
	for (int i = 0; i < 4; i++) {
		char c = *r->s++;
		int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
		if (d < 0) return -1;
		v = v * 16 + d;
	}
	return v;
}

/* Behind \u; a high surrogate takes the low one that follows. */
static bool unicode_escape(struct reader *r, struct buf *out)
{
	int32_t v = hex4(r);
	if (v < 0) return false;
	if (v >= 0xd800 && v < 0xdc00 && r->end - r->s >= 6 && r->s[0] == '\\' && r->s[1] == 'u') {
		struct reader look = {.s = r->s + 2, .end = r->end};
		int32_t low = hex4(&look);
		if (low >= 0xdc00 && low < 0xe000) {
			v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
			r->s = look.s;
		}
	}
	if (!v) r->nul = true;
	if (out) v ? rune_add(out, v) : buf_adds(out, JSON_NUL);
	return true;
}

static bool escape(struct reader *r, struct buf *out)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	if (r->s == r->end) return false;
	char c = *r->s++;
	if (c == 'u') return unicode_escape(r, out);
	const char *at = c ? strchr(from, c) : NULL;
	if (!at) return false;
	if (out) buf_addc(out, to[at - from]);
	return true;
}

/* A string, out NULL: skipped. */
static bool string(struct reader *r, struct buf *out)
{
	r->nul = false;
	if (!accept(r, '"')) return false;
	while (r->s < r->end && *r->s != '"') {
		size_t w;
		if ((uint8_t)*r->s < 0x20) return false;
		int32_t c = rune_at(r->s, (size_t)(r->end - r->s), &w);
		r->s += w;
		if (c == '\\') {
			if (!escape(r, out)) return false;
		} else if (out) {
			rune_add(out, c);
		}
	}
	return accept(r, '"');
}

static size_t digits(struct reader *r)
{
	const char *from = r->s;
	while (r->s < r->end && *r->s >= '0' && *r->s <= '9') r->s++;
	return (size_t)(r->s - from);
}

static bool number(struct reader *r)
{
	accept(r, '-');
	if (!accept(r, '0') && !digits(r)) return false;
	if (accept(r, '.') && !digits(r)) return false;
	if (accept(r, 'e') || accept(r, 'E')) {
		if (!accept(r, '+')) accept(r, '-');
		return digits(r) > 0;
	}
	return true;
}

static bool skip_value(struct reader *r, int depth);

/* Members or elements up to the closing bracket; the opening one is behind us. */
static bool skip_rest(struct reader *r, char close, int depth)
{
	space(r);
	if (accept(r, close)) return true;
	do {
		space(r);
		if (close == '}') {
			if (!string(r, NULL)) return false;
			space(r);
			if (!accept(r, ':')) return false;
			space(r);
		}
		if (!skip_value(r, depth)) return false;
		space(r);
	} while (accept(r, ','));
	return accept(r, close);
}

static bool skip_value(struct reader *r, int depth)
{
	if (r->s == r->end || depth >= JSON_DEPTH) return false;
	switch (*r->s) {
	case '"': return string(r, NULL);
	case '{': r->s++; return skip_rest(r, '}', depth + 1);
	case '[': r->s++; return skip_rest(r, ']', depth + 1);
	case 't': return accept_word(r, "true");
	case 'f': return accept_word(r, "false");
	case 'n': return accept_word(r, "null");
	default: return number(r);
	}
}

static bool at_end(struct reader *r)
{
	space(r);
	return r->s == r->end;
}

enum json_list json_list_strings(struct arena *a, const char *s, size_t n, struct ast_strs *ret)
{
	struct reader r = {.s = s, .end = s + n};
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct ast_strs out = {0};
	bool others = false;
	if (!accept(&r, '[')) return JSON_NOT_LIST;
	space(&r);
	if (!accept(&r, ']')) {
		do {
			space(&r);
			if (r.s < r.end && *r.s == '"') {
				buf_reset(&b);
				if (!string(&r, &b)) return JSON_NOT_LIST;
				others |= out.n >= AST_MAX_WORDS;
				if (!others) ast_strs_add(a, &out, arena_strdup(a, buf_str(&b)));
			} else {
				if (!skip_value(&r, 1)) return JSON_NOT_LIST;
				others = true;
			}
			space(&r);
		} while (accept(&r, ','));
		if (!accept(&r, ']')) return JSON_NOT_LIST;
	}
	if (!at_end(&r)) return JSON_NOT_LIST;
	if (others) return JSON_LIST_OF_OTHERS;
	*ret = out;
	return JSON_LIST_OF_STRINGS;
}

bool json_object_string(struct arena *a, const char *s, size_t n, const char *key, const char **ret)
{
	struct reader r = {.s = s, .end = s + n};
	_cleanup_buf_ struct buf k = BUF_INIT, v = BUF_INIT;
	bool found = false;
	space(&r);
	if (!accept(&r, '{')) return false;
	space(&r);
	if (accept(&r, '}')) return false;
	do {
		space(&r);
		buf_reset(&k);
		if (!string(&r, &k)) return false;
		bool ours = !r.nul && !strcmp(buf_str(&k), key);
		space(&r);
		if (!accept(&r, ':')) return false;
		space(&r);
		bool text = r.s < r.end && *r.s == '"';
		if (ours) buf_reset(&v);
		if (!(ours && text ? string(&r, &v) : skip_value(&r, 1))) return false;
		if (ours) found = text && !r.nul;
		space(&r);
	} while (accept(&r, ','));
	if (!accept(&r, '}') || !at_end(&r) || !found) return false;
	*ret = arena_strdup(a, buf_str(&v));
	return true;
}
