/* Values: from a TOML node or a flag's text into the field that a row names; printing, comparing and freeing likewise. */
#include "conf/internal.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>

enum { LIST_MAX = 4096 };
struct raw_vec { /* the layout of any VEC */
	char *v;
	size_t n, cap;
};
static const char *const expected[] = {
	[T_BOOL] = "a boolean",
	[T_TRI] = "a boolean",
	[T_STR] = "a string",
	[T_INT] = "an integer",
	[T_STRS] = "an array of strings",
	[T_MAP] = "a table of strings",
	[T_DURATION] = "a duration as \"48h\" or seconds",
	[T_SPACE] = "a size as \"10GB\", \"20%\" or bytes",
	[T_LIST] = "an array of tables",
	[T_NAMED] = "a table of tables",
	[T_ANY] = "anything",
};
#define FIELD(T) ((T *)((char *)base + r->off))

int conf_parse_duration(const char *s, int64_t *ret)
{
	char *end;
	if (!*s) return 0;
	if (duration_parse(s, ret, NULL) == 0) return 0;
	errno = 0;
	long long v = strtoll(s, &end, 10);
	if (end == s || *end || errno || v > INT64_MAX / 1000000000 || v < -(INT64_MAX / 1000000000)) return -1;
	*ret = v * 1000000000;
	return 0;
}

/* docker/go-units RAMInBytes: number, optional space, unit b k m g t p in powers of 1024, with "b" or "ib" behind. */
static int ram_in_bytes(const char *s, int64_t *ret)
{
	static const char units[] = "bkmgtp";
	char *end;
	double v = strtod(s, &end);
	if (end == s || !(isdigit((unsigned char)*s) || *s == '.') || v < 0 || strpbrk(s, "xXnN")) return -1;
	if (*end == ' ') end++;
	if (*end) {
		const char *u = strchr(units, tolower((unsigned char)*end));
		if (!u) return -1;
		for (long i = 0; i < u - units; i++) v *= 1024;
		end++;
		if (u != units && (*end == 'i' || *end == 'I')) end++;
		if (u != units && (*end == 'b' || *end == 'B')) end++;
	}
	if (*end || v >= 9.2e18) return -1;
	*ret = (int64_t)v;
	return 0;
}

int conf_parse_space(const char *s, struct conf_space *ret)
{
	struct conf_space v = {0};
	size_t n = strlen(s);
	if (n && s[n - 1] == '%') {
		char *end;
		errno = 0;
		v.percent = strtoll(s, &end, 10);
		if (end != s + n - 1 || errno || n < 2) return -1;
	} else if (n && ram_in_bytes(s, &v.bytes) < 0) {
		return -1;
	}
	*ret = v;
	return 0;
}

static char *unquote(const char *s)
{
	size_t n = strlen(s);
	return n > 1 && s[0] == '"' && s[n - 1] == '"' ? xstrndup(s + 1, n - 2) : xstrdup(s);
}

static bool in_range(const struct conf_row *r, int64_t v) { return (!r->min && !r->max) || (v >= r->min && v <= r->max); }

static int bad(const struct conf_row *r, const char *found, struct err *e)
{
	return err_set(e, CODE_INVALID_ARGUMENT, "expected %s, found %s", expected[r->type], found);
}

static int bad_range(const struct conf_row *r, int64_t v, struct err *e)
{
	return err_set(e, CODE_INVALID_ARGUMENT, "%" PRId64 " is out of range (%" PRId64 " to %" PRId64 ")", v, r->min, r->max);
}

static int add_pair(struct strvec *map, const char *text, const struct conf_row *r, struct err *e)
{
	const char *eq = strchr(text, '=');
	if (!eq) return err_set(e, CODE_INVALID_ARGUMENT, "invalid value %s, expected key=value", text);
	_cleanup_free_ char *k = xstrndup(text, (size_t)(eq - text));
	strvec_env_set(map, k, eq + 1);
	return 0;
}

static int set_bool(void *base, const struct conf_row *r, bool v)
{
	if (r->type == T_TRI)
		*FIELD(enum conf_tri) = v ? CONF_TRUE : CONF_FALSE;
	else
		*FIELD(bool) = v;
	return 0;
}

static int set_int(void *base, const struct conf_row *r, int64_t v, struct err *e)
{
	if (!in_range(r, v)) return bad_range(r, v, e);
	*FIELD(int64_t) = v;
	return 0;
}

int conf_set_text(void *base, const struct conf_row *r, const char *text, struct err *e)
{
	_cleanup_free_ char *plain = unquote(text), *found = xasprintf("\"%.100s\"", text);
	bool b;
	char *end;
	switch (r->type) {
	case T_TRI:
		if (!*text || strcasecmp(text, "auto") == 0) {
			*FIELD(enum conf_tri) = CONF_UNSET;
			return 0;
		}
		/* fall through */
	case T_BOOL: return str_bool(text, &b) ? set_bool(base, r, b) : bad(r, found, e);
	case T_STR:
		free(*FIELD(char *));
		*FIELD(char *) = xstrdup(text);
		return 0;
	case T_INT: {
		errno = 0;
		long long v = strtoll(text, &end, 10);
		return end == text || *end || errno ? bad(r, found, e) : set_int(base, r, v, e);
	}
	case T_STRS: strvec_add(FIELD(struct strvec), text); return 0;
	case T_MAP: return add_pair(FIELD(struct strvec), text, r, e);
	case T_DURATION: return conf_parse_duration(plain, FIELD(int64_t)) < 0 ? bad(r, found, e) : 0;
	case T_SPACE: return conf_parse_space(plain, FIELD(struct conf_space)) < 0 ? bad(r, found, e) : 0;
	default: return bad(r, found, e);
	}
}

void conf_clear(void *base, const struct conf_row *r)
{
	struct raw_vec *vec = FIELD(struct raw_vec);
	switch (r->type) {
	case T_STR:
		free(*FIELD(char *));
		*FIELD(char *) = NULL;
		break;
	case T_STRS:
	case T_MAP: strvec_fini(FIELD(struct strvec)); break;
	case T_LIST:
	case T_NAMED:
		for (size_t i = 0; i < vec->n; i++) {
			void *elem = vec->v + i * r->sub->elem_size;
			if (r->type == T_NAMED) free(*(char **)elem); /* the name is the first member */
			conf_rows_fini(r->sub, elem);
		}
		free(vec->v);
		*vec = (struct raw_vec){0};
		break;
	default: break;
	}
}

void conf_rows_fini(const struct conf_rows *rs, void *base)
{
	for (size_t i = 0; i < rs->n; i++) conf_clear(base, &rs->rows[i]);
}

/* ---- from TOML ---- */
struct at {
	const char *file;
	struct strvec *warnings;
};

static int where(const struct at *a, const struct toml_node *t, const char *path, struct err *e)
{
	_cleanup_free_ char *dotted = xstrdup(path);
	for (char *c = dotted; *c; c++)
		if (*c == '/') *c = '.';
	return err_wrap(e, "%s:%u:%u: %s", a->file, t->line, t->column, dotted);
}

static void read_table(const struct conf_rows *rs, void *base, const struct toml_node *t, const char *prefix,
		       const struct at *a, struct err *e);

static void *add_elem(struct raw_vec *v, const struct conf_rows *sub)
{
	v->v = xreallocarray(v->v, v->n + 1, sub->elem_size);
	v->cap = v->n + 1;
	return memset(v->v + v->n++ * sub->elem_size, 0, sub->elem_size);
}

static int read_elems(void *base, const struct conf_row *r, const struct toml_node *t, const char *path, const struct at *a,
		      struct err *e)
{
	if (t->kind != (r->type == T_LIST ? TOML_ARRAY : TOML_TABLE)) return bad(r, t->type_name, e);
	for (const struct toml_node *k = t->kids; k && !err_is_set(e); k = k->next) {
		if (k->kind != TOML_TABLE) return bad(r, k->type_name, e);
		if (FIELD(struct raw_vec)->n >= LIST_MAX)
			return err_set(e, CODE_RESOURCE_EXHAUSTED, "more than %d entries", LIST_MAX);
		void *elem = add_elem(FIELD(struct raw_vec), r->sub);
		if (r->type == T_NAMED) *(char **)elem = xstrdup(k->key);
		_cleanup_free_ char *sub = r->type == T_NAMED ? xasprintf("%s/\"%s\"", path, k->key) : xstrdup(path);
		read_table(r->sub, elem, k, sub, a, e);
	}
	return err_is_set(e) ? -2 : 0; /* -2: it says already where */
}

static int read_strs(void *base, const struct conf_row *r, const struct toml_node *t, struct err *e)
{
	if (t->kind != (r->type == T_STRS ? TOML_ARRAY : TOML_TABLE)) return bad(r, t->type_name, e);
	conf_clear(base, r);
	for (const struct toml_node *k = t->kids; k; k = k->next) {
		if (k->kind != TOML_STR)
			return err_set(e, CODE_INVALID_ARGUMENT, "expected %s, found %s in it", expected[r->type],
				       k->type_name);
		if (r->type == T_STRS)
			strvec_add(FIELD(struct strvec), k->str);
		else
			strvec_env_set(FIELD(struct strvec), k->key, k->str);
	}
	return 0;
}

static int read_value(void *base, const struct conf_row *r, const struct toml_node *t, const char *path, const struct at *a,
		      struct err *e)
{
	char text[24];
	switch (r->type) {
	case T_BOOL:
	case T_TRI: return t->kind == TOML_BOOL ? set_bool(base, r, t->num != 0) : bad(r, t->type_name, e);
	case T_STR: return t->kind == TOML_STR ? conf_set_text(base, r, t->str, e) : bad(r, t->type_name, e);
	case T_INT: return t->kind == TOML_INT ? set_int(base, r, t->num, e) : bad(r, t->type_name, e);
	case T_STRS:
	case T_MAP: return read_strs(base, r, t, e);
	case T_DURATION:
	case T_SPACE:
		if (t->kind == TOML_STR) return conf_set_text(base, r, t->str, e);
		if (t->kind != TOML_INT) return bad(r, t->type_name, e);
		snprintf(text, sizeof text, "%" PRId64, t->num);
		return conf_set_text(base, r, text, e);
	case T_LIST:
	case T_NAMED: return read_elems(base, r, t, path, a, e);
	case T_ANY: return 0;
	}
	return 0;
}

const struct conf_row *conf_row_find(const struct conf_rows *rs, const char *path)
{
	for (size_t i = 0; i < rs->n; i++)
		if (strcasecmp(rs->rows[i].path, path) == 0) return &rs->rows[i];
	return NULL;
}

/* Do keys exist below path? */
static bool is_section(const struct conf_rows *rs, const char *path)
{
	size_t n = strlen(path);
	for (size_t i = 0; i < rs->n; i++)
		if (strncasecmp(rs->rows[i].path, path, n) == 0 && rs->rows[i].path[n] == '/') return true;
	return false;
}

static void warn_unknown(const struct conf_rows *rs, const struct toml_node *t, const char *rel, const char *shown,
			 const struct at *a)
{
	const char *best = NULL;
	size_t best_d = SIZE_MAX;
	_cleanup_free_ char *lower = xstrdup(rel);
	for (char *c = lower; *c; c++) *c = (char)tolower((unsigned char)*c);
	for (size_t i = 0; i < rs->n; i++) {
		_cleanup_free_ char *p = xstrdup(rs->rows[i].path);
		for (char *c = p; *c; c++) *c = (char)tolower((unsigned char)*c);
		size_t d = text_distance(lower, p);
		if (d < best_d) best_d = d, best = rs->rows[i].path;
	}
	_cleanup_free_ char *dotted = xstrdup(shown), *hint = NULL;
	for (char *c = dotted; *c; c++)
		if (*c == '/') *c = '.';
	if (best && best_d <= 2 + strlen(rel) / 5) {
		hint = xasprintf(", did you mean %s?", best);
		for (char *c = hint; *c; c++)
			if (*c == '/') *c = '.';
	}
	if (a->warnings)
		strvec_addf(a->warnings, "%s:%u:%u: unknown key %s is ignored%s", a->file, t->line, t->column, dotted,
			    hint ? hint : "");
}

static void warn_flags(const struct conf_row *r, const struct toml_node *t, const struct at *a)
{
	_cleanup_free_ char *dotted = xstrdup(r->path);
	for (char *c = dotted; *c; c++)
		if (*c == '/') *c = '.';
	if (!a->warnings) return;
	if (r->flags & F_OLD)
		strvec_addf(a->warnings, "'%s' configuration option is deprecated, %s instead", dotted, r->help);
	else if ((r->flags & F_IGNORED) && !str_starts(r->path, "worker/containerd/"))
		strvec_addf(a->warnings, "%s:%u:%u: %s is not supported and ignored", a->file, t->line, t->column, dotted);
}

/* rel: the path within this set of rows; prefix: that of the set in the whole file, for messages. */
static void read_below(const struct conf_rows *rs, void *base, const struct toml_node *t, const char *rel, const char *prefix,
		       const struct at *a, struct err *e)
{
	for (const struct toml_node *k = t->kids; k && !err_is_set(e); k = k->next) {
		_cleanup_free_ char *path = *rel ? xasprintf("%s/%s", rel, k->key) : xstrdup(k->key);
		_cleanup_free_ char *shown = *prefix ? xasprintf("%s/%s", prefix, path) : xstrdup(path);
		const struct conf_row *r = strchr(k->key, '/') ? NULL : conf_row_find(rs, path);
		if (r) {
			warn_flags(r, k, a);
			if (read_value(base, r, k, shown, a, e) == -1) where(a, k, shown, e);
		} else if (!is_section(rs, path)) {
			warn_unknown(rs, k, path, shown, a);
		} else if (k->kind == TOML_TABLE) {
			read_below(rs, base, k, path, prefix, a, e);
		} else {
			err_set(e, CODE_INVALID_ARGUMENT, "expected a table, found %s", k->type_name);
			where(a, k, shown, e);
		}
	}
}

static void read_table(const struct conf_rows *rs, void *base, const struct toml_node *t, const char *prefix,
		       const struct at *a, struct err *e)
{
	read_below(rs, base, t, "", prefix, a, e);
}

void conf_read_table(const struct conf_rows *rs, void *base, const struct toml_node *t, const char *prefix, const char *file,
		     struct strvec *warnings, struct err *e)
{
	read_table(rs, base, t, prefix, &(struct at){file, warnings}, e);
}

/* ---- to text ---- */
static void put_strs(struct buf *out, const struct strvec *v)
{
	buf_addc(out, '[');
	for (size_t i = 0; i < v->n; i++) {
		if (i) buf_adds(out, ", ");
		json_quote(out, v->v[i], strlen(v->v[i]));
	}
	buf_addc(out, ']');
}

static bool is_unset(const void *base, const struct conf_row *r)
{
	switch (r->type) {
	case T_STR: return !*FIELD(char *const);
	case T_TRI: return *FIELD(const enum conf_tri) == CONF_UNSET;
	case T_BOOL: return false;
	case T_INT: return (r->flags & F_SET) && *FIELD(const int64_t) == r->min;
	case T_DURATION: return (r->flags & F_SET) ? *FIELD(const int64_t) == INT64_MIN : !*FIELD(const int64_t);
	case T_STRS:
	case T_MAP: return !FIELD(const struct strvec)->n;
	case T_SPACE: return !FIELD(const struct conf_space)->bytes && !FIELD(const struct conf_space)->percent;
	case T_LIST:
	case T_NAMED: return !FIELD(const struct raw_vec)->n;
	case T_ANY: return true;
	}
	return true;
}

static void put_rows(const struct conf_rows *rs, const void *base, const char *prefix, struct buf *out);

static void put_elems(const struct conf_row *r, const void *base, const char *path, struct buf *out)
{
	const struct raw_vec *v = FIELD(const struct raw_vec);
	for (size_t i = 0; i < v->n; i++) {
		const void *elem = v->v + i * r->sub->elem_size;
		_cleanup_free_ char *sub = r->type == T_NAMED ? xasprintf("%s.\"%s\".", path, *(char *const *)elem)
							      : xasprintf("%s[%zu].", path, i);
		put_rows(r->sub, elem, sub, out);
	}
}

static void put_value(const struct conf_row *r, const void *base, struct buf *out)
{
	const struct conf_space *s = FIELD(const struct conf_space);
	switch (r->type) {
	case T_BOOL: buf_adds(out, *FIELD(const bool) ? "true" : "false"); break;
	case T_TRI: buf_adds(out, *FIELD(const enum conf_tri) == CONF_TRUE ? "true" : "false"); break;
	case T_STR: json_quote(out, *FIELD(char *const), strlen(*FIELD(char *const))); break;
	case T_INT: buf_addf(out, "%" PRId64, *FIELD(const int64_t)); break;
	case T_STRS:
	case T_MAP: put_strs(out, FIELD(const struct strvec)); break;
	case T_DURATION: buf_addf(out, "\"%" PRId64 "s\"", *FIELD(const int64_t) / 1000000000); break;
	case T_SPACE: s->percent ? buf_addf(out, "\"%" PRId64 "%%\"", s->percent) : buf_addf(out, "%" PRId64, s->bytes); break;
	default: break;
	}
}

static void put_rows(const struct conf_rows *rs, const void *base, const char *prefix, struct buf *out)
{
	for (size_t i = 0; i < rs->n; i++) {
		const struct conf_row *r = &rs->rows[i];
		if (is_unset(base, r)) continue;
		_cleanup_free_ char *path = xasprintf("%s%s", prefix, r->path);
		for (char *c = path + strlen(prefix); *c; c++)
			if (*c == '/') *c = '.';
		if (r->type == T_LIST || r->type == T_NAMED) {
			put_elems(r, base, path, out);
			continue;
		}
		buf_addf(out, "%s = ", path);
		put_value(r, base, out);
		buf_addc(out, '\n');
	}
}

void conf_dump(const struct conf *c, struct buf *out) { put_rows(&conf_all_rows, c, "", out); }

void conf_diff_restart(const struct conf *a, const struct conf *b, struct strvec *out)
{
	for (size_t i = 0; i < conf_all_rows.n; i++) {
		struct conf_rows one = {&conf_all_rows.rows[i], 1, 0};
		_cleanup_buf_ struct buf x = BUF_INIT, y = BUF_INIT;
		if (one.rows->flags & F_RELOAD) continue;
		put_rows(&one, a, "", &x);
		put_rows(&one, b, "", &y);
		if (strcmp(buf_str(&x), buf_str(&y)) != 0) strvec_add(out, one.rows->path);
	}
}
