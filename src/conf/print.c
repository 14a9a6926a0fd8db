/* The configuration as text: its values with where they come from, what two of them differ in, a TOML tree as JSON. */
#include "conf/internal.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- values ---- */
typedef void put_row(const struct conf *c, const struct conf_row *r, const void *base, const char *shown, struct buf *out);

static void each_row(const struct conf *c, const struct conf_rows *rs, const void *base, const char *prefix, put_row *put,
		     struct buf *out)
{
	for (size_t i = 0; i < rs->n; i++) {
		const struct conf_row *r = &rs->rows[i];
		_cleanup_free_ char *shown = conf_shown(prefix, r->path);
		const struct raw_vec *v = (const void *)((const char *)base + r->off);
		for (size_t k = 0; r->sub && k < v->n; k++) {
			const void *elem = v->v + k * r->sub->elem_size;
			_cleanup_free_ char *sub = r->type == T_NAMED ? xasprintf("%s.\"%s\"", shown, *(char *const *)elem)
								      : xasprintf("%s[%zu]", shown, k);
			each_row(c, r->sub, elem, sub, put, out);
		}
		if (!r->sub) put(c, r, base, shown, out);
	}
}

static void put_origin(const struct conf *c, const struct conf_origin *o, struct buf *out)
{
	if (!o)
		buf_adds(out, "default");
	else if (o->from == FROM_FILE)
		buf_addf(out, "%s:%u", c->path, o->line);
	else
		buf_addf(out, o->from == FROM_FLAG ? "flag --%s" : "environment %s", o->name);
}

static void put_effective(const struct conf *c, const struct conf_row *r, const void *base, const char *shown, struct buf *out)
{
	bool unset = conf_is_unset(base, r);
	const struct conf_origin *o = conf_origin_get(c, shown);
	bool inner = base != (const void *)c; /* of an element: only what is set */
	if (r->type == T_ANY || (!o && (inner || (r->flags & (F_IGNORED | F_OLD))))) return;
	if (!o && str_eq(shown, "log.level") && (c->debug || c->trace)) o = conf_origin_get(c, c->trace ? "trace" : "debug");
	buf_addf(out, "%s = ", shown);
	if (!unset)
		conf_put_value(r, base, out);
	else if (r->type == T_TRI && r->def)
		buf_adds(out, r->def);
	else if (r->def)
		json_quote(out, r->def, strlen(r->def));
	else
		buf_adds(out, r->type == T_STRS ? "[]" : r->type == T_MAP ? "{}" : "\"\"");
	buf_adds(out, "  # ");
	put_origin(c, o, out);
	buf_addc(out, '\n');
}

void conf_effective(const struct conf *c, struct buf *out) { each_row(c, &conf_all_rows, c, "", put_effective, out); }

/* ---- differences ---- */
static void put_plain(const struct conf *c, const struct conf_row *r, const void *base, const char *shown, struct buf *out)
{
	if (conf_is_unset(base, r)) return;
	buf_addf(out, "%s = ", shown);
	conf_put_value(r, base, out);
	buf_addc(out, '\n');
}

void conf_diff(const struct conf *a, const struct conf *b, struct strvec *ret_live, struct strvec *ret_restart)
{
	for (size_t i = 0; i < conf_all_rows.n; i++) {
		struct conf_rows one = {&conf_all_rows.rows[i], 1, 0};
		_cleanup_buf_ struct buf x = BUF_INIT, y = BUF_INIT;
		if (one.rows->flags & F_IGNORED) continue;
		each_row(a, &one, a, "", put_plain, &x);
		each_row(b, &one, b, "", put_plain, &y);
		struct strvec *to = one.rows->flags & F_RELOAD ? ret_live : ret_restart;
		if (to && strcmp(buf_str(&x), buf_str(&y)) != 0) strvec_take(to, conf_shown("", one.rows->path));
	}
}

static void put_file(const struct conf *c, const struct conf_row *r, const void *base, const char *shown, struct buf *out)
{
	const void *field = (const char *)base + r->off;
	bool live = (r->flags & F_RELOAD) && r->file != FILE_NONE && r->file != FILE_ANY;
	if (!live) return;
	if (r->type == T_STR && !str_empty(*(char *const *)field)) buf_addf(out, "%s%c", *(char *const *)field, 0);
	const struct strvec *v = field;
	for (size_t i = 0; r->type == T_STRS && i < v->n; i++) buf_addf(out, "%s%c", v->v[i], 0);
}

void conf_files(const struct conf *c, struct strvec *ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	strvec_add(ret, c->path);
	each_row(c, &conf_all_rows, c, "", put_file, &b);
	for (size_t at = 0; at < b.n; at += strlen((char *)b.p + at) + 1)
		if (strvec_find(ret, (char *)b.p + at) < 0) strvec_add(ret, (char *)b.p + at);
}

/* ---- toml-test's tagged JSON ---- */
static void put_quoted(struct buf *out, const char *s, size_t n) { json_quote(out, s, n); }

static void put_tagged(struct buf *out, const char *tag, const char *s, size_t n)
{
	buf_addf(out, "{\"type\":\"%s\",\"value\":", tag);
	put_quoted(out, s, n);
	buf_addc(out, '}');
}

void conf_put_json(const struct toml_node *t, struct buf *out)
{
	char num[24];
	switch (t->kind) {
	case TOML_STR: put_tagged(out, "string", t->str, t->str_len); return;
	case TOML_BOOL: put_tagged(out, "bool", t->num ? "true" : "false", t->num ? 4 : 5); return;
	case TOML_OTHER: put_tagged(out, t->tag, t->str, t->str_len); return;
	case TOML_INT: put_tagged(out, "integer", num, (size_t)snprintf(num, sizeof num, "%" PRId64, t->num)); return;
	case TOML_ARRAY:
	case TOML_TABLE: break;
	}
	buf_addc(out, t->kind == TOML_ARRAY ? '[' : '{');
	for (const struct toml_node *k = t->kids; k; k = k->next) {
		if (t->kind == TOML_TABLE) {
			put_quoted(out, k->key, k->key_len);
			buf_addc(out, ':');
		}
		conf_put_json(k, out);
		if (k->next) buf_addc(out, ',');
	}
	buf_addc(out, t->kind == TOML_ARRAY ? ']' : '}');
}
