/* What source operations resolved to, for provenance. Every source operation begins with its node and its parsed source. */
#include "ops/internal.h"

struct source_op {
	struct ops_node o;
	struct llb_source src;
};

bool ops_node_pin(struct solve_node *n, struct ops_pin *ret)
{
	const struct source_op *s = solve_node_op(n);
	if (!s || s->o.llb->op->op_case != PB__OP__OP_SOURCE) return false;
	*ret = (struct ops_pin){.src = &s->src, .digest = ""};
	switch (s->src.scheme) {
	case LLB_IMAGE:
	case LLB_OCI_LAYOUT: ret->digest = ops_image_pin(s, &ret->layers, &ret->n_layers); break;
	case LLB_HTTP: ret->digest = ops_http_pin(s); break;
	case LLB_GIT: ret->digest = ops_git_pin(s); break;
	case LLB_IMAGE_BLOB:
	case LLB_OCI_BLOB: ret->digest = s->src.blob.ref.digest; break;
	case LLB_LOCAL: break;
	}
	if (!ret->digest) ret->digest = "";
	return true;
}

/* ---- where a pull is shown ---- */

enum { LOOKED_AT_MAX = 10000 };

static bool is_of_image(struct solve_node *n, const char *digest)
{
	struct ops_pin p;
	if (!ops_node_pin(n, &p)) return false;
	for (size_t i = 0; i < p.n_layers; i++)
		if (!strcmp(p.layers[i].digest, digest)) return true;
	return false;
}

/* The image below n that has the layer; NULL: none. */
static struct solve_node *image_of(struct solve_node *n, const char *digest)
{
	VEC(struct solve_node *) todo = {0};
	_cleanup_map_ struct map seen = {0};
	struct solve_node *found = NULL;
	vec_push(&todo, n);
	for (size_t looked = 0; todo.n && !found && looked < LOOKED_AT_MAX; looked++) {
		struct solve_node *at = todo.v[--todo.n];
		if (map_has(&seen, solve_node_digest(at))) continue;
		map_put(&seen, solve_node_digest(at), at);
		if (is_of_image(at, digest)) found = at;
		for (size_t i = solve_input_count(at); i-- > 0;) vec_push(&todo, solve_input_node(at, i));
	}
	vec_fini(&todo);
	return found;
}

void ops_pull_status(struct solve_node *n, const struct prog_status *s)
{
	const char *digest = strstr(s->id, "sha256:");
	struct solve_node *image = digest ? image_of(n, digest) : NULL;
	solve_status(image ? image : n, s);
}
