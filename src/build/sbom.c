/* The scan of a result by a scanner image, when the frontend did not do it: one exec a platform, which sees the result
 * read-only and writes in-toto statements. Source: moby/buildkit solver/llbsolver/proc/sbom.go, frontend/attestations/sbom. */
#include "build/attest.h"
#include "build/bridge.h"

#include <jansson.h>
#include <string.h>

#define CORE "/run/src/core/sbom"
#define OUT "/run/out/"

struct sbom_run {
	struct build *build;
	struct bridge *bridge; /* of its own: its request ends with it */
	char *image;
	struct strvec params; /* "KEY=value" */
	bool cancelled;
	void (*done)(void *arg, const struct err *e);
	void *arg;
};

static void run_free(struct sbom_run *s)
{
	build_bridge_free(take_ptr(s->bridge));
	strvec_fini(&s->params);
	free(s->image);
	free(s);
}

static void add_strings(struct arena *a, const json_t *list, size_t *n, const char ***v)
{
	size_t i;
	json_t *x;
	json_array_foreach(list, i, x) if (json_is_string(x)) LLB_PUSH(a, *n, *v, arena_strdup(a, json_string_value(x)));
}

static void set_env(struct arena *a, Pb__Meta *m, const char *kv)
{
	size_t n = strcspn(kv, "=") + 1;
	for (size_t i = 0; i < m->n_env; i++)
		if (!strncmp(m->env[i], kv, n)) {
			m->env[i] = arena_strdup(a, kv);
			return;
		}
	LLB_PUSH(a, m->n_env, m->env, arena_strdup(a, kv));
}

static Pb__Op *scan_op(const struct sbom_run *s, struct arena *a, const json_t *config, const char *image, const char *target,
		       int64_t output)
{
	struct build *b = s->build;
	Pb__Op *op = llb_op_exec(a, llb_platform(a, &b->engine->conf.platforms[0]));
	Pb__Meta *m = op->exec->meta;
	const json_t *c = json_object_get(config, "config");
	const char *cwd = json_string_value(json_object_get(c, "WorkingDir"));
	const char **env = NULL;
	size_t n_env = 0;
	add_strings(a, json_object_get(c, "Entrypoint"), &m->n_args, &m->args);
	add_strings(a, json_object_get(c, "Cmd"), &m->n_args, &m->args);
	add_strings(a, json_object_get(c, "Env"), &n_env, &env);
	for (size_t i = 0; i < n_env; i++) set_env(a, m, env[i]);
	set_env(a, m, "BUILDKIT_SCAN_DESTINATION=" OUT);
	set_env(a, m, "BUILDKIT_SCAN_SOURCE=" CORE);
	for (size_t i = 0; i < s->params.n; i++) {
		_cleanup_free_ char *kv = xasprintf("BUILDKIT_SCAN_%s", s->params.v[i]);
		set_env(a, m, kv);
	}
	m->cwd = arena_strdup(a, str_empty(cwd) ? "/" : cwd);
	Pb__Mount *root = llb_exec_mount(a, op, "/");
	root->input = llb_op_input(a, op, image, 0);
	root->output = 0;
	Pb__Mount *out = llb_exec_mount(a, op, OUT);
	out->output = 1;
	Pb__Mount *core = llb_exec_mount(a, op, CORE);
	core->readonly = true;
	if (target) core->input = llb_op_input(a, op, target, output);
	Pb__Mount *tmp = llb_exec_mount(a, op, "/tmp");
	tmp->mounttype = PB__MOUNT_TYPE__TMPFS;
	tmp->tmpfsopt = llb_new(a, Pb__TmpfsOpt, pb__tmpfs_opt__init);
	return op;
}

static int add_scan(struct sbom_run *s, const char *id, struct ref *ref, const json_t *config, struct err *e)
{
	struct build *b = s->build;
	_cleanup_arena_ struct arena *a = arena_new(0);
	struct llb_def *d = llb_def_new(a);
	const char *target = NULL;
	int64_t output = 0;
	Pb__Definition *def = ref->def ? wire_unpack_as(Pb__Definition, pb__definition, ref->def, ref->def_len, a, e) : NULL;
	if (ref->def && (!def || llb_def_import(d, def, &target, &output, e) < 0)) return -1;
	_cleanup_free_ char *identifier = xasprintf("docker-image://%s", s->image);
	const char *image =
		llb_def_add(d, llb_op_source(a, identifier, llb_platform(a, &b->engine->conf.platforms[0])), NULL, -1, NULL, 0);
	Pb__OpMetadata *meta = llb_meta(a);
	_cleanup_free_ char *name = xasprintf("[%s] generating sbom using %s", id, s->image);
	llb_meta_describe(a, meta, LLB_CUSTOM_NAME, name);
	meta->ignore_cache = str_eq(build_attr(b, "no-cache"), "");
	const char *scan = llb_def_add(d, scan_op(s, a, config, image, target, output), meta, -1, NULL, 0);
	struct ref *made = ref_new(b, llb_def_finish(d, scan, 1));
	struct result_attest *t = result_attest_add(&b->result, id, true, "", SBOM_PREDICATE);
	prov_scope_ref(b->prov, made);
	t->ref = made;
	result_attest_meta(t, "reason", "sbom", 4);
	result_attest_meta(t, "sbom-core", "sbom", 4);
	return 0;
}

static int add_scans(struct sbom_run *s, const Gateway__ResolveImageConfigResponse *m, struct err *e)
{
	struct build *b = s->build;
	struct result_platforms ps = {0};
	json_t *config = json_loadb((const char *)m->config.data, m->config.len, 0, NULL),
	       *c = json_object_get(config, "config");
	int r = 0;
	if (!config) return err_set(e, CODE_UNKNOWN, "scanner %s: its config is no JSON", s->image);
	if (!json_array_size(json_object_get(c, "Entrypoint")) && !json_array_size(json_object_get(c, "Cmd")))
		r = err_set(e, CODE_UNKNOWN, "scanner %s does not have cmd", s->image);
	if (r == 0) r = result_platforms(&b->result, &b->engine->conf.platforms[0], &ps, e);
	for (size_t i = 0; i < ps.n && r == 0; i++) {
		bool found;
		struct ref *ref = attest_ref(b, ps.v[i].id, &found);
		if (!found) r = err_set(e, CODE_UNKNOWN, "could not find ref %s", ps.v[i].id);
		if (ref && r == 0) r = add_scan(s, ps.v[i].id, ref, config, e);
	}
	if (r == 0 || ps.n) result_platforms_fini(&ps);
	json_decref(config);
	return r;
}

static void resolved(void *arg, const ProtobufCMessage *m, const struct err *e)
{
	struct sbom_run *s = arg;
	struct err bad = ERR_INIT;
	if (s->cancelled) return;
	if (e)
		err_copy(&bad, e);
	else
		add_scans(s, (const void *)m, &bad);
	s->done(s->arg, err_is_set(&bad) ? &bad : NULL);
	err_fini(&bad);
	s->cancelled = true;
	loop_post(s->build->engine->conf.env->loop, (void (*)(void *))run_free, s);
}

struct sbom_run *sbom_start(struct build *b, const char *image, const struct strvec *opts,
			    void (*done)(void *arg, const struct err *e), void *arg)
{
	struct sbom_run *s = xnew(struct sbom_run);
	s->build = b;
	s->bridge = build_bridge_new(b);
	s->image = xstrdup(image);
	s->done = done;
	s->arg = arg;
	for (size_t i = 0; i < opts->n; i++)
		if (!str_starts(opts->v[i], "generator=")) strvec_add(&s->params, opts->v[i]);
	Gateway__ResolveImageConfigRequest req = GATEWAY__RESOLVE_IMAGE_CONFIG_REQUEST__INIT;
	_cleanup_arena_ struct arena *a = arena_new(0);
	req.ref = s->image;
	req.platform = llb_platform(a, &b->engine->conf.platforms[0]);
	const char *mode = build_attr(b, "image-resolve-mode");
	req.resolvemode = mode ? mode : "default";
	bridge_resolve_image_config(s->bridge, &req, (struct build_reply){resolved, s});
	return s;
}

void sbom_cancel(struct sbom_run *s)
{
	s->cancelled = true;
	run_free(s);
}
