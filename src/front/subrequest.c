/* Describe, outline, targets, lint: what a Dockerfile offers and what is wrong with it, as JSON and as text.
 * Source: BuildKit frontend/subrequests, frontend/dockerfile/dockerfile2llb/{outline,convert}.go, solver/errdefs/source.go. */
#include "front/subrequest.h"

#include <string.h>

#define SUBREQUEST_URL "github.com/moby/buildkit/errdefs.Subrequest+json"

/* ---- tables of text ------------------------------------------------------------------------------------------------- */

struct cell {
	const char *s;
	size_t n, width;
};
struct row {
	struct cell *v;
	size_t n;
};

static size_t width_of(const char *s, size_t n)
{
	size_t w = 0;
	for (size_t i = 0; i < n; i++) w += ((unsigned char)s[i] & 0xc0) != 0x80;
	return w;
}

/* Go's text/tabwriter with spaces and no minimum: cells that end with a tab are as wide as the widest of the rows around. */
static void align(struct arena *a, const char *text, size_t padding, struct buf *out)
{
	struct row *rows = NULL;
	size_t n = 0;
	for (const char *p = text; *p;) {
		size_t len = strcspn(p, "\n");
		struct row r = {0};
		for (const char *c = p, *end = p + len;;) {
			const char *tab = memchr(c, '\t', (size_t)(end - c));
			size_t k = (size_t)((tab ? tab : end) - c);
			struct cell x = {c, k, width_of(c, k)};
			LLB_PUSH(a, r.n, r.v, x);
			if (!tab) break;
			c = tab + 1;
		}
		LLB_PUSH(a, n, rows, r);
		p += len + (p[len] == '\n');
	}
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < rows[i].n; k++) {
			buf_add(out, rows[i].v[k].s, rows[i].v[k].n);
			if (k + 1 == rows[i].n) break;
			size_t w = 0;
			for (size_t j = i; j < n && rows[j].n > k + 1; j++) w = max_of(w, rows[j].v[k].width);
			for (size_t j = i; j-- > 0 && rows[j].n > k + 1;) w = max_of(w, rows[j].v[k].width);
			for (size_t s = rows[i].v[k].width; s < w + padding; s++) buf_addc(out, ' ');
		}
		buf_addc(out, '\n');
	}
}

static void put_result(struct front *f, const struct buf *json, const struct buf *text, const char *version)
{
	result_meta(f, "result.json", json->p, json->n);
	result_meta(f, "result.txt", buf_str(text), text->n);
	result_meta(f, "version", version, strlen(version));
}

static struct json_w indented(struct buf *b)
{
	struct json_w w = JSON_W(b);
	w.indent = "  ";
	return w;
}

static void put_lines(struct json_w *w, struct arena *a, struct ast_lines at)
{
	size_t n;
	const struct llb_range *r = ranges_of(a, at, &n);
	for (size_t i = 0; i < n; i++) {
		json_obj(w);
		for (int side = 0; side < 2; side++) {
			json_key(w, side ? "end" : "start");
			json_obj(w);
			json_kint_omit(w, "line", r[i].start_line);
			json_obj_end(w);
		}
		json_obj_end(w);
	}
}

static void put_location(struct json_w *w, struct arena *a, struct ast_lines at)
{
	if (at.start <= 0) return;
	json_key(w, "location");
	json_obj(w);
	json_key(w, "ranges");
	json_arr(w);
	put_lines(w, a, at);
	json_arr_end(w);
	json_obj_end(w);
}

static void put_sources(struct json_w *w, const struct front *f)
{
	json_key(w, "sources");
	json_arr(w);
	json_base64(w, f->file.data, f->file.n);
	json_arr_end(w);
}

/* ---- describe ------------------------------------------------------------------------------------------------------- */

struct request {
	const char *name, *description;
	const char *opt, *opt_description; /* NULL: none */
	bool opts_null;
	int (*run)(struct front *f, struct err *e);
	bool listed;
};
static const struct request requests[];

static void put_named(struct json_w *w, const char *name, const char *description)
{
	json_obj(w);
	json_kstr(w, "name", name);
	json_kstr(w, "description", description);
	json_obj_end(w);
}

static void put_request(struct json_w *w, const struct request *r)
{
	json_obj(w);
	json_kstr(w, "name", r->name);
	json_kstr(w, "version", "1.0.0");
	json_kstr(w, "type", "rpc");
	json_kstr(w, "description", r->description);
	json_key(w, "opts");
	if (r->opts_null) {
		json_nil(w);
	} else {
		json_arr(w);
		if (r->opt) put_named(w, r->opt, r->opt_description);
		json_arr_end(w);
	}
	json_key(w, "inputs");
	json_nil(w);
	json_key(w, "metadata");
	json_arr(w);
	put_named(w, "result.json", "");
	put_named(w, "result.txt", "");
	json_arr_end(w);
	json_key(w, "refs");
	json_nil(w);
	json_obj_end(w);
}

static int run_describe(struct front *f, struct err *e)
{
	_cleanup_buf_ struct buf json = BUF_INIT, table = BUF_INIT, text = BUF_INIT;
	struct json_w w = indented(&json);
	json_arr(&w);
	buf_adds(&table, "NAME\tVERSION\tDESCRIPTION\n");
	for (const struct request *r = requests; r->name; r++) {
		if (!r->listed) continue;
		put_request(&w, r);
		buf_addf(&table, "%s\t1.0.0\t%s\n", r->name + strlen("frontend."), r->description);
	}
	json_arr_end(&w);
	align(f->a, buf_str(&table), 1, &text);
	put_result(f, &json, &text, "1.0.0");
	return FOUND;
}

/* ---- targets -------------------------------------------------------------------------------------------------------- */

static int run_targets(struct front *f, struct err *e)
{
	_cleanup_buf_ struct buf json = BUF_INIT, table = BUF_INIT, text = BUF_INIT;
	struct json_w w = indented(&json);
	struct ast file;
	struct instr_file df;
	if (ast_parse(f->a, f->file.data, f->file.n, &file, e) < 0 || instr_parse(f->a, &file, NULL, &df, e) < 0) return -1;
	json_obj(&w);
	json_key(&w, "targets");
	json_arr(&w);
	buf_adds(&table, "TARGET\tDESCRIPTION\n");
	for (size_t i = 0; i < df.n_stages; i++) {
		const struct instr_stage *s = &df.stages[i];
		bool last = i + 1 == df.n_stages;
		json_obj(&w);
		json_kstr_omit(&w, "name", s->name);
		json_kbool_omit(&w, "default", last);
		json_kstr_omit(&w, "description", s->doc);
		json_kstr_omit(&w, "base", s->base);
		json_kstr_omit(&w, "platform", s->platform);
		put_location(&w, f->a, s->at);
		json_obj_end(&w);
		buf_addf(&table, "%s%s%s\t%s\n", s->name, *s->name && last ? " " : "", last ? "(default)" : "", s->doc);
	}
	json_arr_end(&w);
	put_sources(&w, f);
	json_obj_end(&w);
	align(f->a, buf_str(&table), 1, &text);
	put_result(f, &json, &text, "1.0.0");
	return FOUND;
}

/* ---- outline -------------------------------------------------------------------------------------------------------- */

struct gather {
	struct arena *a;
	struct outline all;
	unsigned walk;
};

static void mark_used(struct arena *a, struct outline *o)
{
	for (size_t i = 0; i < o->used.n; i++) { /* grows meanwhile */
		const struct arg_info *arg = outline_arg(o, o->used.v[i]);
		for (size_t k = 0; arg && k < arg->deps.n; k++) outline_use(a, o, arg->deps.v[k]);
	}
}

static void gather_mounts(struct arena *a, struct mount_info **to, size_t *n, const struct mount_info *from, size_t n_from)
{
	for (size_t i = 0; i < n_from; i++) {
		bool known = false;
		for (size_t k = 0; k < *n; k++) known |= strcmp((*to)[k].id, from[i].id) == 0;
		if (!known) LLB_PUSH(a, *n, *to, from[i]);
	}
}

static void gather_stage(struct gather *g, struct stage *d)
{
	if (d->reached == g->walk) return;
	d->reached = g->walk;
	mark_used(g->a, &d->outline);
	for (size_t i = 0; i < d->outline.used.n; i++) {
		const struct arg_info *arg = outline_arg(&d->outline, d->outline.used.v[i]);
		if (arg && !outline_arg(&g->all, arg->key)) outline_put_arg(g->a, &g->all, arg);
	}
	gather_mounts(g->a, &g->all.secrets, &g->all.n_secrets, d->outline.secrets, d->outline.n_secrets);
	gather_mounts(g->a, &g->all.sshs, &g->all.n_sshs, d->outline.sshs, d->outline.n_sshs);
	if (d->base) gather_stage(g, d->base);
	for (size_t i = 0; i < d->n_deps; i++) gather_stage(g, d->deps[i].stage);
}

static int by_arg_line(const void *x, const void *y)
{
	const struct arg_info *a = x, *b = y;
	return a->at.start != b->at.start ? (a->at.start > b->at.start) - (a->at.start < b->at.start) : strcmp(a->key, b->key);
}

static int by_mount_line(const void *x, const void *y)
{
	const struct mount_info *a = x, *b = y;
	return a->at.start != b->at.start ? (a->at.start > b->at.start) - (a->at.start < b->at.start) : strcmp(a->id, b->id);
}

static void outline_args(struct json_w *w, struct arena *a, const struct outline *o, struct buf *text)
{
	_cleanup_buf_ struct buf t = BUF_INIT;
	if (!o->n_args) return;
	buf_adds(&t, "BUILD ARG\tVALUE\tDESCRIPTION\n");
	json_key(w, "args");
	json_arr(w);
	for (size_t i = 0; i < o->n_args; i++) {
		const struct arg_info *x = &o->args[i];
		json_obj(w);
		json_kstr(w, "name", x->key);
		json_kstr_omit(w, "description", x->doc);
		json_kstr_omit(w, "value", x->value);
		put_location(w, a, x->at);
		json_obj_end(w);
		buf_addf(&t, "%s\t%s\t%s\n", x->key, x->value, x->doc ? x->doc : "");
	}
	json_arr_end(w);
	align(a, buf_str(&t), 3, text);
	buf_addc(text, '\n');
}

static void outline_mounts(struct json_w *w, struct arena *a, const char *key, const char *title, const struct mount_info *v,
			   size_t n, struct buf *text)
{
	_cleanup_buf_ struct buf t = BUF_INIT;
	if (!n) return;
	buf_addf(&t, "%s\tREQUIRED\n", title);
	json_key(w, key);
	json_arr(w);
	for (size_t i = 0; i < n; i++) {
		json_obj(w);
		json_kstr(w, "name", v[i].id);
		json_kbool_omit(w, "required", v[i].required);
		put_location(w, a, v[i].at);
		json_obj_end(w);
		buf_addf(&t, "%s\t%s\n", v[i].id, v[i].required ? "true" : "");
	}
	json_arr_end(w);
	align(a, buf_str(&t), 3, text);
	buf_addc(text, '\n');
}

static void put_outline(struct front *f, struct conv *c, struct stage *t)
{
	_cleanup_buf_ struct buf json = BUF_INIT, head = BUF_INIT, text = BUF_INIT;
	struct json_w w = indented(&json);
	struct gather g = {.a = f->a, .walk = ++c->walk};
	gather_stage(&g, t);
	struct outline *o = &g.all;
	if (o->n_args > 1) qsort(o->args, o->n_args, sizeof *o->args, by_arg_line);
	if (o->n_secrets > 1) qsort(o->secrets, o->n_secrets, sizeof *o->secrets, by_mount_line);
	if (o->n_sshs > 1) qsort(o->sshs, o->n_sshs, sizeof *o->sshs, by_mount_line);
	json_obj(&w);
	json_kstr_omit(&w, "name", t->st.name);
	json_kstr_omit(&w, "description", t->st.doc);
	if (*t->st.name || *t->st.doc) {
		buf_addf(&head, "TARGET:\t%s\n", *t->st.name ? t->st.name : "(default)");
		if (*t->st.doc) buf_addf(&head, "DESCRIPTION:\t%s\n", t->st.doc);
		align(f->a, buf_str(&head), 1, &text);
		buf_addc(&text, '\n');
	}
	outline_args(&w, f->a, o, &text);
	outline_mounts(&w, f->a, "secrets", "SECRET", o->secrets, o->n_secrets, &text);
	outline_mounts(&w, f->a, "ssh", "SSH", o->sshs, o->n_sshs, &text);
	put_sources(&w, f);
	json_obj_end(&w);
	put_result(f, &json, &text, "1.0.0");
}

static int run_outline(struct front *f, struct err *e)
{
	struct conv *c = conv_new(f, NULL, false, result_warn, f);
	struct stage *t;
	int r = conv_run(c, &t, e);
	if (r == FOUND) put_outline(f, c, t);
	conv_fini(c);
	return r;
}

/* ---- lint ----------------------------------------------------------------------------------------------------------- */

struct finding {
	const struct lint_rule *rule;
	const char *message;
	struct ast_lines at;
	size_t order;
};
struct findings {
	struct arena *a;
	struct finding *v;
	size_t n;
};

static void on_warning(void *arg, const struct lint_rule *rule, const char *message, struct ast_lines at)
{
	struct findings *l = arg;
	struct finding x = {rule, message, at, l->n};
	LLB_PUSH(l->a, l->n, l->v, x);
}

static void put_finding(struct json_w *w, struct arena *a, const struct finding *x)
{
	json_obj(w);
	json_kstr(w, "ruleName", x->rule->name);
	json_kstr_omit(w, "description", x->rule->description);
	json_kstr_omit(w, "url", x->rule->url);
	json_kstr_omit(w, "detail", x->message);
	if (x->at.start > 0) {
		put_location(w, a, x->at);
	} else {
		json_key(w, "location");
		json_obj(w);
		json_obj_end(w);
	}
	json_obj_end(w);
}

/* All lines that an error names, each once. */
static void put_error(struct json_w *w, struct front *f, struct err *err)
{
	struct ast_places p = ast_err_places(f->a, err);
	int lo = 0, hi = 0;
	json_key(w, "buildError");
	json_obj(w);
	json_kstr(w, "message", err->msg);
	json_key(w, "location");
	json_obj(w);
	for (size_t i = 0; i < p.n; i++) {
		if (p.v[i].start > 0 && (!lo || p.v[i].start < lo)) lo = p.v[i].start;
		hi = max_of(hi, max_of(p.v[i].start, p.v[i].end));
	}
	if (lo) {
		json_key(w, "ranges");
		json_arr(w);
		for (int line = lo; line <= hi; line++) {
			bool in = false;
			for (size_t i = 0; i < p.n; i++) in |= p.v[i].start <= line && line <= max_of(p.v[i].start, p.v[i].end);
			if (in) put_lines(w, f->a, (struct ast_lines){line, line});
		}
		json_arr_end(w);
	}
	json_obj_end(w);
	json_obj_end(w);
}

static const char *line_at(const char *text, const char *end, int line, size_t *n)
{
	while (--line > 0) {
		const char *nl = memchr(text, '\n', (size_t)(end - text));
		if (!nl) break;
		text = nl + 1;
	}
	const char *nl = memchr(text, '\n', (size_t)(end - text));
	*n = (size_t)((nl ? nl : end) - text);
	return text;
}

/* The lines around, those that are meant marked. */
static void print_source(const struct source_file *s, struct ast_lines at, struct buf *out)
{
	const char *text = s->data, *end_text = text + s->n;
	int lines = 1, start = at.start, end = max_of(at.start, at.end), first = start;
	for (const char *p = text; p < end_text; p++) lines += *p == '\n';
	if (start < 1 || start > lines) return;
	end = min_of(end, lines);
	for (int p = 0, pad = start == end ? 4 : 2; p < pad; p++) {
		if (start > 1) {
			start--;
			p++;
		}
		if (end != lines) {
			end++;
			p++;
		}
	}
	buf_addf(out, "%s:%d\n--------------------\n", s->filename, first);
	for (int i = start; i <= end; i++) {
		size_t n;
		const char *l = line_at(text, end_text, i, &n);
		bool in = i >= at.start && i <= max_of(at.start, at.end);
		buf_addf(out, " %3d | %s ", i, in ? ">>>" : "   ");
		buf_add(out, l, n);
		buf_addc(out, '\n');
	}
	buf_adds(out, "--------------------\n");
}

static int by_line(const void *x, const void *y)
{
	const struct finding *a = x, *b = y;
	if (a->at.start <= 0 && b->at.start <= 0) return strcmp(a->rule->name, b->rule->name);
	if (a->at.start != b->at.start) return (a->at.start > b->at.start) - (a->at.start < b->at.start);
	return (a->order > b->order) - (a->order < b->order);
}

static void put_lint(struct front *f, struct findings *l, struct err *err)
{
	_cleanup_buf_ struct buf json = BUF_INIT, text = BUF_INIT;
	struct json_w w = indented(&json);
	json_obj(&w);
	json_key(&w, "warnings");
	if (l->n)
		json_arr(&w);
	else
		json_nil(&w);
	for (size_t i = 0; i < l->n; i++) put_finding(&w, f->a, &l->v[i]);
	if (l->n) json_arr_end(&w);
	json_key(&w, "sources");
	json_arr(&w);
	llb_json(&w, &source_info(f->a, &f->file)->base);
	json_arr_end(&w);
	if (err_is_set(err)) put_error(&w, f, err);
	json_obj_end(&w);
	if (l->n > 1) qsort(l->v, l->n, sizeof *l->v, by_line);
	for (size_t i = 0; i < l->n; i++) {
		const struct finding *x = &l->v[i];
		buf_addf(&text, "\nWARNING: %s%s%s\n%s\n", x->rule->name, *x->rule->url ? " - " : "", x->rule->url, x->message);
		print_source(&f->file, x->at, &text);
	}
	put_result(f, &json, &text, "1.0.0");
	result_meta(f, "result.statuscode", l->n || err_is_set(err) ? "1" : "0", 1);
}

static int run_lint(struct front *f, struct err *e)
{
	_cleanup_err_ struct err err = ERR_INIT;
	struct findings l = {.a = f->a};
	struct conv *c = conv_new(f, NULL, !*f->cfg.target, on_warning, &l);
	struct stage *t;
	int r = conv_run(c, &t, &err);
	if (r != PENDING) put_lint(f, &l, &err);
	conv_fini(c);
	return r == PENDING ? PENDING : FOUND;
}

/* ---- all ------------------------------------------------------------------------------------------------------------ */

static const struct request requests[] = {
	{"frontend.outline", "List all parameters current build target supports", "target", "Target build stage", false,
	 run_outline, true},
	{"frontend.targets", "List all targets current build supports", NULL, NULL, false, run_targets, true},
	{"frontend.subrequests.describe", "List available subrequest types", NULL, NULL, true, run_describe, true},
	{"frontend.lint", "Lint a Dockerfile", NULL, NULL, false, run_lint, false},
	{0},
};

int subrequest_run(struct front *f, const char *name, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct json_w w = JSON_W(&b);
	for (const struct request *r = requests; r->name; r++)
		if (strcmp(r->name, name) == 0) return r->run(f, e);
	err_set(e, CODE_UNKNOWN, "unsupported request %s", name);
	json_obj(&w);
	json_kstr_omit(&w, "name", name);
	json_obj_end(&w);
	err_detail_add(e, SUBREQUEST_URL, b.p, b.n);
	return -1;
}
