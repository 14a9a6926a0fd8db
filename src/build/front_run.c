/* Frontends of the daemon: dockerfile.v0 is a pure function (front room), run in a job again and again with more answers each
 * time, until it asks nothing more. Its questions are answered by the requests of a bridge of its own, all at once.
 * gateway.v0 is a container: gateway_front.c. */
#include "build/gateway_front.h"
#include "build/provenance.h"
#include "build/share.h"
#include "ship/ship.h"
#include "front/front.h"

#include <stdio.h>
#include <string.h>

struct question { /* one that is being answered */
	struct front_run *run;
	char key[DIGEST_STR];
	enum front_ask ask;
	struct front_answer answer;
	char *path, *ref_id, *identifier;
	int64_t offset, length;
};

struct front_run {
	struct build *build;
	struct bridge *bridge;
	struct strvec opts;
	char *session;
	struct front_answers *answers;
	struct loop_job job;
	struct arena *arena; /* of the run at hand, and of the inputs */
	struct arena *inputs_arena;
	struct front_input input;
	struct front_named_def *inputs;
	struct front_result result;
	struct err error;
	size_t open; /* questions without an answer */
	bool cancelled, job_runs, asking;
	struct front_run *forwarded; /* gateway.v0 that answers for us */
	struct gateway_front *gateway; /* this one is gateway.v0 */
	void (*done)(void *arg, struct result *res, const struct err *e);
	void *arg;
};

static void run_free(struct front_run *f)
{
	build_bridge_free(f->bridge);
	front_answers_free(f->answers);
	arena_free(f->arena);
	arena_free(f->inputs_arena);
	strvec_fini(&f->opts);
	err_fini(&f->error);
	free(f->inputs);
	free(f->session);
	free(f);
}

static void finish(struct front_run *f, struct result *res, const struct err *e)
{
	if (!f->cancelled) f->done(f->arg, res, e);
	result_fini(res);
	run_free(f);
}

/* ---- the run ---- */

static void convert_work(struct loop_job *j)
{
	struct front_run *f = container_of(j, struct front_run, job);
	front_convert(&f->input, f->arena, &f->result, &f->error);
}

static void converted(struct loop_job *j);

static void convert(struct front_run *f)
{
	arena_free(f->arena);
	f->arena = arena_new(0);
	f->result = (struct front_result){0};
	f->job.work = convert_work;
	f->job.done = converted;
	f->job_runs = true;
	loop_job_start(f->build->engine->conf.env->loop, &f->job, LOOP_CPU);
}

/* ---- questions ---- */

static void answered(struct question *q)
{
	struct front_run *f = q->run;
	front_answers_put(f->answers, q->key, &q->answer);
	front_answer_fini(&q->answer);
	free(q->path);
	free(q->ref_id);
	free(q->identifier);
	free(q);
	f->open--;
	if (f->open || f->asking) return;
	if (f->cancelled) {
		struct result none = {0};
		finish(f, &none, NULL);
		return;
	}
	convert(f);
}

static void failed(struct question *q, const struct err *e)
{
	err_copy(&q->answer.err, e);
	answered(q);
}

static void file_read(void *arg, const ProtobufCMessage *m, const struct err *e)
{
	struct question *q = arg;
	if (e) {
		failed(q, e);
		return;
	}
	const Gateway__ReadFileResponse *r = (const void *)m;
	q->answer.data = xmalloc(r->data.len + 1);
	if (r->data.len) memcpy(q->answer.data, r->data.data, r->data.len);
	q->answer.data[r->data.len] = 0;
	q->answer.n = r->data.len;
	answered(q);
}

static void file_evaluated(void *arg, const ProtobufCMessage *m, const struct err *e)
{
	struct question *q = arg;
	if (e || q->run->cancelled) {
		struct err cancelled = ERR_INIT;
		if (!e) err_set(&cancelled, CODE_CANCELLED, "context canceled");
		failed(q, e ? e : &cancelled);
		err_fini(&cancelled);
		return;
	}
	q->answer.solved = true;
	Gateway__ReadFileRequest req = GATEWAY__READ_FILE_REQUEST__INIT;
	Gateway__FileRange range = GATEWAY__FILE_RANGE__INIT;
	req.ref = q->ref_id;
	req.filepath = q->path;
	if (q->length) {
		range.offset = q->offset;
		range.length = q->length;
		req.range = &range;
	}
	bridge_read_file(q->run->bridge, &req, (struct build_reply){file_read, q});
}

static void ask_file(struct question *q, const struct front_question *fq)
{
	struct front_run *f = q->run;
	struct ref *r = bridge_add(f->bridge, ref_new(f->build, fq->def));
	prov_scope_ref(f->bridge->scope, r);
	q->path = xstrdup(fq->path);
	q->ref_id = xstrdup(r->id);
	q->offset = fq->offset;
	q->length = fq->length;
	Gateway__EvaluateRequest req = GATEWAY__EVALUATE_REQUEST__INIT;
	req.ref = q->ref_id;
	bridge_evaluate(f->bridge, &req, (struct build_reply){file_evaluated, q});
}

static void take_image(struct question *q, const Gateway__ResolveSourceMetaResponse *r)
{
	const Gateway__ResolveSourceImageResponse *img = r->image;
	const char *id = r->source ? r->source->identifier : q->identifier;
	if (!img) {
		err_set(&q->answer.err, CODE_UNKNOWN, "ref mutated by policy to non-image: %s -> %s", q->identifier, id);
		q->answer.redirect = xstrdup(id);
		return;
	}
	const char *scheme_end = strstr(id, "://");
	q->answer.ref = xstrdup(scheme_end ? scheme_end + 3 : id);
	q->answer.digest = xstrdup(img->digest);
	q->answer.data = xmalloc(img->config.len + 1);
	if (img->config.len) memcpy(q->answer.data, img->config.data, img->config.len);
	q->answer.data[img->config.len] = 0;
	q->answer.n = img->config.len;
}

static void take_source(struct question *q, const Gateway__ResolveSourceMetaResponse *r)
{
	if (r->git) {
		q->answer.digest = xstrdup(r->git->commitchecksum && *r->git->commitchecksum ? r->git->commitchecksum : r->git->checksum);
		q->answer.commit = xmemdup(r->git->commitobject.data, r->git->commitobject.len);
		q->answer.n_commit = r->git->commitobject.len;
	}
	if (r->http) {
		q->answer.digest = xstrdup(r->http->checksum);
		q->answer.has_last_modified = r->http->lastmodified != NULL;
		q->answer.last_modified = r->http->lastmodified ? r->http->lastmodified->seconds : 0;
	}
}

static void meta_resolved(void *arg, const ProtobufCMessage *m, const struct err *e)
{
	struct question *q = arg;
	if (e) {
		failed(q, e);
		return;
	}
	if (q->ask == FRONT_IMAGE_META)
		take_image(q, (const void *)m);
	else
		take_source(q, (const void *)m);
	answered(q);
}

static void ask_meta(struct question *q, const struct front_question *fq)
{
	Gateway__ResolveSourceMetaRequest req = GATEWAY__RESOLVE_SOURCE_META_REQUEST__INIT;
	Pb__SourceOp src = PB__SOURCE_OP__INIT;
	Pb__SourceOp__AttrsEntry attr[2], *attrs[2] = {&attr[0], &attr[1]};
	Gateway__ResolveSourceGitRequest git = GATEWAY__RESOLVE_SOURCE_GIT_REQUEST__INIT;
	_cleanup_arena_ struct arena *a = arena_new(0);
	if (fq->ask == FRONT_IMAGE_META) {
		q->identifier = xasprintf("%s://%s", fq->oci_layout ? "oci-layout" : "docker-image", fq->ref);
		src.identifier = q->identifier;
		for (int i = 0; i < 2; i++) pb__source_op__attrs_entry__init(&attr[i]);
		if (fq->oci_layout) {
			attr[0].key = "oci.session";
			attr[0].value = fq->session;
			attr[1].key = "oci.store";
			attr[1].value = fq->store;
			src.n_attrs = 2;
			src.attrs = attrs;
		}
		req.source = &src;
	} else {
		q->identifier = xstrdup(fq->source->identifier);
		req.source = (Pb__SourceOp *)fq->source;
	}
	if (fq->platform) req.platform = llb_platform(a, fq->platform);
	req.resolvemode = fq->resolve_mode ? fq->resolve_mode : "";
	req.logname = fq->log_name ? fq->log_name : "";
	git.returnobject = fq->git_object;
	if (fq->git_object) req.git = &git;
	bridge_resolve_source_meta(q->run->bridge, &req, (struct build_reply){meta_resolved, q});
}

static void ask_all(struct front_run *f)
{
	f->asking = true; /* so that a quick answer starts nothing before all were asked */
	f->open = f->result.n_questions;
	for (size_t i = 0; i < f->result.n_questions; i++) {
		const struct front_question *fq = &f->result.questions[i];
		struct question *q = xnew(struct question);
		q->run = f;
		q->ask = fq->ask;
		memcpy(q->key, fq->key, sizeof q->key);
		if (fq->ask == FRONT_READ_FILE)
			ask_file(q, fq);
		else
			ask_meta(q, fq);
	}
	f->asking = false;
	if (!f->open) convert(f);
}

/* ---- the end ---- */

static void warn(struct front_run *f, const struct front_warning *fw)
{
	struct prog_warning w = {.level = fw->level, .short_ = (char *)fw->short_text, .url = (char *)fw->url};
	_cleanup_buf_ struct buf info = BUF_INIT;
	snprintf(w.vertex, sizeof w.vertex, "%s", fw->digest);
	if (!str_empty(fw->detail)) strvec_add(&w.detail, fw->detail);
	if (fw->info) {
		wire_pack(&fw->info->base, &info);
		w.source_info = info.p;
		w.source_info_len = info.n;
	}
	w.ranges = xcalloc(fw->n_ranges, sizeof *w.ranges);
	for (size_t i = 0; i < fw->n_ranges; i++) {
		const Pb__Range *r = fw->ranges[i];
		w.ranges[w.n_ranges++] = (struct prog_range){{r->start->line, r->start->character}, {r->end->line, r->end->character}};
	}
	struct prog_event *ev = prog_warning_new(&w);
	build_event(f->build, ev);
	prog_unref(ev);
	free(w.ranges);
	strvec_fini(&w.detail);
}

static void take_attestations(struct front_run *f, const struct front_ref *r, struct result *res)
{
	for (size_t i = 0; i < r->n_attestations; i++) {
		const struct front_attestation *a = &r->attestations[i];
		struct result_attest *x = result_attest_add(res, r->platform_id, true, a->path, a->predicate_type);
		x->ref = ref_new(f->build, a->def);
		prov_scope_ref(f->bridge->scope, x->ref);
		for (size_t k = 0; k < a->n_metadata; k++) result_attest_meta(x, a->metadata[k].key, a->metadata[k].value, a->metadata[k].n);
	}
}

static void take_result(struct front_run *f)
{
	struct result res = {.is_map = f->result.multi_platform};
	for (size_t i = 0; i < f->result.n_cache_imports; i++) {
		const struct front_cache_import *c = &f->result.cache_imports[i];
		struct ship_kv *kv = xcalloc(c->n_attrs, sizeof *kv);
		for (size_t k = 0; k < c->n_attrs; k++) kv[k] = (struct ship_kv){c->attrs[k].key, (const char *)c->attrs[k].value};
		share_import(f->build, c->type, kv, c->n_attrs);
		free(kv);
	}
	for (size_t i = 0; i < f->result.n_refs; i++) {
		const struct front_ref *r = &f->result.refs[i];
		struct result_ref x = {f->result.multi_platform ? xstrdup(r->id) : NULL, r->def && r->def->n_def ? ref_new(f->build, r->def) : NULL};
		prov_scope_ref(f->bridge->scope, x.ref);
		vec_push(&res.refs, x);
		take_attestations(f, r, &res);
	}
	for (size_t i = 0; i < f->result.n_metadata; i++)
		result_meta_set(&res, f->result.metadata[i].key, f->result.metadata[i].value, f->result.metadata[i].n);
	finish(f, &res, NULL);
}

static void forward_done(void *arg, struct result *res, const struct err *e)
{
	struct front_run *f = arg;
	struct err copy = ERR_INIT;
	f->forwarded = NULL;
	if (e) {
		err_copy(&copy, e);
		front_forward_error(&f->result, &copy);
	}
	struct result taken = *res;
	*res = (struct result){0};
	finish(f, &taken, e ? &copy : NULL);
	err_fini(&copy);
}

static void forward(struct front_run *f)
{
	struct strvec opts = {f->result.forward.opts, f->result.forward.n_opts, 0};
	f->forwarded = front_run_start(f->build, f->bridge, "gateway.v0", &opts, forward_done, f);
}

static void converted(struct loop_job *j)
{
	struct front_run *f = container_of(j, struct front_run, job);
	struct result none = {0};
	f->job_runs = false;
	for (size_t i = 0; !f->cancelled && f->result.state != FRONT_ASKS && i < f->result.n_warnings; i++) warn(f, &f->result.warnings[i]);
	if (f->cancelled) {
		finish(f, &none, NULL);
	} else if (err_is_set(&f->error)) {
		struct err e = f->error;
		f->error = ERR_INIT;
		static const char detail[] = "{\"name\":\"dockerfile.v0\"}";
		err_detail_push(&e, "github.com/moby/buildkit/errdefs.Frontend+json", detail, sizeof detail - 1);
		finish(f, &none, &e);
		err_fini(&e);
	} else if (f->result.state == FRONT_ASKS) {
		ask_all(f);
	} else if (f->result.state == FRONT_FORWARD) {
		forward(f);
	} else {
		take_result(f);
	}
}

static void gateway_done(void *arg, struct result *res, const struct err *e)
{
	struct front_run *f = arg;
	struct result taken = *res;
	f->gateway = NULL;
	*res = (struct result){0};
	finish(f, &taken, e);
}

/* ---- starting ---- */

static void refuse(void *arg)
{
	struct front_run *f = arg;
	struct result none = {0};
	finish(f, &none, &f->error);
}

static void begin(void *arg)
{
	struct front_run *f = arg;
	struct result none = {0};
	if (f->cancelled)
		finish(f, &none, NULL);
	else
		convert(f);
}

static void copy_inputs(struct front_run *f, struct bridge *parent)
{
	f->inputs_arena = arena_new(0);
	f->inputs = xcalloc(parent ? parent->inputs.count : 0, sizeof *f->inputs);
	if (parent) MAP_EACH(&parent->inputs, it)
	{
		Pb__Definition *def = bridge_input(parent, it->key, f->inputs_arena);
		f->inputs[f->input.n_inputs++] = (struct front_named_def){arena_strdup(f->inputs_arena, it->key), def};
		if (def) bridge_add_input(f->bridge, it->key, def);
	}
}

static bool is_dockerfile(const char *frontend, const struct strvec *opts)
{
	if (!strcmp(frontend, "dockerfile.v0")) return true;
	return !strcmp(frontend, "gateway.v0") && str_eq(strvec_env_get(opts, "source"), "dockerfile.v0");
}

struct front_run *front_run_start(struct build *b, struct bridge *parent, const char *frontend, const struct strvec *opts,
				  void (*done)(void *arg, struct result *res, const struct err *e), void *arg)
{
	struct front_run *f = xnew(struct front_run);
	bool builtin = is_dockerfile(frontend, opts);
	f->build = b;
	f->bridge = build_bridge_new(b);
	f->done = done;
	f->arg = arg;
	f->session = xstrdup(b->session);
	f->answers = front_answers_new();
	for (size_t i = 0; i < opts->n; i++)
		if (!(builtin && !strcmp(frontend, "gateway.v0") && str_starts(opts->v[i], "source="))) strvec_add(&f->opts, opts->v[i]);
	copy_inputs(f, parent);
	f->bridge->scope = prov_scope_new(parent ? parent->scope : b->prov, builtin ? "dockerfile.v0" : frontend, &f->opts, parent);
	f->input.opts = f->opts.v;
	f->input.n_opts = f->opts.n;
	f->input.session_id = f->session;
	f->input.build_platforms = b->engine->conf.platforms;
	f->input.n_build_platforms = b->engine->conf.n_platforms;
	f->input.inputs = f->inputs;
	f->input.answers = f->answers;
	bool off = builtin ? b->policy->dockerfile_off : b->policy->gateway_off;
	if (off && (builtin || !strcmp(frontend, "gateway.v0"))) {
		err_set(&f->error, CODE_UNKNOWN, "invalid frontend: %s (enabled = false in [frontend.\"%s\"] of the daemon's configuration)",
			builtin ? "dockerfile.v0" : frontend, builtin ? "dockerfile.v0" : frontend);
		loop_post(b->engine->conf.env->loop, refuse, f);
	} else if (builtin) {
		loop_post(b->engine->conf.env->loop, begin, f);
	} else if (!strcmp(frontend, "gateway.v0")) {
		f->gateway = gateway_front_start(b, take_ptr(f->bridge), &f->opts, gateway_done, f);
	} else {
		err_set(&f->error, CODE_UNKNOWN, "invalid frontend: %s", frontend);
		loop_post(b->engine->conf.env->loop, refuse, f);
	}
	return f;
}

/* done() is not called any more. What is under way ends by itself and then frees the run. */
void front_run_cancel(struct front_run *f)
{
	if (f->cancelled) return;
	f->cancelled = true;
	if (f->gateway) {
		gateway_front_cancel(f->gateway);
		run_free(f);
		return;
	}
	if (f->forwarded) {
		front_run_cancel(f->forwarded);
		f->forwarded = NULL;
		run_free(f);
		return;
	}
	if (f->job_runs) return;
	if (f->open) { /* answers every open question with CANCELLED, the last of which frees f */
		struct bridge *br = f->bridge;
		f->bridge = NULL;
		build_bridge_free(br);
	}
}
