/* From graph nodes to solver vertices: which operation serves a vertex, and the cache map that all but sources share. */
#include "ops/internal.h"

#include <string.h>

struct ops_graph *ops_graph_new(struct llb_graph *g)
{
	struct ops_graph *og = xnew(struct ops_graph);
	og->graph = g;
	og->refs = 1;
	return og;
}

struct ops_graph *ops_graph_ref(struct ops_graph *g)
{
	g->refs++;
	return g;
}

void ops_graph_unref(struct ops_graph *g)
{
	if (!g || --g->refs) return;
	arena_free(g->graph->arena);
	free(g);
}

void ops_node_fini(struct ops_node *o) { ops_graph_unref(o->graph); }

void ops_node_init(struct ops_node *o, struct ops_env *env, struct ops_graph *g, const struct llb_node *llb)
{
	o->env = env;
	o->graph = ops_graph_ref(g);
	o->llb = llb;
}

static int source_vertex(struct ops_env *env, struct ops_graph *g, const struct llb_node *llb, struct solve_vertex *ret, struct err *e)
{
	static ops_source_fn *const maker[] = {
		[LLB_IMAGE] = ops_image_source,	   [LLB_OCI_LAYOUT] = ops_image_source, [LLB_IMAGE_BLOB] = ops_blob_source,
		[LLB_OCI_BLOB] = ops_blob_source,  [LLB_GIT] = ops_git_source,		[LLB_HTTP] = ops_http_source,
		[LLB_LOCAL] = ops_local_source,
	};
	struct llb_source src;
	if (llb_source_parse(llb->op->source, llb->op->platform, g->graph->arena, &src, e) < 0) return -1;
	maker[src.scheme](env, g, llb, &src, ret);
	return 0;
}

static const struct ops_kind *kind_of(const Pb__Op *op)
{
	switch (op->op_case) {
	case PB__OP__OP_EXEC: return &ops_exec_kind;
	case PB__OP__OP_FILE: return &ops_file_kind;
	case PB__OP__OP_MERGE: return &ops_merge_kind;
	case PB__OP__OP_DIFF: return &ops_diff_kind;
	case PB__OP__OP_BUILD: return &ops_build_kind;
	case PB__OP__OP_PASSTHROUGH: return &ops_passthrough_kind;
	default: return NULL;
	}
}

int ops_vertex(struct ops_env *env, struct ops_graph *g, size_t i, struct solve_vertex *ret, struct err *e)
{
	const struct llb_node *llb = &g->graph->nodes[i];
	ret->n_outputs = max_of(llb_op_outputs(llb->op), (size_t)1);
	if (llb->op->op_case == PB__OP__OP_SOURCE) return source_vertex(env, g, llb, ret, e);
	const struct ops_kind *kind = kind_of(llb->op);
	if (!kind) return err_set(e, CODE_INVALID_ARGUMENT, "vertex %s has no operation", llb->digest);
	struct llb_cache_map keys;
	if (llb_cache_map(llb->op, g->graph->arena, &keys, e) < 0) return -1;
	struct ops_node *o = xcalloc(1, kind->size);
	ops_node_init(o, env, g, llb);
	o->keys = keys;
	ret->vt = &kind->vt;
	ret->op = o;
	return 0;
}

void ops_map_by_keys(void *op, struct solve_node *n)
{
	struct ops_node *o = op;
	struct solve_map m = {.n_digests = 1, .n_deps = solve_input_count(n)};
	m.digests[0] = xstrdup(o->keys.digest);
	m.deps = xcalloc(m.n_deps, sizeof *m.deps);
	for (size_t i = 0; i < m.n_deps && i < o->keys.n_deps; i++) {
		const struct llb_dep *d = &o->keys.deps[i];
		m.deps[i].selector = *d->selector ? xstrdup(d->selector) : NULL;
		m.deps[i].content = d->content;
	}
	solve_map_done(n, &m, NULL);
}

void ops_map_one(struct solve_node *n, const char *digest)
{
	struct solve_map m = {.n_digests = 1};
	m.digests[0] = xstrdup(digest);
	solve_map_done(n, &m, NULL);
}

void ops_map_failed(struct solve_node *n, const struct err *e)
{
	struct solve_map m = {0};
	struct err copy = ERR_INIT;
	err_copy(&copy, e);
	solve_map_done(n, &m, &copy);
}

struct collect {
	struct ops_env *env;
	const char **ret;
	size_t n, max;
};

static bool collect(void *arg, struct solve_build *b)
{
	struct collect *c = arg;
	c->n += c->env->build_sessions(solve_build_user(b), c->ret + c->n, c->max - c->n);
	return c->n == c->max;
}

size_t ops_sessions(struct solve_node *n, struct ops_env *env, const char **ret, size_t max)
{
	struct collect c = {env, ret, 0, max};
	solve_node_each_build(n, collect, &c);
	return c.n;
}

struct ops_settings ops_settings(const struct ops_env *env, const char *const *sessions, size_t n)
{
	const struct ops_settings *own = env->build_settings ? env->build_settings(env->settings_arg, sessions, n) : NULL;
	return own ? *own : (struct ops_settings){.registries = env->reg_config};
}
