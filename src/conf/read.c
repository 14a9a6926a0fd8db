/* From the TOML tree into the fields that the rows name. All that is wrong is noted and the rest is read, so that one run
 * tells everything. */
#include "conf/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { LIST_MAX = 4096 };
#define FIELD(T) ((T *)((char *)base + r->off))
struct reader {
	struct conf *conf;
	const char *file;
	struct conf_report *report;
};
#define say(level, node, ...) conf_say(rd->report, level, rd->file, (node)->line, (node)->column, __VA_ARGS__)

static void read_below(const struct reader *rd, const struct conf_rows *rs, void *base, const struct toml_node *t,
		       const char *rel, const char *prefix);

static void came_from(const struct reader *rd, const struct toml_node *t, const char *shown)
{
	conf_origin_set(rd->conf, shown, (struct conf_origin){FROM_FILE, t->line, t->column, NULL});
}

static void *add_elem(struct raw_vec *v, const struct conf_rows *sub)
{
	v->v = xreallocarray(v->v, v->n + 1, sub->elem_size);
	v->cap = v->n + 1;
	return memset(v->v + v->n++ * sub->elem_size, 0, sub->elem_size);
}

/* [registry.docker.io] without quotes is the table "io" in the table "docker". */
static void unquoted(const struct reader *rd, const struct toml_node *host, struct buf *name)
{
	buf_adds(name, host->key);
	for (const struct toml_node *k = host; k->kids && !k->kids->next && k->kids->kind == TOML_TABLE; k = k->kids) {
		if (conf_row_find(conf_row_find(&conf_all_rows, "registry")->sub, k->kids->key)) break;
		buf_addf(name, ".%s", k->kids->key);
	}
}

static bool names_unquoted(const struct reader *rd, const struct conf_row *r, const struct toml_node *t)
{
	const struct toml_node *k = t->kids;
	if (!k || k->next || k->kind != TOML_TABLE || conf_row_find(r->sub, k->key)) return false;
	_cleanup_buf_ struct buf name = BUF_INIT;
	unquoted(rd, t, &name);
	say(CONF_FAULT, t, "a host with dots needs quotes: write [registry.\"%s\"]; as it stands it is ignored",
	    buf_str(&name));
	return true;
}

static int read_elems(const struct reader *rd, void *base, const struct conf_row *r, const struct toml_node *t,
		      const char *shown, struct err *e)
{
	if (t->kind != (r->type == T_LIST ? TOML_ARRAY : TOML_TABLE)) return conf_bad(r, t->type_name, e);
	for (const struct toml_node *k = t->kids; k; k = k->next) {
		if (k->kind != TOML_TABLE) return conf_bad(r, k->type_name, e);
		if (FIELD(struct raw_vec)->n >= LIST_MAX)
			return err_set(e, CODE_RESOURCE_EXHAUSTED, "more than %d entries", LIST_MAX);
		if (r->type == T_NAMED && names_unquoted(rd, r, k)) continue;
		void *elem = add_elem(FIELD(struct raw_vec), r->sub);
		if (r->type == T_NAMED) *(char **)elem = xstrdup(k->key);
		_cleanup_free_ char *sub = r->type == T_NAMED ? xasprintf("%s.\"%s\"", shown, k->key)
							      : xasprintf("%s[%zu]", shown, FIELD(struct raw_vec)->n - 1);
		came_from(rd, k, sub);
		read_below(rd, r->sub, elem, k, "", sub);
	}
	return 0;
}

static int read_strs(const struct reader *rd, void *base, const struct conf_row *r, const struct toml_node *t,
		     const char *shown, struct err *e)
{
	size_t i = 0;
	if (t->kind != (r->type == T_STRS ? TOML_ARRAY : TOML_TABLE)) return conf_bad(r, t->type_name, e);
	conf_clear(base, r);
	for (const struct toml_node *k = t->kids; k; k = k->next) {
		if (k->kind != TOML_STR)
			return err_set(e, CODE_INVALID_ARGUMENT, "expected %s, found %s in it", conf_expected[r->type],
				       k->type_name);
		_cleanup_free_ char *at = xasprintf("%s[%zu]", shown, i++);
		came_from(rd, k, at);
		if (r->type == T_STRS)
			strvec_add(FIELD(struct strvec), k->str);
		else
			strvec_env_set(FIELD(struct strvec), k->key, k->str);
	}
	return 0;
}

/* Where BuildKit takes any number, one that is out of range is a fault and the nearest that is in it is used. */
static int read_int(const struct reader *rd, void *base, const struct conf_row *r, const struct toml_node *t, const char *shown,
		    struct err *e)
{
	int64_t v = t->num;
	if (t->kind != TOML_INT) return conf_bad(r, t->type_name, e);
	if (r->min || r->max) v = max_of(min_of(v, r->max), r->min);
	if (v != t->num)
		say(CONF_FAULT, t, "%s: %" PRId64 " is out of range (%" PRId64 " to %" PRId64 "), %" PRId64 " is used", shown,
		    t->num, r->min, r->max, v);
	return conf_set_int(base, r, v, e);
}

static int read_value(const struct reader *rd, void *base, const struct conf_row *r, const struct toml_node *t,
		      const char *shown, struct err *e)
{
	char text[24];
	switch (r->type) {
	case T_BOOL:
	case T_TRI: return t->kind == TOML_BOOL ? conf_set_bool(base, r, t->num != 0) : conf_bad(r, t->type_name, e);
	case T_STR: return t->kind == TOML_STR ? conf_set_text(base, r, t->str, e) : conf_bad(r, t->type_name, e);
	case T_INT: return read_int(rd, base, r, t, shown, e);
	case T_STRS:
	case T_MAP: return read_strs(rd, base, r, t, shown, e);
	case T_DURATION:
	case T_SPACE:
		if (t->kind == TOML_STR) return conf_set_text(base, r, t->str, e);
		if (t->kind != TOML_INT) return conf_bad(r, t->type_name, e);
		snprintf(text, sizeof text, "%" PRId64, t->num);
		return conf_set_text(base, r, text, e);
	case T_LIST:
	case T_NAMED: return read_elems(rd, base, r, t, shown, e);
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

/* The path of a section as the rows spell it, when keys exist below it. */
static char *section(const struct conf_rows *rs, const char *path)
{
	size_t n = strlen(path);
	for (size_t i = 0; i < rs->n; i++)
		if (strncasecmp(rs->rows[i].path, path, n) == 0 && rs->rows[i].path[n] == '/')
			return xstrndup(rs->rows[i].path, n);
	return NULL;
}

/* Is the feature that is not there asked for, or only said to be off? */
static bool asks_for(const struct conf_row *r, const struct toml_node *t)
{
	switch (t->kind) {
	case TOML_BOOL: return (t->num != 0) != str_eq(r->def, "true");
	case TOML_STR: return t->str[0] && !str_eq(t->str, r->def);
	case TOML_ARRAY:
	case TOML_TABLE: return t->kids != NULL;
	default: return true;
	}
}

static void tell_of_row(const struct reader *rd, const struct conf_row *r, const struct toml_node *t, const char *shown)
{
	const struct conf_origin *before = conf_origin_get(rd->conf, shown);
	if (before && r->type != T_NAMED)
		say(CONF_FAULT, t, "%s is set twice, also in line %u: keys match without regard to case", shown, before->line);
	if (r->flags & F_OLD) {
		_cleanup_free_ char *plain = xstrdup(r->help);
		size_t n = 0;
		for (char *c = plain; *c; c++)
			if (*c != '`') plain[n++] = *c;
		plain[n] = 0;
		say(CONF_WARN, t, "'%s' configuration option is deprecated, %s instead", shown, plain);
	} else if (str_eq(r->path, "worker/containerd/enabled") && t->kind == TOML_BOOL && t->num) {
		say(CONF_WARN, t, "%s: there is no containerd worker; steps run by the OCI worker", shown);
	} else if ((r->flags & F_IGNORED) && !str_starts(r->path, "worker/containerd/") && asks_for(r, t)) {
		say(CONF_WARN, t, "%s is not built yet and has no effect", shown);
	}
}

static void read_row(const struct reader *rd, const struct conf_row *r, void *base, const struct toml_node *t,
		     const char *prefix)
{
	_cleanup_free_ char *shown = conf_shown(prefix, r->path);
	struct err e = ERR_INIT;
	tell_of_row(rd, r, t, shown);
	came_from(rd, t, shown);
	if (read_value(rd, base, r, t, shown, &e) < 0) say(CONF_ERROR, t, "%s: %s", shown, e.msg);
	err_fini(&e);
}

/* rel: the path within this set of rows; prefix: that of the set in the whole file, for messages. */
static void read_below(const struct reader *rd, const struct conf_rows *rs, void *base, const struct toml_node *t,
		       const char *rel, const char *prefix)
{
	for (const struct toml_node *k = t->kids; k; k = k->next) {
		bool odd = strchr(k->key, '/') || strlen(k->key) != k->key_len;
		_cleanup_free_ char *path = *rel ? xasprintf("%s/%s", rel, k->key) : xstrdup(k->key);
		_cleanup_free_ char *below = odd ? NULL : section(rs, path), *shown = conf_shown(prefix, path);
		const struct conf_row *r = odd ? NULL : conf_row_find(rs, path);
		if (r) {
			read_row(rd, r, base, k, prefix);
		} else if (!below) {
			_cleanup_free_ char *hint = conf_hint(rs, rel, k->key, k->kind == TOML_TABLE);
			say(CONF_FAULT, k, "unknown %s %s is ignored%s", k->kind == TOML_TABLE ? "section" : "key", shown,
			    hint);
		} else if (k->kind == TOML_TABLE) {
			read_below(rd, rs, base, k, below, prefix);
		} else {
			say(CONF_ERROR, k, "%s: expected a table, found %s", shown, k->type_name);
		}
	}
}

void conf_read_tree(struct conf *c, const struct toml_node *t, const char *file, struct conf_report *r)
{
	struct reader rd = {c, file, r};
	read_below(&rd, &conf_all_rows, c, t, "", "");
}
