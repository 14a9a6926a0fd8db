/* States as values, the variables they carry, and the sources they begin with. See state.h for the invariants.
 * Source: BuildKit client/llb/{state,meta,source}.go. */
#include "state/internal.h"

#include <string.h>

/* ---- notes ---- */

struct note note_new(struct arena *a) { return (struct note){.meta = llb_meta(a)}; }

struct note note_clone(struct arena *a, const struct note *n)
{
	struct note c = *n;
	c.meta = arena_memdup(a, n->meta, sizeof *n->meta);
	c.meta->n_description = c.meta->n_caps = 0;
	c.meta->description = NULL;
	c.meta->caps = NULL;
	for (size_t i = 0; i < n->meta->n_description; i++)
		llb_meta_describe(a, c.meta, n->meta->description[i]->key, n->meta->description[i]->value);
	for (size_t i = 0; i < n->meta->n_caps; i++) llb_meta_cap(a, c.meta, n->meta->caps[i]->key);
	return c;
}

void note_name(struct arena *a, struct note *n, const char *name) { llb_meta_describe(a, n->meta, LLB_CUSTOM_NAME, name); }

void note_internal(struct arena *a, struct note *n, const char *name)
{
	note_name(a, n, arena_printf(a, "[internal] %s", name));
}

void note_group(struct arena *a, struct note *n, const char *id, const char *name, bool weak)
{
	Pb__ProgressGroup *g = llb_new(a, Pb__ProgressGroup, pb__progress_group__init);
	g->id = arena_strdup(a, id);
	g->name = arena_strdup(a, name);
	g->weak = weak;
	n->meta->progress_group = g;
}

/* ---- variables ---- */

const struct env *env_add(struct arena *a, const struct env *e, const char *k, const char *v)
{
	struct env *x = arena_new_of(a, struct env);
	*x = (struct env){.parent = e, .key = arena_strdup(a, k), .value = v ? arena_strdup(a, v) : NULL};
	return x;
}

const char *env_get(const struct env *e, const char *k)
{
	for (; e; e = e->parent)
		if (strcmp(e->key, k) == 0) return e->value;
	return NULL;
}

struct keys env_keys(struct arena *a, const struct env *e)
{
	_cleanup_map_ struct map seen = {0};
	struct keys k = {0};
	for (const struct env *x = e; x; x = x->parent) {
		if (map_has(&seen, x->key)) continue;
		map_put(&seen, x->key, (void *)x);
		if (x->value) LLB_PUSH(a, k.n, k.v, x->key);
	}
	for (size_t i = 0; i < k.n / 2; i++) {
		const char *t = k.v[i];
		k.v[i] = k.v[k.n - 1 - i];
		k.v[k.n - 1 - i] = t;
	}
	return k;
}

/* ---- platforms ---- */

const struct spec_platform *platform_dup(struct arena *a, const struct spec_platform *p)
{
	struct spec_platform *c = arena_new_of(a, struct spec_platform);
	c->os = arena_strdup(a, p->os ? p->os : "");
	c->arch = arena_strdup(a, p->arch ? p->arch : "");
	c->variant = arena_strdup(a, p->variant ? p->variant : "");
	c->os_version = arena_strdup(a, p->os_version ? p->os_version : "");
	c->os_features.n = c->os_features.cap = p->os_features.n;
	c->os_features.v = arena_alloc(a, (p->os_features.n + 1) * sizeof *c->os_features.v);
	for (size_t i = 0; i < p->os_features.n; i++) c->os_features.v[i] = arena_strdup(a, p->os_features.v[i]);
	return c;
}

const struct spec_platform *platform_normal(struct arena *a, const struct spec_platform *p)
{
	_cleanup_spec_platform_ struct spec_platform c = {0};
	spec_platform_copy(&c, p);
	spec_platform_normalize(&c);
	return platform_dup(a, &c);
}

const char *platform_text(struct arena *a, const struct spec_platform *p)
{
	_cleanup_free_ char *s = spec_platform_format(p);
	return arena_strdup(a, s);
}

/* ---- states ---- */

struct state state_scratch(void) { return (struct state){.dir = "/"}; }

struct state state_platform(struct arena *a, struct state s, const struct spec_platform *p)
{
	s.platform = platform_normal(a, p);
	return s;
}

struct state state_with_output(struct arena *a, struct state s, struct output *o)
{
	s.out = o;
	return o && o->platform ? state_platform(a, s, o->platform) : s;
}

struct state state_of(struct arena *a, struct output *o) { return state_with_output(a, state_scratch(), o); }

struct state state_env(struct arena *a, struct state s, const char *k, const char *v)
{
	s.env = env_add(a, s.env, k, v);
	return s;
}

struct state state_dir(struct arena *a, struct state s, const char *dir)
{
	if (*dir == '/') {
		s.dir = arena_strdup(a, dir);
		return s;
	}
	_cleanup_free_ char *j = path_join(str_empty(s.dir) ? "/" : s.dir, dir);
	s.dir = arena_strdup(a, j);
	return s;
}

/* ---- sources ---- */

struct vertex *vertex_new(struct arena *a, enum vertex_kind kind, const struct note *note)
{
	struct vertex *v = arena_new_of(a, struct vertex);
	v->kind = kind;
	v->note = note ? note_clone(a, note) : note_new(a);
	return v;
}

struct output *vertex_output(struct arena *a, struct vertex *v)
{
	struct output *o = arena_new_of(a, struct output);
	o->v = v;
	return o;
}

struct vertex *source_new(struct arena *a, const char *id, const struct note *note)
{
	struct vertex *v = vertex_new(a, VERTEX_SOURCE, note);
	v->source.id = arena_strdup(a, id);
	return v;
}

void source_attr(struct arena *a, struct vertex *v, const char *k, const char *val)
{
	struct attr x = {k, arena_strdup(a, val)};
	LLB_PUSH(a, v->source.n_attrs, v->source.attrs, x);
}

void source_cap(struct arena *a, struct vertex *v, const char *cap) { llb_meta_cap(a, v->note.meta, cap); }

static struct output *source_output(struct arena *a, struct vertex *v)
{
	struct output *o = vertex_output(a, v);
	o->platform = v->note.platform;
	return o;
}

static void attr_list(struct arena *a, struct vertex *v, const char *k, char *const *list, size_t n, const char *cap)
{
	if (!n) return;
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct json_w w = JSON_W(&b);
	json_arr(&w);
	for (size_t i = 0; i < n; i++) json_str(&w, list[i]);
	json_arr_end(&w);
	source_attr(a, v, k, buf_str(&b));
	source_cap(a, v, cap);
}

struct output *local_output(struct arena *a, const struct local_opt *o)
{
	struct note note = note_new(a);
	note_name(a, &note, o->custom_name);
	struct vertex *v = source_new(a, arena_printf(a, "local://%s", o->name), &note);
	if (!str_empty(o->session)) {
		source_attr(a, v, "local.session", o->session);
		source_cap(a, v, "source.local.sessionid");
	}
	attr_list(a, v, "local.followpaths", o->follow, o->n_follow, "source.local.followpaths");
	attr_list(a, v, "local.excludepatterns", o->exclude, o->n_exclude, "source.local.excludepatterns");
	if (!str_empty(o->shared_key)) {
		source_attr(a, v, "local.sharedkeyhint", o->shared_key);
		source_cap(a, v, "source.local.sharedkeyhint");
	}
	if (o->differ_none) source_attr(a, v, "local.differ", "none");
	source_cap(a, v, "source.local");
	return source_output(a, v);
}

struct output *image_output(struct arena *a, const char *ref, const char *mode, const struct note *note)
{
	struct vertex *v = source_new(a, arena_printf(a, "docker-image://%s", ref), note);
	source_cap(a, v, "source.image");
	if (!str_empty(mode) && strcmp(mode, "default") != 0) {
		source_attr(a, v, "image.resolvemode", mode);
		if (strcmp(mode, "pull") == 0) source_cap(a, v, "source.image.resolvemode");
	}
	return source_output(a, v);
}

struct output *http_output(struct arena *a, const char *url, const char *filename, const char *checksum,
			   const struct note *note)
{
	struct vertex *v = source_new(a, url, note);
	if (!str_empty(checksum)) {
		source_attr(a, v, "http.checksum", checksum);
		source_cap(a, v, "source.http.checksum");
	}
	if (!str_empty(filename)) source_attr(a, v, "http.filename", filename);
	source_cap(a, v, "source.http");
	return source_output(a, v);
}

static int git_parse(const char *remote, struct spec_git_url *ret)
{
	_cleanup_err_ struct err e = ERR_INIT;
	if (spec_git_url_parse(remote, ret, &e) >= 0) return 0;
	if (!e.msg || !strstr(e.msg, "unknown protocol")) return -1;
	_cleanup_free_ char *with = xasprintf("https://%s", remote);
	return spec_git_url_parse(with, ret, NULL);
}

static void git_attr(struct arena *a, struct vertex *v, const char *k, const char *val, const char *cap)
{
	if (str_empty(val)) return;
	source_attr(a, v, k, val);
	if (cap) source_cap(a, v, cap);
}

struct output *git_output(struct arena *a, const struct git_opt *o, const struct note *note)
{
	_cleanup_spec_git_url_ struct spec_git_url u = {0};
	bool ok = git_parse(o->remote, &u) >= 0;
	const char *id = o->remote;
	if (ok) {
		_cleanup_free_ char *path = path_join("/", u.path);
		id = arena_printf(a, "%s%s", u.host, path);
		if (!str_empty(o->ref) || !str_empty(o->subdir)) id = arena_printf(a, "%s#%s", id, o->ref ? o->ref : "");
		if (!str_empty(o->subdir)) id = arena_printf(a, "%s:%s", id, o->subdir);
	}
	struct vertex *v = source_new(a, arena_printf(a, "git://%s", id), note);
	git_attr(a, v, "git.keepgitdir", o->keep_git_dir ? "true" : "", "source.git.keepgitdir");
	git_attr(a, v, "git.fullurl", ok ? u.remote : o->remote, "source.git.fullurl");
	git_attr(a, v, "git.authtokensecret", "GIT_AUTH_TOKEN", NULL);
	git_attr(a, v, "git.authheadersecret", "GIT_AUTH_HEADER", NULL);
	if (ok && strcmp(u.scheme, "ssh") == 0) {
		source_cap(a, v, "source.git.knownsshhosts");
		git_attr(a, v, "git.mountsshsock", "default", "source.git.mountsshsock");
	}
	git_attr(a, v, "git.checksum", o->checksum, "source.git.checksum");
	git_attr(a, v, "git.skipsubmodules", o->skip_submodules ? "true" : "", "source.git.skipsubmodules");
	git_attr(a, v, "git.mtime", o->mtime, "source.git.mtime");
	git_attr(a, v, "git.fetchbycommit", o->fetch_by_commit ? "true" : "", "source.git.fetchbycommit");
	source_cap(a, v, "source.git");
	return source_output(a, v);
}

int import_output(struct arena *a, const Pb__Definition *def, struct output **ret, struct err *e)
{
	struct llb_graph *g;
	const struct llb_load opt = {.skip_caps = true};
	*ret = NULL;
	if (!def || !def->n_def) return 0;
	if (llb_graph_load(def, a, &opt, &g, e) < 0) return -1;
	if (!g->n_nodes) return 0;
	struct vertex *v = vertex_new(a, VERTEX_IMPORT, NULL);
	v->import = def;
	*ret = vertex_output(a, v);
	return 0;
}
