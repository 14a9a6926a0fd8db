/* Flags of instructions, and the comma-separated values that some of them hold. */
#include "dockerfile/instr.h"
#include "dockerfile/rune.h"

#include <string.h>
#include <strings.h>

static struct instr_flag *find(struct instr_flag *flags, size_t n, const char *name, size_t len)
{
	for (size_t i = 0; i < n; i++)
		if (strlen(flags[i].name) == len && !memcmp(flags[i].name, name, len)) return &flags[i];
	return NULL;
}

static int unknown(struct arena *a, const char *flag, const struct instr_flag *flags, size_t n, struct err *e)
{
	struct ast_strs names = {0};
	for (size_t i = 0; i < n; i++) ast_strs_add(a, &names, flags[i].name);
	const char *match = lint_suggest(a, flag + 2, names.v, names.n, true);
	return instr_fail(e, "unknown flag: %s%s", flag, lint_mean(a, "", match));
}

/* name: with its dashes; value NULL: none. */
static int set(struct arena *a, struct instr_flag *f, const char *name, const char *value, struct err *e)
{
	if (f->type != FLAG_BOOL && !value) return instr_fail(e, "missing a value on flag: %s", name);
	switch (f->type) {
	case FLAG_BOOL:
		if (value && !*value) return instr_fail(e, "missing a value on flag: %s", name);
		if (!value || !strcasecmp(value, "true"))
			f->value = "true";
		else if (!strcasecmp(value, "false"))
			f->value = "false";
		else
			return instr_fail(e, "expecting boolean value for flag %s, not: %s", name, value);
		break;
	case FLAG_STRING: f->value = value; break;
	case FLAG_STRINGS: ast_strs_add(a, &f->values, value); break;
	}
	return 0;
}

int instr_flags_parse(struct arena *a, const struct ast_strs *args, struct instr_flag *flags, size_t n,
		      struct ast_strs *ret_used, struct err *e)
{
	for (size_t i = 0; i < args->n; i++) {
		const char *arg = args->v[i], *eq = strchr(arg, '=');
		if (!strcmp(arg, "--")) return 0;
		if (strncmp(arg, "--", 2)) return instr_fail(e, "arg should start with -- : %s", arg);
		const char *name = eq ? arena_strndup(a, arg, (size_t)(eq - arg)) : arg;
		struct instr_flag *f = find(flags, n, name + 2, strlen(name + 2));
		if (!f) return unknown(a, name, flags, n, e);
		if (f->used && f->type != FLAG_STRINGS) return instr_fail(e, "duplicate flag specified: %s", name);
		if (!f->used && ret_used) ast_strs_add(a, ret_used, f->name);
		f->used = true;
		if (set(a, f, name, eq ? eq + 1 : NULL, e) < 0) return -1;
	}
	return 0;
}

/* ---- comma-separated values ---- */

/* What stands behind an opening quote, up to and with the closing one; answers the end, NULL when there is none. */
static const char *csv_quoted(const char *s, struct buf *b)
{
	for (;; s++) {
		if (!*s) return NULL;
		if (*s == '"' && *++s != '"') return s;
		buf_addc(b, *s);
	}
}

int instr_csv(struct arena *a, const char *line, struct ast_strs *ret, struct err *e)
{
	static const char bare[] = "bare \" in non-quoted-field", stray[] = "extraneous or missing \" in quoted-field";
	size_t n = strlen(line);
	if (n && line[n - 1] == '\n') n -= n > 1 && line[n - 2] == '\r' ? 2 : 1;
	if (!n) return instr_fail(e, "EOF");
	const char *from = arena_strndup(a, line, n);
	for (const char *s = from;; s++) {
		if (*s != '"') {
			size_t len = strcspn(s, ",");
			const char *quote = memchr(s, '"', len);
			if (quote) return instr_fail(e, "parse error on line 1, column %td: %s", quote - from + 1, bare);
			ast_strs_add(a, ret, arena_strndup(a, s, len));
			s += len;
		} else {
			_cleanup_buf_ struct buf b = BUF_INIT;
			const char *end = csv_quoted(s + 1, &b);
			if (!end) {
				const char *last = strrchr(s, '"'); /* where the reading of the field's last piece began */
				return instr_fail(e, "parse error on line 1, column %td: %s", last - from + 2, stray);
			}
			if (*end && *end != ',')
				return instr_fail(e, "parse error on line 1, column %td: %s", end - from, stray);
			ast_strs_add(a, ret, arena_strdup(a, buf_str(&b)));
			s = end;
		}
		if (!*s) return 0;
	}
}
