/* Dockerfile text -> nodes.
 *
 * Physical lines are read one after the other; lines that end in the escape token are joined, with comments between them
 * left out; what follows a line with heredoc words, up to each terminator, is their content.
 * Invariants: (1) every loop consumes a line; (2) sizes are bounded: text, line, words, nodes; a line that is too long ends the
 * file as it does in the peer, so other errors may come first; (3) line numbers count from 1, but the errors of
 * directives and of the end of the file carry the peer's count of lines read, which is one less. */
#include "dockerfile/ast.h"
#include "dockerfile/directive.h"
#include "dockerfile/parser.h"
#include "dockerfile/rune.h"

#include <string.h>
#include <strings.h>

#define PLACE_TYPE "slipway/front.place"

int ast_err_at(struct err *e, struct ast_lines at)
{
	err_detail_add(e, PLACE_TYPE, &at, sizeof at);
	return -1;
}

struct ast_places ast_err_places(struct arena *a, struct err *e)
{
	struct ast_places p = {0};
	size_t n = 0;
	for (const struct err_detail *d = e->details; d; d = d->next) n += !strcmp(d->type_url, PLACE_TYPE);
	if (n) p.v = arena_alloc(a, n * sizeof *p.v);
	for (struct err_detail **at = &e->details; *at;) {
		struct err_detail *d = *at;
		if (strcmp(d->type_url, PLACE_TYPE)) {
			at = &d->next;
			continue;
		}
		memcpy(&p.v[p.n++], d->data, sizeof *p.v);
		*at = d->next;
		free(d->type_url);
		free(d->data);
		free(d);
	}
	return p;
}

int ast_err_set_at(struct err *e, struct ast_lines at)
{
	struct arena *a = arena_new(0);
	if (e) ast_err_places(a, e);
	arena_free(a);
	return ast_err_at(e, at);
}

/* ---- physical lines ---- */

struct text {
	const char *s;
	size_t n;
};
struct reader {
	struct arena *a;
	const char *s, *end;
	int line; /* lines read */
	bool too_long;
	struct directive_parser directives;
	struct line_parser lines;
	struct ast_strs comments;
	struct buf joined;
	bool empty_continuation;
};

/* The next line with its end; false at the end of the text or at a line that is too long. */
static bool line_take(struct reader *r, struct text *ret)
{
	if (r->s == r->end || r->too_long) return false;
	const char *nl = memchr(r->s, '\n', (size_t)(r->end - r->s));
	size_t n = (size_t)((nl ? nl : r->end) - r->s);
	if (n > AST_MAX_LINE) {
		r->too_long = true;
		return false;
	}
	*ret = (struct text){r->s, n + (nl != NULL)};
	r->s += ret->n;
	return true;
}

static struct text chomp(struct text t)
{
	while (t.n && (t.s[t.n - 1] == '\n' || t.s[t.n - 1] == '\r')) t.n--;
	return t;
}

static bool is_comment(struct text t)
{
	struct rune_text r = rune_trim_left(t.s, t.n);
	return r.n && *r.s == '#';
}

/* Drop the escape token at the end of a line that goes on, with the blanks behind it. */
static bool continues(struct text *t, char escape)
{
	size_t n = t->n;
	while (n && (t->s[n - 1] == ' ' || t->s[n - 1] == '\t')) n--;
	if (!n || t->s[n - 1] != escape || (n > 1 && t->s[n - 2] == escape)) return false;
	t->n = n - 1;
	return true;
}

/* ---- comments and directives ---- */

static void comment_note(struct reader *r, struct text line)
{
	struct rune_text c = rune_trim(line.s + 1, line.n - 1);
	struct ast_strs *all = &r->comments;
	if (!c.n)
		*all = (struct ast_strs){0};
	else if (all->n < AST_MAX_COMMENTS)
		ast_strs_add(r->a, all, arena_strndup(r->a, c.s, c.n));
	else
		all->v[all->n - 1] = arena_strndup(r->a, c.s, c.n);
}

/* A directive is no comment of the instruction behind it. */
static void comment_forget(struct reader *r)
{
	struct ast_strs all = r->comments;
	r->comments = (struct ast_strs){0};
	for (size_t i = 0; i + 1 < all.n; i++) ast_strs_add(r->a, &r->comments, all.v[i]);
}

static int directive_note(struct reader *r, struct text line, struct err *e)
{
	struct directive_line d;
	int is = directive_next(r->a, &r->directives, line.s, line.n, &d, e);
	if (is <= 0) return is;
	if (!strcmp(d.key, "escape")) {
		if (strcmp(d.value, "`") && strcmp(d.value, "\\"))
			return err_set(e, CODE_UNKNOWN, "invalid escape token '%s' does not match ` or \\", d.value);
		r->lines.escape = d.value[0];
	}
	comment_forget(r);
	return 1;
}

/* ---- instructions ---- */

/* The first line of an instruction into r->joined: 1, or 2 when it goes on; 0 for a blank line, comment or directive. */
static int first_line(struct reader *r, struct text line, struct err *e)
{
	if (!r->line) {
		size_t bom = directive_bom(line.s, line.n);
		line = (struct text){line.s + bom, line.n - bom};
	}
	bool comment = is_comment(line);
	if (comment) comment_note(r, line);
	line = chomp(line);
	struct rune_text t = rune_trim_left(line.s, line.n);
	line = (struct text){t.s, t.n};
	if (directive_note(r, line, e) < 0) return ast_err_at(e, (struct ast_lines){r->line, r->line});
	r->line++;
	if (comment) return 0;
	bool goes_on = continues(&line, r->lines.escape);
	if (!goes_on && !line.n) return 0;
	buf_reset(&r->joined);
	buf_add(&r->joined, line.s, line.n);
	return goes_on ? 2 : 1;
}

static void join_lines(struct reader *r)
{
	struct text line;
	r->empty_continuation = false;
	while (line_take(r, &line)) {
		r->line++;
		if (is_comment(line)) continue;
		line = chomp(line);
		if (!rune_trim_left(line.s, line.n).n) {
			r->empty_continuation = true;
			continue;
		}
		bool goes_on = continues(&line, r->lines.escape);
		buf_add(&r->joined, line.s, line.n);
		if (!goes_on) return;
	}
}

static void warning_add(struct reader *r, struct ast *ret, const char *line)
{
	size_t n = ret->n_warnings;
	if (!(n & (n - 1))) {
		struct ast_warning *v = arena_alloc(r->a, (n ? n * 2 : 1) * sizeof *v);
		if (n) memcpy(v, ret->warnings, n * sizeof *v);
		ret->warnings = v;
	}
	ret->warnings[n] = (struct ast_warning){.text = arena_printf(r->a, "Empty continuation line found in: %s", line),
						.at = {r->line, r->line}};
	ret->n_warnings++;
}

/* ---- heredocs ---- */

static size_t quotes(const char *s)
{
	size_t n = 0;
	for (; *s; s++) n += *s == '\'' || *s == '"';
	return n;
}

/* ^(\d*)<<(-?)\s*([^<]*)$ ; 1 a heredoc, 0 none, -1 its word cannot be read. */
static int heredoc_match(struct arena *a, const char *src, struct ast_heredoc *ret, struct err *e)
{
	struct ast_heredoc h = {.content = ""};
	struct ast_strs plain, raw;
	uint64_t fd = 0;
	for (; *src >= '0' && *src <= '9'; src++) fd = min_of(fd * 10 + (uint64_t)(*src - '0'), (uint64_t)UINT32_MAX);
	if (strncmp(src, "<<", 2)) return 0;
	src += 2;
	h.fd = (unsigned)fd;
	h.chomp = *src == '-';
	src += h.chomp;
	src += strspn(src, " \t\n\f\r");
	if (!*src || strchr(src, '<')) return 0;
	struct shell_opt o = {.escape = '\\', .skip_unset = true};
	if (shell_words(a, &o, &shell_no_env, src, &plain, e) < 0) return -1;
	if (plain.n != 1) return 0;
	o.raw_quotes = true;
	if (shell_words(a, &o, &shell_no_env, src, &raw, e) < 0) return -1;
	if (raw.n != 1) return err_set(e, CODE_UNKNOWN, "internal lexing of heredoc produced inconsistent results: %s", src);
	h.name = plain.v[0];
	h.expand = quotes(plain.v[0]) == quotes(raw.v[0]);
	*ret = h;
	return 1;
}

bool ast_heredoc(struct arena *a, const char *src, struct ast_heredoc *ret) { return heredoc_match(a, src, ret, NULL) > 0; }

const char *ast_heredoc_chomp(struct arena *a, const char *content)
{
	char *out = arena_alloc(a, strlen(content) + 1), *o = out;
	for (bool start = true; *content; content++) {
		if (start && *content == '\t') continue;
		start = *content == '\n';
		*o++ = *content;
	}
	return out;
}

static bool takes_heredocs(const struct ast_node *n)
{
	if (n->sub) n = n->sub;
	if (n->json) return false;
	return !strcasecmp(n->value, "add") || !strcasecmp(n->value, "copy") || !strcasecmp(n->value, "run");
}

/* The lines up to the terminator. */
static int heredoc_read(struct reader *r, struct ast_heredoc *h, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	size_t len = strlen(h->name);
	struct text line;
	while (line_take(r, &line)) {
		r->line++;
		struct text t = chomp(line);
		while (h->chomp && t.n && *t.s == '\t') t = (struct text){t.s + 1, t.n - 1};
		if (t.n == len && !memcmp(t.s, h->name, len)) {
			h->content = arena_strdup(r->a, buf_str(&b));
			return 0;
		}
		buf_add(&b, line.s, line.n);
	}
	return err_set(e, CODE_UNKNOWN, "unterminated heredoc");
}

static int heredocs_read(struct reader *r, struct ast_node *n, const char *line, struct err *e)
{
	struct shell_opt o = {.escape = '\\', .skip_unset = true, .raw_quotes = true, .raw_escapes = true};
	struct ast_strs words;
	if (!takes_heredocs(n) || !strstr(line, "<<")) return 0;
	if (shell_words(r->a, &o, &shell_no_env, line, &words, NULL) < 0) return 0; /* then there are none */
	for (size_t i = 0; i < words.n; i++) {
		struct ast_heredoc h;
		int is = strstr(words.v[i], "<<") ? heredoc_match(r->a, words.v[i], &h, e) : 0;
		if (is < 0) return -1;
		if (!is) continue;
		if (n->n_heredocs >= AST_MAX_HEREDOCS)
			return err_set(e, CODE_UNKNOWN, "%s has more than %d heredocs", n->value, AST_MAX_HEREDOCS);
		if (!n->heredocs) n->heredocs = arena_alloc(r->a, words.n * sizeof *n->heredocs);
		n->heredocs[n->n_heredocs++] = h;
	}
	for (size_t i = 0; i < n->n_heredocs; i++)
		if (heredoc_read(r, &n->heredocs[i], e) < 0) return -1;
	return 0;
}

/* ---- the file ---- */

static int node_read(struct reader *r, struct ast *ret, struct err *e)
{
	const char *line = arena_strdup(r->a, buf_str(&r->joined));
	struct ast_node *n;
	if (r->joined.overflow)
		return err_set(e, CODE_UNKNOWN, "dockerfile instruction greater than max allowed size of %d", AST_MAX_JOINED);
	if (r->empty_continuation) warning_add(r, ret, line);
	r->empty_continuation = false;
	if (line_parse(&r->lines, line, &n, e) < 0 || heredocs_read(r, n, line, e) < 0) return -1;
	n->comments = r->comments;
	r->comments = (struct ast_strs){0};
	if (!(ret->n_nodes & (ret->n_nodes - 1))) {
		struct ast_node **v = arena_alloc(r->a, (ret->n_nodes ? ret->n_nodes * 2 : 1) * sizeof *v);
		if (ret->n_nodes) memcpy(v, ret->nodes, ret->n_nodes * sizeof *v);
		ret->nodes = v;
	}
	ret->nodes[ret->n_nodes++] = n;
	return 0;
}

static int file_read(struct reader *r, struct ast *ret, struct err *e)
{
	struct text line;
	while (line_take(r, &line)) {
		int more = first_line(r, line, e), start = r->line;
		if (more < 0) return -1;
		if (!more) continue;
		if (more == 2) join_lines(r);
		if (ret->n_nodes >= AST_MAX_NODES) {
			err_set(e, CODE_UNKNOWN, "dockerfile has more than %d instructions", AST_MAX_NODES);
			return ast_err_at(e, (struct ast_lines){start, start});
		}
		if (node_read(r, ret, e) < 0) return ast_err_at(e, (struct ast_lines){start, max_of(start, r->line)});
		ret->nodes[ret->n_nodes - 1]->at = (struct ast_lines){start, r->line};
	}
	if (!ret->n_nodes)
		err_set(e, CODE_UNKNOWN, "file with no instructions");
	else if (r->too_long)
		err_set(e, CODE_UNKNOWN, "dockerfile line greater than max allowed size of %d", AST_MAX_LINE);
	else
		return 0;
	return ast_err_at(e, (struct ast_lines){r->line, r->line});
}

static int text_check(const char *s, size_t n, struct err *e)
{
	if (n > AST_MAX_TEXT)
		return err_set(e, CODE_UNKNOWN, "dockerfile of %zu bytes is greater than max allowed size of %d", n,
			       AST_MAX_TEXT);
	const char *nul = n ? memchr(s, 0, n) : NULL;
	if (!nul) return 0;
	int line = 1;
	for (const char *p = s; p < nul; p++) line += *p == '\n';
	err_set(e, CODE_UNKNOWN, "dockerfile has a NUL byte on line %d: it must be plain UTF-8 text%s", line,
		nul - s < 4 ? " (is it UTF-16?)" : "");
	return ast_err_at(e, (struct ast_lines){line, line});
}

int ast_parse(struct arena *a, const void *text, size_t n, struct ast *ret, struct err *e)
{
	const char *s = text;
	if (text_check(s, n, e) < 0) return -1;
	struct reader r = {.a = a,
			   .s = s,
			   .end = s + n,
			   .directives = {.comment = "#"},
			   .joined = BUF_MAX(AST_MAX_JOINED),
			   .lines = {.a = a, .escape = '\\'}};
	struct ast file = {0};
	int res = file_read(&r, &file, e);
	buf_fini(&r.joined);
	if (res < 0) return -1;
	file.escape = r.lines.escape;
	*ret = file;
	return 0;
}
