/* One instruction's line: command, flags and the rest, cut as the command's own rules say.
 *
 * Each command has one of a few ways to cut: whole text, white space, key and value, JSON or one of those. The table maps
 * commands to them; an unknown command is kept with one empty word, so that the next stage can name its line.
 * Invariants: (1) words of a file are counted and bounded; (2) ONBUILD nests at most LINE_MAX_NESTING deep.
 * Unlike the peer, which takes flags byte by byte as Latin-1, flags keep their UTF-8. */
#include "dockerfile/parser.h"
#include "dockerfile/json.h"
#include "dockerfile/rune.h"

#include <string.h>
#include <strings.h>

enum { LINE_MAX_NESTING = 32 };

/* ---- splitting ---- */

static size_t blanks(const char *s)
{
	size_t n = 0;
	while (s[n] == ' ' || s[n] == '\t' || s[n] == '\v' || s[n] == '\f' || s[n] == '\r') n++;
	return n;
}

static const char *trimmed(struct arena *a, const char *s)
{
	struct rune_text t = rune_trim(s, strlen(s));
	return arena_strndup(a, t.s, t.n);
}

static int word_add(struct line_parser *p, struct ast_strs *to, const char *s, size_t n, struct err *e)
{
	if (++p->n_words > AST_MAX_WORDS) return err_set(e, CODE_UNKNOWN, "dockerfile has more than %d words", AST_MAX_WORDS);
	ast_strs_add(p->a, to, arena_strndup(p->a, s, n));
	return 0;
}

/* The word at s with its quotes and escapes resolved into b; answers what is behind it. */
static const char *flag_word(const char *s, char escape, struct buf *b, bool *ret_blank_ok)
{
	char quote = 0;
	*ret_blank_ok = false;
	for (; *s; s++) {
		if (quote && *s == quote) {
			quote = 0;
			continue;
		}
		if (!quote && rune_is_blank(*s)) break;
		if (!quote && (*s == '\'' || *s == '"')) {
			quote = *s;
			*ret_blank_ok = true;
			continue;
		}
		if (*s == escape && !*++s) break; /* one at the end is dropped */
		buf_addc(b, *s);
	}
	return s;
}

/* Leading words that begin with --, up to a word that is only that; *ret_rest: what is behind them. */
static int flags_take(struct line_parser *p, const char *s, struct ast_strs *flags, const char **ret_rest, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (;;) {
		bool blank_ok;
		while (rune_is_blank(*s)) s++;
		if (strncmp(s, "--", 2)) break;
		buf_reset(&b);
		s = flag_word(s, p->escape, &b, &blank_ok);
		if (b.n == 2 && !memcmp(b.p, "--", 2)) break;
		if ((b.n || blank_ok) && word_add(p, flags, buf_str(&b), b.n, e) < 0) return -1;
	}
	*ret_rest = trimmed(p->a, s);
	return 0;
}

/* ---- ways to cut ---- */

typedef int cut_fn(struct line_parser *p, struct ast_node *n, const char *rest, struct err *e);

static int cut_none(struct line_parser *p, struct ast_node *n, const char *rest, struct err *e)
{
	return word_add(p, &n->words, "", 0, e);
}

static int cut_whole(struct line_parser *p, struct ast_node *n, const char *rest, struct err *e)
{
	return *rest ? word_add(p, &n->words, rest, strlen(rest), e) : 0;
}

static int cut_blanks(struct line_parser *p, struct ast_node *n, const char *rest, struct err *e)
{
	if (!*rest) return 0;
	for (;;) {
		size_t len = strcspn(rest, " \t\v\f\r");
		if (word_add(p, &n->words, rest, len, e) < 0) return -1;
		rest += len;
		if (!*rest) return 0;
		rest += blanks(rest);
	}
}

/* 1: it was an array of strings, 0: something else. */
static int cut_json(struct line_parser *p, struct ast_node *n, const char *rest, struct err *e)
{
	struct ast_strs list = {0};
	struct rune_text t = rune_trim_left(rest, strlen(rest));
	switch (json_list_strings(p->a, t.s, t.n, &list)) {
	case JSON_LIST_OF_STRINGS: break;
	case JSON_LIST_OF_OTHERS:
		return err_set(e, CODE_UNKNOWN, "when using JSON array syntax, arrays must be comprised of strings only");
	default: return 0;
	}
	for (size_t i = 0; i < list.n; i++)
		if (word_add(p, &n->words, list.v[i], strlen(list.v[i]), e) < 0) return -1;
	n->json = true;
	return 1;
}

static int cut_json_or_whole(struct line_parser *p, struct ast_node *n, const char *rest, struct err *e)
{
	int r = cut_json(p, n, rest, e);
	return r ? r : cut_whole(p, n, rest, e);
}

static int cut_json_or_blanks(struct line_parser *p, struct ast_node *n, const char *rest, struct err *e)
{
	int r = cut_json(p, n, rest, e);
	return r ? r : cut_blanks(p, n, rest, e);
}

static int cut_health(struct line_parser *p, struct ast_node *n, const char *rest, struct err *e)
{
	size_t len = 0;
	while (rest[len] && !rune_is_blank(rest[len])) len++;
	if (!len) return 0;
	if (word_add(p, &n->words, rest, len, e) < 0) return -1;
	rest += len;
	while (rune_is_blank(*rest)) rest++;
	return cut_json_or_whole(p, n, rest, e);
}

/* A word up to white space outside quotes; quotes and escapes stay in it. Answers what is behind it. */
static struct rune_text quoted_word(struct rune_text t, char escape, struct buf *b)
{
	char quote = 0;
	size_t w, n = t.n;
	const char *s = t.s;
	while (n) {
		int32_t r = rune_at(s, n, &w);
		if (!quote && rune_is_space(r)) break;
		s += w;
		n -= w;
		if (quote)
			quote = r == quote ? 0 : quote;
		else if (r == '\'' || r == '"')
			quote = (char)r;
		if (r == escape && quote != '\'') {
			if (!n) break; /* one at the end is dropped */
			rune_add(b, r);
			r = rune_at(s, n, &w);
			s += w;
			n -= w;
		}
		rune_add(b, r);
	}
	return (struct rune_text){s, n};
}

static int cut_quoted(struct line_parser *p, const char *rest, struct ast_strs *to, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct rune_text t = {rest, strlen(rest)};
	for (;;) {
		t = rune_trim_left(t.s, t.n);
		if (!t.n) return 0;
		buf_reset(&b);
		t = quoted_word(t, p->escape, &b);
		if (b.n && word_add(p, to, buf_str(&b), b.n, e) < 0) return -1;
	}
}

static int cut_args(struct line_parser *p, struct ast_node *n, const char *rest, struct err *e)
{
	return cut_quoted(p, rest, &n->words, e);
}

static int pair_add(struct line_parser *p, struct ast_node *n, const char *k, size_t k_len, const char *v, const char *sep,
		    struct err *e)
{
	if (word_add(p, &n->words, k, k_len, e) < 0 || word_add(p, &n->words, v, strlen(v), e) < 0) return -1;
	return word_add(p, &n->words, sep, strlen(sep), e);
}

static int cut_pairs(struct line_parser *p, struct ast_node *n, const char *rest, struct err *e)
{
	struct ast_strs words = {0};
	if (cut_quoted(p, rest, &words, e) < 0) return -1;
	if (!words.n) return 0;
	if (!strchr(words.v[0], '=')) { /* the old form */
		size_t len = strcspn(rest, " \t\v\f\r");
		if (!rest[len]) return err_set(e, CODE_UNKNOWN, "%s must have two arguments", rune_upper(p->a, n->value));
		return pair_add(p, n, rest, len, rest + len + blanks(rest + len), "", e);
	}
	for (size_t i = 0; i < words.n; i++) {
		const char *w = words.v[i], *eq = strchr(w, '=');
		if (!eq)
			return err_set(e, CODE_UNKNOWN, "Syntax error - can't find = in %s. Must be of the form: name=value",
				       rune_quote(p->a, w));
		if (pair_add(p, n, w, (size_t)(eq - w), eq + 1, "=", e) < 0) return -1;
	}
	return 0;
}

static const struct {
	const char *name;
	cut_fn *cut;
} cuts[] = {
	{"add", cut_json_or_blanks},
	{"arg", cut_args},
	{"cmd", cut_json_or_whole},
	{"copy", cut_json_or_blanks},
	{"entrypoint", cut_json_or_whole},
	{"env", cut_pairs},
	{"expose", cut_blanks},
	{"from", cut_blanks},
	{"healthcheck", cut_health},
	{"label", cut_pairs},
	{"maintainer", cut_whole},
	{"run", cut_json_or_whole},
	{"shell", cut_json_or_whole},
	{"stopsignal", cut_whole},
	{"user", cut_whole},
	{"volume", cut_json_or_blanks},
	{"workdir", cut_whole},
};

static cut_fn *cut_of(const char *command)
{
	for (size_t i = 0; i < array_len(cuts); i++)
		if (!strcasecmp(cuts[i].name, command)) return cuts[i].cut;
	return cut_none;
}

int line_parse(struct line_parser *p, const char *line, struct ast_node **ret, struct err *e)
{
	struct ast_node *top = NULL, **at = &top;
	for (int depth = 0;; depth++) {
		if (depth > LINE_MAX_NESTING) return err_set(e, CODE_UNKNOWN, "ONBUILD is nested too deep");
		struct ast_node *n = *at = arena_new_of(p->a, struct ast_node);
		const char *s = trimmed(p->a, line), *rest = "";
		size_t len = strcspn(s, " \t\v\f\r");
		n->value = arena_strndup(p->a, s, len);
		n->original = line;
		if (s[len] && flags_take(p, s + len + blanks(s + len), &n->flags, &rest, e) < 0) return -1;
		if (strcasecmp(n->value, "onbuild")) {
			if (cut_of(n->value)(p, n, rest, e) < 0) return -1;
			break;
		}
		if (!*rest) break;
		line = rest;
		at = &n->sub;
	}
	*ret = top;
	return 0;
}
