/* gateway.v0: a frontend that is an image. It is pulled by the build's own means, runs as a container that takes no slot, and
 * talks LLBBridge over its stdin and stdout; its result comes by Return.
 *
 * RESOLVE (which image, its config) -> PULL (evaluate it) -> MOUNT (a writable child of it, and a folder with its definition)
 * -> RUN -> ended: the caller is told at once, then connection, mounts and folder are cleaned up.
 *  1. done() is called once, when the container has exited, or before it was started.
 *  2. A Return with an error counts more than a bad exit, that more than a Return with a result.
 *  3. Behind done() and cancel nothing here touches the build: it may be gone.
 * Sources: moby/buildkit frontend/gateway/gateway.go; reference 04 §4. */
#include "build/gateway_front.h"
#include "build/provenance.h"
#include "build/gateway_front_job.h"
#include "ops/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>

enum { CLOSED_GRACE_MS = 1000, LINE_MAX_BYTES = 4096 };

struct gateway_front {
	struct build *build; /* NULL behind the end */
	struct ops_env *env;
	const struct engine_conf *conf;
	struct bridge *bridge;
	struct strvec opts, args, image_env;
	char *source, *cwd, *digest, *session;
	char *store; /* the image is in this OCI layout of the client; NULL: in a registry */
	json_t *labels;
	struct arena *arena;
	Pb__Definition *def;
	struct ref *ref; /* being evaluated */
	struct ops_mounts *mounts;
	Pb__Mount root, *root_at[1];
	char *meta_dir;
	uint8_t *meta;
	size_t meta_len;
	struct loop_job meta_job;
	struct run *run;
	struct wire_conn *conn;
	struct loop_timer grace;
	int child_fds[2]; /* its stdin and stdout, until it has them */
	struct buf line;  /* of its stderr */
	struct result result;
	struct err error; /* what Return said, or what went wrong here */
	bool returned, mounted, unmounting, job_runs, closed_early, posted;
	void (*done)(void *arg, struct result *res, const struct err *e);
	void *arg;
};

static const char *opt(const struct gateway_front *g, const char *key) { return strvec_env_get(&g->opts, key); }

/* ---- cleaning up ---- */

static void maybe_free(struct gateway_front *g)
{
	if (g->build || g->mounts || g->run || g->conn || g->job_runs || g->posted) return;
	loop_timer_stop(&g->grace);
	strvec_fini(&g->opts);
	strvec_fini(&g->args);
	strvec_fini(&g->image_env);
	json_decref(g->labels);
	arena_free(g->arena);
	buf_fini(&g->line);
	err_fini(&g->error);
	free(g->meta);
	free(g->meta_dir);
	free(g->source);
	free(g->session);
	free(g->cwd);
	free(g->digest);
	free(g->store);
	free(g);
}

static void removed(struct loop_job *j)
{
	struct gateway_front *g = container_of(j, struct gateway_front, meta_job);
	g->job_runs = false;
	free(take_ptr(g->meta_dir));
	maybe_free(g);
}

static void remove_work(struct loop_job *j) { gateway_meta_remove(container_of(j, struct gateway_front, meta_job)->meta_dir); }

static void unmounted(void *arg, struct snap **outputs, size_t n, const struct err *e)
{
	struct gateway_front *g = arg;
	ops_mounts_free(take_ptr(g->mounts));
	maybe_free(g);
}

static void close_child_fds(struct gateway_front *g)
{
	for (int i = 0; i < 2; i++) {
		close_fd(&g->child_fds[i]);
		g->child_fds[i] = -1;
	}
}

/* Whatever is still there is told to end; comes again when one of them has. */
static void clean(struct gateway_front *g)
{
	if (g->conn) wire_conn_close(g->conn);
	if (g->run) {
		run_kill(g->run, SIGKILL);
		return;
	}
	close_child_fds(g);
	if (g->mounts && !g->mounted) {
		ops_mounts_cancel(g->mounts);
	} else if (g->mounts && !g->unmounting) {
		g->unmounting = true;
		ops_mounts_finish(g->mounts, OPS_DROP, unmounted, g);
	}
	if (g->meta_dir && !g->job_runs) {
		g->meta_job.work = remove_work;
		g->meta_job.done = removed;
		g->job_runs = true;
		loop_job_start(g->env->loop, &g->meta_job, LOOP_DISK);
	}
	maybe_free(g);
}

/* The build is let go of. */
static void leave(struct gateway_front *g)
{
	struct ref *r = take_ptr(g->ref);
	if (r) ref_eval_forget(r, g);
	ref_drop(r);
	g->build = NULL;
	build_bridge_free(take_ptr(g->bridge));
	result_fini(&g->result);
	g->result = (struct result){0};
}

static void add_frontend_detail(const struct gateway_front *g, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct json_w w = JSON_W(&b);
	json_obj(&w);
	json_kstr(&w, "name", "gateway.v0");
	json_kstr_omit(&w, "source", g->source ? g->source : "");
	json_obj_end(&w);
	err_detail_push(e, "github.com/moby/buildkit/errdefs.Frontend+json", b.p, b.n);
}

static void finish(struct gateway_front *g)
{
	struct result res = {0};
	struct err e = g->error;
	g->error = ERR_INIT;
	if (!err_is_set(&e)) {
		res = g->result;
		g->result = (struct result){0};
	} else {
		add_frontend_detail(g, &e);
	}
	leave(g);
	g->done(g->arg, &res, err_is_set(&e) ? &e : NULL);
	result_fini(&res);
	err_fini(&e);
	clean(g);
}

static void fail(struct gateway_front *g, const struct err *e)
{
	err_copy(&g->error, e);
	finish(g);
}

void gateway_front_cancel(struct gateway_front *g)
{
	leave(g);
	clean(g);
}

/* ---- running ---- */

static void log_lines(struct gateway_front *g, bool all)
{
	char *nl;
	while (g->line.n && ((nl = memchr(g->line.p, '\n', g->line.n)) || all || g->line.n >= LINE_MAX_BYTES)) {
		size_t n = nl ? (size_t)(nl - (char *)g->line.p) : g->line.n;
		_cleanup_free_ char *text = utf8_clean((const char *)g->line.p, n);
		log_info("frontend %s: %s", g->source, text);
		size_t gone = min_of(n + 1, g->line.n);
		memmove(g->line.p, g->line.p + gone, g->line.n - gone);
		g->line.n -= gone;
	}
}

static void run_started(void *user) { close_child_fds(user); }

static void run_stderr(void *user, const void *p, size_t n)
{
	struct gateway_front *g = user;
	buf_add(&g->line, p, n);
	log_lines(g, false);
}

static void run_exited(void *user, const struct run_exit *x, const struct err *err)
{
	struct gateway_front *g = user;
	g->run = NULL;
	loop_timer_stop(&g->grace);
	close_child_fds(g);
	log_lines(g, true);
	if (!g->build) {
		clean(g);
		return;
	}
	if (!err_is_set(&g->error)) { /* what Return said wins */
		if (g->closed_early)
			err_set(&g->error, CODE_UNKNOWN, "frontend grpc server closed unexpectedly");
		else if (err)
			err_copy(&g->error, err);
		else if (x->code)
			err_set(&g->error, CODE_UNKNOWN, "exit code: %d", x->code);
		else if (!g->returned)
			err_set(&g->error, CODE_UNKNOWN, "no result for incomplete build");
	}
	finish(g);
}

/* A process that has closed its side is about to exit, as a rule. */
static void closed_too_long(void *arg)
{
	struct gateway_front *g = arg;
	g->closed_early = true;
	if (g->run) run_kill(g->run, SIGKILL);
}

static void conn_closed(void *arg)
{
	struct gateway_front *g = arg;
	g->conn = NULL;
	if (g->run && g->build) loop_timer_start(g->env->loop, &g->grace, CLOSED_GRACE_MS, 0, closed_too_long, g);
	maybe_free(g);
}

static void returned(struct bridge *br, struct result *res, const struct err *e)
{
	struct gateway_front *g = br->on_return_arg;
	g->returned = true;
	if (e) {
		err_copy(&g->error, e);
		return;
	}
	g->result = *res;
	*res = (struct result){0};
}

static void add_workers(const struct gateway_front *g, struct strvec *env)
{
	const struct engine_conf *c = g->conf;
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct json_w w = JSON_W(&b);
	json_arr(&w);
	json_obj(&w);
	json_kstr(&w, "id", c->worker_id);
	json_key(&w, "labels");
	json_obj(&w);
	for (size_t i = 0; i < c->labels->n; i++) {
		const char *kv = c->labels->v[i], *eq = strchr(kv, '=');
		_cleanup_free_ char *k = xstrndup(kv, eq ? (size_t)(eq - kv) : strlen(kv));
		json_kstr(&w, k, eq ? eq + 1 : "");
	}
	json_obj_end(&w);
	json_key(&w, "platforms");
	json_arr(&w);
	for (size_t i = 0; i < c->n_platforms; i++) {
		json_obj(&w);
		json_kstr(&w, "architecture", c->platforms[i].arch);
		json_kstr(&w, "os", c->platforms[i].os);
		json_kstr_omit(&w, "os.version", c->platforms[i].os_version);
		json_kstrs_omit(&w, "os.features", c->platforms[i].os_features.v, c->platforms[i].os_features.n);
		json_kstr_omit(&w, "variant", c->platforms[i].variant);
		json_obj_end(&w);
	}
	json_arr_end(&w);
	json_key(&w, "gcPolicy");
	json_nil(&w);
	json_key(&w, "buildkitVersion");
	json_obj(&w);
	json_kstr(&w, "package", "github.com/moby/buildkit");
	json_kstr(&w, "version", c->version);
	json_kstr(&w, "revision", c->revision);
	json_kstr(&w, "dockerfileVersion", c->dockerfile_version);
	json_obj_end(&w);
	json_key(&w, "cdiDevices");
	json_nil(&w);
	json_obj_end(&w);
	json_arr_end(&w);
	strvec_addf(env, "BUILDKIT_WORKERS=%s", buf_str(&b));
}

static void make_env(const struct gateway_front *g, struct strvec *env)
{
	strvec_copy(env, g->image_env.v, g->image_env.n);
	for (size_t i = 0; i < g->opts.n; i++) strvec_addf(env, "BUILDKIT_FRONTEND_OPT_%zu=%s", i, g->opts.v[i]);
	strvec_addf(env, "BUILDKIT_SESSION_ID=%s", g->session);
	add_workers(g, env);
	strvec_add(env, "BUILDKIT_EXPORTEDPRODUCT=");
}

static bool label_true(const struct gateway_front *g, const char *key)
{
	const char *s = json_string_value(json_object_get(g->labels, key));
	bool v = false;
	return s && str_bool(s, &v) && v;
}

static int start_run(struct gateway_front *g, int in, int out, struct err *e)
{
	static const struct run_ops ops = {.started = run_started, .stderr_data = run_stderr, .exited = run_exited};
	static const char *const meta_options[] = {"bind", "ro", "nosuid", "nodev", "noexec"};
	_cleanup_strvec_ struct strvec env = {0};
	make_env(g, &env);
	struct run_mount meta = {.source = g->meta_dir,
				 .dest = "/run/config/buildkit/metadata",
				 .type = "bind",
				 .options = (char *const *)meta_options,
				 .n_options = array_len(meta_options)};
	struct run_spec spec = RUN_SPEC_INIT;
	spec.dns = g->build->policy->settings.dns;
	spec.rootfs = ops_mounts_rootfs(g->mounts);
	spec.args = g->args.v;
	spec.env = env.v;
	spec.cwd = g->cwd;
	spec.mounts = &meta;
	spec.n_mounts = 1;
	spec.net = label_true(g, "moby.buildkit.frontend.network.none") ? RUN_NET_NONE : RUN_NET_DEFAULT;
	spec.remove_stubs_recursive = true;
	struct ops_span span = {0};
	if (g->build) ops_span_build(&span, g->env, g->build, NULL, NULL);
	spec.trace = true;
	spec.traceparent = span.traceparent;
	spec.stdin_fd = in;
	spec.stdout_fd = out;
	return run_start(g->env->run, &spec, &ops, g, &g->run, e);
}

static int start(struct gateway_front *g, struct err *e)
{
	int to[2] = {-1, -1}, from[2] = {-1, -1};
	if (pipe2(to, O_CLOEXEC) < 0) return err_sys(e, errno, "pipe");
	_cleanup_close_ int child_in = to[0], our_out = to[1];
	if (pipe2(from, O_CLOEXEC) < 0) return err_sys(e, errno, "pipe");
	_cleanup_close_ int our_in = from[0], child_out = from[1];
	g->bridge->on_return = returned;
	g->bridge->on_return_arg = g;
	g->conn = g->conf->serve_bridge(g->conf->serve_arg, g->bridge, take_fd(our_in), take_fd(our_out), conn_closed, g, e);
	if (!g->conn) return -1;
	g->child_fds[0] = take_fd(child_in);
	g->child_fds[1] = take_fd(child_out);
	return start_run(g, g->child_fds[0], g->child_fds[1], e);
}

/* ---- mounting ---- */

static void mounted(void *arg, const struct err *e)
{
	struct gateway_front *g = arg;
	struct err failed = ERR_INIT;
	if (e) {
		err_copy(&failed, e);
		ops_mounts_free(take_ptr(g->mounts));
		if (g->build)
			fail(g, &failed);
		else
			clean(g);
		err_fini(&failed);
		return;
	}
	g->mounted = true;
	if (!g->build)
		clean(g);
	else if (start(g, &failed) < 0)
		fail(g, &failed);
	err_fini(&failed);
}

static void start_mounts(struct gateway_front *g)
{
	const char *sessions[OPS_SESSIONS_MAX];
	struct snap *input = g->ref->result;
	pb__mount__init(&g->root);
	g->root.dest = LLB_ROOT_MOUNT;
	g->root_at[0] = &g->root;
	struct ops_mounts_req req = {
		.env = g->env,
		.mounts = g->root_at,
		.n = 1,
		.inputs = &input,
		.cwd = "/",
		.what = "frontend",
		.sessions = sessions,
		.n_sessions = build_sessions(g->build, sessions, OPS_SESSIONS_MAX),
		.done = mounted,
		.arg = g,
	};
	g->mounts = ops_mounts_start(&req);
}

static void write_work(struct loop_job *j)
{
	struct gateway_front *g = container_of(j, struct gateway_front, meta_job);
	gateway_meta_write(g->meta_dir, g->meta, g->meta_len, &g->error);
}

static void written(struct loop_job *j)
{
	struct gateway_front *g = container_of(j, struct gateway_front, meta_job);
	g->job_runs = false;
	if (!g->build)
		clean(g);
	else if (err_is_set(&g->error))
		finish(g);
	else
		start_mounts(g);
}

static void write_meta(struct gateway_front *g)
{
	char id[ID_STR];
	_cleanup_buf_ struct buf b = BUF_INIT;
	id_new(id);
	g->meta_dir = xasprintf("%s/exec/%s", g->env->dir, id);
	wire_pack(&g->def->base, &b);
	g->meta = xmemdup(b.p, b.n);
	g->meta_len = b.n;
	g->meta_job.work = write_work;
	g->meta_job.done = written;
	g->job_runs = true;
	loop_job_start(g->env->loop, &g->meta_job, LOOP_DISK);
}

/* ---- capabilities ---- */

/* Names in a comma list, each less what follows a '+'. */
static void caps_of(const char *list, struct strvec *ret)
{
	while (list && *list) {
		size_t n = strcspn(list, ","), name = strcspn(list, ",+");
		if (name) strvec_take(ret, xstrndup(list, name));
		list += n + (list[n] == ',');
	}
}

/* Images that know inputs but were made before the label was. */
static bool knows_inputs(const char *digest)
{
	static const char *const known[] = {
		"sha256:9ac1c43a60e31dca741a6fe8314130a9cd4c4db0311fbbc636ff992ef60ae76d", /* docker/dockerfile:1.1.6 */
		"sha256:080bd74d8778f83e7b670de193362d8c593c8b14f5c8fb919d28ee8feda0d069", /* 1.1.7 */
		"sha256:60543a9d92b92af5088fb2938fb09b2072684af8384399e153e137fe081f8ab4", /* 1.1.6-experimental */
		"sha256:de85b2f3a3e8a2f7fe48e8e84a65f6fdd5cd5183afa6412fff9caa6871649c44", /* 1.1.7-experimental */
	};
	for (size_t i = 0; digest && i < array_len(known); i++)
		if (!strcmp(known[i], digest)) return true;
	return false;
}

static int check_caps(const struct gateway_front *g, struct err *e)
{
	static const char inputs[] = "moby.buildkit.frontend.inputs";
	_cleanup_strvec_ struct strvec have = {0}, want = {0};
	caps_of(json_string_value(json_object_get(g->labels, "moby.buildkit.frontend.caps")), &have);
	if (knows_inputs(g->digest)) strvec_add(&have, inputs);
	caps_of(opt(g, "frontend.caps"), &want);
	if (g->bridge->inputs.count) strvec_add(&want, inputs);
	for (size_t i = 0; i < want.n; i++) {
		if (strvec_find(&have, want.v[i]) >= 0) continue;
		_cleanup_buf_ struct buf b = BUF_INIT;
		struct json_w w = JSON_W(&b);
		json_obj(&w);
		json_kstr(&w, "name", want.v[i]);
		json_obj_end(&w);
		err_set(e, CODE_UNIMPLEMENTED, "unsupported frontend capability %s", want.v[i]);
		err_detail_add(e, "github.com/moby/buildkit/errdefs.FrontendCap+json", b.p, b.n);
		return -1;
	}
	return 0;
}

/* ---- pulling ---- */

static void evaluated(void *arg, struct snap *result, const struct err *e)
{
	struct gateway_front *g = arg;
	struct err missing = ERR_INIT;
	if (e)
		fail(g, e);
	else if (check_caps(g, &missing) < 0)
		fail(g, &missing);
	else
		write_meta(g);
	err_fini(&missing);
}

static void evaluate(struct gateway_front *g)
{
	g->ref = ref_new(g->build, g->def);
	prov_scope_ref(g->bridge->scope, g->ref);
	ref_eval(g->ref, evaluated, g);
}

/* ---- which image ---- */

static int take_config(struct gateway_front *g, const void *p, size_t n, struct err *e)
{
	json_error_t je;
	json_t *image = json_loadb(p, n, JSON_ALLOW_NUL, &je), *v;
	if (!image) return err_set(e, CODE_UNKNOWN, "cannot parse the config of frontend image %s: %s", g->source, je.text);
	const json_t *c = json_object_get(image, "config");
	const json_t *env = json_object_get(c, "Env"), *entry = json_object_get(c, "Entrypoint");
	const char *cwd = json_string_value(json_object_get(c, "WorkingDir"));
	size_t i;
	json_array_foreach(env, i, v) if (json_is_string(v)) strvec_add(&g->image_env, json_string_value(v));
	json_array_foreach(entry, i, v) if (json_is_string(v)) strvec_add(&g->args, json_string_value(v));
	if (!str_empty(cwd)) g->cwd = xstrdup(cwd);
	g->labels = json_incref(json_object_get(c, "Labels"));
	json_decref(image);
	return 0;
}

static void defaults(struct gateway_front *g)
{
	if (!g->args.n) strvec_add(&g->args, "/run");
	if (!g->cwd) g->cwd = xstrdup("/");
}

static void use_image(struct gateway_front *g, const char *ref, const char *digest)
{
	struct spec_platform host;
	struct llb_def *d = llb_def_new(g->arena);
	_cleanup_spec_ref_ struct spec_ref parsed = {0};
	struct err e = ERR_INIT;
	if (spec_ref_parse(ref, &parsed, &e) < 0 || (!str_empty(digest) && spec_ref_set_digest(&parsed, digest, &e) < 0)) {
		fail(g, &e);
		err_fini(&e);
		return;
	}
	_cleanup_free_ char *text = spec_ref_format(&parsed),
			    *id = xasprintf("%s://%s", g->store ? "oci-layout" : "docker-image", text);
	spec_platform_host(&host);
	Pb__Op *op = llb_op_source(g->arena, arena_strdup(g->arena, id), llb_platform(g->arena, &host));
	if (g->store) {
		llb_op_attr(g->arena, op, "oci.session", g->session);
		llb_op_attr(g->arena, op, "oci.store", g->store);
	} else {
		llb_op_attr(g->arena, op, "image.recordtype", "frontend");
	}
	g->def = llb_def_finish(d, llb_def_add(d, op, NULL, -1, NULL, 0), 0);
	spec_platform_fini(&host);
	g->digest = xstrdup(digest);
	defaults(g);
	evaluate(g);
}

static void resolved(void *arg, const ProtobufCMessage *m, const struct err *e)
{
	struct gateway_front *g = arg;
	const Gateway__ResolveImageConfigResponse *r = (const void *)m;
	struct err failed = ERR_INIT;
	if (!g->build || !g->bridge) return; /* cancelled: leave() is on the stack */
	if (e)
		fail(g, e);
	else if (take_config(g, r->config.data, r->config.len, &failed) < 0)
		fail(g, &failed);
	else
		use_image(g, r->ref, r->digest);
	err_fini(&failed);
}

static void resolve(struct gateway_front *g, const char *ref, const char *log_name)
{
	_cleanup_spec_ref_ struct spec_ref parsed = {0};
	struct err e = ERR_INIT;
	if (spec_ref_parse_tagged(ref, &parsed, &e) < 0) {
		fail(g, &e);
		err_fini(&e);
		return;
	}
	_cleanup_free_ char *text = spec_ref_format(&parsed);
	Gateway__ResolveImageConfigRequest req = GATEWAY__RESOLVE_IMAGE_CONFIG_REQUEST__INIT;
	req.ref = text;
	req.logname = log_name;
	if (g->store) {
		req.resolvertype = 1;
		req.sessionid = g->session;
		req.storeid = g->store;
	}
	bridge_resolve_image_config(g->bridge, &req, (struct build_reply){resolved, g});
}

/* ---- a named context in place of the image ---- */

static int take_input_metadata(struct gateway_front *g, const char *name, struct err *e)
{
	_cleanup_free_ char *key = xasprintf("input-metadata:%s", name);
	_cleanup_buf_ struct buf config = BUF_INIT;
	const char *text = opt(g, key);
	if (!text) return 0;
	json_error_t je;
	json_t *meta = json_loads(text, 0, &je);
	if (!meta) return err_set(e, CODE_UNKNOWN, "failed to parse input metadata %s: %s", text, je.text);
	const char *b64 = json_string_value(json_object_get(meta, "containerimage.config"));
	int r = b64 ? base64_decode(b64, strlen(b64), &config, e) : 0;
	if (r >= 0 && b64) r = take_config(g, config.p, config.n, e);
	json_decref(meta);
	return r < 0 ? -1 : 0;
}

static void use_input(struct gateway_front *g, const char *name, const char *context)
{
	struct err e = ERR_INIT;
	g->def = bridge_input(g->bridge, name, g->arena);
	if (!g->def) err_set(&e, CODE_UNKNOWN, "invalid input %s for %s", name, context);
	if (!g->def || take_input_metadata(g, name, &e) < 0) {
		fail(g, &e);
		err_fini(&e);
		return;
	}
	defaults(g);
	evaluate(g);
}

/* "STORE@DIGEST": the name of the context stands for the image, where people see it. */
static void use_layout(struct gateway_front *g, const char *spec, const char *context)
{
	const char *at = strchr(spec, '@');
	struct err e = ERR_INIT;
	if (!at || at == spec || spec_digest_check(at + 1, &e) < 0) {
		err_fini(&e);
		e = ERR_INIT;
		err_set(&e, CODE_UNKNOWN, "context %s: oci-layout reference \"%s\" must be STORE@DIGEST", context, spec);
		fail(g, &e);
		err_fini(&e);
		return;
	}
	g->store = xstrndup(spec, (size_t)(at - spec));
	_cleanup_free_ char *name = xstrndup(context, strcspn(context, ":")), *ref = xasprintf("%s@%s", name, at + 1),
			    *log_name = xasprintf("[context %s] load metadata for %s", context, ref);
	resolve(g, ref, log_name);
}

/* A folder of the client is the root filesystem. All of it: a .dockerignore in it says nothing here. */
static void use_local(struct gateway_front *g, const char *name, const char *context)
{
	struct llb_def *d = llb_def_new(g->arena);
	_cleanup_free_ char *id = xasprintf("local://%s", name), *session_key = xasprintf("local-sessionid:%s", name),
			    *shared = xasprintf("context:%s-", context);
	Pb__Op *op = llb_op_source(g->arena, arena_strdup(g->arena, id), NULL);
	const char *session = opt(g, session_key);
	llb_op_attr(g->arena, op, "local.session", session ? session : g->session);
	llb_op_attr(g->arena, op, "local.sharedkeyhint", shared);
	g->def = llb_def_finish(d, llb_def_add(d, op, NULL, -1, NULL, 0), 0);
	defaults(g);
	evaluate(g);
}

static void use_context(struct gateway_front *g, const char *context, const char *value)
{
	struct err e = ERR_INIT;
	const char *rest = strchr(value, ':');
	size_t n = rest ? (size_t)(rest - value) : 0;
	if (rest && !strncmp(value, "docker-image", n) && n == strlen("docker-image")) {
		rest += str_starts(rest, "://") ? 3 : 1;
		_cleanup_free_ char *log_name = xasprintf("[context %s] load metadata for %s", context, rest);
		resolve(g, rest, log_name);
	} else if (rest && !strncmp(value, "input", n) && n == strlen("input")) {
		use_input(g, rest + 1, context);
	} else if (rest && !strncmp(value, "oci-layout", n) && n == strlen("oci-layout")) {
		use_layout(g, rest + (str_starts(rest, "://") ? 3 : 1), context);
	} else if (rest && !strncmp(value, "local", n) && n == strlen("local")) {
		use_local(g, rest + 1, context);
	} else {
		if (rest)
			err_set(&e, CODE_UNKNOWN, "unsupported context source %.*s for %s", (int)n, value, context);
		else
			err_set(&e, CODE_UNKNOWN, "invalid context specifier %s for %s", value, context);
		fail(g, &e);
		err_fini(&e);
	}
}

/* ---- starting ---- */

static int check_allowed(const struct gateway_front *g, const struct spec_ref *source, struct err *e)
{
	const struct strvec *allowed = &g->build->policy->gateway_allowed;
	if (!allowed->n) return 0;
	_cleanup_free_ char *name = spec_ref_name(source);
	for (size_t i = 0; i < allowed->n; i++) {
		_cleanup_spec_ref_ struct spec_ref r = {0};
		if (spec_ref_parse(allowed->v[i], &r, NULL) < 0) continue;
		_cleanup_free_ char *other = spec_ref_name(&r);
		if (!strcmp(name, other)) return 0;
	}
	return err_set(e, CODE_UNKNOWN, "'%s' is not an allowed gateway source", g->source);
}

static void choose(struct gateway_front *g, const struct spec_ref *source)
{
	struct spec_platform host;
	_cleanup_free_ char *name = spec_ref_familiar(source);
	if (str_ends(name, ":latest")) name[strlen(name) - strlen(":latest")] = 0;
	spec_platform_host(&host);
	_cleanup_free_ char *platform = spec_platform_format(&host), *context = xasprintf("%s::%s", name, platform);
	_cleanup_free_ char *with = xasprintf("context:%s", context), *without = xasprintf("context:%s", name);
	spec_platform_fini(&host);
	if (opt(g, with))
		use_context(g, context, opt(g, with));
	else if (opt(g, without))
		use_context(g, name, opt(g, without));
	else
		resolve(g, g->source, "");
}

static void begin(void *arg)
{
	struct gateway_front *g = arg;
	_cleanup_spec_ref_ struct spec_ref source = {0};
	struct err e = ERR_INIT;
	g->posted = false;
	if (!g->build) {
		clean(g);
		return;
	}
	if (opt(g, "gateway-devel"))
		err_set(&e, CODE_UNKNOWN, "development gateway is no longer supported");
	else if (!g->source)
		err_set(&e, CODE_UNKNOWN, "no source specified for gateway");
	else if (spec_ref_parse(g->source, &source, &e) < 0)
		err_wrap(&e, "invalid context name %s", g->source);
	else if (check_allowed(g, &source, &e) >= 0) {
		choose(g, &source);
		return;
	}
	fail(g, &e);
	err_fini(&e);
}

struct gateway_front *gateway_front_start(struct build *b, struct bridge *bridge, const struct strvec *opts,
					  void (*done)(void *arg, struct result *res, const struct err *e), void *arg)
{
	struct gateway_front *g = xnew(struct gateway_front);
	g->build = b;
	g->env = b->engine->conf.env;
	g->conf = &b->engine->conf;
	g->bridge = bridge;
	strvec_copy(&g->opts, opts->v, opts->n);
	g->source = xstrdup(opt(g, "source"));
	g->session = xstrdup(b->session);
	g->arena = arena_new(0);
	g->child_fds[0] = g->child_fds[1] = -1;
	g->line = BUF_INIT;
	g->done = done;
	g->arg = arg;
	g->posted = true;
	loop_post(g->env->loop, begin, g);
	return g;
}
