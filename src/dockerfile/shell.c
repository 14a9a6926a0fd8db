/* Expansion and splitting of words.
 *
 * One pass over the text builds two things at once: the word, with its spaces, and the words, split where white space stands
 * outside quotes (the values of variables are split too). Quotes and escapes are removed or kept as the options say.
 * Invariants: (1) every piece is appended to one buffer with a maximum, and an overflow ends the pass at once; (2) recursion
 * is that of ${a:-...} only and bounded; (3) the cursor moves by whole runes, bad bytes are U+FFFD.
 * The peer builds all words in one buffer that ${a:-...} empties, so what stood before such a reference in a word is missing
 * from the words (not from the word). Callers there know it as it is; so it is here. */
#include "dockerfile/shell.h"
#include "dockerfile/rune.h"
#include "dockerfile/shell_pattern.h"

#include <string.h>

struct lex {
	struct arena *a;
	const struct shell_opt *opt;
	const struct shell_env *env;
	struct err *e;
	const char *s, *end;
	bool raw_escapes;
	int depth;
	struct buf word; /* of the words, the one at hand */
	bool in_word;
	struct ast_strs words;
	struct map matched, unmatched;
};

static int32_t peek(const struct lex *l)
{
	size_t w;
	return rune_at(l->s, (size_t)(l->end - l->s), &w);
}

static int32_t next(struct lex *l)
{
	size_t w;
	int32_t r = rune_at(l->s, (size_t)(l->end - l->s), &w);
	l->s += w;
	return r;
}

static int fail(struct lex *l, const char *text) { return err_set(l->e, CODE_UNKNOWN, "%s", text); }

/* One check a piece: a full buffer stays full. */
static int full(struct lex *l, const struct buf *b)
{
	if (!b->overflow && !l->word.overflow) return 0;
	return err_set(l->e, CODE_UNKNOWN, "result is longer than %d bytes", SHELL_MAX_WORD);
}

/* ---- words ---- */

static void words_flush(struct lex *l)
{
	if (!l->word.n) return;
	ast_strs_add(l->a, &l->words, arena_strdup(l->a, buf_str(&l->word)));
	buf_reset(&l->word);
	l->in_word = false;
}

static void words_char(struct lex *l, int32_t r)
{
	if (rune_is_space(r)) {
		if (l->in_word) words_flush(l);
		return;
	}
	rune_add(&l->word, r);
	l->in_word = true;
}

static void words_raw_char(struct lex *l, int32_t r)
{
	rune_add(&l->word, r);
	l->in_word = true;
}

static void words_piece(struct lex *l, const char *s, size_t n, bool split)
{
	size_t w;
	if (!split) {
		buf_add(&l->word, s, n);
		l->in_word = true;
	} else {
		for (; n; s += w, n -= w) words_char(l, rune_at(s, n, &w));
	}
}

/* ---- variables ---- */

static bool is_special(int32_t r) { return r > 0 && r < 0x80 && strchr("@*#?-$!0", r); }

static const char *name_take(struct lex *l)
{
	const char *from = l->s;
	if (rune_is_digit(peek(l))) {
		while (rune_is_digit(peek(l))) next(l);
	} else if (is_special(peek(l))) {
		next(l);
	} else {
		for (int32_t r = peek(l); rune_is_letter(r) || rune_is_digit(r) || r == '_'; r = peek(l)) next(l);
	}
	return arena_strndup(l->a, from, (size_t)(l->s - from));
}

static const char *lookup(struct lex *l, const char *name)
{
	const char *v = l->env->get(l->env->arg, name);
	struct map *m = v ? &l->matched : &l->unmatched;
	if (!map_has(m, name)) map_put(m, name, m);
	return v;
}

static int stop_on(struct lex *l, int32_t stop, bool raw_escapes, bool top, struct buf *out);

/* A part of a reference up to stop, into the arena. */
static int part_take(struct lex *l, int32_t stop, bool raw_escapes, const char *missing, const char **ret)
{
	_cleanup_buf_ struct buf b = BUF_MAX(SHELL_MAX_WORD);
	if (++l->depth > SHELL_MAX_DEPTH) return fail(l, "too many nested substitutions");
	int r = stop_on(l, stop, raw_escapes, false, &b);
	l->depth--;
	if (r < 0) return peek(l) == RUNE_EOF ? fail(l, missing) : -1;
	*ret = arena_strdup(l->a, buf_str(&b));
	return 0;
}

static int bad_modifier(struct lex *l, const char *mod)
{
	return err_set(l->e, CODE_UNKNOWN, "unsupported modifier (%s) in substitution", mod);
}

static int required(struct lex *l, const char *name, const char *message, const char *otherwise)
{
	return err_set(l->e, CODE_UNKNOWN, "%s: %s", name, *message ? message : otherwise);
}

/* ${name:-word} and its like, behind the modifier. */
static int dollar_word(struct lex *l, const char *name, int32_t op, bool null_is_unset, const char *mod, struct buf *out)
{
	const char *word, *trimmed;
	bool trim = op == '#' || op == '%';
	if (null_is_unset && trim) return bad_modifier(l, mod);
	if (part_take(l, '}', trim, "syntax error: missing '}'", &word) < 0) return -1;
	const char *value = lookup(l, name);
	if (l->opt->skip_unset && !value) return buf_addf(out, "${%s%s%s}", name, mod, word);
	bool null = !value || (null_is_unset && !*value);
	switch (op) {
	case '-': return buf_adds(out, null ? word : value);
	case '+': return buf_adds(out, null ? "" : word);
	case '?':
		if (!value) return required(l, name, word, "is not allowed to be unset");
		if (null) return required(l, name, word, "is not allowed to be empty");
		return buf_adds(out, value);
	case '#':
	case '%': {
		bool greedy = *word == op;
		if (shell_trim(l->a, word + greedy, value ? value : "", op == '%', greedy, &trimmed, l->e) < 0) return -1;
		return buf_adds(out, trimmed);
	}
	default: return bad_modifier(l, mod);
	}
}

/* ${name/pattern/with}, behind the first slash. */
static int dollar_replace(struct lex *l, const char *name, struct buf *out)
{
	const char *pattern, *with, *replaced;
	bool all = peek(l) == '/';
	if (all) next(l);
	if (part_take(l, '/', true, "syntax error: missing '/' in ${}", &pattern) < 0) return -1;
	if (part_take(l, '}', true, "syntax error: missing '}'", &with) < 0) return -1;
	const char *value = lookup(l, name);
	if (l->opt->skip_unset && !value) return buf_addf(out, "${%s/%s/%s}", name, pattern, with);
	if (shell_replace(l->a, pattern, value ? value : "", with, all, &replaced, l->e) < 0) return -1;
	return buf_adds(out, replaced);
}

static int dollar_brace(struct lex *l, struct buf *out)
{
	int32_t r = peek(l);
	if (r == RUNE_EOF) return fail(l, "syntax error: missing '}'");
	if (r == '{' || r == '}' || r == ':') return fail(l, "syntax error: bad substitution");
	const char *name = name_take(l);
	_cleanup_buf_ struct buf mod = BUF_INIT;
	int32_t op = next(l);
	if (op == '}') {
		const char *value = lookup(l, name);
		if (!value && l->opt->skip_unset) return buf_addf(out, "${%s}", name);
		return buf_adds(out, value ? value : "");
	}
	if (op == '/') return dollar_replace(l, name, out);
	rune_add(&mod, op);
	bool colon = op == ':';
	if (colon) {
		op = next(l);
		rune_add(&mod, op);
	} else if (op != '+' && op != '-' && op != '?' && op != '#' && op != '%') {
		return bad_modifier(l, buf_str(&mod));
	}
	return dollar_word(l, name, op, colon, buf_str(&mod), out);
}

/* At $. A full out is told by the caller's full(). */
static int dollar(struct lex *l, struct buf *out)
{
	int r = 0;
	next(l);
	if (peek(l) == '{') {
		next(l);
		r = dollar_brace(l, out);
	} else {
		const char *name = name_take(l);
		const char *value = *name ? lookup(l, name) : NULL;
		if (!*name)
			buf_addc(out, '$');
		else if (value)
			buf_adds(out, value);
		else if (l->opt->skip_unset)
			buf_addf(out, "$%s", name);
	}
	if (out->overflow) return full(l, out);
	return r;
}

/* ---- quotes, heredoc words ---- */

static int single_quote(struct lex *l, struct buf *out)
{
	next(l);
	if (l->opt->raw_quotes) buf_addc(out, '\'');
	const char *q = memchr(l->s, '\'', (size_t)(l->end - l->s));
	if (!q) {
		l->s = l->end;
		return fail(l, "unexpected end of statement while looking for matching single-quote");
	}
	while (l->s < q) rune_add(out, next(l));
	next(l);
	if (l->opt->raw_quotes) buf_addc(out, '\'');
	return 0;
}

static void quoted_char(struct lex *l, struct buf *out)
{
	int32_t r = next(l);
	if (r == l->opt->escape) {
		if (l->raw_escapes) rune_add(out, r);
		int32_t after = peek(l);
		if (after == RUNE_EOF) return;
		if (after == '"' || after == '$' || after == l->opt->escape) r = next(l);
	}
	rune_add(out, r);
}

static int double_quote(struct lex *l, struct buf *out)
{
	next(l);
	if (l->opt->raw_quotes) buf_addc(out, '"');
	for (;;) {
		switch (peek(l)) {
		case RUNE_EOF: return fail(l, "unexpected end of statement while looking for matching double-quote");
		case '"':
			next(l);
			if (l->opt->raw_quotes) buf_addc(out, '"');
			return 0;
		case '$':
			if (dollar(l, out) < 0) return -1;
			break;
		default: quoted_char(l, out);
		}
		if (full(l, out) < 0) return -1;
	}
}

/* `<<` keeps the spaces behind it, so that `<< EOF` is one word. */
static int heredoc_mark(struct lex *l, struct buf *out)
{
	next(l);
	buf_addc(out, '<');
	if (peek(l) != '<') return 0;
	next(l);
	buf_addc(out, '<');
	while (peek(l) == '\t' || peek(l) == '\r' || peek(l) == ' ') rune_add(out, next(l));
	return 0;
}

/* ---- the pass ---- */

/* A character without a meaning of its own; false at the end of the text behind an escape token. */
static bool plain_char(struct lex *l, bool top, struct buf *out)
{
	int32_t r = next(l);
	bool escaped = r == l->opt->escape;
	if (escaped) {
		if (l->raw_escapes) {
			if (top) words_raw_char(l, r);
			rune_add(out, r);
		}
		r = next(l);
		if (r == RUNE_EOF) return false;
	}
	if (top) (escaped ? words_raw_char : words_char)(l, r);
	rune_add(out, r);
	return true;
}

typedef int special_fn(struct lex *l, struct buf *out);

static special_fn *special(const struct lex *l, int32_t r)
{
	switch (r) {
	case '$': return dollar;
	case '<': return heredoc_mark;
	case '\'': return l->opt->skip_quotes ? NULL : single_quote;
	case '"': return l->opt->skip_quotes ? NULL : double_quote;
	default: return NULL;
	}
}

static int pieces(struct lex *l, int32_t stop, bool top, struct buf *out)
{
	for (int32_t r = peek(l); r != RUNE_EOF; r = peek(l)) {
		if (r == stop) {
			next(l);
			return 0;
		}
		size_t from = out->n;
		special_fn *fn = special(l, r);
		if (fn) {
			if (fn(l, out) < 0) return -1;
			if (top) words_piece(l, (const char *)out->p + from, out->n - from, r == '$');
		} else if (!plain_char(l, top, out)) {
			break;
		}
		if (full(l, out) < 0) return -1;
	}
	if (stop == RUNE_EOF) return 0;
	return err_set(l->e, CODE_UNKNOWN, "unexpected end of statement while looking for matching %c", stop);
}

/* Up to and with stop (RUNE_EOF: to the end) into out; only the outermost call feeds the words. */
static int stop_on(struct lex *l, int32_t stop, bool raw_escapes, bool top, struct buf *out)
{
	bool saved = l->raw_escapes;
	l->raw_escapes = raw_escapes;
	buf_reset(&l->word);
	int r = pieces(l, stop, top, out);
	l->raw_escapes = saved;
	return r;
}

static int name_cmp(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static struct ast_strs names_of(struct arena *a, struct map *m)
{
	struct ast_strs s = {0};
	MAP_EACH(m, it) ast_strs_add(a, &s, arena_strdup(a, it->key));
	if (s.n) qsort(s.v, s.n, sizeof *s.v, name_cmp);
	return s;
}

int shell_process(struct arena *a, const struct shell_opt *o, const struct shell_env *env, const char *word,
		  struct shell_result *ret, struct err *e)
{
	_cleanup_err_ struct err local = ERR_INIT;
	_cleanup_buf_ struct buf out = BUF_MAX(SHELL_MAX_WORD);
	struct lex l = {.a = a, .opt = o, .env = env, .e = e ? e : &local, .s = word, .end = word + strlen(word)};
	l.word = BUF_MAX(SHELL_MAX_WORD);
	if (!strncmp(word, "\xef\xbb\xbf", 3)) l.s += 3;
	*ret = (struct shell_result){0};
	if (arena_used_bytes(a) > SHELL_MAX_ARENA) return fail(&l, "the Dockerfile's variables expand to too much text");
	int r = stop_on(&l, RUNE_EOF, o->raw_escapes, true, &out);
	if (r < 0) {
		err_wrap(l.e, "failed to process %s", rune_quote(a, word));
	} else {
		words_flush(&l);
		ret->word = arena_strdup(a, buf_str(&out));
		ret->words = l.words;
	}
	ret->matched = names_of(a, &l.matched);
	ret->unmatched = names_of(a, &l.unmatched);
	map_fini(&l.matched);
	map_fini(&l.unmatched);
	buf_fini(&l.word);
	return r < 0 ? -1 : 0;
}

int shell_word(struct arena *a, const struct shell_opt *o, const struct shell_env *env, const char *word, const char **ret,
	       struct err *e)
{
	struct shell_result r;
	if (shell_process(a, o, env, word, &r, e) < 0) return -1;
	*ret = r.word;
	return 0;
}

int shell_words(struct arena *a, const struct shell_opt *o, const struct shell_env *env, const char *word, struct ast_strs *ret,
		struct err *e)
{
	struct shell_result r;
	if (shell_process(a, o, env, word, &r, e) < 0) return -1;
	*ret = r.words;
	return 0;
}

/* ---- environments ---- */

static const char *get_none(void *arg, const char *name) { return NULL; }
const struct shell_env shell_no_env = {.get = get_none};

const char *shell_list_get(void *arg, const char *name)
{
	const struct shell_list *l = arg;
	size_t n = strlen(name);
	for (size_t i = l->n; i-- > 0;) {
		if (strncmp(l->v[i], name, n)) continue;
		if (l->v[i][n] == '=') return l->v[i] + n + 1;
		if (!l->v[i][n]) return "";
	}
	return NULL;
}
