/* Parser directives: `# name=value` lines before everything else of a file, and how the frontend's image is found.
 *
 * Invariants: (1) the first line that is no directive ends them; (2) a name stands once, a second one is an error for the
 * parser of the file, while the detection of syntax and check only ends there, with what it found till then.
 * The syntax is also looked for behind "//" and in a JSON object, so that files of other languages can name their
 * frontend; escape and check are Dockerfile's own and are not. */
#include "dockerfile/directive.h"
#include "dockerfile/ast.h"
#include "dockerfile/json.h"
#include "dockerfile/rune.h"

#include <string.h>

static const char *const directive_names[] = {"syntax", "escape", "check"};

static bool is_alnum(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
/* Regular expressions' \s: without \v. */
static bool is_ws(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\f' || c == '\r'; }

static int name_index(const char *key)
{
	for (size_t i = 0; i < array_len(directive_names); i++)
		if (!strcmp(directive_names[i], key)) return (int)i;
	return -1;
}

/* name\s*=\s*(.+?)\s*$ */
int directive_match(struct arena *a, const char *text, size_t n, struct directive_line *ret)
{
	struct rune_text t = rune_trim_left(text, n);
	const char *s = t.s, *end = t.s + t.n;
	while (s < end && is_alnum(*s)) s++;
	size_t len = (size_t)(s - t.s);
	if (!len || len > 16 || (t.s[0] >= '0' && t.s[0] <= '9')) return 0;
	while (s < end && is_ws(*s)) s++;
	if (s == end || *s != '=') return 0;
	s++;
	const char *value = s;
	while (value < end && is_ws(*value)) value++;
	if (value == end && value > s) value--; /* only white space: one of it is the value */
	while (end > value + 1 && is_ws(end[-1])) end--;
	if (value == end || memchr(value, '\n', (size_t)(end - value))) return 0;
	const char *key = rune_lower(a, arena_strndup(a, t.s, len));
	if (name_index(key) < 0) return 0;
	*ret = (struct directive_line){.key = key, .value = arena_strndup(a, value, (size_t)(end - value))};
	return 1;
}

int directive_next(struct arena *a, struct directive_parser *p, const char *line, size_t n, struct directive_line *ret,
		   struct err *e)
{
	size_t sign = strlen(p->comment);
	if (p->done) return 0;
	if (n < sign || memcmp(line, p->comment, sign) || !directive_match(a, line + sign, n - sign, ret)) {
		p->done = true;
		return 0;
	}
	unsigned bit = 1U << name_index(ret->key);
	if (p->seen & bit) return err_set(e, CODE_UNKNOWN, "only one %s parser directive can be used", ret->key);
	p->seen |= bit;
	return 1;
}

static bool find_behind(struct arena *a, const char *sign, const char *key, const char *s, const char *end, int line,
			struct ast_directive *ret)
{
	struct directive_parser p = {.comment = sign};
	while (s < end) {
		const char *nl = memchr(s, '\n', (size_t)(end - s)), *stop = nl ? nl : end;
		size_t n = (size_t)(stop - s);
		if (n >= AST_MAX_LINE) return false;
		if (n && s[n - 1] == '\r') n--;
		struct directive_line d;
		line++;
		if (directive_next(a, &p, s, n, &d, NULL) <= 0) return false;
		if (!strcmp(d.key, key)) {
			*ret = (struct ast_directive){.first = arena_strndup(a, d.value, strcspn(d.value, " ")),
						      .value = d.value,
						      .at = {line, line}};
			return true;
		}
		s = nl ? nl + 1 : end;
	}
	return false;
}

static bool find(struct arena *a, const char *key, const void *text, size_t n, bool any_format, struct ast_directive *ret)
{
	if (n > AST_MAX_TEXT) return false;
	const char *s = text, *end = s + n;
	int line = 0;
	if (n) s += directive_bom(s, n);
	if (end - s >= 2 && s[0] == '#' && s[1] == '!') {
		const char *nl = memchr(s, '\n', (size_t)(end - s));
		s = nl ? nl + 1 : end;
		line = 1;
	}
	if (find_behind(a, "#", key, s, end, line, ret)) return true;
	if (!any_format) return false;
	if (find_behind(a, "//", key, s, end, line, ret)) return true;
	const char *v;
	if (!json_object_string(a, s, (size_t)(end - s), key, &v)) return false;
	*ret = (struct ast_directive){.first = v, .value = v, .at = {line, line}};
	return true;
}

bool ast_detect_syntax(struct arena *a, const void *text, size_t n, struct ast_directive *ret)
{
	return find(a, "syntax", text, n, true, ret);
}

bool ast_find_directive(struct arena *a, const char *key, const void *text, size_t n, struct ast_directive *ret)
{
	return find(a, key, text, n, false, ret);
}
