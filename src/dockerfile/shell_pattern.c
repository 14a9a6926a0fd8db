/* Matching of shell patterns without bracket expressions.
 *
 * The peer turns a pattern into a regular expression. Here it is a list of tokens and a table: reach(i, j) says whether the
 * tokens from i on match the runes from j on, so a match costs tokens times runes and never more. The walk through the table
 * then takes at each star the shortest or the longest way that is left, which is what a backtracking matcher prefers.
 * Invariants: (1) no wildcard matches a newline; (2) the table is bounded by PATTERN_MAX_BITS; (3) a suffix is a prefix of
 * the reversed value, with the pattern reversed token by token. */
#include "dockerfile/shell_pattern.h"
#include "dockerfile/rune.h"

#include <string.h>

enum { PATTERN_MAX_BITS = 1 << 28 };
enum { TOKEN_ANY = -2, TOKEN_STAR = -3 };

struct runes {
	int32_t *v;
	size_t n;
};
#define _cleanup_runes_ __attribute__((cleanup(runes_fini)))
static void runes_fini(struct runes *r) { free(r->v); }

static struct runes runes_of(const char *s)
{
	size_t n = strlen(s), w;
	struct runes r = {xreallocarray(NULL, n + 1, sizeof *r.v), 0};
	for (; n; s += w, n -= w) r.v[r.n++] = rune_at(s, n, &w);
	return r;
}

static void reverse(struct runes *r)
{
	for (size_t i = 0, j = r->n; i + 1 < j; i++) {
		int32_t t = r->v[i];
		r->v[i] = r->v[--j];
		r->v[j] = t;
	}
}

static const char *text_of(struct arena *a, const int32_t *v, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (size_t i = 0; i < n; i++) rune_add(&b, v[i]);
	return arena_strdup(a, buf_str(&b));
}

/* Runes of the pattern -> tokens, in place. */
static int tokenize(struct runes *p, const char *shown, struct err *e)
{
	size_t out = 0;
	for (size_t i = 0; i < p->n; i++) {
		int32_t r = p->v[i];
		if (r == '\\') {
			r = i + 1 < p->n ? p->v[++i] : RUNE_EOF;
			if (r != '}' && r != '/' && r != '*' && r != '?' && r != '\\') {
				_cleanup_buf_ struct buf b = BUF_INIT;
				rune_add(&b, r);
				return err_set(e, CODE_UNKNOWN, "invalid pattern (%s) in substitution: invalid escape '\\%s'",
					       shown, buf_str(&b));
			}
		} else if (r == '*' || r == '?') {
			r = r == '*' ? TOKEN_STAR : TOKEN_ANY;
		}
		p->v[out++] = r;
	}
	p->n = out;
	return 0;
}

struct table {
	struct runes p, s;
	uint8_t *bits; /* (p.n + 1) rows of s.n + 1 */
};
#define _cleanup_table_ __attribute__((cleanup(table_fini)))
static void table_fini(struct table *t)
{
	runes_fini(&t->p);
	runes_fini(&t->s);
	free(t->bits);
}

static bool reach(const struct table *t, size_t i, size_t j)
{
	size_t at = i * (t->s.n + 1) + j;
	return t->bits[at / 8] >> (at % 8) & 1;
}

static bool reach_step(const struct table *t, size_t i, size_t j)
{
	int32_t tok = t->p.v[i];
	if (tok == TOKEN_STAR) return reach(t, i + 1, j) || (j < t->s.n && t->s.v[j] != '\n' && reach(t, i, j + 1));
	if (j >= t->s.n) return false;
	return (tok == TOKEN_ANY ? t->s.v[j] != '\n' : t->s.v[j] == tok) && reach(t, i + 1, j + 1);
}

static int table_init(struct table *t, const char *shown, struct err *e)
{
	if (tokenize(&t->p, shown, e) < 0) return -1;
	if ((t->p.n + 1) > PATTERN_MAX_BITS / (t->s.n + 1))
		return err_set(e, CODE_UNKNOWN, "pattern in substitution is too long for its value (%zu and %zu characters)",
			       t->p.n, t->s.n);
	t->bits = xcalloc((t->p.n + 1) * (t->s.n + 1) / 8 + 1, 1);
	for (size_t i = t->p.n + 1; i-- > 0;)
		for (size_t j = t->s.n + 1; j-- > 0;) {
			size_t at = i * (t->s.n + 1) + j;
			if (i == t->p.n || reach_step(t, i, j)) t->bits[at / 8] |= (uint8_t)(1 << at % 8);
		}
	return 0;
}

/* The end of the match that begins at j, where reach(0, j). */
static size_t match_end(const struct table *t, size_t j, bool greedy)
{
	for (size_t i = 0; i < t->p.n; i++) {
		if (t->p.v[i] != TOKEN_STAR) {
			j++;
			continue;
		}
		size_t to = j;
		bool found = reach(t, i + 1, to);
		for (size_t k = j; (greedy || !found) && k < t->s.n && t->s.v[k] != '\n'; k++)
			if (reach(t, i + 1, k + 1)) {
				to = k + 1;
				found = true;
			}
		j = to;
	}
	return j;
}

/* As the peer prints the pattern of a suffix: reversed, escapes kept in front of what they escape. */
static void reverse_pattern(struct runes *p)
{
	reverse(p);
	/* x\ is an escape now; an escape's own backslash is never the beginning of another */
	for (size_t i = p->n; i-- > 0;) {
		if (p->v[i] != '\\' || i == 0) continue;
		int32_t t = p->v[i - 1];
		p->v[i - 1] = '\\';
		p->v[i] = t;
		i--;
	}
}

int shell_trim(struct arena *a, const char *pattern, const char *value, bool suffix, bool greedy, const char **ret,
	       struct err *e)
{
	_cleanup_table_ struct table t = {.p = runes_of(pattern), .s = runes_of(value)};
	if (suffix) {
		reverse_pattern(&t.p);
		reverse(&t.s);
		pattern = text_of(a, t.p.v, t.p.n);
	}
	if (table_init(&t, pattern, e) < 0) return -1;
	size_t end = reach(&t, 0, 0) ? match_end(&t, 0, greedy) : 0;
	if (!suffix && !end) return *ret = value, 0;
	size_t n = t.s.n - end;
	memmove(t.s.v, t.s.v + end, n * sizeof *t.s.v);
	t.s.n = n;
	if (suffix) reverse(&t.s);
	*ret = text_of(a, t.s.v, n);
	return 0;
}

/* The length of a reference behind $ in a replacement, 0 when it is none; *ret_all: it names the whole match. */
static size_t reference(const char *s, bool *ret_all)
{
	size_t i = *s == '{', from = i, n = strlen(s), w;
	while (i < n) {
		int32_t r = rune_at(s + i, n - i, &w);
		if (!rune_is_letter(r) && !rune_is_digit(r) && r != '_') break;
		i += w;
	}
	if (i == from) return 0;
	*ret_all = i == from + 1 && s[from] == '0';
	if (from && s[i++] != '}') return 0;
	return i;
}

static void put_replacement(struct buf *out, const char *with, const int32_t *match, size_t n)
{
	for (const char *p = with; *p;) {
		bool all = false;
		size_t len = *p == '$' ? reference(p + 1, &all) : 0;
		if (*p == '$' && p[1] == '$') {
			buf_addc(out, '$');
			p += 2;
		} else if (len) {
			for (size_t i = 0; all && i < n; i++) rune_add(out, match[i]);
			p += 1 + len;
		} else {
			buf_addc(out, *p++);
		}
	}
}

static int replace_all(const struct table *t, const char *with, struct buf *out)
{
	size_t done = 0;
	for (size_t at = 0; at <= t->s.n && !out->overflow;) {
		size_t from = at;
		while (from <= t->s.n && !reach(t, 0, from)) from++;
		if (from > t->s.n) break;
		size_t end = match_end(t, from, true), last = done;
		for (; done < from; done++) rune_add(out, t->s.v[done]);
		if (end > last || !from) put_replacement(out, with, t->s.v + from, end - from);
		done = end;
		at = end > at ? end : at + 1;
	}
	for (; done < t->s.n; done++) rune_add(out, t->s.v[done]);
	return out->overflow ? -1 : 0;
}

static void replace_first(const struct table *t, const char *with, struct buf *out)
{
	size_t from = 0;
	while (from <= t->s.n && !reach(t, 0, from)) from++;
	size_t end = from <= t->s.n ? match_end(t, from, true) : 0;
	for (size_t i = 0; i < t->s.n && i < from; i++) rune_add(out, t->s.v[i]);
	if (from > t->s.n) return;
	buf_adds(out, with);
	for (size_t i = end; i < t->s.n; i++) rune_add(out, t->s.v[i]);
}

int shell_replace(struct arena *a, const char *pattern, const char *value, const char *with, bool all, const char **ret,
		  struct err *e)
{
	_cleanup_table_ struct table t = {.p = runes_of(pattern), .s = runes_of(value)};
	_cleanup_buf_ struct buf out = BUF_MAX(16 << 20);
	if (table_init(&t, pattern, e) < 0) return -1;
	if (all)
		replace_all(&t, with, &out);
	else
		replace_first(&t, with, &out);
	if (out.overflow) return err_set(e, CODE_UNKNOWN, "result of substitution is too long");
	*ret = arena_strdup(a, buf_str(&out));
	return 0;
}
