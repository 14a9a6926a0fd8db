/* One run of the frontend from options to result: the context, the Dockerfile, forwarding to another frontend, subrequests,
 * a conversion for each platform, and the metadata that clients and exporters read.
 * Source: BuildKit frontend/dockerfile/builder/build.go, frontend/dockerui/build.go. */
#include "front/stage.h"
#include "front/subrequest.h"

#include <string.h>

#define CAP_URL "github.com/moby/buildkit/errdefs.FrontendCap+json"
#define SOURCE_URL "github.com/moby/buildkit/errdefs.Source+json"

/* ---- capabilities that a client asks for ---------------------------------------------------------------------------- */

static const char *const known_caps[] = {
	"moby.buildkit.frontend.inputs",
	"moby.buildkit.frontend.subrequests",
	"moby.buildkit.frontend.contexts",
	"moby.buildkit.frontend.gitquerystring",
};

static bool cap_known(const char *s, size_t n)
{
	for (size_t i = 0; i < array_len(known_caps); i++)
		if (strlen(known_caps[i]) == n && strncmp(known_caps[i], s, n) == 0) return true;
	return false;
}

/* *e is set for one that is not known; true when another frontend may know it. */
static bool check_caps(const char *req, struct err *e)
{
	bool forward = false;
	for (const char *p = req; *p;) {
		size_t n = strcspn(p, ","), name = strcspn(p, "+,");
		if (!cap_known(p, name)) {
			_cleanup_buf_ struct buf b = BUF_INIT;
			struct json_w w = JSON_W(&b);
			_cleanup_free_ char *cap = xstrndup(p, name), *whole = xstrndup(p, n);
			err_fini(e);
			err_set(e, CODE_UNIMPLEMENTED, "unsupported frontend capability %s", cap);
			json_obj(&w);
			json_kstr_omit(&w, "name", cap);
			json_obj_end(&w);
			err_detail_add(e, CAP_URL, b.p, b.n);
			if (!strstr(whole, "+forward")) return false;
			forward = true;
		}
		p += n + (p[n] == ',');
	}
	return forward;
}

/* ---- other frontends ------------------------------------------------------------------------------------------------ */

/* docker/dockerfile in all its versions is what this frontend is. */
bool front_serves(const char *ref)
{
	_cleanup_spec_ref_ struct spec_ref r = {0};
	if (spec_ref_parse(ref, &r, NULL) < 0) return false;
	return strcmp(r.domain, "docker.io") == 0 &&
	       (strcmp(r.path, "docker/dockerfile") == 0 || strcmp(r.path, "docker/dockerfile-upstream") == 0);
}

static bool is_labs(const char *ref)
{
	_cleanup_spec_ref_ struct spec_ref r = {0};
	return spec_ref_parse(ref, &r, NULL) >= 0 && r.tag && (str_ends(r.tag, "-labs") || strcmp(r.tag, "labs") == 0);
}

static void forward(struct front *f, const char *source, const char *cmdline)
{
	struct front_result *res = f->res;
	res->state = FRONT_FORWARD;
	res->forward.source = source;
	map_put(&f->opts, "cmdline", (void *)cmdline);
	map_put(&f->opts, "source", (void *)source);
	MAP_EACH(&f->opts, it)
	LLB_PUSH(f->a, res->forward.n_opts, res->forward.opts, arena_printf(f->a, "%s=%s", it->key, (const char *)it->value));
}

/* Whether the request is another frontend's. */
static bool check_syntax(struct front *f)
{
	const char *arg = front_opt(f, "build-arg:BUILDKIT_SYNTAX"), *given = front_opt(f, "source");
	struct ast_directive d = {0};
	if (given) f->labs = is_labs(given);
	if (front_opt(f, "cmdline")) return false;
	if (arg) {
		_cleanup_free_ char *t = spec_trim(arg, strlen(arg));
		d.first = arena_strndup(f->a, t, strcspn(t, " "));
		d.value = arg;
	} else if (!ast_detect_syntax(f->a, f->file.data, f->file.n, &d)) {
		return false;
	}
	if (front_serves(d.first)) {
		f->labs = is_labs(d.first);
		return false;
	}
	forward(f, d.first, d.value);
	if (arg) {
		f->res->forward.error_prefix = arena_printf(f->a, "failed with build-arg:BUILDKIT_SYNTAX = %s", arg);
	} else {
		_cleanup_buf_ struct buf b = BUF_INIT;
		source_json(f->a, &f->file, d.at, &b);
		f->res->forward.source_detail = arena_memdup(f->a, b.p, b.n);
		f->res->forward.n_source_detail = b.n;
	}
	return true;
}

int front_forward_error(const struct front_result *r, struct err *e)
{
	if (err_detail_find(e, SOURCE_URL)) return -1;
	if (r->forward.error_prefix) return err_wrap(e, "%s", r->forward.error_prefix);
	if (r->forward.source_detail) err_detail_push(e, SOURCE_URL, r->forward.source_detail, r->forward.n_source_detail);
	return -1;
}

/* ---- the result ----------------------------------------------------------------------------------------------------- */

void result_meta(struct front *f, const char *key, const void *value, size_t n)
{
	char *copy = arena_alloc(f->a, n + 1);
	if (n) memcpy(copy, value, n);
	struct front_kv kv = {arena_strdup(f->a, key), copy, n};
	LLB_PUSH(f->a, f->res->n_metadata, f->res->metadata, kv);
}

/* The first platform's warnings speak for all. */
void result_warn(void *arg, const struct lint_rule *rule, const char *message, struct ast_lines at)
{
	struct front *f = arg;
	struct front_warning w = {
		.digest = f->head,
		.level = 1,
		.short_text = lint_short(f->a, rule, message, at.start),
		.detail = rule->description,
		.url = rule->url,
		.info = source_info(f->a, &f->file),
	};
	size_t n;
	const struct llb_range *r = ranges_of(f->a, at, &n);
	for (size_t i = 0; i < n; i++) {
		Pb__Range *pr = llb_new(f->a, Pb__Range, pb__range__init);
		pr->start = llb_new(f->a, Pb__Position, pb__position__init);
		pr->end = llb_new(f->a, Pb__Position, pb__position__init);
		pr->start->line = pr->end->line = r[i].start_line;
		LLB_PUSH(f->a, w.n_ranges, w.ranges, pr);
	}
	LLB_PUSH(f->a, f->res->n_warnings, f->res->warnings, w);
}

static const char *group_seed(struct front *f, const struct spec_platform *p)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char d[DIGEST_STR];
	buf_adds(&b, f->in->session_id ? f->in->session_id : "");
	for (size_t i = 0; i < f->in->n_opts; i++) buf_addf(&b, "\n%s", f->in->opts[i]);
	buf_addf(&b, "\n%s\n", platform_text(f->a, p));
	buf_add(&b, f->file.data, f->file.n);
	digest_str_of(b.p, b.n, d);
	return arena_strdup(f->a, d);
}

struct conv *conv_new(struct front *f, const struct spec_platform *target, bool all_stages, lint_warn_fn *fn, void *arg)
{
	struct conv *c = arena_new_of(f->a, struct conv);
	*c = (struct conv){
		.f = f,
		.a = f->a,
		.target = target ? target : f->cfg.build_platform,
		.implicit_target = !target,
		.all_stages = all_stages,
		.warn = fn,
		.warn_arg = arg,
	};
	c->group_seed = group_seed(f, c->target);
	return c;
}

struct converted { /* one platform */
	struct conv *conv;
	struct stage *target;
};

static const char *meta_key(struct front *f, const char *key, const struct front_ref *ref)
{
	return f->cfg.multi_platform ? arena_printf(f->a, "%s/%s", key, ref->platform_id) : key;
}

static void put_image(struct front *f, const struct converted *x, const struct front_ref *ref)
{
	_cleanup_buf_ struct buf b = BUF_INIT, base = BUF_INIT;
	image_json(&x->target->image, &b);
	result_meta(f, meta_key(f, "containerimage.config", ref), b.p, b.n);
	if (x->target->base_image) {
		image_json(x->target->base_image, &base);
		result_meta(f, meta_key(f, "containerimage.base.config", ref), base.p, base.n);
	}
	if (x->conv->epoch) {
		const char *s = arena_printf(f->a, "%lld", (long long)x->conv->epoch_s);
		result_meta(f, meta_key(f, "source.date.epoch", ref), s, strlen(s));
	}
}

static const struct spec_platform *export_platform(struct front *f, const struct spec_platform *p,
						   const struct spec_platform *img)
{
	struct spec_platform *x = (struct spec_platform *)platform_normal(f->a, p);
	if (strcmp(x->os, "windows") != 0 || !str_eq(img->os, "windows")) return x;
	if (!*x->os_version && *img->os_version) x->os_version = img->os_version;
	if (!x->os_features.n && img->os_features.n) x->os_features = img->os_features;
	return platform_normal(f->a, x);
}

static void put_platform(struct json_w *w, const char *id, const struct spec_platform *p)
{
	json_obj(w);
	json_kstr(w, "ID", id);
	json_key(w, "Platform");
	json_obj(w);
	json_kstr(w, "architecture", p->arch);
	json_kstr(w, "os", p->os);
	json_kstr_omit(w, "os.version", p->os_version);
	json_kstrs_omit(w, "os.features", p->os_features.v, p->os_features.n);
	json_kstr_omit(w, "variant", p->variant);
	json_obj_end(w);
	json_obj_end(w);
}

static const struct spec_platform *host_platform(struct arena *a)
{
	_cleanup_spec_platform_ struct spec_platform host = {0};
	spec_platform_host(&host);
	return platform_dup(a, &host);
}

static int put_ref(struct front *f, const struct converted *x, const struct spec_platform *p, struct json_w *w, struct err *e)
{
	struct front_ref ref = {0};
	p = p ? p : host_platform(f->a);
	ref.platform_id = platform_text(f->a, platform_normal(f->a, p));
	ref.id = f->cfg.multi_platform ? ref.platform_id : "";
	if (front_marshal(f, x->target->state.out, x->conv->target, &ref.def, NULL, e) < 0)
		return err_wrap(e, "failed to marshal LLB definition");
	put_platform(w, ref.platform_id, export_platform(f, p, &x->target->image.platform));
	put_image(f, x, &ref);
	LLB_PUSH(f->a, f->res->n_refs, f->res->refs, ref);
	return 0;
}

static int put_all(struct front *f, const struct converted *v, size_t n, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct json_w w = JSON_W(&b);
	f->res->multi_platform = f->cfg.multi_platform;
	json_obj(&w);
	json_key(&w, "Platforms");
	json_arr(&w);
	for (size_t i = 0; i < n; i++)
		if (put_ref(f, &v[i], f->cfg.n_targets ? f->cfg.targets[i] : NULL, &w, e) < 0) return -1;
	json_arr_end(&w);
	json_obj_end(&w);
	result_meta(f, "refs.platforms", b.p, b.n);
	return FOUND;
}

static int convert_all(struct front *f, struct err *e)
{
	size_t n = f->cfg.n_targets ? f->cfg.n_targets : 1;
	struct converted *v = arena_alloc(f->a, n * sizeof *v);
	int r = FOUND;
	struct sbom sbom = {0};
	int scan = f->cfg.sbom_generator ? sbom_begin(f, &sbom, e) : FOUND;
	if (scan < 0) return -1;
	for (size_t i = 0; i < n && r >= 0; i++) {
		v[i].conv = conv_new(f, f->cfg.n_targets ? f->cfg.targets[i] : NULL, false, i ? NULL : result_warn, f);
		int one = conv_run(v[i].conv, &v[i].target, e);
		if (one < 0)
			r = err_to_source(f, e);
		else if (one == PENDING)
			r = PENDING;
	}
	if (r == FOUND && scan == FOUND)
		r = put_all(f, v, n, e);
	else if (r == FOUND)
		r = PENDING;
	for (size_t i = 0; i < n && r == FOUND && f->cfg.sbom_generator; i++)
		r = sbom_attest(f, &sbom, v[i].conv, v[i].target, &f->res->refs[i], e);
	for (size_t i = 0; i < n; i++)
		if (v[i].conv) conv_fini(v[i].conv);
	return r;
}

/* ---- the run -------------------------------------------------------------------------------------------------------- */

/* The ignore file is asked for beside the Dockerfile, when it will be needed. */
static int ask_early(struct front *f)
{
	_cleanup_strvec_ struct strvec patterns = {0};
	const char *req = front_optz(f, "requestid");
	if (front_opt(f, "build-arg:BUILDKIT_SYNTAX") || f->ignore_known) return 0;
	if (strcmp(req, "frontend.targets") == 0 || strcmp(req, "frontend.subrequests.describe") == 0) return 0;
	context_ignore(f, &patterns, NULL);
	return 0;
}

static int run(struct front *f, struct err *e)
{
	_cleanup_err_ struct err caps = ERR_INIT;
	if (config_init(f, e) < 0) return -1;
	if (!check_caps(front_optz(f, "frontend.caps"), &caps) && err_is_set(&caps)) return err_move(e, &caps);
	int r = context_init(f, e);
	if (r == FOUND) r = context_read_dockerfile(f, e);
	if (r == PENDING && f->file.def) ask_early(f);
	if (r != FOUND) return r;
	if (check_syntax(f)) return FOUND;
	if (err_is_set(&caps)) return err_move(e, &caps);
	if (front_opt(f, "requestid")) {
		return subrequest_run(f, front_opt(f, "requestid"), e);
	}
	return convert_all(f, e);
}

int front_convert(const struct front_input *in, struct arena *a, struct front_result *ret, struct err *e)
{
	struct front_result res = {0};
	struct front f = {.in = in, .a = a, .res = &res};
	int r = run(&f, e);
	map_fini(&f.opts);
	map_fini(&f.asked);
	config_fini(&f.cfg);
	if (r < 0) {
		ast_err_places(a, e);
		*ret = (struct front_result){.warnings = res.warnings, .n_warnings = res.n_warnings};
		return -1;
	}
	if (r == PENDING) {
		ensure(res.n_questions);
		res.state = FRONT_ASKS;
		res.n_refs = res.n_metadata = res.n_warnings = 0;
	} else {
		res.n_questions = 0;
	}
	*ret = res;
	return 0;
}
