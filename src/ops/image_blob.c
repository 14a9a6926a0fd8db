/* docker-image+blob:// and oci-layout+blob:// sources: one blob of a registry or of the client's store, by digest, as one file.
 * The digest is the key; nothing is asked before the bytes are wanted. */
#include "ops/image_blob.h"
#include "ops/image_blob_job.h"
#include "ops/internal.h"
#include "ops/store.h"
#include "spec/ref.h"

#include <string.h>

/* ---- getting it ---- */

struct ops_blob_get {
	struct ops_env *env;
	struct loop_job job;
	struct loop_slot slot;
	struct blob_get_job work;
	char *digest;
	struct spec_ref ref;
	struct reg_config *config;
	struct reg_io io;
	struct ops_span span;
	struct ops_auth auth;
	struct ops_store store;
	bool from_store, io_ready, started, cancelled;
	struct err error;
	void (*done)(void *arg, int fd, const struct err *e);
	void *arg;
};

static void get_end(void *arg)
{
	struct ops_blob_get *g = arg;
	loop_slot_release(&g->slot);
	if (err_is_set(&g->work.error)) err_move(&g->error, &g->work.error);
	if (g->cancelled && !err_is_set(&g->error)) err_set(&g->error, CODE_CANCELLED, "context canceled");
	bool failed = err_is_set(&g->error);
	if (failed) close_fd(&g->work.fd);
	g->done(g->arg, failed ? -1 : g->work.fd, failed ? &g->error : NULL);
	if (g->from_store) ops_store_fini(&g->store);
	if (g->io_ready) {
		reg_io_fini(&g->io);
		ops_auth_fini(&g->auth);
		reg_config_unref(g->config);
	}
	spec_ref_fini(&g->ref);
	err_fini(&g->error);
	free(g->digest);
	free(g);
}

static void get_work(struct loop_job *j) { blob_job_get(&container_of(j, struct ops_blob_get, job)->work); }
static void get_done(struct loop_job *j) { get_end(container_of(j, struct ops_blob_get, job)); }

static void get_start(struct loop_slot *s)
{
	struct ops_blob_get *g = container_of(s, struct ops_blob_get, slot);
	g->started = true;
	g->job.work = get_work;
	g->job.done = get_done;
	loop_job_start(g->env->loop, &g->job, LOOP_NET);
}

static int want_registry(struct ops_blob_get *g, const struct ops_blob_req *req)
{
	if (spec_ref_parse(req->ref, &g->ref, &g->error) < 0) return -1;
	g->config = reg_config_ref(ops_settings(g->env, (const char *const *)req->ids->v, req->ids->n).registries);
	reg_io_init(&g->io, g->env->reg, g->config);
	g->span = req->span;
	g->io.span = ops_span_log(&g->span);
	ops_auth_init(&g->auth, g->env, (const char *const *)req->ids->v, req->ids->n);
	g->io.cancelled = &g->job.cancelled;
	ops_auth_use(&g->auth, &g->io);
	g->slot.group = ops_auth_group(&g->auth);
	g->io_ready = true;
	g->work.io = &g->io;
	g->work.ref = &g->ref;
	loop_slot_want(reg_pools_get(g->env->reg_pools, g->ref.domain, false), &g->slot);
	return 0;
}

struct ops_blob_get *ops_blob_get(struct ops_env *env, const struct ops_blob_req *req,
				  void (*done)(void *arg, int fd, const struct err *e), void *arg)
{
	struct ops_blob_get *g = xnew(struct ops_blob_get);
	struct digest d;
	g->env = env;
	g->done = done;
	g->arg = arg;
	g->digest = xstrdup(req->digest);
	list_init(&g->slot.link);
	g->slot.granted = get_start;
	g->work = (struct blob_get_job){.blobs = env->blobs, .digest = g->digest, .fd = -1};
	if (digest_parse(req->digest, &d, &g->error) < 0) {
		err_wrap(&g->error, "invalid reference digest");
		loop_post(env->loop, get_end, g);
	} else if (req->store) {
		ops_store_init(&g->store, env, req->ids, req->session, req->store);
		g->from_store = true;
		g->work.source = &g->store.source;
		get_start(&g->slot);
	} else if (want_registry(g, req) < 0) {
		loop_post(env->loop, get_end, g);
	}
	return g;
}

void ops_blob_get_cancel(struct ops_blob_get *g)
{
	if (g->cancelled) return;
	g->cancelled = true;
	loop_job_cancel(&g->job);
	if (g->from_store) ops_store_cancel(&g->store);
	if (g->io_ready) reg_io_cancel(&g->io);
	if (!g->started && !err_is_set(&g->error)) { /* it waits for a slot */
		loop_slot_release(&g->slot);
		loop_post(g->env->loop, get_end, g);
	}
}

/* ---- the vertex ---- */

struct blob_op {
	struct ops_node o;
	struct llb_source src;
	struct solve_node *node;
	struct ops_blob_get *get;
	struct loop_job job;
	struct blob_file_job work;
	struct snap *snap;
	struct snap_view *view;
};

static void op_free(void *op)
{
	struct blob_op *b = op;
	ops_node_fini(&b->o);
	free(b);
}

static void map(void *op, struct solve_node *n)
{
	struct blob_op *b = op;
	_cleanup_buf_ struct buf key = BUF_INIT;
	char digest[DIGEST_STR + 8];
	struct digest d;
	struct err e = ERR_INIT;
	if (digest_parse(b->src.blob.ref.digest, &d, &e) < 0) {
		err_wrap(&e, "invalid reference digest");
		ops_map_failed(n, &e);
		err_fini(&e);
		return;
	}
	llb_source_blob_key(&b->src, &key);
	llb_source_digest(buf_str(&key), digest);
	ops_map_one(n, digest);
}

static void end(struct blob_op *b, const struct err *e)
{
	struct err copy = ERR_INIT;
	struct snap *out = take_ptr(b->snap);
	snap_view_free(b->view);
	b->view = NULL;
	close_fd(&b->work.fd);
	b->work.fd = -1;
	if (e) err_copy(&copy, e);
	err_fini(&b->work.error);
	if (!err_is_set(&copy) && snap_commit(out, &copy) >= 0) {
		solve_exec_done(b->node, &out, NULL);
		return;
	}
	snap_unref(out);
	solve_exec_done(b->node, NULL, &copy);
}

static void file_work(struct loop_job *j) { blob_job_file(&container_of(j, struct blob_op, job)->work); }

static void file_done(struct loop_job *j)
{
	struct blob_op *b = container_of(j, struct blob_op, job);
	end(b, err_is_set(&b->work.error) ? &b->work.error : NULL);
}

static void got(void *arg, int fd, const struct err *e)
{
	struct blob_op *b = arg;
	b->get = NULL;
	if (e) {
		end(b, e);
		return;
	}
	_cleanup_free_ char *description = xasprintf("blob %s", b->src.blob.ref.text);
	const char *name = *b->src.blob.filename ? b->src.blob.filename : strchr(b->src.blob.ref.digest, ':') + 1;
	b->snap = snap_create(b->o.env->snaps, NULL, description, SNAP_REGULAR);
	b->view = snap_view_new(b->snap);
	b->work = (struct blob_file_job){.fd = fd,
					 .name = name,
					 .perm = b->src.blob.perm,
					 .uid = b->src.blob.uid,
					 .gid = b->src.blob.gid,
					 .view = b->view,
					 .cancelled = &b->job.cancelled};
	b->job.work = file_work;
	b->job.done = file_done;
	loop_job_start(b->o.env->loop, &b->job, LOOP_DISK);
}

static void exec(void *op, struct solve_node *n)
{
	struct blob_op *b = op;
	const char *sessions[OPS_SESSIONS_MAX];
	struct ops_ids ids = {0};
	size_t c = ops_sessions(n, b->o.env, sessions, OPS_SESSIONS_MAX);
	for (size_t i = 0; i < c; i++) ops_ids_add(&ids, sessions[i]);
	struct ops_blob_req req = {.ref = b->src.blob.ref.text, .digest = b->src.blob.ref.digest, .ids = &ids};
	if (b->src.scheme == LLB_OCI_BLOB) {
		req.store = b->src.blob.store;
		req.session = b->src.blob.session;
	}
	b->node = n;
	b->work.fd = -1;
	atomic_store(&b->job.cancelled, false);
	ops_span_node(&req.span, b->o.env, n);
	b->get = ops_blob_get(b->o.env, &req, got, b);
	ops_ids_fini(&ids);
}

static void cancel(void *op, struct solve_node *n)
{
	struct blob_op *b = op;
	loop_job_cancel(&b->job);
	if (b->get) ops_blob_get_cancel(b->get);
}

static const struct solve_op_vt blob_vt = {
	.kind = "blob", .map = map, .exec = exec, .cancel = cancel, .free = op_free, .source = true};

void ops_blob_source(struct ops_env *env, struct ops_graph *g, const struct llb_node *llb, const struct llb_source *src,
		     struct solve_vertex *ret)
{
	struct blob_op *b = xnew(struct blob_op);
	ops_node_init(&b->o, env, g, llb);
	b->src = *src;
	b->work.fd = -1;
	ret->vt = &blob_vt;
	ret->op = b;
}
