/* Where the build's files come from: the Dockerfile, its ignore file and the main context, each local, git, http or an
 * input that another frontend made. Source: BuildKit frontend/dockerui/{context,config}.go. */
#include "front/convert.h"

#include <string.h>
#include <strings.h>

#define DEFAULT_DOCKERFILE "Dockerfile"
#define DOCKERIGNORE ".dockerignore"

/* ---- git and http ---- */

struct state context_git(struct arena *a, const struct spec_git_ref *g, const char *ref, bool keep_git, bool mtime_commit)
{
	struct note note = note_new(a);
	note_internal(a, &note, arena_printf(a, "load git source %s", ref));
	const struct git_opt o = {
		.remote = g->remote,
		.ref = g->ref,
		.subdir = g->subdir,
		.checksum = g->checksum,
		.mtime = *g->mtime      ? g->mtime
			 : mtime_commit ? "commit"
					: "",
		.keep_git_dir = g->keep_git_dir == 1 || keep_git,
		.skip_submodules = g->submodules == 0,
		.fetch_by_commit = g->fetch_by_commit,
	};
	return state_of(a, git_output(a, &o, &note));
}

static int init_git(struct front *f, const char *ref, struct err *e)
{
	_cleanup_spec_git_ref_ struct spec_git_ref g = {0};
	_cleanup_err_ struct err err = ERR_INIT;
	bool is_git = false, keep = false;
	if (spec_git_ref_parse(ref, &g, &is_git, &err) < 0) return is_git ? err_move(e, &err) : PENDING;
	if (!str_bool(front_optz(f, "build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR"), &keep)) keep = false;
	f->ctx.context = f->ctx.dockerfile = context_git(f->a, &g, ref, keep, *front_optz(f, "build-arg:SOURCE_DATE_EPOCH"));
	f->ctx.remote = f->ctx.has_dockerfile = true;
	Pb__Definition *def;
	if (front_marshal(f, f->ctx.context.out, NULL, &def, NULL, e) < 0) return err_wrap(e, "failed to derive git source op");
	f->ctx.source = graph_only_source(def, f->a);
	return FOUND;
}

static uint64_t octal(const uint8_t *p, size_t n)
{
	uint64_t v = 0;
	for (size_t i = 0; i < n && (p[i] == ' ' || (p[i] >= '0' && p[i] <= '7')); i++)
		if (p[i] != ' ') v = v * 8 + (p[i] - '0');
	return v;
}

/* A header whose sum is right. One that only describes the next header (pax, GNU long names) does not count: the first
 * kilobyte does not hold that next one, and the peer then takes the file for no archive. */
static bool is_tar(const uint8_t *p, size_t n)
{
	if (n < 512) return false;
	uint64_t sum = 0;
	int64_t ssum = 0;
	for (size_t i = 0; i < 512; i++) {
		uint8_t c = i >= 148 && i < 156 ? ' ' : p[i];
		sum += c;
		ssum += (int8_t)c;
	}
	uint64_t want = octal(p + 148, 8);
	if (want != sum && (int64_t)want != ssum) return false;
	return !strchr("xLK", p[156]) || !p[156];
}

static bool is_archive(const uint8_t *p, size_t n)
{
	static const struct {
		size_t n;
		const char *magic;
	} magics[] = {{3, "BZh"},
		      {3, "\x1f\x8b\x08"},
		      {6, "\xfd"
			  "7zXZ\0"}};
	for (size_t i = 0; i < array_len(magics); i++)
		if (n >= magics[i].n && memcmp(p, magics[i].magic, magics[i].n) == 0) return true;
	return is_tar(p, n);
}

static int init_http(struct front *f, const char *url, struct err *e)
{
	const char *filename = "context";
	struct note note = note_new(f->a);
	note_internal(f->a, &note, "load remote build context");
	struct state st = state_of(f->a, http_output(f->a, url, filename, "", &note));
	Pb__Definition *def;
	if (front_marshal(f, st.out, NULL, &def, NULL, e) < 0) return err_wrap(e, "failed to marshal httpcontext");
	f->ctx.source = graph_only_source(def, f->a);
	const struct front_answer *ans;
	if (front_ask_file(f, def, filename, 1024, &ans) == PENDING) return PENDING;
	if (err_is_set(&ans->err)) {
		err_copy(e, &ans->err);
		return err_wrap(e, ans->solved ? "failed to read downloaded context" : "failed to resolve httpcontext");
	}
	if (is_archive(ans->data, ans->n)) {
		struct actions l = {0};
		const struct copy_opt o = {.unpack = true};
		action_copy(f->a, &l, st, "/context", "/", &o);
		st = state_file(f->a, state_scratch(), &l, NULL);
		f->ctx.http_archive = true;
	} else {
		f->ctx.filename = filename;
	}
	f->ctx.context = f->ctx.dockerfile = st;
	f->ctx.remote = f->ctx.has_dockerfile = true;
	f->ctx.http_filename = filename;
	f->ctx.http_def = def;
	return FOUND;
}

/* ---- inputs ---- */

static const Pb__Definition *input_find(const struct front *f, const char *name)
{
	for (size_t i = 0; i < f->in->n_inputs; i++)
		if (strcmp(f->in->inputs[i].name, name) == 0) return f->in->inputs[i].def;
	return NULL;
}

int context_input(struct front *f, const char *name, struct state *ret, struct err *e)
{
	const Pb__Definition *def = input_find(f, name);
	struct output *o;
	if (!def) return PENDING;
	if (import_output(f->a, def, &o, e) < 0) return -1;
	*ret = state_of(f->a, o);
	return FOUND;
}

static int init_inputs(struct front *f, struct err *e)
{
	if (!f->ctx.force_local_dockerfile) {
		int r = context_input(f, f->ctx.dockerfile_local_name, &f->ctx.dockerfile, e);
		if (r < 0) return err_wrap(e, "failed to get frontend inputs");
		f->ctx.has_dockerfile = r == FOUND;
	}
	int r = context_input(f, "context", &f->ctx.context, e);
	if (r < 0) return err_wrap(e, "failed to get frontend inputs");
	f->ctx.remote = r == FOUND;
	return FOUND;
}

int context_init(struct front *f, struct err *e)
{
	struct front_context *c = &f->ctx;
	const char *key = front_opt(f, "contextkey"), *name = front_opt(f, "filename"), *df = front_opt(f, "dockerfilekey");
	c->local_name = "context";
	c->dockerfile_local_name = df ? df : "dockerfile";
	c->force_local_dockerfile = df != NULL;
	c->filename = name ? name : DEFAULT_DOCKERFILE;
	const char *where = front_optz(f, key ? key : "context");
	int r = init_git(f, where, e);
	if (r < 0) return -1;
	if (r != FOUND) {
		bool http = str_starts(where, "http://") || str_starts(where, "https://");
		r = http ? init_http(f, where, e) : init_inputs(f, e);
		if (r != FOUND) return r;
	}
	const char *sub = front_opt(f, "contextsubdir");
	if (c->remote && sub) {
		struct actions l = {0};
		const struct copy_opt o = {.contents_only = true};
		action_copy(f->a, &l, c->context, sub, "/", &o);
		c->context = state_file(f->a, state_scratch(), &l, NULL);
	}
	return FOUND;
}

/* ---- the Dockerfile ---- */

static const char *session_of(const struct front *f, const char *local)
{
	_cleanup_free_ char *key = xasprintf("local-sessionid:%s", local);
	const char *v = front_opt(f, key);
	return v ? v : f->in->session_id;
}

static bool default_name(const char *filename) { return strcmp(path_base(filename), DEFAULT_DOCKERFILE) == 0; }

static const char *lower_name(struct arena *a, const char *filename)
{
	_cleanup_free_ char *dir = path_dir(filename);
	_cleanup_free_ char *p = path_join(dir, "dockerfile");
	return arena_strdup(a, p);
}

static struct output *dockerfile_local(struct front *f)
{
	struct front_context *c = &f->ctx;
	char *follow[3] = {(char *)c->filename, arena_printf(f->a, "%s" DOCKERIGNORE, c->filename), NULL};
	if (default_name(c->filename)) follow[2] = (char *)lower_name(f->a, c->filename);
	const struct local_opt o = {
		.name = c->dockerfile_local_name,
		.session = session_of(f, c->dockerfile_local_name),
		.shared_key = c->dockerfile_local_name,
		.follow = follow,
		.n_follow = follow[2] ? 3 : 2,
		.differ_none = true,
		.custom_name = arena_printf(f->a, "[internal] load build definition from %s", c->filename),
	};
	return local_output(f->a, &o);
}

static int take_dockerfile(struct front *f, const struct front_answer *main, const struct front_answer *lower, struct err *e)
{
	if (err_is_set(&main->err) && lower && !err_is_set(&lower->err)) main = lower;
	if (err_is_set(&main->err)) {
		err_copy(e, &main->err);
		return err_wrap(e, "failed to read dockerfile");
	}
	f->file.data = main->data;
	f->file.n = main->n;
	return FOUND;
}

int context_read_dockerfile(struct front *f, struct err *e)
{
	struct front_context *c = &f->ctx;
	bool use = c->has_dockerfile && !c->force_local_dockerfile;
	struct output *src = use ? c->dockerfile.out : dockerfile_local(f);
	const struct front_answer *main = NULL, *lower = NULL, *ignore = NULL;
	f->file = (struct source_file){.filename = c->filename, .language = "Dockerfile"};
	if (front_marshal(f, src, NULL, &f->file.def, &f->head, e) < 0) return err_wrap(e, "failed to marshal local source");
	const char *ignore_name = arena_printf(f->a, "%s" DOCKERIGNORE, c->filename);
	front_ask_file(f, f->file.def, c->filename, 0, &main);
	if (default_name(c->filename)) front_ask_file(f, f->file.def, lower_name(f->a, c->filename), 0, &lower);
	front_ask_file(f, f->file.def, ignore_name, 0, &ignore);
	if (!main || (default_name(c->filename) && !lower) || !ignore) return PENDING;
	if (!err_is_set(&ignore->err)) {
		f->ignore = ignore->data ? (const void *)ignore->data : "";
		f->n_ignore = ignore->n;
		f->ignore_name = ignore_name;
		f->ignore_known = true;
	}
	return take_dockerfile(f, main, lower, e);
}

/* ---- the main context ---- */

static int read_ignore(struct front *f, struct err *e)
{
	char *follow[] = {(char *)DOCKERIGNORE};
	const struct local_opt o = {
		.name = f->ctx.local_name,
		.session = session_of(f, f->ctx.local_name),
		.shared_key = arena_printf(f->a, "%s-" DOCKERIGNORE, f->ctx.local_name),
		.follow = follow,
		.n_follow = 1,
		.differ_none = true,
		.custom_name = "[internal] load " DOCKERIGNORE,
	};
	Pb__Definition *def;
	const struct front_answer *ans;
	if (front_marshal(f, local_output(f->a, &o), NULL, &def, NULL, e) < 0) return -1;
	if (front_ask_file(f, def, DOCKERIGNORE, 0, &ans) == PENDING) return PENDING;
	bool ok = !err_is_set(&ans->err); /* one that cannot be read is none, as with the peer */
	f->ignore = ok ? (const void *)ans->data : NULL;
	f->n_ignore = ok ? ans->n : 0;
	f->ignore_name = DOCKERIGNORE;
	f->ignore_known = true;
	return FOUND;
}

static int ignore_patterns(struct front *f, struct strvec *ret, struct err *e)
{
	if (!f->ignore_known) {
		int r = read_ignore(f, e);
		if (r != FOUND) return r;
	}
	if (f->n_ignore && spec_ignorefile_parse(f->ignore, f->n_ignore, ret, e) < 0)
		return err_wrap(e, "failed parsing %s", f->ignore_name);
	return FOUND;
}

int context_ignore(struct front *f, struct strvec *ret, struct err *e)
{
	return f->ctx.remote ? FOUND : ignore_patterns(f, ret, e);
}

int context_main(struct front *f, const struct strs *follow, struct output **ret, struct err *e)
{
	_cleanup_strvec_ struct strvec excludes = {0};
	if (f->ctx.remote) {
		*ret = f->ctx.context.out;
		return FOUND;
	}
	int r = ignore_patterns(f, &excludes, e);
	if (r < 0) return err_wrap(e, "failed to read dockerignore patterns");
	if (r != FOUND) return r;
	const struct local_opt o = {
		.name = f->ctx.local_name,
		.session = session_of(f, f->ctx.local_name),
		.shared_key = f->ctx.local_name,
		.follow = (char *const *)follow->v,
		.n_follow = follow->n,
		.exclude = excludes.v,
		.n_exclude = excludes.n,
		.custom_name = "[internal] load build context",
	};
	*ret = local_output(f->a, &o);
	return FOUND;
}
