/* Named contexts: what `context:<name>` puts in the place of an image or a stage.
 * Source: BuildKit frontend/dockerui/{namedcontext,config}.go. */
#include "front/convert.h"

#include <jansson.h>
#include <string.h>

enum { MAX_REDIRECTS = 10 };

static int find_exact(struct front *f, const char *name, const char *full, const struct spec_platform *p, struct named **ret)
{
	const char *v = front_opt(f, arena_printf(f->a, "context:%s", full));
	if (!v) return PENDING;
	struct named *n = arena_new_of(f->a, struct named);
	*n = (struct named){
		.input = v,
		.name = name,
		.full = full,
		.shared_key = front_optz(f, arena_printf(f->a, "sharedkey:localdir:%s", full)),
		.platform = p,
	};
	*ret = n;
	return FOUND;
}

static const struct spec_platform *default_platform(struct arena *a)
{
	_cleanup_spec_platform_ struct spec_platform host = {0};
	spec_platform_host(&host);
	return platform_dup(a, &host);
}

int named_find(struct front *f, const char *name, const struct spec_platform *p, struct named **ret, struct err *e)
{
	_cleanup_spec_ref_ struct spec_ref ref = {0};
	*ret = NULL;
	if (spec_ref_parse(name, &ref, e) < 0) return err_wrap(e, "invalid context name %s", name);
	_cleanup_free_ char *familiar = spec_ref_familiar(&ref);
	size_t n = strlen(familiar);
	if (str_ends(familiar, ":latest")) n -= strlen(":latest");
	const char *short_name = arena_strndup(f->a, familiar, n);
	const char *plat = platform_text(f->a, platform_normal(f->a, p ? p : default_platform(f->a)));
	if (find_exact(f, short_name, arena_printf(f->a, "%s::%s", short_name, plat), p, ret) == FOUND) return FOUND;
	find_exact(f, short_name, short_name, p, ret);
	return FOUND;
}

struct state state_image_config(struct arena *a, struct state s, const struct image *img)
{
	for (size_t i = 0; i < img->env.n; i++) {
		const char *kv = img->env.v[i], *eq = strchr(kv, '=');
		if (eq == kv || !*kv) continue;
		s = state_env(a, s, eq ? arena_strndup(a, kv, (size_t)(eq - kv)) : kv, eq ? eq + 1 : "");
	}
	s = state_dir(a, s, img->working_dir);
	if (*img->platform.arch && *img->platform.os) s = state_platform(a, s, &img->platform);
	return s;
}

/* ---- images ---- */

static int load_config(struct front *f, const struct front_answer *ans, const char *what, struct state *ret, struct image *img,
		       struct err *e)
{
	if (image_parse(f->a, ans->data, ans->n, img, e) < 0) return what ? err_wrap(e, "%s", what) : -1;
	*ret = state_image_config(f->a, *ret, img);
	return FOUND;
}

static int load_image(struct front *f, struct named *n, const char *ref, struct state *ret, struct image *img, bool *has,
		      bool *redirected, struct err *e)
{
	_cleanup_spec_ref_ struct spec_ref parsed = {0};
	const struct front_answer *ans;
	if (strcmp(ref, "scratch") == 0) {
		*ret = state_scratch();
		return FOUND;
	}
	if (spec_ref_parse_tagged(ref, &parsed, e) < 0) return -1;
	_cleanup_free_ char *text = spec_ref_format(&parsed);
	const struct front_question q = {
		.ask = FRONT_IMAGE_META,
		.ref = arena_strdup(f->a, text),
		.platform = n->platform,
		.resolve_mode = n->resolve_mode,
		.log_name = arena_printf(f->a, "[context %s] load metadata for %s", n->full, ref),
	};
	if (front_ask(f, q, &ans) == PENDING) return PENDING;
	if (ans->redirect) {
		const char *sep = strstr(ans->redirect, "://");
		if (!sep) return err_set(e, CODE_UNKNOWN, "could not parse ref: %s", ans->redirect);
		n->input = arena_printf(f->a, "%.*s:%s", (int)(sep - ans->redirect), ans->redirect, sep + 3);
		map_put(&f->opts, arena_printf(f->a, "context:%s", n->full), (void *)n->input);
		*redirected = true;
		return FOUND;
	}
	if (err_is_set(&ans->err)) {
		err_copy(e, &ans->err);
		return -1;
	}
	struct note note = note_new(f->a);
	const char *custom = ans->ref ? ans->ref : q.ref;
	note_name(f->a, &note, arena_printf(f->a, "[context %s] %s", n->full, ref));
	note.platform = n->platform;
	_cleanup_spec_ref_ struct spec_ref got = {0};
	if (spec_ref_parse_tagged(custom, &got, e) < 0) return -1;
	_cleanup_free_ char *full = spec_ref_format(&got);
	*ret = state_of(f->a, image_output(f->a, full, NULL, &note));
	*has = true;
	if (load_config(f, ans, NULL, ret, img, e) < 0) return -1;
	img->created = NULL;
	return FOUND;
}

static int layout_ref(const char *spec, const char *name, char **ret_ref, char **ret_store, struct err *e)
{
	const char *at = strchr(spec, '@');
	_cleanup_spec_ref_ struct spec_ref dummy = {0};
	_cleanup_free_ char *store = xstrndup(spec, at ? (size_t)(at - spec) : strlen(spec));
	if (!at) return err_set(e, CODE_UNKNOWN, "oci-layout reference \"%s\" has no digest", store);
	if (!*store) return err_set(e, CODE_UNKNOWN, "oci-layout reference \"%s\" has no name", spec);
	if (spec_digest_check(at + 1, e) < 0)
		return err_set(e, CODE_UNKNOWN, "could not parse oci-layout reference \"%s\": invalid reference format", spec);
	/* a tag is not part of the name */
	char *colon = strrchr(store, ':'), *slash = strrchr(store, '/');
	if (colon && (!slash || colon > slash)) *colon = 0;
	if (spec_ref_parse(name, &dummy, e) < 0) return err_wrap(e, "could not parse oci-layout reference \"%s\"", name);
	if (spec_ref_set_digest(&dummy, at + 1, e) < 0) return err_wrap(e, "could not wrap \"%s\" with digest", name);
	*ret_ref = spec_ref_format(&dummy);
	*ret_store = take_ptr(store);
	return 0;
}

static int load_layout(struct front *f, struct named *n, const char *spec, struct state *ret, struct image *img, bool *has,
		       struct err *e)
{
	_cleanup_free_ char *ref = NULL, *store = NULL;
	const struct front_answer *ans;
	if (layout_ref(spec, n->name, &ref, &store, e) < 0) return -1;
	const struct front_question q = {
		.ask = FRONT_IMAGE_META,
		.ref = arena_strdup(f->a, ref),
		.platform = n->platform,
		.oci_layout = true,
		.session = f->in->session_id,
		.store = arena_strdup(f->a, store),
		.log_name = arena_printf(f->a, "[context %s] load metadata for %s", n->full, ref),
	};
	if (front_ask(f, q, &ans) == PENDING) return PENDING;
	if (err_is_set(&ans->err)) {
		err_copy(e, &ans->err);
		return -1;
	}
	struct note note = note_new(f->a);
	note_name(f->a, &note, arena_printf(f->a, "[context %s] OCI load from client", n->full));
	note.platform = n->platform;
	struct vertex *v = source_new(f->a, arena_printf(f->a, "oci-layout://%s", ref), &note);
	if (!str_empty(f->in->session_id)) source_attr(f->a, v, "oci.session", f->in->session_id);
	source_attr(f->a, v, "oci.store", store);
	source_cap(f->a, v, "source.ocilayout");
	struct output *o = vertex_output(f->a, v);
	o->platform = n->platform;
	*ret = state_of(f->a, o);
	*has = true;
	return load_config(f, ans, "could not parse oci-layout image config", ret, img, e);
}

/* ---- directories of the client ---- */

struct local_later { /* what is followed is known when the graph is marshalled */
	struct front *f;
	struct named *n;
	const char *name, *session;
	char **excludes;
	size_t n_excludes;
};

static void make_local(void *arg, struct output *o)
{
	struct local_later *l = arg;
	struct arena *a = l->f->a;
	struct strs follow = {0};
	if (l->n->paths) l->n->paths(a, l->n->arg, &follow);
	const struct local_opt opt = {
		.name = l->name,
		.session = l->session,
		.shared_key = arena_printf(a, "context:%s-%s", l->n->full, l->n->shared_key),
		.follow = (char *const *)follow.v,
		.n_follow = follow.n,
		.exclude = l->excludes,
		.n_exclude = l->n_excludes,
		.custom_name = arena_printf(a, "[context %s] load from client", l->n->full),
	};
	o->v = local_output(a, &opt)->v;
}

static int local_ignore(struct front *f, struct named *n, const char *name, const char *session, struct strvec *ret,
			struct err *e)
{
	char *follow[] = {(char *)".dockerignore"};
	const struct local_opt o = {
		.name = name,
		.session = session,
		.shared_key = arena_printf(f->a, "context:%s-.dockerignore", n->full),
		.follow = follow,
		.n_follow = 1,
		.differ_none = true,
		.custom_name = arena_printf(f->a, "[context %s] load .dockerignore", n->full),
	};
	Pb__Definition *def;
	const struct front_answer *ans;
	if (front_marshal(f, local_output(f->a, &o), NULL, &def, NULL, e) < 0) return -1;
	if (front_ask_file(f, def, ".dockerignore", 0, &ans) == PENDING) return PENDING;
	if (err_is_set(&ans->err)) {
		if (ans->solved) return FOUND;
		err_copy(e, &ans->err);
		return -1;
	}
	if (ans->n && spec_ignorefile_parse((const char *)ans->data, ans->n, ret, e) < 0)
		return err_wrap(e, "failed parsing .dockerignore");
	return FOUND;
}

static int load_local(struct front *f, struct named *n, const char *name, struct state *ret, struct err *e)
{
	const char *session = front_opt(f, arena_printf(f->a, "local-sessionid:%s", name));
	_cleanup_strvec_ struct strvec excludes = {0};
	if (!session) session = f->in->session_id;
	int r = local_ignore(f, n, name, session, &excludes, e);
	if (r != FOUND) return r;
	struct local_later *l = arena_new_of(f->a, struct local_later);
	*l = (struct local_later){.f = f, .n = n, .name = name, .session = session};
	for (size_t i = 0; i < excludes.n; i++) LLB_PUSH(f->a, l->n_excludes, l->excludes, arena_strdup(f->a, excludes.v[i]));
	struct output *o = arena_new_of(f->a, struct output);
	o->make = make_local;
	o->arg = l;
	*ret = state_of(f->a, o);
	return FOUND;
}

/* ---- inputs ---- */

static int input_image(struct front *f, const char *md, struct state *ret, struct image *img, bool *has, const char *full,
		       struct err *e)
{
	json_error_t je;
	json_t *o = json_loads(md, 0, &je);
	if (!json_is_object(o)) {
		json_decref(o);
		return err_set(e, CODE_UNKNOWN, "failed to parse input metadata %s: %s", md, o ? "not an object" : je.text);
	}
	const json_t *v = json_object_get(o, "containerimage.config");
	_cleanup_buf_ struct buf b = BUF_INIT;
	int r = 0;
	if (v && json_is_string(v)) {
		r = base64_decode(json_string_value(v), json_string_length(v), &b, e);
		if (r >= 0) r = image_parse(f->a, b.p, b.n, img, e);
		if (r < 0) err_wrap(e, "failed to parse image config for %s", full);
		*has = r >= 0;
	}
	json_decref(o);
	if (r < 0) return -1;
	if (*has) *ret = state_image_config(f->a, *ret, img);
	return FOUND;
}

static int load_input(struct front *f, const struct named *n, const char *name, struct state *ret, struct image *img, bool *has,
		      struct err *e)
{
	int r = context_input(f, name, ret, e);
	if (r < 0) return -1;
	if (r != FOUND) return err_set(e, CODE_UNKNOWN, "invalid input %s for %s", name, n->full);
	const char *md = front_opt(f, arena_printf(f->a, "input-metadata:%s", name));
	return md ? input_image(f, md, ret, img, has, n->full, e) : FOUND;
}

/* ---- all kinds ---- */

static int load_git(struct front *f, const struct named *n, bool must, struct state *ret, struct err *e)
{
	_cleanup_spec_git_ref_ struct spec_git_ref g = {0};
	_cleanup_err_ struct err err = ERR_INIT;
	bool is_git = false;
	if (spec_git_ref_parse(n->input, &g, &is_git, &err) < 0) {
		if (is_git) return err_move(e, &err);
		return must ? err_set(e, CODE_UNKNOWN, "invalid git context %s", n->input) : PENDING;
	}
	*ret = context_git(f->a, &g, n->input, false, false);
	return FOUND;
}

static const char *strip_slashes(const char *s) { return str_starts(s, "//") ? s + 2 : s; }

static int load_once(struct front *f, struct named *n, struct state *ret, struct image *img, bool *has, bool *redirected,
		     struct err *e)
{
	const char *colon = strchr(n->input, ':');
	if (!colon) return err_set(e, CODE_UNKNOWN, "invalid context specifier %s for %s", n->input, n->full);
	const char *kind = arena_strndup(f->a, n->input, (size_t)(colon - n->input)), *rest = colon + 1;
	if (str_starts(kind, "git@") || strcmp(kind, "git") == 0) return load_git(f, n, true, ret, e);
	if (strcmp(kind, "docker-image") == 0) return load_image(f, n, strip_slashes(rest), ret, img, has, redirected, e);
	if (strcmp(kind, "oci-layout") == 0) return load_layout(f, n, strip_slashes(rest), ret, img, has, e);
	if (strcmp(kind, "local") == 0) return load_local(f, n, rest, ret, e);
	if (strcmp(kind, "input") == 0) return load_input(f, n, rest, ret, img, has, e);
	if (strcmp(kind, "http") != 0 && strcmp(kind, "https") != 0)
		return err_set(e, CODE_UNKNOWN, "unsupported context source %s for %s", kind, n->full);
	int r = load_git(f, n, false, ret, e);
	if (r != PENDING) return r;
	struct note note = note_new(f->a);
	note_name(f->a, &note, arena_printf(f->a, "[context %s] %s", n->full, n->input));
	*ret = state_of(f->a, http_output(f->a, n->input, "context", "", &note));
	return FOUND;
}

int named_load(struct front *f, struct named *n, struct state *ret, struct image *img, bool *ret_has_image, struct err *e)
{
	*ret_has_image = false;
	for (int i = 0; i <= MAX_REDIRECTS; i++) {
		bool redirected = false;
		int r = load_once(f, n, ret, img, ret_has_image, &redirected, e);
		if (r != FOUND || !redirected) return r;
	}
	return err_set(e, CODE_UNKNOWN,
		       "context recursion limit exceeded; this may indicate a cycle in the provided source policies: %s",
		       n->input);
}
