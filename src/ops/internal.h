#ifndef OPS_INTERNAL_H
#define OPS_INTERNAL_H
#include "ops/ops.h"

/* What every op's state begins with. */
struct ops_node {
	struct ops_env *env;
	struct ops_graph *graph;
	const struct llb_node *llb;
	struct llb_cache_map keys; /* not for sources */
};
void ops_node_fini(struct ops_node *o);

/* An operation with inputs: its vtable and the size of its state, which begins with struct ops_node. */
struct ops_kind {
	struct solve_op_vt vt;
	size_t size;
};
extern const struct ops_kind ops_exec_kind, ops_file_kind, ops_merge_kind, ops_diff_kind, ops_build_kind, ops_passthrough_kind;
/* Sources: the makers fill in vt and op of the vertex. */
typedef void ops_source_fn(struct ops_env *env, struct ops_graph *g, const struct llb_node *llb, const struct llb_source *src,
			   struct solve_vertex *ret);
ops_source_fn ops_image_source, ops_local_source, ops_http_source, ops_git_source, ops_blob_source;
/* pin.c: the digest that a source resolved to; NULL: not yet. */
/* A line about a layer that n waits for: shown on the vertex of the image that it is of, where people look for pulls. */
void ops_pull_status(struct solve_node *n, const struct prog_status *s);
const char *ops_image_pin(const void *op, const struct ops_layer **ret_layers, size_t *ret_n);
const char *ops_http_pin(const void *op);
const char *ops_git_pin(const void *op);
void ops_node_init(struct ops_node *o, struct ops_env *env, struct ops_graph *g, const struct llb_node *llb);

/* map() and content() of operations with inputs. */
void ops_map_by_keys(void *op, struct solve_node *n);
void ops_content(void *op, struct solve_node *n, size_t input);
void ops_content_cancel(struct solve_node *n);
/* Answer the solver with one key digest and nothing else. */
void ops_map_one(struct solve_node *n, const char *digest);
void ops_map_failed(struct solve_node *n, const struct err *e);
#endif
