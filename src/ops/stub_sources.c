/* Sources that are announced nowhere yet: http, git, image blobs. They fail plainly until their files come. */
#include "ops/internal.h"

struct remote_op {
	struct ops_node o;
	char *identifier;
};

static void op_free(void *op)
{
	struct remote_op *r = op;
	ops_node_fini(&r->o);
	free(r->identifier);
	free(r);
}

static void map(void *op, struct solve_node *n)
{
	struct remote_op *r = op;
	struct err e = ERR_INIT;
	err_set(&e, CODE_UNIMPLEMENTED, "sources like %s are not supported yet", r->identifier);
	ops_map_failed(n, &e);
	err_fini(&e);
}

static void exec(void *op, struct solve_node *n) { solve_exec_done(n, NULL, NULL); }
static void cancel(void *op, struct solve_node *n) {}

static const struct solve_op_vt remote_vt = {
	.kind = "remote", .map = map, .exec = exec, .cancel = cancel, .free = op_free, .source = true};

static void make(struct ops_env *env, struct ops_graph *g, const struct llb_node *llb, const struct llb_source *src,
		 struct solve_vertex *ret)
{
	struct remote_op *r = xnew(struct remote_op);
	ops_node_init(&r->o, env, g, llb);
	r->identifier = xstrdup(src->identifier);
	ret->vt = &remote_vt;
	ret->op = r;
}

void ops_git_source(struct ops_env *env, struct ops_graph *g, const struct llb_node *llb, const struct llb_source *src,
		    struct solve_vertex *ret)
{
	make(env, g, llb, src, ret);
}

void ops_blob_source(struct ops_env *env, struct ops_graph *g, const struct llb_node *llb, const struct llb_source *src,
		     struct solve_vertex *ret)
{
	make(env, g, llb, src, ret);
}
