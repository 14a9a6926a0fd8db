#include "build/share.h"
#include "remote/remote.h"

#include <string.h>

/* ---- what the request says ---- */

struct specs {
	VEC(struct remote_spec) v; /* attributes are heap, their texts the request's */
};

static void specs_fini(struct specs *s)
{
	for (size_t i = 0; i < s->v.n; i++) free((void *)s->v.v[i].attrs);
	vec_fini(&s->v);
}

static void add_entry(struct specs *s, const Control__CacheOptionsEntry *x)
{
	struct ship_kv *kv = xcalloc(x->n_attrs, sizeof *kv);
	for (size_t i = 0; i < x->n_attrs; i++) kv[i] = (struct ship_kv){x->attrs[i]->key, x->attrs[i]->value};
	vec_push(&s->v, ((struct remote_spec){x->type, kv, x->n_attrs}));
}

/* The deprecated fields are of the time when there were registries only. */
static void add_registry(struct specs *s, const char *ref, Control__CacheOptions__ExportAttrsDeprecatedEntry *const *attrs,
			 size_t n)
{
	struct ship_kv *kv = xcalloc(n + 1, sizeof *kv);
	size_t c = 0;
	for (size_t i = 0; i < n; i++)
		if (strcmp(attrs[i]->key, "ref")) kv[c++] = (struct ship_kv){attrs[i]->key, attrs[i]->value};
	kv[c++] = (struct ship_kv){"ref", ref};
	vec_push(&s->v, ((struct remote_spec){"registry", kv, c}));
}

static struct specs exports(const Control__SolveRequest *r)
{
	struct specs s = {0};
	const Control__CacheOptions *c = r->cache;
	for (size_t i = 0; c && i < c->n_exports; i++) add_entry(&s, c->exports[i]);
	if (c && !c->n_exports && *c->exportrefdeprecated)
		add_registry(&s, c->exportrefdeprecated, c->exportattrsdeprecated, c->n_exportattrsdeprecated);
	return s;
}

static struct specs imports(const Control__SolveRequest *r)
{
	struct specs s = {0};
	const Control__CacheOptions *c = r->cache;
	for (size_t i = 0; c && i < c->n_imports; i++) add_entry(&s, c->imports[i]);
	for (size_t i = 0; c && i < c->n_importrefsdeprecated; i++) add_registry(&s, c->importrefsdeprecated[i], NULL, 0);
	return s;
}

static int check_specs(const struct specs *s, struct err *e)
{
	_cleanup_strvec_ struct strvec twice = {0};
	for (size_t i = 0; i < s->v.n; i++)
		for (size_t k = 0; k < i; k++)
			if (remote_spec_equal(&s->v.v[i], &s->v.v[k])) {
				strvec_add(&twice, s->v.v[i].type);
				break;
			}
	if (twice.n) {
		_cleanup_free_ char *types = strvec_join(&twice, " ");
		return err_set(e, CODE_UNKNOWN, "duplicate cache exports [%s]", types);
	}
	for (size_t i = 0; i < s->v.n; i++)
		if (remote_check_export(&s->v.v[i], e) < 0) return -1;
	return 0;
}

int share_check(const Control__SolveRequest *req, struct err *e)
{
	struct specs s = exports(req);
	int r = check_specs(&s, e);
	specs_fini(&s);
	return r;
}

/* ---- imports ---- */

struct share {
	struct build *build;
	char *name;
	struct remote_import *import;
	struct build_vertex *vertex; /* NULL: it was read */
	struct list link;
};

static void import_status(void *arg, const struct prog_status *s)
{
	struct share *x = arg;
	if (x->vertex) build_vertex_status(x->vertex, s);
}

static void import_done(void *arg, const struct err *e)
{
	struct share *x = arg;
	if (e) log_debug("importing cache manifest from %s: %s", x->name, e->msg);
	build_vertex_end(take_ptr(x->vertex), e);
}

void share_import(struct build *b, const char *type, const struct ship_kv *attrs, size_t n)
{
	const char *sessions[OPS_SESSIONS_MAX];
	struct remote_spec spec = {type, attrs, n};
	_cleanup_free_ char *name = remote_import_name(&spec);
	if (!b->solve) return;
	LIST_EACH(&b->shares, struct share, old, link)
	{
		if (!strcmp(old->name, name)) return;
	}
	struct share *x = xnew(struct share);
	_cleanup_free_ char *title = xasprintf("importing cache manifest from %s", name);
	x->build = b;
	x->name = take_ptr(name);
	x->vertex = build_vertex_start(b, title, title);
	list_add_tail(&b->shares, &x->link);
	struct remote_req req = {
		.env = b->engine->conf.env, .spec = spec, .sessions = sessions, .status = import_status, .arg = x};
	req.n_sessions = build_sessions(b, sessions, OPS_SESSIONS_MAX);
	x->import = remote_import_start(&req, import_done);
	solve_build_use(b->solve, remote_import_solver(x->import));
}

void share_import_request(struct build *b)
{
	struct specs s = imports(b->pb);
	for (size_t i = 0; i < s.v.n; i++) share_import(b, s.v.v[i].type, s.v.v[i].attrs, s.v.v[i].n_attrs);
	specs_fini(&s);
}

void share_import_gateway(struct build *b, Gateway__CacheOptionsEntry *const *entries, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const Gateway__CacheOptionsEntry *x = entries[i];
		struct ship_kv *kv = xcalloc(x->n_attrs, sizeof *kv);
		for (size_t k = 0; k < x->n_attrs; k++) kv[k] = (struct ship_kv){x->attrs[k]->key, x->attrs[k]->value};
		share_import(b, x->type, kv, x->n_attrs);
		free(kv);
	}
}

void share_end(struct build *b)
{
	LIST_EACH(&b->shares, struct share, x, link)
	{
		list_del(&x->link);
		remote_import_drop(x->import);
		if (x->vertex) {
			_cleanup_err_ struct err e = ERR_INIT;
			err_set(&e, CODE_CANCELLED, "context canceled");
			build_vertex_end(x->vertex, &e);
		}
		free(x->name);
		free(x);
	}
}

/* ---- exports: all at once ---- */

struct share_export {
	struct share_exports *all;
	struct remote_export *run;
	struct build_vertex *vertex;
	bool ignore_error;
};
struct share_exports {
	struct share_export *v;
	size_t n, left;
	struct strvec response;
	struct err error;
	bool cancelled;
	void (*done)(void *arg, const struct strvec *response, const struct err *e);
	void *arg;
};

static void all_done(struct share_exports *s)
{
	if (!s->cancelled) s->done(s->arg, &s->response, err_is_set(&s->error) ? &s->error : NULL);
	strvec_fini(&s->response);
	err_fini(&s->error);
	free(s->v);
	free(s);
}

static void export_status(void *arg, const struct prog_status *st)
{
	struct share_export *x = arg;
	if (x->vertex) build_vertex_status(x->vertex, st);
}

static void exported(void *arg, const struct strvec *response, const struct err *e)
{
	struct share_export *x = arg;
	struct share_exports *s = x->all;
	x->run = NULL;
	if (x->vertex) build_vertex_end(take_ptr(x->vertex), e);
	if (e && !x->ignore_error && !err_is_set(&s->error)) {
		err_copy(&s->error, e);
		for (size_t i = 0; i < s->n; i++)
			if (s->v[i].run) remote_export_cancel(s->v[i].run);
	}
	for (size_t i = 0; response && i < response->n; i++) {
		const char *kv = response->v[i], *eq = strchr(kv, '=');
		_cleanup_free_ char *k = xstrndup(kv, (size_t)(eq - kv));
		strvec_env_set(&s->response, k, eq + 1);
	}
	if (--s->left == 0) all_done(s);
}

static struct remote_root *roots(const struct build *b, size_t *ret_n)
{
	struct remote_root *v = xcalloc(b->result.refs.n, sizeof *v);
	size_t n = 0;
	for (size_t i = 0; i < b->result.refs.n; i++) {
		const struct ref *r = b->result.refs.v[i].ref;
		if (r && r->node) v[n++] = (struct remote_root){r->node, r->output};
	}
	*ret_n = n;
	return v;
}

struct share_exports *share_export_start(struct build *b,
					 void (*done)(void *arg, const struct strvec *response, const struct err *e), void *arg)
{
	const char *sessions[OPS_SESSIONS_MAX];
	struct specs specs = exports(b->pb);
	struct share_exports *s = xnew(struct share_exports);
	size_t n_roots, n_sessions = build_sessions(b, sessions, OPS_SESSIONS_MAX);
	_cleanup_free_ struct remote_root *from = roots(b, &n_roots);
	s->v = xcalloc(specs.v.n, sizeof *s->v);
	s->done = done;
	s->arg = arg;
	for (size_t i = 0; i < specs.v.n; i++) {
		const struct remote_spec *spec = &specs.v.v[i];
		if (remote_is_inline(spec)) continue;
		struct share_export *x = &s->v[s->n++];
		_cleanup_free_ char *id = xasprintf("%s-cache-%zu", b->session, i);
		x->all = s;
		x->ignore_error = remote_ignore_error(spec);
		x->vertex = build_vertex_start(b, id, remote_export_name(spec));
		s->left++;
		struct remote_req req = {.env = b->engine->conf.env,
					 .spec = *spec,
					 .sessions = sessions,
					 .n_sessions = n_sessions,
					 .status = export_status,
					 .arg = x};
		x->run = remote_export_start(&req, from, n_roots, exported);
	}
	specs_fini(&specs);
	if (s->n) return s;
	free(s->v);
	free(s);
	return NULL;
}

void share_export_cancel(struct share_exports *s)
{
	s->cancelled = true;
	for (size_t i = 0; i < s->n; i++) {
		struct share_export *x = &s->v[i];
		if (x->vertex) {
			_cleanup_err_ struct err e = ERR_INIT;
			err_set(&e, CODE_CANCELLED, "context canceled");
			build_vertex_end(take_ptr(x->vertex), &e);
		}
		if (x->run) remote_export_cancel(x->run);
	}
}

/* ---- inline ---- */

static int make_inline(void *arg, size_t ref, const char *const *layers, size_t n, struct buf *ret, struct err *e)
{
	const struct build *b = arg;
	if (ref >= b->result.refs.n) return 0;
	const struct ref *r = b->result.refs.v[ref].ref;
	if (!r || !r->node) return 0;
	struct remote_root root = {r->node, r->output};
	return remote_inline(b->engine->conf.env, &root, layers, n, ret, e);
}

share_inline_fn *share_inline(const struct build *b)
{
	struct specs s = exports(b->pb);
	bool yes = false;
	for (size_t i = 0; i < s.v.n; i++) yes |= remote_is_inline(&s.v.v[i]);
	specs_fini(&s);
	return yes ? make_inline : NULL;
}
