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
