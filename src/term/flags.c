/* Parsing of command lines by the tables of flags.h.
 *
 * 1. A flag's row is looked for in the command at hand first, then in the ones around it: so -v is "verbose" inside and
 *    "version" outside.
 * 2. Values are checked by kind while reading; what args_int and the like answer is good.
 * 3. An unknown flag or command names the nearest one that exists. */
#include "term/flags.h"
#include "spec/size.h"

#include <stdio.h>
#include <string.h>

static const struct flag builtin[] = {
	{.name = "help", .letter = 'h', .kind = FLAG_BOOL, .help = "show help"},
	{0},
};
static const struct flag builtin_root[] = {
	{.name = "version", .letter = 'v', .kind = FLAG_BOOL, .help = "print the version"},
	{0},
};

static const struct flag *find_in(const struct flag *f, const char *name, size_t n)
{
	for (; f && f->name; f++)
		if ((n == 1 && f->letter == *name) || (strlen(f->name) == n && memcmp(f->name, name, n) == 0)) return f;
	return NULL;
}

static const struct flag *find_flag(const struct args *a, const char *name, size_t n)
{
	const struct flag *f;
	for (size_t i = a->depth; i-- > 0;)
		if ((f = find_in(a->path[i]->flags, name, n))) return f;
	if ((f = find_in(builtin, name, n))) return f;
	return a->depth == 1 ? find_in(builtin_root, name, n) : NULL;
}

static void nearest(const char *name, const char *have, const char **best, size_t *dist)
{
	size_t d = text_distance(name, have);
	if (d < *dist) {
		*dist = d;
		*best = have;
	}
}

static int unknown_flag(const struct args *a, const char *as_given, const char *name, struct err *e)
{
	const char *best = NULL;
	size_t dist = strlen(name) > 5 ? 4 : 3;
	for (size_t i = a->depth; i-- > 0;)
		for (const struct flag *f = a->path[i]->flags; f && f->name; f++)
			if (f->help) nearest(name, f->name, &best, &dist);
	_cleanup_free_ char *hint = best ? xasprintf(" (did you mean --%s?)", best) : xstrdup("");
	if (a->dialect == DIALECT_BUILDCTL)
		return err_set(e, CODE_INVALID_ARGUMENT, "flag provided but not defined: -%s%s", name, hint);
	if (str_starts(as_given, "--")) return err_set(e, CODE_INVALID_ARGUMENT, "unknown flag: --%s%s", name, hint);
	return err_set(e, CODE_INVALID_ARGUMENT, "unknown shorthand flag: '%c' in %s", *name, as_given);
}

/* ---- values ---- */
static int check_number(const char *s, bool is_float)
{
	char *end = NULL;
	if (!*s) return -1;
	if (is_float)
		strtod(s, &end);
	else
		strtoll(s, &end, 0);
	return *end ? -1 : 0;
}

static int check_value(enum flag_kind kind, const char *s, struct err *e)
{
	int64_t n;
	bool b;
	switch (kind) {
	case FLAG_BOOL: return str_bool(s, &b) ? 0 : err_set(e, CODE_INVALID_ARGUMENT, "parse error");
	case FLAG_INT:
		return check_number(s, false)
			       ? err_set(e, CODE_INVALID_ARGUMENT, "strconv.ParseInt: parsing \"%s\": invalid syntax", s)
			       : 0;
	case FLAG_FLOAT:
		return check_number(s, true)
			       ? err_set(e, CODE_INVALID_ARGUMENT, "strconv.ParseFloat: parsing \"%s\": invalid syntax", s)
			       : 0;
	case FLAG_DURATION: return duration_parse(s, &n, e);
	case FLAG_BYTES: return spec_size_parse(s, &n, e);
	default: return 0;
	}
}

static void add_value(struct args *a, const struct flag *f, const char *s)
{
	struct strvec *v = map_get(&a->values, f->name);
	if (!v) map_put(&a->values, f->name, v = xnew(struct strvec));
	if (f->kind != FLAG_LIST && f->kind != FLAG_CSV) strvec_fini(v);
	if (f->kind != FLAG_CSV) {
		strvec_add(v, s);
		return;
	}
	for (const char *end;; s = end + 1) {
		end = strchrnul(s, ',');
		strvec_take(v, xstrndup(s, (size_t)(end - s)));
		if (!*end) break;
	}
}

static int set_value(struct args *a, const struct flag *f, const char *s, struct err *e)
{
	_cleanup_err_ struct err why = ERR_INIT;
	if (check_value(f->kind, s, &why) < 0)
		return err_set(e, CODE_INVALID_ARGUMENT,
			       a->dialect == DIALECT_BUILDCTL ? "invalid value \"%s\" for flag -%s: %s"
							      : "invalid argument \"%s\" for \"--%s\" flag: %s",
			       s, f->name, why.msg);
	if (strcmp(f->name, "help") == 0) a->want_help = true;
	if (strcmp(f->name, "version") == 0 && !a->path[0]->run) a->want_version = true;
	add_value(a, f, s);
	return 0;
}

static int need_value(struct args *a, const struct flag *f, const char *as_given, char *const *argv, size_t n, size_t *i,
		      struct err *e)
{
	if (f->kind == FLAG_BOOL) return set_value(a, f, "true", e);
	if (f->implied) return set_value(a, f, f->implied, e);
	if (*i + 1 >= n) {
		if (a->dialect == DIALECT_BUILDCTL)
			return err_set(e, CODE_INVALID_ARGUMENT, "flag needs an argument: %s", as_given);
		return err_set(e, CODE_INVALID_ARGUMENT, "flag needs an argument: %s", as_given);
	}
	return set_value(a, f, argv[++*i], e);
}

static int read_long(struct args *a, const char *arg, size_t dashes, char *const *argv, size_t n, size_t *i, struct err *e)
{
	const char *name = arg + dashes, *eq = strchr(name, '=');
	size_t len = eq ? (size_t)(eq - name) : strlen(name);
	const struct flag *f = len == 1 && dashes == 2 && a->dialect == DIALECT_BUILDX ? NULL : find_flag(a, name, len);
	if (!f) {
		_cleanup_free_ char *s = xstrndup(name, len);
		return unknown_flag(a, arg, s, e);
	}
	return eq ? set_value(a, f, eq + 1, e) : need_value(a, f, arg, argv, n, i, e);
}

/* pflag: -qf x, -tname, -t=name */
static int read_letters(struct args *a, const char *arg, char *const *argv, size_t n, size_t *i, struct err *e)
{
	for (const char *p = arg + 1; *p; p++) {
		const struct flag *f = find_flag(a, p, 1);
		if (!f) {
			return unknown_flag(a, arg, p, e);
		}
		if (f->kind == FLAG_BOOL && p[1] != '=') {
			if (set_value(a, f, "true", e) < 0) return -1;
			continue;
		}
		if (p[1]) return set_value(a, f, p + 1 + (p[1] == '='), e);
		return need_value(a, f, arg, argv, n, i, e);
	}
	return 0;
}

/* ---- commands ---- */
static bool has_alias(const char *aliases, const char *name)
{
	size_t n = strlen(name);
	for (const char *p = aliases; p && *p; p += strspn(p, ", ")) {
		size_t len = strcspn(p, ", ");
		if (len == n && memcmp(p, name, n) == 0) return true;
		p += len;
	}
	return false;
}

static const struct command *find_command(const struct command *sub, const char *name)
{
	for (; sub && sub->name; sub++)
		if (strcmp(sub->name, name) == 0 || has_alias(sub->aliases, name)) return sub;
	return NULL;
}

static int unknown_command(const struct args *a, const char *name, struct err *e)
{
	const struct command *c = args_command(a);
	const char *best = NULL;
	size_t dist = 3;
	for (const struct command *s = c->sub; s->name; s++)
		if (s->summary) nearest(name, s->name, &best, &dist);
	if (a->dialect == DIALECT_BUILDCTL)
		return err_set(e, CODE_NOT_FOUND, "No help topic for '%s'%s%s%s", name, best ? " (did you mean " : "",
			       best ? best : "", best ? "?)" : "");
	return err_set(e, CODE_NOT_FOUND, "unknown command: %s %s%s%s%s", c->name, name, best ? " (did you mean " : "",
		       best ? best : "", best ? "?)" : "");
}

static int read_plain(struct args *a, const char *arg, struct err *e)
{
	const struct command *c = args_command(a), *sub;
	if (!c->sub || a->rest.n) {
		strvec_add(&a->rest, arg);
		return 0;
	}
	if ((sub = find_command(c->sub, arg))) {
		if (a->depth < array_len(a->path)) a->path[a->depth++] = sub;
		return 0;
	}
	if (strcmp(arg, "help") == 0 || (a->dialect == DIALECT_BUILDCTL && strcmp(arg, "h") == 0)) {
		a->want_help = true;
		return 0;
	}
	return unknown_command(a, arg, e);
}

static int check_count(const struct args *a, struct err *e)
{
	const struct command *c = args_command(a);
	if (a->dialect != DIALECT_BUILDX || !c->run || a->want_help) return 0;
	int n = (int)a->rest.n;
	if (n >= c->min_args && (c->max_args < 0 || n <= c->max_args)) return 0;
	const char *how = c->min_args == c->max_args ? "" : n < c->min_args ? "at least " : "at most ";
	int want = n < c->min_args ? c->min_args : c->max_args;
	if (want == 0) return err_set(e, CODE_INVALID_ARGUMENT, "'%s' accepts no arguments", c->name);
	return err_set(e, CODE_INVALID_ARGUMENT, "'%s' requires %s%d argument%s", c->name, how, want, want == 1 ? "" : "s");
}

int args_parse(struct args *a, enum dialect d, const struct command *root, char *const *argv, size_t n, struct err *e)
{
	*a = (struct args){.path = {root}, .depth = 1, .dialect = d};
	for (size_t i = 0; i < n; i++) {
		const char *s = argv[i];
		int rv;
		if (strcmp(s, "--") == 0) {
			for (i++; i < n; i++) strvec_add(&a->rest, argv[i]);
			break;
		}
		if (s[0] != '-' || !s[1])
			rv = read_plain(a, s, e);
		else if (s[1] == '-')
			rv = read_long(a, s, 2, argv, n, &i, e);
		else
			rv = d == DIALECT_BUILDCTL ? read_long(a, s, 1, argv, n, &i, e) : read_letters(a, s, argv, n, &i, e);
		if (rv < 0) return -1;
	}
	return check_count(a, e);
}

void args_fini(struct args *a)
{
	MAP_EACH(&a->values, it) strvec_fini(it->value);
	map_fini_free(&a->values);
	strvec_fini(&a->rest);
}

/* ---- reading ---- */
const struct command *args_command(const struct args *a) { return a->path[a->depth - 1]; }
bool args_given(const struct args *a, const char *name) { return map_has(&a->values, name); }

const char *args_str(const struct args *a, const char *name)
{
	const struct strvec *v = map_get(&a->values, name);
	if (v && v->n) return v->v[v->n - 1];
	const struct flag *f = find_flag(a, name, strlen(name));
	if (!f) bug("no flag --%s in the table", name);
	const char *env = f->env ? getenv(f->env) : NULL;
	return !str_empty(env) ? env : f->def ? f->def : "";
}

const struct strvec *args_list(const struct args *a, const char *name)
{
	static const struct strvec none = {0};
	const struct strvec *v = map_get(&a->values, name);
	return v ? v : &none;
}

bool args_bool(const struct args *a, const char *name)
{
	bool b = false;
	return str_bool(args_str(a, name), &b) && b;
}

int64_t args_int(const struct args *a, const char *name) { return strtoll(args_str(a, name), NULL, 0); }
double args_float(const struct args *a, const char *name) { return strtod(args_str(a, name), NULL); }
