/* The part of Go's text/template that people use with --format: {{json .}}, {{range .}}{{.ID}}{{println}}{{end}},
 * {{if .Shared}}...{{else}}...{{end}}, {{len .Parents}}, {{printf "%s %d" .ID .Size}}, {{join .Parents ","}}, {{index .Labels
 * "k"}}.
 *
 * Values are JSON. A field's name is compared without case, so .ID finds "id". Pipelines with | hand the value on as the last
 * argument. No variables, no nested templates, no with/else if. */
#include "term/text.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

struct tmpl {
	const char *src, *p;
	struct buf *out;
	struct err *e;
	int depth;
};

static int run_until_end(struct tmpl *t, json_t *dot, bool skip, bool *ret_else);

static int tmpl_error(struct tmpl *t, const char *fmt, const char *what)
{
	_cleanup_free_ char *s = xasprintf("template: :1:%zu: ", (size_t)(t->p - t->src));
	_cleanup_free_ char *m = xasprintf("%s", what);
	return err_set(t->e, CODE_INVALID_ARGUMENT, "%s%s%s", s, fmt, m);
}

/* ---- values ---- */
static void print_value(json_t *v, struct buf *out)
{
	size_t i;
	json_t *x;
	const char *k;
	switch (v ? json_typeof(v) : JSON_NULL) {
	case JSON_STRING: buf_adds(out, json_string_value(v)); break;
	case JSON_INTEGER: buf_addf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v)); break;
	case JSON_REAL: buf_addf(out, "%g", json_real_value(v)); break;
	case JSON_TRUE: buf_adds(out, "true"); break;
	case JSON_FALSE: buf_adds(out, "false"); break;
	case JSON_NULL: buf_adds(out, "<nil>"); break;
	case JSON_ARRAY:
		buf_addc(out, '[');
		json_array_foreach(v, i, x)
		{
			if (i) buf_addc(out, ' ');
			print_value(x, out);
		}
		buf_addc(out, ']');
		break;
	case JSON_OBJECT:
		buf_adds(out, "map[");
		i = 0;
		json_object_foreach(v, k, x)
		{
			buf_addf(out, "%s%s:", i++ ? " " : "", k);
			print_value(x, out);
		}
		buf_addc(out, ']');
		break;
	}
}

static bool is_true(json_t *v)
{
	switch (v ? json_typeof(v) : JSON_NULL) {
	case JSON_STRING: return json_string_length(v) > 0;
	case JSON_INTEGER: return json_integer_value(v) != 0;
	case JSON_REAL: return json_real_value(v) != 0;
	case JSON_TRUE: return true;
	case JSON_ARRAY: return json_array_size(v) > 0;
	case JSON_OBJECT: return json_object_size(v) > 0;
	default: return false;
	}
}

static json_t *field(json_t *v, const char *name, size_t n, bool *found)
{
	const char *k;
	json_t *x;
	json_object_foreach(v, k, x) if (strlen(k) == n && strncasecmp(k, name, n) == 0)
	{
		*found = true;
		return x;
	}
	*found = false;
	return NULL;
}

/* ---- functions: args are borrowed, the result is owned ---- */
enum { ARGS_MAX = 16 };

static json_t *text_value(struct buf *b) { return json_stringn_nocheck(buf_str(b), b->n); }

static json_t *fn_json(json_t **v, size_t n)
{
	char *s = n ? json_dumps(v[0] ? v[0] : json_null(), JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
	json_t *r = json_string(s ? s : "");
	free(s);
	return r;
}

static json_t *fn_len(json_t **v, size_t n)
{
	json_t *x = n ? v[0] : NULL;
	if (json_is_string(x)) return json_integer((json_int_t)json_string_length(x));
	return json_integer((json_int_t)(json_is_array(x) ? json_array_size(x) : json_object_size(x)));
}

static json_t *fn_println(json_t **v, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (size_t i = 0; i < n; i++) {
		if (i) buf_addc(&b, ' ');
		print_value(v[i], &b);
	}
	buf_addc(&b, '\n');
	return text_value(&b);
}

static json_t *fn_print(json_t **v, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (size_t i = 0; i < n; i++) print_value(v[i], &b);
	return text_value(&b);
}

static json_t *fn_printf(json_t **v, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	size_t next = 1;
	for (const char *p = n ? json_string_value(v[0]) : NULL; p && *p; p++) {
		if (*p != '%' || !p[1]) {
			buf_addc(&b, *p);
			continue;
		}
		if (*++p == '%')
			buf_addc(&b, '%');
		else if (*p == 'q' && next < n && json_is_string(v[next])) {
			_cleanup_free_ char *q = go_quote(json_string_value(v[next]), json_string_length(v[next]));
			buf_adds(&b, q);
			next++;
		} else if (next < n)
			print_value(v[next++], &b);
	}
	return text_value(&b);
}

static json_t *fn_join(json_t **v, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	size_t i;
	json_t *x;
	const char *sep = n > 1 ? json_string_value(v[1]) : "";
	json_array_foreach(n ? v[0] : NULL, i, x)
	{
		if (i) buf_adds(&b, sep ? sep : "");
		print_value(x, &b);
	}
	return text_value(&b);
}

static json_t *fn_index(json_t **v, size_t n)
{
	json_t *x = n ? v[0] : NULL;
	for (size_t i = 1; i < n && x; i++)
		x = json_is_array(x) ? json_array_get(x, (size_t)json_integer_value(v[i]))
				     : json_object_get(x, json_string_value(v[i]) ? json_string_value(v[i]) : "");
	return x ? json_incref(x) : json_string("");
}

static json_t *fn_not(json_t **v, size_t n) { return json_boolean(!is_true(n ? v[0] : NULL)); }
static json_t *fn_eq(json_t **v, size_t n) { return json_boolean(n > 1 && json_equal(v[0], v[1])); }

static const struct {
	const char *name;
	json_t *(*fn)(json_t **v, size_t n);
} functions[] = {
	{"json", fn_json}, {"len", fn_len},     {"println", fn_println}, {"print", fn_print}, {"printf", fn_printf},
	{"join", fn_join}, {"index", fn_index}, {"not", fn_not},         {"eq", fn_eq},
};

/* ---- expressions ---- */
static void blanks(struct tmpl *t)
{
	while (*t->p == ' ' || *t->p == '\t') t->p++;
}

static bool at_end(struct tmpl *t)
{
	blanks(t);
	return str_starts(t->p, "}}") || str_starts(t->p, "-}}") || !*t->p;
}

static int pipeline(struct tmpl *t, json_t *dot, json_t **ret);

static int read_field(struct tmpl *t, json_t *dot, json_t **ret)
{
	json_t *v = dot;
	while (*t->p == '.') {
		size_t n = 0;
		t->p++;
		while (isalnum((unsigned char)t->p[n]) || t->p[n] == '_') n++;
		if (n == 0) break;
		bool found;
		json_t *x = json_is_object(v) ? field(v, t->p, n, &found) : (found = false, NULL);
		if (!found) {
			_cleanup_free_ char *name =
				xasprintf("executing \"\" at <.%.*s>: can't evaluate field %.*s", (int)n, t->p, (int)n, t->p);
			return tmpl_error(t, name, "");
		}
		v = x;
		t->p += n;
	}
	*ret = v ? json_incref(v) : json_null();
	return 0;
}

static int read_string(struct tmpl *t, json_t **ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char quote = *t->p++;
	for (; *t->p && *t->p != quote; t->p++) {
		if (*t->p == '\\' && quote == '"' && t->p[1]) {
			t->p++;
			buf_addc(&b, *t->p == 'n' ? '\n' : *t->p == 't' ? '\t' : *t->p);
		} else {
			buf_addc(&b, *t->p);
		}
	}
	if (!*t->p) return tmpl_error(t, "unterminated quoted string", "");
	t->p++;
	*ret = text_value(&b);
	return 0;
}

static int operand(struct tmpl *t, json_t *dot, json_t **ret)
{
	blanks(t);
	if (*t->p == '.') return read_field(t, dot, ret);
	if (*t->p == '"' || *t->p == '`') return read_string(t, ret);
	if (*t->p == '(' && ++t->depth < 20) {
		t->p++;
		if (pipeline(t, dot, ret) < 0) return -1;
		blanks(t);
		t->depth--;
		if (*t->p++ == ')') return 0;
		json_decref(*ret);
		*ret = NULL;
		return tmpl_error(t, "unclosed left paren", "");
	}
	char *end;
	long long n = strtoll(t->p, &end, 10);
	if (end == t->p) return tmpl_error(t, "unexpected ", t->p);
	t->p = end;
	*ret = json_integer(n);
	return 0;
}

/* One command of a pipeline: an operand, or a function with its arguments; `piped` (owned) comes last. */
static int command(struct tmpl *t, json_t *dot, json_t *piped, json_t **ret)
{
	json_t *v[ARGS_MAX] = {0};
	size_t n = 0, len = 0, which = array_len(functions);
	int rv = 0;
	blanks(t);
	while (isalpha((unsigned char)t->p[len])) len++;
	for (size_t i = 0; i < array_len(functions); i++)
		if (len && strlen(functions[i].name) == len && memcmp(functions[i].name, t->p, len) == 0) which = i;
	if (len && which == array_len(functions)) {
		_cleanup_free_ char *name = xasprintf("function \"%.*s\" not defined", (int)len, t->p);
		json_decref(piped);
		return tmpl_error(t, name, "");
	}
	t->p += len;
	while (rv == 0 && n + 1 < ARGS_MAX && !at_end(t) && *t->p != '|' && *t->p != ')') rv = operand(t, dot, &v[n++]);
	if (piped && rv == 0)
		v[n++] = piped;
	else
		json_decref(piped);
	if (rv == 0 && which < array_len(functions))
		*ret = functions[which].fn(v, n);
	else if (rv == 0 && n == 1)
		*ret = json_incref(v[0]);
	else if (rv == 0)
		rv = tmpl_error(t, n ? "can't give argument to non-function" : "missing value for command", "");
	for (size_t i = 0; i < n; i++) json_decref(v[i]);
	return rv;
}

static int pipeline(struct tmpl *t, json_t *dot, json_t **ret)
{
	json_t *v = NULL;
	for (;;) {
		json_t *next = NULL;
		if (command(t, dot, v, &next) < 0) return -1;
		v = next;
		blanks(t);
		if (*t->p != '|') break;
		t->p++;
	}
	*ret = v;
	return 0;
}

/* ---- actions ---- */
static int close_action(struct tmpl *t)
{
	blanks(t);
	bool trim = *t->p == '-' && t->p[1] == '}';
	if (trim) t->p++;
	if (!str_starts(t->p, "}}")) return tmpl_error(t, "unexpected in operand: ", t->p);
	t->p += 2;
	while (trim && isspace((unsigned char)*t->p)) t->p++;
	return 0;
}

static bool keyword(struct tmpl *t, const char *word)
{
	size_t n = strlen(word);
	if (strncmp(t->p, word, n) != 0 || isalnum((unsigned char)t->p[n])) return false;
	t->p += n;
	return true;
}

static int run_if(struct tmpl *t, json_t *dot, bool skip)
{
	json_t *v = NULL;
	bool has_else;
	if (pipeline(t, skip ? NULL : dot, &v) < 0) return -1;
	bool yes = is_true(v);
	json_decref(v);
	if (close_action(t) < 0 || run_until_end(t, dot, skip || !yes, &has_else) < 0) return -1;
	return has_else ? run_until_end(t, dot, skip || yes, NULL) : 0;
}

static int run_range(struct tmpl *t, json_t *dot, bool skip)
{
	json_t *v = NULL, *x;
	bool has_else = false;
	int rv = 0;
	if (pipeline(t, dot, &v) < 0) return -1;
	if (close_action(t) < 0) rv = -1;
	const char *body = t->p, *k;
	size_t i, turns = 0;
	if (!skip && json_is_array(v)) {
		json_array_foreach(v, i, x)
		{
			t->p = body;
			turns++;
			if (rv == 0) rv = run_until_end(t, x, false, &has_else);
		}
	} else if (!skip && json_is_object(v)) {
		json_object_foreach(v, k, x)
		{
			t->p = body;
			turns++;
			if (rv == 0) rv = run_until_end(t, x, false, &has_else);
		}
	}
	if (rv == 0 && turns == 0) rv = run_until_end(t, dot, true, &has_else);
	if (rv == 0 && has_else) rv = run_until_end(t, dot, skip || turns > 0, NULL);
	json_decref(v);
	return rv;
}

/* Text and actions up to {{end}} ({{else}} too when ret_else), or to the end of the source at the top. */
static int run_until_end(struct tmpl *t, json_t *dot, bool skip, bool *ret_else)
{
	if (t->depth > 20) return tmpl_error(t, "nested too deeply", "");
	if (ret_else) *ret_else = false;
	for (;;) {
		const char *open = strstr(t->p, "{{");
		size_t n = open ? (size_t)(open - t->p) : strlen(t->p);
		bool trim = open && open[2] == '-';
		size_t keep = n;
		while (trim && keep > 0 && isspace((unsigned char)t->p[keep - 1])) keep--;
		if (!skip) buf_add(t->out, t->p, keep);
		t->p += n;
		if (!open) return t->depth ? tmpl_error(t, "unexpected EOF", "") : 0;
		t->p += 2 + trim;
		blanks(t);
		if (keyword(t, "end")) return t->depth ? close_action(t) : tmpl_error(t, "unexpected {{end}}", "");
		if (ret_else && keyword(t, "else")) {
			*ret_else = true;
			return close_action(t);
		}
		bool is_if = keyword(t, "if");
		if (is_if || keyword(t, "range")) {
			t->depth++;
			if ((is_if ? run_if : run_range)(t, dot, skip) < 0) return -1;
			t->depth--;
			continue;
		}
		if (skip) {
			const char *close = strstr(t->p, "}}");
			if (!close) return tmpl_error(t, "unclosed action", "");
			t->p = close + 2;
			continue;
		}
		json_t *v = NULL;
		if (pipeline(t, dot, &v) < 0) return -1;
		print_value(v, t->out);
		json_decref(v);
		if (close_action(t) < 0) return -1;
	}
}

int template_run(const char *format, json_t *value, struct buf *out, struct err *e)
{
	struct tmpl t = {.out = out, .e = e};
	t.src = t.p = strcmp(format, "json") == 0 ? "{{json .}}" : format;
	return run_until_end(&t, value, false, NULL);
}
