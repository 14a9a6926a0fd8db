/* Image metadata as one operation on the loop: admission to the registry, the job, the answer. */
#include "ops/image_job.h"
#include "ops/internal.h"
#include "ops/store.h"

#include <string.h>

struct ops_image_get {
	struct loop_job job;
	struct loop_slot slot;
	struct ops_env *env;
	struct image_job_req req;
	struct reg_io io;
	struct reg_config *config;
	struct ops_auth auth;
	struct ops_image image;
	struct err error;
	struct ops_store store; /* of an OCI layout */
	struct ops_span span;
	bool started, refused, from_store;
	void (*done)(void *arg, struct ops_image *image, const struct err *e);
	void *arg;
};

static void work(struct loop_job *j)
{
	struct ops_image_get *g = container_of(j, struct ops_image_get, job);
	image_job_fetch(&g->req, &g->image, &g->error);
}

static void finish(struct ops_image_get *g)
{
	loop_slot_release(&g->slot);
	bool failed = err_is_set(&g->error);
	g->done(g->arg, failed ? NULL : &g->image, failed ? &g->error : NULL);
	if (!g->refused) {
		reg_io_fini(&g->io);
		reg_config_unref(g->config);
		ops_auth_fini(&g->auth);
	}
	if (g->from_store) ops_store_fini(&g->store);
	ops_image_fini(&g->image);
	spec_ref_fini(&g->req.ref);
	spec_platform_fini(&g->req.platform);
	strvec_fini(&g->req.predicates);
	err_fini(&g->error);
	free(g);
}

static void job_done(struct loop_job *j) { finish(container_of(j, struct ops_image_get, job)); }
static void refused(void *arg) { finish(arg); }

static void granted(struct loop_slot *s)
{
	struct ops_image_get *g = container_of(s, struct ops_image_get, slot);
	g->started = true;
	loop_job_start(g->env->loop, &g->job, LOOP_NET);
}

static void want_store(struct ops_image_get *g, const struct ops_image_req *req)
{
	struct ops_ids ids = {0};
	for (size_t i = 0; i < req->n_sessions; i++) ops_ids_add(&ids, req->sessions[i]);
	ops_store_init(&g->store, g->env, &ids, req->oci_session, req->oci_store);
	ops_ids_fini(&ids);
	g->from_store = true;
	g->req.source = &g->store.source;
}

static int parse_ref(struct ops_image_get *g, const struct ops_image_req *req)
{
	if (spec_ref_parse_tagged(req->ref, &g->req.ref, &g->error) < 0) return -1;
	if (!req->oci_store || g->req.ref.digest) return 0;
	return err_set(&g->error, CODE_INVALID_ARGUMENT, "reference \"%s\" must have digest", req->ref);
}

struct ops_image_get *ops_image_get(struct ops_env *env, const struct ops_image_req *req,
				    void (*done)(void *arg, struct ops_image *image, const struct err *e), void *arg)
{
	struct ops_image_get *g = xnew(struct ops_image_get);
	g->env = env;
	g->done = done;
	g->arg = arg;
	list_init(&g->slot.link);
	spec_platform_copy(&g->req.platform, req->platform);
	if (parse_ref(g, req) < 0) {
		g->refused = true;
		loop_post(env->loop, refused, g);
		return g;
	}
	g->config = reg_config_ref(ops_settings(env, req->sessions, req->n_sessions).registries);
	reg_io_init(&g->io, env->reg, g->config);
	_cleanup_free_ char *name = xasprintf("resolving %s", req->ref);
	g->span = req->span;
	ops_span_rename(&g->span, name);
	g->io.span = ops_span_log(&g->span);
	ops_auth_init(&g->auth, env, req->sessions, req->n_sessions);
	g->io.cancelled = &g->job.cancelled;
	ops_auth_use(&g->auth, &g->io);
	g->req.blobs = env->blobs;
	g->req.io = &g->io;
	g->req.no_config = req->no_config;
	g->req.chain = req->chain;
	strvec_copy(&g->req.predicates, (char *const *)req->predicates, req->n_predicates);
	g->job.work = work;
	g->job.done = job_done;
	g->slot.granted = granted;
	if (req->oci_store) {
		want_store(g, req);
		granted(&g->slot);
		return g;
	}
	g->slot.group = ops_auth_group(&g->auth);
	loop_slot_want(reg_pools_get(env->reg_pools, g->req.ref.domain, true), &g->slot);
	return g;
}

void ops_image_get_cancel(struct ops_image_get *g)
{
	if (g->refused) return;
	loop_job_cancel(&g->job);
	if (g->from_store) ops_store_cancel(&g->store);
	if (g->started) {
		reg_io_cancel(&g->io);
		return;
	}
	loop_slot_release(&g->slot);
	err_set(&g->error, CODE_CANCELLED, "context canceled");
	loop_post(g->env->loop, refused, g);
	g->started = true; /* a second cancel does nothing more than set the flag */
}
